"""Maps over the patches of an image: what is scored where an activation has a place.

A video model sees an image as a clip and gives each patch a token for each frame; its maps are
means over the frames before anything is scored (for DyVA, arXiv 2510.00855). Tokens of several
encoders at one patch (`how: interleave`) are no frames: each stays a place of its own.

Suffixes: t tokens, p patches, b images, n ranked latents of an image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.data.geometry import ImageGeometry
from vista.data.records import Record
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.latents import GEOMETRY, read_geometry
from vista.metrics.ranking import Ranked
from vista.store.latents import Entries, LatentReader


@dataclass(frozen=True)
class MapGrid:
    """The grid that maps over images are scored on.

    Attributes:
        placing: Arguments that `ImageGeometry` takes beside an image's width and height. Its tokens
            a patch are those that are left after the mean over frames.
        frames: Tokens of a patch that are frames of a clip; 1: there is no clip.
    """

    placing: dict[str, Any]
    frames: int

    def geometry(self, record: Record, tokens: tuple[int, int]) -> ImageGeometry:
        """Return how an image lies on the grid.

        Args:
            record: Record of the image.
            tokens: Rows and columns of tokens of the latents that are mapped.

        Raises:
            UserError: The latents have another grid than the features.
        """
        geometry = ImageGeometry(record.width, record.height, **self.placing)
        rows, columns = geometry.grid
        expected = (rows, columns * self.frames)
        if expected != tokens:
            raise UserError(
                f"the features' geometry {self.placing} gives a grid of {expected}, the latents "
                f"have {tokens}; rebuild the latents from these features"
            )
        return geometry


def read_frames(features: Artifact) -> int:
    """Return how many tokens of a patch are frames of a clip: 1 but for video models.

    Raises:
        UserError: They are no share of the patch's tokens.
    """
    tokens, path = read_geometry(features)["per_patch"], features.file(GEOMETRY)
    frames = json.loads(path.read_text(encoding="utf-8")).get("frames", 1)
    if not isinstance(frames, int) or frames < 1 or tokens % frames:
        raise UserError(
            f"{path}: frames is {frames!r}, expected a divisor of the {tokens} tokens of a patch; "
            "rebuild the features"
        )
    return frames


def read_map_grid(features: Artifact) -> MapGrid:
    """Return the grid that maps over the images of some features are scored on.

    Raises:
        UserError: The features do not say how images lie on it.
    """
    placing, frames = read_geometry(features), read_frames(features)
    return MapGrid(placing | {"per_patch": placing["per_patch"] // frames}, frames)


def mean_over_frames(values_t: NDArray[Any], frames: int) -> NDArray[Any]:
    """Return values of tokens [..., t] as values of patches [..., p]: means over frames."""
    if frames == 1:
        return values_t
    mean_p: NDArray[Any] = values_t.reshape(*values_t.shape[:-1], -1, frames).mean(axis=-1)
    return mean_p


def entries_over_frames(entries: Entries, frames: int) -> Entries:
    """Return where a latent fires by patch in place of token, with means over frames; a frame at
    which it is silent counts as 0."""
    if frames == 1:
        return entries
    places_2n = np.stack([entries.image, entries.token // frames]).astype(np.int64)
    (image, patch), place_n = np.unique(places_2n, axis=1, return_inverse=True)
    sums = np.bincount(place_n.reshape(-1), entries.value.astype(np.float64), len(image))
    return Entries(image.astype(np.uint32), patch, sums / frames)


def salient_tokens(latents: LatentReader, layer: int, frames: int = 1) -> NDArray[np.int64]:
    """Return each image's visual token with the largest norm of the residual stream [b], the first
    one of several; of a clip the patch with the largest mean of its squares over frames."""
    norm2_bt = latents.column(layer, "image", "norm2")
    norm2_bp = mean_over_frames(np.where(latents.valid("image"), norm2_bt, -np.inf), frames)
    return np.asarray(norm2_bp.argmax(axis=1), dtype=np.int64)


class LatentMaps:
    """Activation maps of single latents of one layer, read through the store's inverse.

    Attributes:
        shape: Rows and columns of a map.
    """

    def __init__(self, latents: LatentReader, layer: int, frames: int = 1) -> None:
        """Maps are means over `frames` tokens of a patch; 1: each token has a place of its own."""
        self._latents, self._layer, self._frames = latents, layer, frames
        self.shape = (latents.grid[0], latents.grid[1] // frames)
        self._entries: dict[int, Entries] = {}

    def __call__(self, image: int, latent: int) -> NDArray[np.float64]:
        """Return the activation of a latent on every patch of an image [p], 0 where silent."""
        if latent not in self._entries:
            self._entries[latent] = self._read(latent)
        return self._map(self._entries[latent], image)

    def pointed(self, ranked: Ranked) -> Ranked:
        """Return ranked latents with the patch where the map of each is largest, the first of
        several, in place of its strongest token."""
        if self._frames == 1:
            return ranked
        patch_bn, value_bn = ranked.token_bn.copy(), ranked.value_bn.copy()
        for latent in np.unique(ranked.latent_bn[ranked.latent_bn >= 0]).tolist():
            # Not kept: without masks many latents are ranked.
            entries = self._read(latent)
            for b, n in np.argwhere(ranked.latent_bn == latent).tolist():
                map_p = self._map(entries, b)
                patch_bn[b, n], value_bn[b, n] = map_p.argmax(), map_p.max()
        return Ranked(ranked.latent_bn, patch_bn, value_bn)

    def _read(self, latent: int) -> Entries:
        return entries_over_frames(self._latents.by_latent(self._layer, latent), self._frames)

    def _map(self, entries: Entries, image: int) -> NDArray[np.float64]:
        low, high = np.searchsorted(entries.image, [image, image + 1])
        map_p = np.zeros(self.shape[0] * self.shape[1])
        map_p[entries.token[low:high]] = entries.value[low:high]
        return map_p
