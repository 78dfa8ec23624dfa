"""Stage: measure error and sparsity of the SAEs on visual, text and control tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
            sums, fired_s = _read(latents, layer, kind)
            parts.append(
                reconstruct_layer(
                    sums,
                    float(np.square(latents.mean(layer, kind)).mean()),
                    fired_s,
                    layer=layer,
                    token_kind=kind,
                    seed=draws.seed,
                    resamples=draws.resamples,
                    level=draws.level,
                )
            )
            items.append(_items(latents.image_ids, layer, kind, sums))
    write_result(job.work, ReconstructionResult(parts=parts), pa.concat_tables(items))


def _read(latents: LatentReader, layer: int, kind: str) -> tuple[TokenSums, NDArray[np.bool_]]:
    """Sum over the tokens of each image, and return which latents fire on any token [s]."""
    parts = []
    fired_s = np.zeros(latents.layers[layer], dtype=bool)
    for images in latents.slices():
        error, norm2, nnz, index = (
            latents.column(layer, kind, name, images) for name in ("error", "norm2", "nnz", "index")
        )
        valid = latents.valid(kind, images)
        parts.append(token_sums(error, norm2, nnz, valid, latents.total2(layer, kind, images)))
        used_bt = np.where(valid, nnz, 0)
        index = index[..., : int(used_bt.max(initial=0))]
        fired_s[index[np.arange(index.shape[2]) < used_bt[..., None]]] = True
    return join_sums(parts), fired_s


def _items(image_ids: list[str], layer: int, kind: str, sums: TokenSums) -> pa.Table:
    """Return one row an image: its sums on a layer and kind of tokens."""
    n = len(image_ids)
    total2_b = pa.nulls(n, pa.float64()) if sums.total2_b is None else sums.total2_b
    return pa.table(
        {
            "image_id": image_ids,
            "layer": np.full(n, layer, dtype=np.int32),
            "token_kind": [kind] * n,
            "tokens": sums.tokens_b,
            "error_sum": sums.error_b,
            "norm2_sum": sums.norm2_b,
            "active_sum": sums.active_b,
            "total2": total2_b,
        }
    )
