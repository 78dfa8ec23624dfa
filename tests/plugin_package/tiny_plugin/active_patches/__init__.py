"""A metric: the share of patches at which a latent fires."""

from pydantic import Field

from vista.config.metric import Metric, MetricSettings


class ActivePatchesSettings(MetricSettings):
    """Share of the patches at which some latent is above a bound."""

    bound: float = Field(0.0, ge=0, description="activations above it count")


METRIC = Metric(
    name="active_patches",
    makes="share of patches at which a latent fires",
    settings=ActivePatchesSettings,
    per="point",
    reads=("latents",),
    message="counting active patches in",
)
