"""One artifact of latents with what gives it meaning: labels, records, images.

Shape legend: t token, k slot.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.data.geometry import ImageGeometry, token_of
from vista.data.images import ImageSource
from vista.data.record import Record
from vista.data.records import read_records
from vista.engine.artifacts import Artifact, open_artifact
from vista.engine.lineage import inputs_there
from vista.errors import UserError
from vista.explore.decoders import WEIGHTS, Decoder
from vista.foreign.text import one_line
from vista.inputs.image_files import image_files
from vista.inputs.latents import read_geometry, read_latents
from vista.inputs.maps import LatentMaps
from vista.readout.parts import labels_of
from vista.sae.label_table import FILE, LatentLabels, read_labels
from vista.store.strongest import Active, strongest

_RECORDS = "records.parquet"


def input_there(artifact: Artifact, role: str) -> Artifact | None:
    """Return the input of an artifact in a role; None if its results folder does not have it."""
    return next(iter(inputs_there(artifact, role)), None)


def images_of(records: Artifact) -> ImageSource:
    """Return the image files of an artifact of records.

    Raises:
        UserError: They are gone.
    """
    return image_files(records, input_there(records, "world"), input_there(records, "fetched"))


class LatentView:
    """What an artifact of latents says of its images, with labels where the results have them.

    Raises UserError if the artifact, or one that it is made from, is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._read(open_artifact(folder, "latents"))

    def _read(self, artifact: Artifact) -> None:
        self.artifact, self.store = artifact, read_latents(artifact)
        self._places = {image_id: place for place, image_id in enumerate(self.store.image_ids)}

    def place(self, image_id: str) -> int:
        """Return the place of an image in the store.

        Raises:
            UserError: The store has no such image.
        """
        if image_id not in self._places:
            some = ", ".join(self.store.image_ids[:5])
            raise UserError(
                f"{self.artifact.path} has no image {one_line(image_id)}; it has "
                f"{len(self._places)}: {some}, ..."
            )
        return self._places[image_id]

    def token(self, row: int, column: int) -> int:
        """Return the visual token of a patch; rows and columns count from 0.

        Raises:
            UserError: The patch lies outside of the grid.
        """
        return token_of((row, column), self.store.grid)

    def patch(self, token: int) -> tuple[int, int]:
        """Return the row and the column of a visual token's patch."""
        row, column = divmod(int(token), self.store.grid[1])
        return row, column

    def layers(self, layer: int | None) -> list[int]:
        """Return all layers, or the one that is asked for.

        Raises:
            UserError: The store has no such layer.
        """
        if layer is None:
            return sorted(self.store.layers)
        if layer not in self.store.layers:
            raise UserError(
                f"{self.artifact.path} has no layer {layer}; it has {sorted(self.store.layers)}"
            )
        return [layer]

    def known(self, layer: int, latent: int) -> None:
        """Refuse a latent that a layer's SAE does not have. Raises UserError."""
        if not 0 <= latent < (size := self.store.layers[layer]):
            raise UserError(f"layer {layer} has no latent {latent}: it has 0..{size - 1}")

    def active(self, layer: int, place: int, token: int | None = None) -> list[Active]:
        """Return the latents that fire at a visual token, or at any of an image with the largest
        of their activations; strongest first."""
        tokens = self.store.tokens(layer, "image", slice(place, place + 1))
        index_tk, value_tk = tokens.index[0], tokens.value[0]
        used_tk = np.arange(index_tk.shape[1]) < tokens.nnz[0][:, None]
        used_tk &= tokens.valid[0][:, None]
        if token is not None:
            used_tk &= (np.arange(len(index_tk)) == token)[:, None]
        return strongest(index_tk, value_tk, used_tk)

    def reconstruction(self, layer: int, place: int, token: int | None) -> tuple[float, float]:
        """Return L0 and the SAE's error / the squared norm of the stream, at a visual token or as
        means over an image's valid ones."""
        tokens = self.store.tokens(layer, "image", slice(place, place + 1))
        keep_t = tokens.valid[0] if token is None else np.arange(len(tokens.valid[0])) == token
        error, norm2 = (float(a[0][keep_t].sum()) for a in (tokens.error, tokens.norm2))
        return float(tokens.nnz[0][keep_t].mean()), error / norm2 if norm2 else 0.0

    def heat_map(self, layer: int, place: int, latent: int) -> NDArray[np.float64]:
        """Return the activation of a latent on each patch of an image [rows, columns]."""
        if layer not in self._maps:
            self._maps[layer] = LatentMaps(self.store, layer)
        return self._maps[layer](place, latent).reshape(self.store.grid)

    @cached_property
    def _maps(self) -> dict[int, LatentMaps]:
        return {}

    @cached_property
    def labels(self) -> dict[int, LatentLabels]:
        """The labels of each layer whose SAE is labelled in these results."""
        tables = [read_labels(labels.file(FILE)) for labels in labels_of(self.artifact)]
        return {table.layer: table for table in tables}

    def label(self, layer: int, latent: int) -> str | None:
        """Return the label of a latent; None if it has none."""
        table = self.labels.get(layer)
        return None if table is None else table.label_s[latent]

    def neighbours(self, layer: int, latent: int) -> list[tuple[int, float]]:
        """Return the latents of the same SAE whose decoder rows have the largest cosines with that
        of a latent, with these; none where the results do not have the SAE.

        Raises:
            UserError: The SAE is damaged.
        """
        for sae in inputs_there(self.artifact, "saes"):
            if sae.settings.get("layer") == layer:
                return Decoder(sae.file(WEIGHTS)).nearest(latent, latent + 1).of(0)
        return []

    def _parent(self, role: str) -> Artifact | None:
        """Return an input of the latents; None if it is not there."""
        return input_there(self.artifact, role)

    @cached_property
    def _records(self) -> Artifact | None:
        return self._parent("records")

    @cached_property
    def _table(self) -> Any:
        return None if self._records is None else read_records(self._records.file(_RECORDS))

    def record(self, place: int) -> Record | None:
        """Return the record of an image; None if the results do not have it."""
        if self._table is None:
            return None
        (row,) = self._table.rows_by_id([self.store.image_ids[place]])
        record: Record = self._table[int(row)]
        return record

    @cached_property
    def images(self) -> ImageSource:
        """The image files.

        Raises:
            UserError: The results do not have the records, or the images are gone.
        """
        if self._records is None:
            raise UserError(
                f"{self.artifact.path}: its records are not in these results, so its images cannot "
                "be found"
            )
        return images_of(self._records)

    def geometry(self, record: Record) -> ImageGeometry:
        """Return how an image lies on the patch grid.

        Raises:
            UserError: The results do not have the features.
        """
        features = self._parent("features")
        if features is None:
            raise UserError(
                f"{self.artifact.path}: its features are not in these results, so nothing says "
                "how patches lie on an image"
            )
        return ImageGeometry(record.width, record.height, **read_geometry(features))
