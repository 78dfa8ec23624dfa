"""Pictures of steering: images of one noise by the length of the edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vista.report import style
from vista.report.escape import mathtext

_INCHES, _DPI, _GAP = 0.8, 120, 2


def save_grid(
    path: Path, rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]], columns: Sequence[str]
) -> None:
    """Write named rows of images [h, w, 3] of one size below the names of their columns, as PNG:
    about 100 px an image, however large it is."""
    pyplot = style.setup()
    height, width = rows[0][1][0].shape[:2]
    step_y, step_x = height + _GAP, width + _GAP
    canvas_hw3 = np.full((step_y * len(rows), step_x * len(columns), 3), 255, dtype=np.uint8)
    for r, (_, images) in enumerate(rows):
        for c, image_hw3 in enumerate(images):
            y, x = r * step_y, c * step_x
            canvas_hw3[y : y + height, x : x + width] = image_hw3
    size = (_INCHES * len(columns) + 1.6, _INCHES * len(rows) * step_y / step_x + 0.4)
    figure, axis = pyplot.subplots(figsize=size, layout="constrained")
    axis.imshow(canvas_hw3, interpolation="nearest", aspect="auto")
    axis.set_yticks(
        [(r + 0.5) * step_y for r in range(len(rows))], [mathtext(name, 40) for name, _ in rows]
    )
    axis.set_xticks(
        [(c + 0.5) * step_x for c in range(len(columns))], [mathtext(name, 20) for name in columns]
    )
    axis.tick_params(length=0, labelsize=7, labeltop=True, labelbottom=False)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    pyplot.close(figure)
