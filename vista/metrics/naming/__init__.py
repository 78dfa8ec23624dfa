"""Share of the classes that have a latent of their own."""

from __future__ import annotations

from pydantic import Field

from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class NamingSettings(MetricSettings):
    """Share of the data's classes that have a latent of their own: its label is the class word, and
    its strong activation is mostly at that word. Definition ours."""

    min_share: float = Field(
        0.5, gt=0, le=1, description="share of its latent's strong activation a class must have"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over classes."
    )


METRIC = Metric(
    name="naming",
    makes="share of classes that have a latent of their own",
    settings=NamingSettings,
    per="layer",
    reads=("labels", "records"),
    position=20,
    message="counting classes with a latent of their own in",
)
