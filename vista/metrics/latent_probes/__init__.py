"""One-latent probes: how well a single latent of a vision SAE tells the patches of a class."""

from __future__ import annotations

from pydantic import Field

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class LatentProbesSettings(MetricSettings):
    """For each class a logistic probe on one latent's activation (probe1d of saev, arXiv
    2511.17735), beside probes on one direction of other dictionaries: channels, principal
    components, semi-NMF, random directions; and on all channels together.

    The latent, its probe and a threshold are chosen on `fit_split` and scored on `split`.
    """

    fit_split: Split = Field("train", description="images that latents and probes are chosen on")
    split: Split = Field("test", description="images that they are scored on")
    fit_images: int | None = Field(400, gt=0, description="random images of `fit_split`; null: all")
    images: int | None = Field(400, gt=0, description="random images of `split`; null: all")
    mask_cover: float = Field(
        0.25, gt=0, le=1, description="share of a patch that a mask must cover to be its class"
    )
    min_images: int = Field(
        5, ge=1, description="a class that fewer images of either split show is left out"
    )
    bins: int = Field(
        32,
        ge=2,
        description="quantile bins of a latent's activations above and below 0 while latents are "
        "compared; the chosen one's probe is fitted to all patches",
    )
    semi_nmf_latents: int = Field(
        256, ge=1, description="latents of the semi-NMF, if the SAE has no fewer"
    )
    semi_nmf_patches: int = Field(
        4096, ge=1, description="random patches that the semi-NMF is fitted to"
    )
    semi_nmf_iterations: int = Field(
        100, ge=1, description="updates while the semi-NMF is fitted, and again when it encodes"
    )
    found: float = Field(
        0.3, gt=0, lt=1, description="average precision from which on a class counts as found"
    )
    ridge: float = Field(
        1e-4, gt=0, description="weight of the squared coefficients of standardised activations"
    )
    seed: int = Field(
        0, ge=0, description="seed of the images, the semi-NMF, the random directions"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )


METRIC = Metric(
    name="latent_probes",
    makes="does one latent tell the patches of a class, beside other dictionaries' directions",
    settings=LatentProbesSettings,
    per="vision_sae",
    reads=("features", "records", "sae", "check"),
    section="probing",
    position=112,
    gpu=True,
    message="probing single latents for classes in",
)
