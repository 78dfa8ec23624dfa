"""Contact sheet: the top images of latents, one latent a row, its strongest patch outlined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vista.report import style
from vista.report.escape import mathtext

_TILE, _GAP = 96, 6  # px of the sheet
_OUTLINE = "#00E5FF"


def tile(image: Image.Image, box: tuple[float, float, float, float] | None) -> NDArray[np.uint8]:
    """A square image as a tile of the sheet, with a box (x, y, width, height, image px) in it."""
    scale = _TILE / image.width
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    shown = image.resize((_TILE, _TILE), kind)
    if box is not None:
        x, y, width, height = (scale * each for each in box)
        corners = (x, y, x + width - 1, y + height - 1)
        ImageDraw.Draw(shown).rectangle(corners, outline=_OUTLINE, width=2)
    return np.asarray(shown)


def sheet_figure(
    rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]], title: str, note: str
) -> Any | None:
    """Draw rows of tiles, each with its name; None without one."""
    if not rows:
        return None
    step, columns = _TILE + _GAP, max(len(tiles) for _, tiles in rows)
    canvas = np.full((len(rows) * step - _GAP, columns * step - _GAP, 3), 255, np.uint8)
    for r, (_, tiles) in enumerate(rows):
        for c, pixels in enumerate(tiles):
            canvas[r * step : r * step + _TILE, c * step : c * step + _TILE] = pixels
    pyplot = style.setup()
    size = (0.62 * columns + 2.2, 0.62 * len(rows) + 0.9)
    figure, axis = pyplot.subplots(figsize=size, layout="constrained")
    axis.imshow(canvas, interpolation="nearest")
    axis.set_yticks(
        [r * step + _TILE / 2 for r in range(len(rows))], [mathtext(name, 40) for name, _ in rows]
    )
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    style.heading(figure, title, note)
    return figure
