"""What a readout sees in images: the labelled latents of their visual tokens.

Shape legend: p visual token, k slot.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.data.geometry import ImageGeometry, token_of
from vista.errors import UserError
from vista.readout.edits import ConceptFinder
from vista.report.escape import mathtext
from vista.report.heat_panels import COLUMNS, DPI, Panel, draw_panels, note_of
from vista.report.heatmaps import grid_extent
from vista.sae.label_table import LatentLabels
from vista.store.strongest import Active, strongest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerLatents:
    """The active latents of an image's visual tokens at one layer.

    Attributes:
        index_pk: Number of each active latent, strongest first.
        value_pk: Its activation, float32; 0 in slots that are not used.
        nnz_p: Slots in use.
        error_p: Mean over channels of (SAE(x) - x)^2.
        norm2_p: Mean over channels of x^2.
    """

    index_pk: NDArray[np.int64]
    value_pk: NDArray[np.float32]
    nnz_p: NDArray[np.int64]
    error_p: NDArray[np.float32]
    norm2_p: NDArray[np.float32]

    def activation(self, latent: int) -> NDArray[np.float32]:
        """Return the activation of a latent at each visual token [p], 0 where it is silent."""
        used_pk = np.arange(self.index_pk.shape[1]) < self.nnz_p[:, None]
        at_pk = used_pk & (self.index_pk == latent)
        activation_p: NDArray[np.float32] = np.where(at_pk, self.value_pk, 0).sum(1)
        return activation_p

    def strongest(self, token: int | None = None) -> list[Active]:
        """Return the latents that fire at a visual token, or at any with the largest of their
        activations; strongest first."""
        used_pk = np.arange(self.index_pk.shape[1]) < self.nnz_p[:, None]
        if token is not None:
            used_pk &= (np.arange(len(used_pk)) == token)[:, None]
        return strongest(self.index_pk, self.value_pk, used_pk)


@dataclass(frozen=True)
class SeenImages:
    """Images, and the latents that fire at their visual tokens.

    Attributes:
        names: Their names: those of their files, else numbers.
        images: The images, RGB.
        layers: For each image the latents by layer.
        geometry: How each image lies on the patch grid.
        labels: Labels of the latents by layer.
        concepts: Finds the latent that is named after a word.

    Examples:
        >>> seen = readout("cat.png")
        >>> strongest = seen.top(k=1, layer=0).iloc[0]
        >>> heat = seen.activations(strongest.latent, layer=0)
        >>> bool(heat[strongest.row, strongest.column] == heat.max())
        True
        >>> seen.heatmap(strongest.latent, layer=0).mode
        'RGB'
    """

    names: Sequence[str]
    images: Sequence[Image.Image]
    layers: Sequence[Mapping[int, LayerLatents]]
    geometry: Sequence[ImageGeometry]
    labels: Mapping[int, LatentLabels]
    concepts: ConceptFinder

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, image: int) -> SeenImages:
        """Return one of the images."""
        at = slice(image, image + 1 or None)
        parts = (self.names[at], self.images[at], self.layers[at], self.geometry[at])
        if not parts[0]:
            raise IndexError(f"image {image} of {len(self)}")
        return SeenImages(*parts, self.labels, self.concepts)

    def label(self, layer: int, latent: int) -> str | None:
        """Return the label of a latent; None if it has none."""
        table = self.labels.get(layer)
        return None if table is None else table.label_s[latent]

    def top(
        self, k: int = 5, layer: int | None = None, patch: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """Return the strongest latents of each image, or of one patch, as a table.

        Args:
            k: Latents of an image and layer.
            layer: Layer; None: all.
            patch: Row and column, from 0; None: each latent at its strongest patch.

        Returns:
            Columns image, layer, label (None: it has none), latent, activation, row and column of
            the patch.

        Raises:
            UserError: There is no such layer or patch.
        """
        import pandas as pd

        rows = []
        for name, layers, geometry in zip(self.names, self.layers, self.geometry, strict=True):
            columns = geometry.grid[1]
            token = None if patch is None else token_of(patch, geometry.grid)
            for number in self._layers(layer):
                for latent, activation, at in layers[number].strongest(token)[:k]:
                    label = self.label(number, latent)
                    rows.append((name, number, label, latent, activation, *divmod(at, columns)))
        head = ["image", "layer", "label", "latent", "activation", "row", "column"]
        return pd.DataFrame(rows, columns=head)

    def activations(
        self, concept: str | int, layer: int | None = None, image: int = 0
    ) -> NDArray[np.float32]:
        """Return the activation of a latent on each patch of an image [rows, columns].

        Args:
            concept: A word, which the latent is named after, or the latent's number.
            layer: Its layer; None with a word: the lowest one with a latent of that name.
            image: Number of the image.

        Raises:
            UserError: There is no such layer or latent.
        """
        layer, latent = self._latent(concept, layer)
        return self._map(image, layer, latent)

    def heatmap(self, concept: str | int, layer: int | None = None, image: int = 0) -> Image.Image:
        """Return a picture of where a latent fires on an image; arguments as `activations`."""
        layer, latent = self._latent(concept, layer)
        panel = self._panel(image, layer, latent)
        title = f"Layer {layer}: where latent {latent} fires on {self.names[image]}"
        return _picture(draw_panels([[panel]], title, note_of(self.geometry[image].grid)))

    def show(self, k: int = 4, layer: int | None = None, image: int = 0) -> Image.Image:
        """Return a picture of the strongest latents on an image, a row a layer.

        Args:
            k: Latents of a layer, at most 8.
            layer: Layer; None: all.
            image: Number of the image.

        Raises:
            UserError: There is no such layer.
        """
        layers = self._layers(layer)
        rows = [
            [
                self._panel(image, number, latent)
                for latent, *_ in self.layers[image][number].strongest()[: min(k, COLUMNS)]
            ]
            for number in layers
        ]
        title = f"Strongest latents of {self.names[image]}"
        names = [f"layer {number}" for number in layers]
        return _picture(draw_panels(rows, title, note_of(self.geometry[image].grid), names))

    def _repr_html_(self) -> str:
        """Return the table of the strongest latents, as notebooks show it."""
        return str(self.top(3).to_html(index=False))

    def __repr__(self) -> str:
        return f"<SeenImages: {len(self)} images, layers {self._layers(None)}>"

    def _layers(self, layer: int | None) -> list[int]:
        layers = sorted(self.layers[0])
        if layer is not None and layer not in layers:
            raise UserError(f"there is no layer {layer}: the SAEs read layers {layers}")
        return layers if layer is None else [layer]

    def _latent(self, concept: str | int, layer: int | None) -> tuple[int, int]:
        if layer is not None:
            self._layers(layer)
        if isinstance(concept, str):
            return self.concepts.latent(concept, layer)
        if layer is None:
            raise UserError(f"latent {concept}: give its layer, too")
        self.concepts.known(layer, concept)
        return layer, concept

    def _map(self, image: int, layer: int, latent: int) -> NDArray[np.float32]:
        activation_p = self.layers[image][layer].activation(latent)
        return activation_p.reshape(self.geometry[image].grid)

    def _panel(self, image: int, layer: int, latent: int) -> Panel:
        text = self.label(layer, latent)
        label = f"latent {latent}"
        if text is not None:
            label = f"“{mathtext(text, 24)}”\n{label}"
        pixels = np.asarray(self.images[image])
        extent = grid_extent(self.geometry[image])
        return Panel(pixels, extent, self._map(image, layer, latent).astype(np.float64), label)


def _picture(figure: Any) -> Image.Image:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return Image.open(content).convert("RGB")
