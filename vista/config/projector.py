"""Settings of the projector's training and of the encoding into latents."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings, later
from vista.config.data import Split

# Module of the SAE term, loaded by a projector that is trained with it.
SAE_TERM = "vista.projector.loss"
# Module of the term of visual words, loaded by a projector that is trained with a head.
WORDS_TERM = "vista.projector.visual_words"
Normalise = Literal["none", "variance", "norm"]
Penalised = Literal["error", "stream"]


class TrainingStage(Settings):
    """One stage of a projector's training. The defaults are the published first stage (VISTA
    paper, training details; method notes)."""

    data: str | None = Field(
        None, description="an entry of `training`, the data to learn from; null: the run's `data`"
    )
    split: Split = Field("train", description="images of the data that are learnt from")
    steps: int | None = Field(None, gt=0, description="optimizer steps; or give `epochs`")
    epochs: float | None = Field(
        None, gt=0, description="passes over the images; neither this nor `steps`: one pass"
    )
    batch_size: int = Field(128, gt=0, description="images a step")
    micro_batch: int | None = Field(
        None,
        gt=0,
        description="images a forward pass: a step adds up gradients until it has batch_size; "
        "null: all at once. Changes the memory that is needed, not what is learnt",
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW, cosine to 0")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps with a rising rate")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    max_length: int = Field(512, gt=0, description="tokens a sample, visual tokens included")
    checkpoint_every: int = Field(100, gt=0, description="steps between two checkpoints")
    processes: int = Field(
        1,
        gt=0,
        description="processes on a machine that share each batch, each with a GPU of its own "
        "where the language model's `device` is one. Changes the time, not what is learnt",
    )
    machines: int = Field(
        1,
        gt=0,
        description="machines that run so many processes each; more than one: within a Slurm job "
        "of as many nodes",
    )
    sae_factor: float = later(
        1.0,
        ge=0,
        description="factor on the sweep's SAE weight in this stage; stages with 0 do without SAEs "
        "and are shared by all weights of the sweep, as long as no stage before has another",
    )
    sae_warmup: float = later(
        0.0,
        ge=0,
        le=1,
        description="share of the steps over which the weight of the SAE term rises from 0, "
        "linearly",
    )
    measure_every: int | None = later(
        None,
        gt=0,
        description="steps between measurements, on the batch, of the SAEs' error, FVU and L0, of "
        "the gradients of both terms of the loss, and of the norms of visual tokens and text; each "
        "takes as long as 1.5 steps. Reads the SAEs at weight 0, too; null: none",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give `steps` or `epochs`, not both")
        return self

    def total_steps(self, images: int) -> int:
        """Return the optimizer steps over so many images; an epoch leaves out an unfilled batch."""
        if self.steps is not None:
            return self.steps
        per_epoch = images // min(self.batch_size, images)
        return max(1, math.ceil(per_epoch * (self.epochs or 1.0)))


class SaeTermSettings(Settings):
    """What the SAE term is."""

    normalise: Normalise = Field(
        "none",
        description="none: the squared error, as published; variance: over the variance of the "
        "visual tokens of the batch (FVU), which does not fall where tokens only move together; "
        "norm: over their mean squared norm, a unit that makes weights comparable between models",
    )
    penalises: Penalised = later(
        "error",
        description="error: that of the SAE, as published; stream: the squared residual stream "
        "itself, which reads no SAE: the control that tells what small visual tokens are worth",
    )


class AggregatorSettings(Settings):
    """Sizes of a Spatial Vision Aggregator (Cambrian-1, arXiv 2406.16860); the defaults are the
    published ones."""

    hidden: int = Field(1024, ge=1, description="width of queries, keys and values")
    heads: int = Field(16, ge=1, description="attention heads")
    depth: int = Field(3, ge=1, description="layers of cross-attention")
    context: bool = Field(
        True,
        description="queries know the mean of the first encoder's map, too; false: a visual token "
        "depends on its own windows alone",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        return self


class VisualWordsSettings(Settings):
    """A head on visual tokens that gives each a distribution over the vocabulary: visual words
    (VW-LMM, arXiv 2403.07720)."""

    weight: float = Field(
        1.0,
        ge=0,
        description="weight of KL(words of a visual token || what the language model expects after "
        "the token before it) beside the cross-entropy; 0: no head",
    )


Kind = Literal["linear", "mlp", "spatial_aggregator"]


class ProjectorSettings(Settings):
    """What a projector is and how it is trained."""

    kind: Kind = Field(
        "linear",
        description="module between encoder and LLM: one linear layer (VISTA), or two with a GELU "
        "between them (LLaVA 1.5); spatial_aggregator: queries on a grid that read the windows of "
        "encoders combined by `how: windows`, then two layers (Cambrian-1)",
    )
    aggregator: AggregatorSettings = later(
        AggregatorSettings(), description="sizes of a spatial_aggregator"
    )
    visual_words: VisualWordsSettings | None = later(
        None, description="train a head that reads visual tokens as words; null: none"
    )
    init_scale: float = Field(
        1.0, gt=0, description="factor on the first weights; 1: those of a plain linear layer"
    )
    layers: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="layer set of the SAE term; null: every layer that has an SAE",
    )
    sae_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="number format of the SAE term's products; bfloat16, as the published training "
        "had it, is several times faster on a GPU. What measures an SAE always does so in float32",
    )
    sae_term: SaeTermSettings = later(SaeTermSettings(), description="what the SAE term is")
    stages: tuple[TrainingStage, ...] = Field(
        (TrainingStage(),),
        min_length=1,
        description="one after the other, each starting from the weights of the one before",
    )

    def head_weight(self) -> float:
        """Return the weight of the term of visual words, 0 where there is no head."""
        return self.visual_words.weight if self.visual_words else 0.0


class RecipeChange(Settings):
    """What a block of the sweep trains in another way than `projector` says."""

    kind: Kind | None = Field(None, description="null: that of `projector`")
    aggregator: AggregatorSettings | None = Field(None, description="null: that of `projector`")
    visual_words: VisualWordsSettings | None = Field(
        None, description="null: that of `projector`; weight 0: none"
    )
    init_scale: float | None = Field(None, gt=0, description="null: that of `projector`")
    steps: int | None = Field(
        None, gt=0, description="optimizer steps of every stage; null: those of `projector`"
    )
    lr: float | None = Field(
        None, gt=0, description="peak learning rate of every stage; null: that of `projector`"
    )

    def of(self, recipe: ProjectorSettings) -> ProjectorSettings:
        """Return a recipe with these changes."""
        changes = {name: value for name, value in self if value is not None}
        of_stages: dict[str, Any] = {
            name: changes.pop(name) for name in ("steps", "lr") if name in changes
        }
        if "steps" in of_stages:
            of_stages["epochs"] = None
        stages = tuple(stage.model_copy(update=of_stages) for stage in recipe.stages)
        return recipe.model_copy(update={**changes, "stages": stages})


class PretrainedProjector(Settings):
    """A projector trained elsewhere, in place of one trained here."""

    pretrained: str = Field(
        description="PyTorch state dict (.pth, .pt, .bin) or .safetensors of one linear layer, or "
        "of two with a GELU between them"
    )
    output_scale: float = Field(
        1.0,
        gt=0,
        description="factor on its output. Ours enters block 0 as it is; one that was trained to "
        "write token embeddings of a Gemma, which the model multiplies by sqrt(d_model), needs "
        "that factor here",
    )


class OwnProjector(Settings):
    """The projector of a vision-language model, which is part of how its features are made."""

    kind: Literal["identity"] = "identity"


class LatentsSettings(Settings):
    """How visual tokens are read through the SAEs."""

    split: Split = Field("test", description="images that are encoded and measured")
    batch_size: int = Field(64, gt=0, description="images a forward pass")
    max_active: int = Field(512, gt=0, description="slots a token; more active latents: an error")
    max_length: int = Field(512, gt=0, description="tokens a sample, visual tokens included")


# Where a point's projector comes from; None: it is trained by `projector`.
ProjectorSource = PretrainedProjector | OwnProjector | RecipeChange | None
