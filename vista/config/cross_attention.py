"""Settings of gated cross-attention from a language model's text to an image's patches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vista.config.base import Settings
from vista.config.data import Split


class CrossAttentionSettings(Settings):
    """Gated cross-attention after blocks of a frozen language model, and how it is trained.

    The visual tokens never enter the residual stream: text tokens read them. So this is another
    readout than that of a projector, whose visual tokens are the stream itself.
    """

    blocks: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        min_length=1,
        description="blocks after which text reads the image, counted from 0; null: all but the "
        "last",
    )
    heads: int = Field(4, ge=1, description="heads of each; they divide the model's width")
    split: Split = Field("train", description="images that it learns from")
    images: int = Field(2000, ge=1, description="most of them, at even distances")
    steps: int = Field(300, ge=1, description="optimizer steps")
    batch_size: int = Field(32, ge=1, description="captions a step")
    lr: float = Field(3e-3, gt=0, description="largest learning rate")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps with a rising rate")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    region: Literal["mask", "box"] = Field(
        "mask",
        description="patches of an object. mask: those that its mask covers; boxes where it has no "
        "mask. box: those that its boxes touch",
    )
    mask_cover: float = Field(
        0.5, gt=0, le=1, description="share of a patch that a mask must cover to count as object"
    )
    max_length: int = Field(512, ge=1, description="tokens a caption with its question")
