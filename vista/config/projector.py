"""Settings of the projector's training and of the encoding into latents."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ProjectorSettings(BaseModel):
    """How projectors are trained (VISTA paper, training details; method notes)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["linear"] = Field("linear", description="module between encoder and LLM")
    steps: int = Field(300, gt=0, description="optimizer steps")
    batch_size: int = Field(32, gt=0, description="images a step")
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW; published: 1e-3")
    init_scale: float = Field(
        1.0, gt=0, description="factor on the first weights; 1: those of a plain linear layer"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps with a rising rate")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    max_length: int = Field(512, gt=0, description="tokens a sample, visual tokens included")
    layers: tuple[int, ...] | None = Field(
        None, description="layer set of the SAE term; null: every layer that has an SAE"
    )
    split: str = Field("train", description="images that train the projector")
    checkpoint_every: int = Field(100, gt=0, description="steps between two checkpoints")


class LatentsSettings(BaseModel):
    """How visual tokens are read through the SAEs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str = Field("test", description="images that are encoded and measured")
    batch_size: int = Field(64, gt=0, description="images a forward pass")
    max_active: int = Field(512, gt=0, description="slots a token; more active latents: an error")
    max_length: int = Field(512, gt=0, description="tokens a sample, visual tokens included")
