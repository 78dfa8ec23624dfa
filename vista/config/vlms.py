"""Vision-language models as they were published: each is a point of the sweep without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from vista.config.base import Settings
from vista.config.encoders import CheckpointEncoder, EncoderSettings
from vista.config.language import CheckpointLlm, LanguageSettings

Entry = TypeVar("Entry")


class VlmSettings(Settings):
    """A vision-language model, and how images are shown to it.

    It stands for three entries of its name: an encoder, whose features are the model's visual
    tokens; a language model, which reads them where its own class puts them; and the point of the
    two, at SAE weight 0 and seed 0, whose projector is the model's.
    """

    model: LanguageSettings = Field(
        description="the checkpoint, and where it runs; visual tokens always stand where its chat "
        "template puts an image"
    )
    fit: Literal["pad", "crop"] = Field(
        "pad",
        description="how an image becomes square. Gemma 3's own processor stretches it instead; "
        "square images are the same in all three ways",
    )
    size: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="side of the square that images are resized to, px; null: that of its image "
        "processor. Qwen2.5-VL takes any multiple of 28 and needs one",
    )
    batch_size: int = Field(16, ge=1, description="images a pass of its vision tower")

    @model_validator(mode="after")
    def _is_a_checkpoint(self) -> Self:
        if not isinstance(self.model.source, CheckpointLlm):
            raise ValueError(
                "a vision-language model is a checkpoint: give `model.source` the kind checkpoint"
            )
        if "placement" in self.model.model_fields_set and self.model.placement != "image":
            raise ValueError(
                "`model.placement` has no effect: visual tokens stand where the chat template puts "
                "an image; drop it, or train a projector under `llms`"
            )
        return self

    @property
    def encoder(self) -> EncoderSettings:
        """The encoder whose features are the model's visual tokens."""
        model, source = self.model, self.model.source
        assert isinstance(source, CheckpointLlm)
        return EncoderSettings(
            source=CheckpointEncoder(
                kind="checkpoint",
                family="vlm",
                path=source.path,
                repo=source.repo,
                revision=source.revision,
                size=self.size,
            ),
            fit=self.fit,
            device=model.device if model.device_map is None else "auto",
            dtype=model.dtype,
            batch_size=self.batch_size,
        )

    @property
    def language(self) -> LanguageSettings:
        """The language model, whose prompts are those of the model's class."""
        return self.model.model_copy(update={"placement": "image"})


def with_own(entries: dict[str, Entry], own: Mapping[str, Any], part: str) -> dict[str, Entry]:
    """Return the entries of a part of the config and those that `vlms` stands for.

    Raises ValueError where two entries have one name.
    """
    if shared := sorted(entries.keys() & own.keys()):
        name = shared[0]
        raise ValueError(f"vlms.{name} and {part}.{name} have one name: rename one of them")
    return {**entries, **own}
