"""Stage: measure error and sparsity of the SAEs on visual, text and control tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.inputs.latents import read_latents
from vista.metrics.figure import TOKEN_KINDS
from vista.metrics.reconstruction import ReconstructionSettings
from vista.metrics.reconstruction.measure import (
    LayerReconstruction,
    ReconstructionResult,
    TokenSums,
    join_sums,
    reconstruct_layer,
    token_sums,
)
from vista.metrics.results import write_result
from vista.store.latents import LatentReader


@dataclass(frozen=True)
class Inputs:
    """Latents of one point of the sweep."""

    latents: Artifact


@stage(ReconstructionSettings, Inputs)
def run(job: StageJob[ReconstructionSettings, Inputs]) -> None:
    """Read latents; write the result and per-image sums."""
    latents = read_latents(job.inputs.latents)
    draws = job.settings.bootstrap
    parts: list[LayerReconstruction] = []
    items: list[pa.Table] = []
    for layer in sorted(latents.layers):
        for kind in (kind for kind in TOKEN_KINDS if kind in latents.kinds):
            sums = _read_sums(latents, layer, kind)
            parts.append(
                reconstruct_layer(
                    sums,
                    float(np.square(latents.mean(layer, kind)).mean()),
                    latents.layers[layer],
                    layer=layer,
                    token_kind=kind,
                    seed=draws.seed,
                    resamples=draws.resamples,
                    level=draws.level,
                )
            )
            items.append(_items(latents.image_ids, layer, kind, sums))
    write_result(job.work, ReconstructionResult(parts=parts), pa.concat_tables(items))


def _read_sums(latents: LatentReader, layer: int, kind: str) -> TokenSums:
    """Sum over the tokens of each image, reading the store in pieces."""
    parts = []
    for images in latents.slices(256):
        error, norm2, nnz = (
            latents.column(layer, kind, name, images) for name in ("error", "norm2", "nnz")
        )
        parts.append(token_sums(error, norm2, nnz, latents.valid(kind, images)))
    return join_sums(parts)


def _items(image_ids: list[str], layer: int, kind: str, sums: TokenSums) -> pa.Table:
    """Return one row an image: its sums on a layer and kind of tokens."""
    n = len(image_ids)
    return pa.table(
        {
            "image_id": image_ids,
            "layer": np.full(n, layer, dtype=np.int32),
            "token_kind": [kind] * n,
            "tokens": sums.tokens_b,
            "error_sum": sums.error_b,
            "norm2_sum": sums.norm2_b,
            "active_sum": sums.active_b,
        }
    )
