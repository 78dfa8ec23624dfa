"""Referring segmentation: do the latents whose labels are in an expression mark what it means?"""

from __future__ import annotations

from pydantic import Field

from vista.config.judges import JudgeChoice
from vista.config.metric import ChosenEncoders, Metric
from vista.config.metrics import BootstrapSettings


class ReferringSettings(ChosenEncoders):
    """Maps of the latents whose label is a word or phrase of a referring expression, against the
    mask of what the expression means: the task of RefSAM (arXiv 2307.00997) without its decoder,
    which is trained on masks. Nothing is trained here; a threshold is chosen on validation images.
    Images only: referring segmentation of videos (J, F) is out of scope."""

    judge: JudgeChoice = Field(
        "lexical", description="judge that says which labels are a word or phrase of an expression"
    )
    logit_lens: bool = Field(
        True,
        description="measure the same with the words of the logit lens in the place of the labels",
    )
    words: int = Field(10, ge=1, description="likeliest words a patch that the logit lens reads")
    percentile: float = Field(
        99.0,
        gt=0,
        le=100,
        description="an activation is divided by this percentile of the latent's activations above "
        "0 on validation images",
    )
    thresholds: int = Field(
        32,
        ge=1,
        description="thresholds that are compared on validation images: 0 and quantiles of the "
        "interpolated maps' values above 0",
    )
    mask_cover: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of a patch that a mask must cover for AUROC, average precision and "
        "pointing; where it covers no patch so far, the patch that it covers most counts",
    )
    batch_size: int = Field(64, ge=1, description="images a forward pass")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )


METRIC = Metric(
    name="referring_segmentation",
    makes="do the latents named in a referring expression mark its object",
    settings=ReferringSettings,
    per="point",
    reads=(
        "latents",
        "validation_latents",
        "labels",
        "records",
        "features",
        "expressions",
        "projector",
        "llm",
        "judge",
        "files",
    ),
    position=65,
    gpu=True,
    groups=True,
    message="segmenting what expressions mean by latents of",
)
