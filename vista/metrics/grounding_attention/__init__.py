"""Grounding by attention: does the word of an object attend to the object's patches?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vista.config.data import Split
from vista.config.metric import ChosenEncoders, Metric
from vista.config.metrics import BootstrapSettings


class GroundingAttentionSettings(ChosenEncoders):
    """Attention of the frozen language model from the tokens of an object's word in the reference
    answer to the visual tokens: its share on the object's patches, and whether it tells the right
    image from another one (the question of AGE-VLM, arXiv 2511.17793; the figures are ours)."""

    split: Split = Field("test", description="Images that are measured.")
    fit_split: Split = Field("validation", description="Images that the best head is chosen on.")
    max_images: int = Field(
        500, ge=1, description="Most images of either split, at even distances."
    )
    region: Literal["mask", "box"] = Field(
        "mask",
        description="Patches of an object. mask: those that its mask covers; boxes where it has no "
        "mask. box: those that its boxes touch.",
    )
    mask_cover: float = Field(
        0.5, gt=0, le=1, description="Share of a patch that a mask must cover to count as object."
    )
    batch_size: int = Field(32, ge=1, description="Images a forward pass.")
    max_length: int = Field(512, ge=1, description="Tokens a sample, visual tokens included.")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )


METRIC = Metric(
    name="grounding_attention",
    makes="does attention from an object's word lie on the object, and tell the right image",
    settings=GroundingAttentionSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "files"),
    position=75,
    patches=True,
    gpu=True,
    message="measuring the attention of words with",
)
