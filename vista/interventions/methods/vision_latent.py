"""The latents of an SAE on the encoder's own features whose label names the concept.

Legend of shape suffixes: b image, p patch token, v encoder width, c concept, u place (patch or
image), n firing, k latent that a label names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.errors import UserError
from vista.interventions.method import DirectionMethod

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vista.interventions.directions import Directions
    from vista.interventions.search import Search
    from vista.sae.neutral import SparseAutoencoder
    from vista.store.features import FeatureReader


def find(search: Search) -> Directions:
    """Return the summed decoder rows of each concept's best latents.

    Raises:
        UserError: The labels are of another dictionary, or a file is damaged.
    """
    from vista.engine.artifacts import Artifact
    from vista.interventions.latents import labelled_candidates, latent_directions
    from vista.interventions.search import firings_at
    from vista.interventions.selection import best_latents
    from vista.sae.label_table import FILE, read_labels
    from vista.sae.neutral import load_sae
    from vista.store.features import FeatureReader

    inputs, settings = search.inputs, search.settings
    selection = search.select()
    reader = FeatureReader(inputs.features.store("features.zarr"))
    assert inputs.vision_sae is not None and isinstance(inputs.labels, Artifact)
    inputs.vision_sae.verify()
    sae = load_sae(inputs.vision_sae.path, expect_d_in=reader.shape[-1])
    table = read_labels(inputs.labels.file(FILE))
    if len(table.label_s) != sae.config.d_sae:
        raise UserError(
            f"directions: labels of {len(table.label_s)} latents for a vision SAE of "
            f"{sae.config.d_sae}; label that SAE"
        )
    layer, n_patches = sae.config.layer, reader.shape[1]
    candidates = labelled_candidates(layer, table, table.density_s)
    named = search.judge.judge([candidate.label for candidate in candidates], selection.names)
    used = [candidate.latent for i, candidate in enumerate(candidates) if named[i].any()]
    images = search.records.feature_rows()[1][selection.rows]
    place_n, column_n, value_n = _firings(reader, sae, images, used, settings.batch_size)
    number = {latent: k for k, latent in enumerate(used)}

    def firings(_: int, latent: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        at_n = column_n == number[latent]
        return firings_at(place_n[at_n], value_n[at_n], n_patches, selection)

    chosen = best_latents(candidates, named, firings, selection.positive_cu, settings.n_latents)
    decoder = {(layer, latent): sae.decoder_row(latent).numpy() for latent in used}
    return latent_directions(
        settings.method, "features", selection, chosen, decoder, sae.config.d_in
    )


def _firings(
    reader: FeatureReader,
    sae: SparseAutoencoder,
    images: NDArray[np.int64],
    latents: Sequence[int],
    batch_size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Where some latents fire in `images`: the places, the latents' positions, the activations."""
    import numpy as np
    import torch

    from vista.progress import progress

    n_patches = reader.shape[1]
    places: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    for start in progress(range(0, len(images), batch_size), desc="vision latents", unit="batch"):
        features_bpv = torch.from_numpy(
            reader.read(images[start : start + batch_size]).astype(np.float32)
        )
        # Dense activations of a large dictionary are held for a few tokens at a time.
        tokens = torch.split(features_bpv.reshape(-1, reader.shape[-1]), sae.dense_rows)
        z_nk = torch.cat([sae.encode(part)[:, latents] for part in tokens]).numpy()
        place, column = np.nonzero(z_nk > 0)
        places.append(place + start * n_patches)
        columns.append(column)
        values.append(z_nk[place, column])
    return np.concatenate(places), np.concatenate(columns), np.concatenate(values)


METHOD = DirectionMethod(find, reads=("vision_sae", "labels"), space="features")
