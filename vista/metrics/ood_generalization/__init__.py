"""Out of distribution: does a linear probe on latents keep its accuracy under shift?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings, refuse_same_split, refuse_twice


class OodGeneralizationSettings(MetricSettings):
    """Accuracy of linear probes on latents and on rival representations, on held-out images and on
    images of a shifted distribution. Defined here: of arXiv 2508.11277 only the abstract is public.
    """

    shifts: tuple[str, ...] = Field(min_length=1, description="sets of `probing.data`")
    fit_split: Split = Field("train", description="images that probes are fitted on")
    fit_images: int | None = Field(
        None,
        ge=2,
        description="fit on so many of them, drawn at random; null: on all. Memory holds their "
        "latents, those of a random dictionary and copies: 16 bytes for each image and latent",
    )
    split: Split = Field("test", description="images of every set that probes are judged on")
    latents: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (8, 32, 128),
        min_length=1,
        description="numbers of latents that a probe may use, beside all",
    )
    regularisation: float = Field(0.3, gt=0, description="scikit-learn's C: smaller is stronger")
    iterations: int = Field(100, ge=1, description="iterations of the solver")
    seed: int = Field(0, ge=0, description="seed of the random dictionary and of draws")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        refuse_twice(self.shifts)
        refuse_same_split(self.fit_split, self.split)
        return self

    def sets_read(self) -> Iterator[tuple[str, str]]:
        yield from (("shifts", name) for name in self.shifts)


METRIC = Metric(
    name="ood_generalization",
    makes="does a linear probe on latents keep its accuracy under shift",
    settings=OodGeneralizationSettings,
    per="vision_sae",
    reads=("features", "records", "sae", "check", "set_features", "set_records"),
    section="probing",
    position=130,
    gpu=True,
    message="probing under shift in",
)
