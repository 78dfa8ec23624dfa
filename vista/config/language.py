"""Settings of language models: where one comes from, and how a stand-in is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings, later
from vista.config.checkpoint import Checkpoint
from vista.config.packages import PackageFile

# Where the visual tokens stand in a prompt; see `vista.language.prompt`.
Placement = Literal["after_bos", "in_question", "image"]


class StandinLlm(Settings):
    """A small language model that the run trains on its own text corpus."""

    kind: Literal["standin"] = "standin"
    family: Literal["llama", "gemma2"] = Field(description="Architecture of the model.")
    d_model: int = Field(96, ge=8, description="Width of the residual stream.")
    n_blocks: int = Field(4, ge=1, description="Decoder blocks.")
    n_heads: int = Field(4, ge=1, description="Attention heads of each block.")
    d_mlp: int = Field(96, ge=1, description="Hidden width of each gated MLP.")
    steps: int = Field(1200, ge=1, description="Optimizer steps.")
    batch_size: int = Field(16, ge=1, description="Documents a step.")
    lr: float = Field(3e-3, gt=0, description="Peak learning rate of AdamW, cosine to 0.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decoupled decay of matrices.")
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps with a rising rate.")
    opening_weight: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Weight of the loss on a document's opening words, which stand for the "
        "patches of an image and can hardly be guessed; questions and answers count 1.",
    )
    stream_scale: float = Field(
        1.0,
        gt=0,
        description="Factor on the residual stream after training. It changes no output of the "
        "model, but the SAE term has the unit of the squared stream: a weight of 1 weighs more, "
        "against the cross-entropy, the larger the stream.",
    )
    max_length: int = Field(128, ge=8, description="Longest document, in tokens.")
    seed: int = Field(475, ge=0, description="Seed of weights and order of documents.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"d_model {self.d_model} must be a multiple of 2 x n_heads ({2 * self.n_heads}), "
                "since each head turns pairs of dimensions (rotary positions)"
            )
        return self


class CheckpointLlm(Checkpoint):
    """A pretrained causal language model."""


class GgufLlm(PackageFile):
    """A pretrained causal language model in a GGUF file, whose weights are dequantised once."""

    kind: Literal["gguf"]
    stored_dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float16",
        description="Number format that the dequantised weights are stored in. float16 takes half "
        "the disk; of weights quantised to 4 bits it changes the perplexity by 0.006 %.",
    )


class LanguageSettings(Settings):
    """One language model of a run."""

    source: Annotated[StandinLlm | CheckpointLlm | GgufLlm, Field(discriminator="kind")] = Field(
        description="Trained here, a checkpoint, or a GGUF file."
    )
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda|cuda:\d+|mps|auto)$",
        description='"cpu", "cuda", "cuda:1", "mps", or "auto": the first of CUDA, MPS and CPU '
        "that the machine has.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format of the frozen weights."
    )
    placement: Placement = Field(
        "after_bos",
        description="Where the visual tokens stand: right after BOS (as published); inside the "
        "first user turn, right before the question (as LLaVA does); or where the chat template of "
        "a vision-language model puts an image, with what its processor writes around it.",
    )
    template: str = later(
        "tokenizer",
        pattern=r"^(tokenizer|none|.+\.jinja)$",
        description="How questions and answers become one text: by the chat template of the "
        "tokenizer; none: question, line break, answer, end of sequence, and nothing else; or a "
        "chat template of one's own, a file that ends in .jinja.",
    )
    system: str | None = later(
        None,
        description="System message of every prompt. null: none, so a template may write one of "
        'its own; "": an empty one, which takes the place of the template\'s own.',
    )
    device_map: Literal["auto", "balanced", "sequential"] | None = Field(
        None,
        description="Spreads the blocks of a model that is larger than one GPU over several; in "
        "place of `device`.",
    )
    max_memory: dict[str, str] | None = Field(
        None,
        description='Most memory of each device under `device_map`, for instance {"0": "20GiB", '
        '"1": "40GiB"}; a device that is not named is not used.',
    )

    @property
    def template_files(self) -> tuple[str, ...]:
        """The user's file that prompts are formatted by, if any."""
        return () if self.template in ("tokenizer", "none") else (self.template,)

    @model_validator(mode="after")
    def _system_has_a_template(self) -> Self:
        if self.system is not None and self.template == "none":
            raise ValueError(
                "`system` needs a chat template to write it, and `template: none` has none; drop "
                "one of the two"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_place(self) -> Self:
        if self.device_map is not None and self.device != "cpu":
            raise ValueError(
                f"`device: {self.device}` and `device_map: {self.device_map}` exclude each other; "
                "drop one of the two"
            )
        if self.max_memory is not None and self.device_map is None:
            raise ValueError("`max_memory` belongs to `device_map`, which is not set")
        return self
