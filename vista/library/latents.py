"""Stored latents of a point of the sweep, for programs: lazily as xarray, by image, by latent."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from vista.explore.latents import LatentView


class Latents:
    """The active latents of every visual token of a run's images.

    Attributes:
        folder: The artifact's folder.
        view: The reader, with the labels of the latents.
        layers: Size of the dictionary by layer.
        grid: Rows and columns of the patch grid.

    Examples:
        >>> latents = run.latents("dinov2", "gemma2", sae_weight=1)
        >>> image_id = latents.image_ids[0]
        >>> strongest = latents.top(image_id, k=3, layer=0).iloc[0]
        >>> heat = latents.heatmap(image_id, strongest.latent, layer=0)
        >>> heat.shape == latents.grid
        True
        >>> bool(heat[strongest.row, strongest.column] == heat.max())
        True
    """

    def __init__(self, view: LatentView) -> None:
        self.folder, self.view = view.artifact.path, view
        self.layers, self.grid = dict(self.view.store.layers), self.view.store.grid

    def __repr__(self) -> str:
        return f"<Latents {self.folder.name}: {len(self.image_ids)} images, layers {self.layers}>"

    @property
    def image_ids(self) -> list[str]:
        """Ids of the images, in the order of the store."""
        return self.view.store.image_ids

    @cached_property
    def tree(self) -> xr.DataTree:
        """The store as an xarray DataTree, read lazily; `vista.store.latents` says what is in it.

        index and value [image, token, slot] hold the active latents, strongest first, of which the
        first nnz [image, token] slots are in use.
        """
        import xarray as xr

        store = self.view.artifact.store("latents.zarr")
        return xr.open_datatree(store, engine="zarr", consolidated=True)

    def __getitem__(self, group: str) -> Any:
        """Return a group of the store, e.g. "layer_01/image"."""
        return self.tree[group]

    def top(self, image_id: str, k: int = 5, layer: int | None = None) -> pd.DataFrame:
        """Return the strongest latents of an image, each at its strongest patch.

        Args:
            image_id: Id of the image.
            k: Latents of a layer.
            layer: Layer; None: all.

        Returns:
            Columns image, layer, label, latent, activation, row and column of the patch.

        Raises:
            UserError: There is no such image or layer.
        """
        import pandas as pd

        place = self.view.place(image_id)
        rows = []
        for number in self.view.layers(layer):
            for latent, activation, token in self.view.active(number, place)[:k]:
                label = self.view.label(number, latent)
                patch = self.view.patch(token)
                rows.append((image_id, number, label, latent, activation, *patch))
        head = ["image", "layer", "label", "latent", "activation", "row", "column"]
        return pd.DataFrame(rows, columns=head)

    def images_of(self, latent: int, layer: int) -> pd.DataFrame:
        """Return the (at most 64) images at which a latent fires most, strongest first.

        Returns:
            Columns image, activation, row and column of the patch.

        Raises:
            UserError: There is no such layer or latent.
        """
        import pandas as pd

        self._known(layer, latent)
        entries = self.view.store.top(layer, latent)
        rows = [
            (self.image_ids[place], float(value), *self.view.patch(token))
            for place, token, value in zip(*entries, strict=True)
        ]
        return pd.DataFrame(rows, columns=["image", "activation", "row", "column"])

    def heatmap(self, image_id: str, latent: int, layer: int) -> NDArray[np.float64]:
        """Return the activation of a latent on each patch of an image [rows, columns].

        Raises:
            UserError: There is no such image, layer or latent.
        """
        self._known(layer, latent)
        return self.view.heat_map(layer, self.view.place(image_id), latent)

    def to_parquet(self, path: str | Path, layer: int | None = None) -> Path:
        """Write one row for each active latent of each visual token, for pyarrow, DuckDB, or
        `datasets.load_dataset("parquet", data_files=...)`.

        Columns image, layer, row, column, latent, activation and label; the file's metadata say, as
        JSON under "vista", which artifact it is of. Read in slices of images: memory does not grow
        with their number.

        Args:
            path: The file to write.
            layer: Layer; None: all.

        Returns:
            The file.

        Raises:
            UserError: The file exists or cannot be written; or there is no such layer.
        """
        from vista.library.exports import write_parquet

        write_parquet(self.view, Path(path), layer)
        return Path(path)

    def to_neuronpedia(
        self,
        folder: str | Path,
        layer: int | None = None,
        top: int = 20,
        creator: str | None = None,
    ) -> Path:
        """Write the labelled latents with the images at which they fire most, as Neuronpedia
        imports them: a folder MODEL/SOURCE a layer, which `saes.labels.path` reads, too.

        Args:
            folder: The folder to write.
            layer: Layer; None: all.
            top: Images of a latent, 64 at most.
            creator: Id of the user whom the rows belong to; None: the one that a Neuronpedia of
                one's own is installed with.

        Returns:
            The folder.

        Raises:
            UserError: The folder exists or cannot be written; a layer has no labels; or there is no
                such layer.
        """
        from vista.library.exports import write_neuronpedia

        write_neuronpedia(self.view, Path(folder), layer, top, creator)
        return Path(folder)

    def _known(self, layer: int, latent: int) -> None:
        self.view.layers(layer)
        self.view.known(layer, latent)
