"""Linear concept vectors: directions fitted to tell a concept's tokens from the others.

The supervised rivals of a labelled latent (compare universal steering, arXiv 2502.03708).

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width, c concept, n
sampled token, t position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.errors import UserError
from vista.interventions.directions import ConceptDirection, Directions
from vista.interventions.search import Search, Selection
from vista.interventions.selection import BoolArray, sparse_auroc
from vista.progress import progress
from vista.store.features import FeatureReader

# (tokens [n, d], which concepts are at each [c, n]) -> unit rows [c, d], zeros where none is fitted
Fit = Callable[[NDArray[Any], BoolArray], NDArray[np.float32]]


def fitted_directions(search: Search, fit: Fit) -> Directions:
    """Return the directions that `fit` finds in the stream after the blocks of the settings.

    Reads the inputs `features`, `llm` and `projector`.

    Raises:
        UserError: The language model has no such block, or the inputs do not fit each other.
    """
    selection = search.select()
    samples, positive_cn = _samples(search, selection)
    by_layer = {layer: fit(x_nd, positive_cn) for layer, x_nd in samples.items()}
    layer = search.settings.layer
    x_nd, rows_cd = samples[layer], by_layer.pop(layer)
    concepts = []
    everywhere = np.arange(len(x_nd))
    for c, name in enumerate(selection.names):
        fitted = bool(rows_cd[c].any())
        along_n = (x_nd @ rows_cd[c]).astype(np.float64)
        auroc = sparse_auroc(everywhere, along_n, positive_cn[c]) if fitted else None
        n_images = int(selection.present_bc[:, c].sum())
        at = layer if fitted else None
        concepts.append(
            ConceptDirection(name, fitted, n_images, layer=at, auroc=auroc, norm=float(fitted))
        )
    return Directions(search.settings.method, "stream", tuple(concepts), rows_cd, by_layer)


def _samples(
    search: Search, selection: Selection
) -> tuple[dict[int, NDArray[np.float32]], BoolArray]:
    """Tokens of the stream after each block [n, d], and which concepts are at each [c, n].

    Concepts with boxes: some patches of an image's objects and as many others. Words: the mean
    over an image's patches.
    """
    import torch

    from vista.projector.module import load_projector

    inputs, settings = search.inputs, search.settings
    reader = FeatureReader(inputs.features.store("features.zarr"))
    llm = search.loaders.llm()
    layers = sorted({settings.layer, *settings.further_layers})
    if layers[-1] >= llm.n_blocks:
        key = "layer" if settings.layer >= llm.n_blocks else "further_layers"
        raise UserError(
            f"directions.{key} {layers[-1]}: the language model has blocks 0..{llm.n_blocks - 1}"
        )
    assert inputs.projector is not None
    inputs.projector.verify()
    projector = load_projector(
        inputs.projector.path, d_vision=reader.shape[-1], d_model=llm.d_model
    )
    projector = projector.to(llm.device)
    image_of = search.records.feature_rows()[1]
    rng = np.random.default_rng(settings.seed)
    n_visual, start = reader.shape[1], len(llm.opening)
    # Nothing after the visual tokens can change them, so nothing needs to stand there.
    ids = torch.zeros(1, start + n_visual, dtype=torch.int64, device=llm.device)
    ids[0, :start] = torch.tensor(llm.opening)
    xs: dict[int, list[NDArray[Any]]] = {layer: [] for layer in layers}
    positives = []
    size = settings.batch_size
    for first in progress(range(0, len(selection.rows), size), desc="stream", unit="batch"):
        rows = selection.rows[first : first + size]
        features_bpv = torch.from_numpy(reader.read(image_of[rows]).astype(np.float32))
        taps = llm.forward(
            ids.expand(len(rows), -1),
            visual=projector(features_bpv.to(llm.device)),
            visual_start=start,
            taps=tuple(layers),
            stop_after=layers[-1],
        ).taps
        read = {layer: taps[layer][:, start:].float().cpu().numpy() for layer in layers}
        if selection.patches_cbp is None:
            for layer, x_bpd in read.items():
                xs[layer].append(x_bpd.mean(1))
            positives.append(selection.present_bc[first : first + len(rows)].T)
            continue
        for b in range(len(rows)):
            patches_cp = selection.patches_cbp[:, first + b]
            inside_p = patches_cp.any(0)
            at = [
                rng.permutation(np.flatnonzero(mask_p))[: settings.patches_per_image]
                for mask_p in (inside_p, ~inside_p)
            ]
            taken = np.sort(np.concatenate(at))
            for layer, x_bpd in read.items():
                xs[layer].append(x_bpd[b, taken])
            positives.append(patches_cp[:, taken])
    samples = {layer: np.concatenate(parts) for layer, parts in xs.items()}
    return samples, np.concatenate(positives, axis=1)
