"""Settings of the second paper's experiments on SAEs of vision models.

*Probing the Representational Power of Sparse Autoencoders in Vision Models* (arXiv 2508.11277) is
public in its abstract only; the definitions are those of this project.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from vista.config.data import DataSettings, Split
from vista.config.diffusion import AttributeSettings, DiffusionSettings
from vista.config.interventions import NAME
from vista.config.metric import ChosenMetrics, with_metrics


class Probing(ChosenMetrics):
    """The experiments; one that is null is not run."""

    encoders: tuple[str, ...] | None = Field(
        None, description="names of those whose vision SAEs are probed; null: all"
    )
    vision_saes: tuple[str, ...] | None = Field(
        None, description="entries of `vision_saes` that are probed; null: all"
    )
    data: dict[Annotated[str, Field(pattern=NAME)], DataSettings] = Field(
        default_factory=dict, description="further images, by name: shifted, near or far"
    )
    diffusion: DiffusionSettings | None = Field(
        None, description="a text-to-image pipeline steered through its text encoder"
    )
    attributes: AttributeSettings | None = Field(
        None, description="attributes found in the text encoder of `diffusion`"
    )

    @model_validator(mode="after")
    def _attributes_of_a_pipeline(self) -> Self:
        if self.attributes is not None and self.diffusion is None:
            raise ValueError("probing.attributes reads the pipeline of `diffusion`: add that")
        return self

    @model_validator(mode="after")
    def _sets_known(self) -> Self:
        for key, name in self.sets_read():
            if name not in self.data:
                known = ", ".join(sorted(self.data)) or "no entry"
                raise ValueError(f"{key} names {name!r}; probing.data has {known}")
        named = {name for _, name in self.sets_read()}
        if unused := sorted(set(self.data) - named):
            raise ValueError(f"probing.data.{unused[0]} is read by no experiment; remove it")
        return self

    def sets_read(self) -> Iterator[tuple[str, str]]:
        """Yield each key that names a set of `data`, and the name."""
        for metric, settings in self.chosen():
            for field, name in settings.sets_read():
                yield f"probing.{metric.name}.{field}", name
        if self.diffusion is not None:
            yield "probing.diffusion.data", self.diffusion.data

    def splits_read(self) -> Iterator[tuple[str, str | None, Split]]:
        """Yield key, set (None: the run's data) and split of each split that is read."""
        for metric, settings in self.chosen():
            split: Split | None = None
            for field, split in settings.splits_read():
                yield f"probing.{metric.name}.{field}", None, split
            for field, name in settings.sets_read():
                # The further sets are judged as the run's own images are: the last split.
                assert split is not None
                yield f"probing.{metric.name}.{field}", name, split


if TYPE_CHECKING:
    ProbingSettings = Probing
else:
    ProbingSettings = with_metrics(Probing, "probing")
