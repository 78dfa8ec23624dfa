"""Stage: count the patches at which a latent fires."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tiny_plugin.active_patches import ActivePatchesSettings
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.inputs.latents import read_latents
from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate
from vista.metrics.results import write_result


class LayerShare(ResultPart):
    """The share at one layer."""

    layer: int
    share: Estimate


class ActivePatches(MetricResult):
    """The share at each layer."""

    layers: tuple[LayerShare, ...]

    def figures(self) -> list[Figure]:
        """Return a row for each layer."""
        return [part.share.figure("active_patches", part.layer, "image") for part in self.layers]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The latents."""

    latents: Artifact


@stage(ActivePatchesSettings, Inputs)
def run(job: StageJob[ActivePatchesSettings, Inputs]) -> None:
    """Read the latents, write the result."""
    latents = read_latents(job.inputs.latents)
    layers = []
    for layer in sorted(latents.layers):
        shares = []
        for images in latents.slices():
            tokens = latents.tokens(layer, "image", images)
            fires_bt = (tokens.value > job.settings.bound).any(-1)
            shares.append((fires_bt & tokens.valid).sum(1) / tokens.valid.sum(1))
        share_b = np.concatenate(shares)
        value = estimate(bootstrap_mean(share_b, seed=0), len(share_b))
        layers.append(LayerShare(layer=layer, share=value))
    write_result(job.work, ActivePatches(layers=tuple(layers)))
