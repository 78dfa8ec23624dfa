"""SAE error and sparsity of visual, text and control tokens, by layer."""

from __future__ import annotations

from pydantic import Field

from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class ReconstructionSettings(MetricSettings):
    """Squared error, fraction of variance unexplained and number of active latents of the text SAE
    on visual tokens, the text after them and a text control (VISTA, arXiv 2605.24946); beside them
    the variance of these tokens and the share of latents that ever fire, which show a collapse."""

    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )


METRIC = Metric(
    name="reconstruction",
    makes="reconstruction error and sparsity by layer",
    settings=ReconstructionSettings,
    per="point",
    reads=("latents",),
    position=40,
    message="measuring reconstruction of",
)
