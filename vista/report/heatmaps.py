"""Heat maps: where a class's own latent fires on an image, with and without the SAE term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.report import style
from vista.report.escape import mathtext

# Weak to strong; patches where the latent is silent show the image alone.
_COLOUR_MAP = "plasma"
_FAINTEST, _STRONGEST = 0.45, 0.9
_OUTLINE = "#00E5FF"


@dataclass(frozen=True)
class HeatMapRow:
    """One example: an image, a class in it, and its latent's activation for each weight.

    Attributes:
        image: RGB pixels [h, w, 3].
        mask: Pixels of the class [h, w], or None.
        boxes: Boxes (x, y, width, height) of the class, in image px.
        category: Name of the class.
        label: Label of the latent.
        latent: Number of the latent.
        extent: Left, right, bottom, top of the patch grid in image px.
        maps: One activation map [rows, columns] for each weight.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    boxes: Sequence[tuple[float, float, float, float]]
    category: str
    label: str
    latent: int
    extent: tuple[float, float, float, float]
    maps: Sequence[NDArray[np.float64]]


def spread(candidates: Sequence[tuple[int, str]], count: int) -> list[tuple[int, str]]:
    """Choose (image, class) examples evenly over the candidates, each class at most once.

    The choice looks at no result: it takes every m-th class in the order of first appearance.
    """
    first: dict[str, tuple[int, str]] = {}
    for image, category in candidates:
        first.setdefault(category, (image, category))
    pool = list(first.values())
    if len(pool) <= count:
        return pool
    return [pool[i * len(pool) // count] for i in range(count)]


def heat_map_figure(
    rows: Sequence[HeatMapRow], weights: Sequence[float], title: str, note: str
) -> Any | None:
    """Draw image, outline and heat maps, one example a row.

    Each map has its own colour scale from 0 to its largest activation, which stands on it.
    """
    if not rows:
        return None
    pyplot = style.setup()
    # Two examples side by side, where there are enough: a page is wider than high.
    blocks = 2 if len(rows) >= 4 else 1
    columns, height = 2 + len(weights), -(-len(rows) // blocks)
    figure, axes = pyplot.subplots(
        height,
        blocks * columns,
        figsize=(1.5 * blocks * columns + 0.3, 1.72 * height + 0.9),
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.02)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for i, row in enumerate(rows):
        block, r = divmod(i, height)
        here = axes[r, block * columns : (block + 1) * columns]
        here[0].imshow(row.image, interpolation="nearest")
        here[0].set_ylabel(mathtext(row.category, 24), fontsize=9, fontweight="bold")
        faint = (row.image.astype(np.float64) * 0.45 + 255 * 0.55).astype(np.uint8)
        here[1].imshow(faint, interpolation="nearest")
        _outline(here[1], row, "#0072B2", 1.6)
        for axis, activation in zip(here[2:], row.maps, strict=True):
            _heat(axis, row, activation)
        if r == 0:
            here[0].set_title("image")
            here[1].set_title("mask" if row.mask is not None else "box")
            for axis, weight in zip(here[2:], weights, strict=True):
                axis.set_title(f"λ = {weight:g}")
    style.heading(figure, title, note)
    return figure


def _heat(axis: Any, row: HeatMapRow, activation: NDArray[np.float64]) -> None:
    import matplotlib

    grey = row.image.mean(axis=2) * 0.7 + 30
    peak = float(activation.max())
    share = activation / peak if peak > 0 else np.zeros_like(activation)
    colours = matplotlib.colormaps[_COLOUR_MAP](share)
    colours[..., 3] = np.where(share > 0, _FAINTEST + (_STRONGEST - _FAINTEST) * share, 0.0)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.imshow(colours, extent=row.extent, interpolation="nearest")
    height, width = row.image.shape[:2]
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    _outline(axis, row, _OUTLINE, 1.2)
    says = f"max {peak:.2g}" if peak > 0 else "silent"
    label = f"“{mathtext(row.label, 24)}”\nlatent {row.latent}, {says}"
    axis.set_xlabel(label, fontsize=7, labelpad=2)


def _outline(axis: Any, row: HeatMapRow, colour: str, width: float) -> None:
    if row.mask is not None and row.mask.any() and not row.mask.all():
        for xs, ys in _mask_edges(row.mask):
            axis.plot(xs, ys, color=colour, linewidth=width, solid_capstyle="round")
        return
    from matplotlib.patches import Rectangle

    # Pixel centres lie on whole numbers, so pixel 0 begins at -0.5.
    for x, y, w, h in row.boxes:
        axis.add_patch(
            Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor=colour, linewidth=width)
        )


def _mask_edges(mask_hw: NDArray[np.bool_]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the pixel edges of a mask as two poly-lines with gaps: horizontal and vertical."""
    padded = np.pad(mask_hw, 1)
    rows, columns = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    gap = np.full(len(rows), np.nan)
    horizontal = (
        np.stack([columns - 0.5, columns + 0.5, gap], axis=1).reshape(-1),
        np.stack([rows - 0.5, rows - 0.5, gap], axis=1).reshape(-1),
    )
    rows, columns = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    gap = np.full(len(rows), np.nan)
    vertical = (
        np.stack([columns - 0.5, columns - 0.5, gap], axis=1).reshape(-1),
        np.stack([rows - 0.5, rows + 0.5, gap], axis=1).reshape(-1),
    )
    return [horizontal, vertical]
