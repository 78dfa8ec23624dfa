"""Loss recovered: cross-entropy of references with the SAE's reconstruction spliced in."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class SplicedLossSettings(MetricSettings):
    """Cross-entropy of the reference answers with the stream at the visual tokens after a block
    replaced by its SAE reconstruction, by its mean and by zeros, and the share of the ablation's
    cost that the reconstruction recovers: "loss recovered" (Rajamanoharan et al. 2024, arXiv
    2404.16014). The same on the text control."""

    split: Split = Field("test", description="Images whose reference answers are scored.")
    mean_split: Split = Field(
        "validation",
        description="Images over whose tokens the stream is averaged for mean ablation, other ones "
        "than those of `split`.",
    )
    mean_images: int = Field(
        1000, ge=1, description="Most images of mean_split that are read, spread evenly over it."
    )
    min_ablation_cost: float = Field(
        0.01,
        gt=0,
        description="Nats a token by which an ablation must raise the cross-entropy; where it "
        "costs less, the share that is recovered is undefined.",
    )
    batch_size: int = Field(64, ge=1, description="Images a forward pass.")
    max_length: int = Field(512, ge=1, description="Tokens a sample, visual tokens included.")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )

    def splits_read(self) -> Iterator[tuple[str, Split]]:
        """Yield the images that are scored, then those of the mean."""
        yield "split", self.split
        yield "mean_split", self.mean_split


METRIC = Metric(
    name="spliced_loss",
    makes="cross-entropy with the SAE's reconstruction spliced in (loss recovered)",
    settings=SplicedLossSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "saes", "checks", "files"),
    position=45,
    gpu=True,
    message="splicing the SAE's reconstruction into",
)
