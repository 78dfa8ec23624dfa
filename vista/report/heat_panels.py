"""Heat maps of latents in panels: a figure, or its bytes as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.report import style
from vista.report.heatmaps import draw_heat

COLUMNS = 8  # of a figure, at most
DPI = 150
_NOTE = (
    "Activation on each patch, from weak (purple) to its maximum (yellow), which stands below; "
    "grey: silent."
)
_TOKEN_NOTE = "One token stands for each image: its activation stands below."


@dataclass(frozen=True)
class Panel:
    """A latent on an image.

    Attributes:
        image: RGB pixels [h, w, 3].
        extent: Left, right, bottom, top of the patch grid in image px.
        activation: Activation on each patch [rows, columns]; of one token alone, the image stays
            uncovered.
        label: Text below the image.
    """

    image: NDArray[np.uint8]
    extent: tuple[float, float, float, float]
    activation: NDArray[np.float64]
    label: str


def note_of(grid: tuple[int, int]) -> str:
    """Return what panels of activations on a patch grid show."""
    return _TOKEN_NOTE if grid == (1, 1) else _NOTE


def draw_panels(
    rows: Sequence[Sequence[Panel]], title: str, note: str, names: Sequence[str] = ()
) -> Any:
    """Return a matplotlib figure of rows of panels, of at most `COLUMNS` each.

    Args:
        rows: The panels.
        title: Title of the figure.
        note: What stands below the title.
        names: Names of the rows, at their left; none: no names.
    """
    from matplotlib.figure import Figure

    columns = max((len(row) for row in rows), default=1) or 1
    # Not by pyplot, which keeps figures and has a backend that a notebook has chosen.
    with style.context():
        size = (max(1.5 * columns + 0.3, 4.5), 1.8 * len(rows) + 0.9)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
        for row, line in zip(rows, axes, strict=True):
            for panel, axis in zip(row, line, strict=False):
                if panel.activation.size == 1:
                    axis.imshow(panel.image, interpolation="nearest")
                    axis.set_xlabel(f"{panel.label}, {panel.activation.item():.2g}", fontsize=7)
                else:
                    draw_heat(axis, panel.image, panel.extent, panel.activation, panel.label)
        for name, line in zip(names, axes, strict=False):
            line[0].set_ylabel(name, fontsize=9, fontweight="bold")
        style.heading(figure, title, note)
    return figure
