"""Stability of SAEs: does another seed, sparsity or method find the same dictionary?"""

from __future__ import annotations

from pydantic import Field

from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class SaeStabilitySettings(MetricSettings):
    """Dictionaries of one model compared in pairs: entries of `llms` with an equal `model`, layer
    by layer, and the vision SAEs that `probing` names, encoder by encoder.

    Decoder rows are matched one to one by the Hungarian method (Paulo and Belrose, arXiv
    2501.16615), without latents that never fired on what latents are labelled from.
    """

    min_cosine: float = Field(
        0.7,
        gt=0,
        le=1,
        description="a latent is found again if its decoder row and the matched one have at least "
        "this cosine; arXiv 2501.16615 asks for it of encoder and decoder",
    )
    seed: int = Field(0, ge=0, description="seed of the random dictionaries of the chance levels")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over matched latents"
    )


METRIC = Metric(
    name="sae_stability",
    makes="whether SAEs of one model agree on their latents",
    settings=SaeStabilitySettings,
    per="dictionaries",
    reads=("saes", "labels", "features"),
    position=50,
    message="comparing dictionaries of",
)
