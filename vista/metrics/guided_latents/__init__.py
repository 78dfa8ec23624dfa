"""Guided dictionaries: do latents that were told their concept find it, and what does it cost?"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings, refuse_same_split


class GuidedLatentsSettings(MetricSettings):
    """Defined latents of a guided SAE as classifiers of held-out patches, against the best latent
    of the same SAE without a guide, a linear probe, and a guide of shuffled annotation; and the
    classes that no latent was defined for."""

    placing: ClassVar[frozenset[str]] = frozenset({"encoders", "vision_saes", "plain", "shuffled"})

    plain: str | None = Field(
        None,
        description="the entry of `vision_saes` without a guide that a guided one is compared "
        "with; null: the first whose `train` is equal",
    )
    shuffled: str | None = Field(
        None,
        description="the entry with shuffled annotation; null: the first whose `train` is equal "
        "and whose `guide` differs in `shuffle_labels` alone, if there is one",
    )
    fit_split: Split = Field("train", description="images that the probe is fitted on")
    choice_split: Split = Field(
        "validation", description="images that thresholds and the plain SAE's latents are chosen on"
    )
    split: Split = Field("test", description="images that are measured on")
    max_patches: int = Field(
        20_000, ge=1, description="patches of each split, of images in random order"
    )
    min_patches: int = Field(
        5, ge=1, description="patches that have a concept, in both later splits, at least"
    )
    regularisation: float = Field(
        0.3, gt=0, description="of the probe, scikit-learn's C: smaller is stronger"
    )
    iterations: int = Field(60, ge=1, description="of the probe's solver")
    seed: int = Field(0, ge=0, description="seed of the order of images")
    encoders: tuple[str, ...] | None = Field(
        None, description="names; null: those of probing.encoders"
    )
    vision_saes: tuple[str, ...] | None = Field(
        None, description="names; null: those of probing.vision_saes that have a guide"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings,
        description="intervals over concepts; of explained variance, over images",
    )

    @model_validator(mode="after")
    def _splits_differ(self) -> Self:
        refuse_same_split(self.fit_split, self.split)
        if self.choice_split == self.split:
            raise ValueError(f"choice_split and split are both {self.split!r}: choose another")
        return self


METRIC = Metric(
    name="guided_latents",
    makes="do latents that were told their concept find it, and what does it cost",
    settings=GuidedLatentsSettings,
    per="vision_sae",
    reads=("features", "records", "sae", "check", "plain", "shuffled"),
    section="probing",
    position=145,
    gpu=True,
    message="scoring the defined latents of",
)
