"""Latents of the language model's SAEs that may stand for concepts.

Shape legend: c concept, u place (patch or image), n firing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.interventions.directions import Directions
from vista.interventions.latents import labelled_candidates, latent_directions
from vista.interventions.search import Search, firings_at
from vista.interventions.selection import BoolArray, Candidate, Chosen, best_latents


class TextLatents:
    """The latents of a search and the concepts that they are ranked for.

    Attributes:
        store: activations on the selection split.
        labels: of each layer of the store.
        selection: the concepts, with those of `extra` where the config lists none, and the
            store's images in its order.
    """

    def __init__(self, search: Search, extra: Sequence[str] = ()) -> None:
        """Open the search's inputs `latents` and `labels`.

        Raises:
            UserError: They do not fit the features, each other or the selection split.
        """
        self._search = search
        latents, labels = search.inputs.latents, search.inputs.labels
        assert latents is not None and isinstance(labels, list)
        self.store = search.loaders.latents(latents)
        self.labels = search.loaders.layer_labels(labels, latents, self.store)
        rows = search.records.rows_by_id(self.store.image_ids).tolist()
        self.selection = search.select(extra, rows)
        self._n_patches = self.store.kinds["image"]
        patches_cbp = self.selection.patches_cbp
        if patches_cbp is not None and patches_cbp.shape[2] != self._n_patches:
            raise UserError(
                f"directions: the features have {patches_cbp.shape[2]} patches, the latents "
                f"{self._n_patches}; rebuild the latents from these features"
            )

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The labelled latents of all layers."""
        return [
            candidate
            for layer, table in self.labels.items()
            for candidate in labelled_candidates(layer, table, self.store.token_frequency(layer))
        ]

    @cached_property
    def named(self) -> BoolArray:
        """Which candidate's label names which concept [candidate, concept]."""
        labels = [candidate.label for candidate in self.candidates]
        return self._search.judge.judge(labels, self.selection.names)

    @cached_property
    def best(self) -> list[list[Chosen]]:
        """Each concept's latents, as many as the settings ask for, best first."""
        return best_latents(
            self.candidates,
            self.named,
            self.firings,
            self.selection.positive_cu,
            self._search.settings.n_latents,
        )

    def firings(self, layer: int, latent: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The places where a latent fires [n], and its activation there [n]."""
        entries = self.store.by_latent(layer, latent)
        place_n = entries.image.astype(np.int64) * self._n_patches + entries.token
        return firings_at(place_n, entries.value, self._n_patches, self.selection)

    def directions(self, chosen: Sequence[Sequence[Chosen]]) -> Directions:
        """The directions along each concept's chosen latents.

        Raises:
            UserError: A latent is of a layer that no SAE is given for, or an SAE is damaged.
        """
        ids = {latent.candidate.at for latents in chosen for latent in latents}
        decoder, width = _decoder_rows(self._search.inputs.saes, ids)
        method = self._search.settings.method
        return latent_directions(method, "stream", self.selection, chosen, decoder, width)


def _decoder_rows(
    saes: Sequence[Artifact], ids: set[tuple[int, int]]
) -> tuple[dict[tuple[int, int], NDArray[np.float32]], int]:
    """Decoder rows of some (layer, latent), and their width; one SAE in memory at a time."""
    from vista.sae.neutral import CONFIG_FILE, load_sae

    rows: dict[tuple[int, int], NDArray[np.float32]] = {}
    width = 0
    for artifact in saes:
        described = json.loads(artifact.file(CONFIG_FILE).read_text(encoding="utf-8"))
        layer, width = int(described["layer"]), int(described["d_in"])
        here = sorted(latent for at, latent in ids if at == layer)
        if here:
            artifact.verify()
            sae = load_sae(artifact.path)
            rows |= {(layer, latent): sae.decoder_row(latent).numpy() for latent in here}
    missing = sorted({layer for layer, _ in ids - set(rows)})
    if missing:
        raise UserError(f"directions: no SAE of layer {missing[0]} is given; add it to the SAEs")
    return rows, width
