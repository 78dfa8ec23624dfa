"""The contact sheet of a vision SAE: the top images of its latents as the encoder sees them, one
latent a row; the patch where a latent fires most is outlined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vista.data.geometry import ImageGeometry, prepare_image
from vista.data.images import ImageSource
from vista.data.records import RecordTable
from vista.engine.artifacts import Artifact
from vista.inputs.latents import read_geometry
from vista.inputs.vision import TOP_FILE
from vista.report import style
from vista.report.escape import mathtext

SHEET = "top_images"
_DPI = 150
_MARGIN = (255, 255, 255)
_TILE, _GAP = 96, 6  # px of the sheet
_OUTLINE = "#00E5FF"


def draw_top_images(
    work: Path,
    source: ImageSource,
    features: Artifact,
    labels: Artifact,
    records: RecordTable,
    score_s: NDArray[np.float64],
    fired_s: NDArray[np.int64],
    latents: int,
    images: int,
) -> None:
    """Draw the top images of the latents with the highest scores into the folder `work`.

    Only latents that fire on at least `images` of the measured images are drawn: otherwise those
    with a few images that happen to be alike would come first. The top images of a latent are those
    that its label was made of.

    Args:
        work: The stage's work folder.
        source: The files of the images.
        features: The features that the SAE reads.
        labels: The labels of the SAE's latents, with their top images.
        records: The records of the images.
        score_s: Score of each latent.
        fired_s: Measured images that each latent fires on.
        latents: Latents to draw.
        images: Top images to draw of each latent.
    """
    order = np.argsort(np.where(fired_s >= images, -score_s, np.inf), kind="stable")
    chosen = order[: min(latents, int((fired_s >= images).sum()))].tolist()
    top = pq.read_table(
        labels.file(TOP_FILE),
        filters=[("latent", "in", chosen), ("rank", "<", images)],
    ).to_pylist()
    placing = read_geometry(features)
    square = ImageGeometry(placing["size"], placing["size"], **placing)
    rows = []
    for latent in chosen:
        top_rows = [row for row in top if row["latent"] == latent]
        tiles = []
        for row, record in zip(
            top_rows,
            records.select(records.rows_by_id([row["image_id"] for row in top_rows])),
            strict=True,
        ):
            pixels = prepare_image(source.open(record), square.size, square.fit, _MARGIN)
            box = square.patch_to_box(row["patch"]) if square.n_patches > 1 else None
            tiles.append(tile(Image.fromarray(pixels), box))
        rows.append((f"latent {latent}: {score_s[latent]:.2f}", tiles))
    figure = sheet_figure(
        rows,
        "Top images of the most monosemantic latents",
        f"With each latent's score; chosen by it, of those that fire on {images} judged images or "
        "more. Outlined: the patch where the latent fires most.",
    )
    if figure is not None:
        style.save(figure, work, SHEET, _DPI)


def tile(image: Image.Image, box: tuple[float, float, float, float] | None) -> NDArray[np.uint8]:
    """Return a square image as a tile of the sheet, with a box (x, y, width, height, image px)."""
    scale = _TILE / image.width
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    resized = image.resize((_TILE, _TILE), kind)
    if box is not None:
        x, y, width, height = (scale * length for length in box)
        corners = (x, y, x + width - 1, y + height - 1)
        ImageDraw.Draw(resized).rectangle(corners, outline=_OUTLINE, width=2)
    return np.asarray(resized)


def sheet_figure(
    rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]], title: str, note: str
) -> Any | None:
    """Draw rows of tiles, each with its name; None if there is no row."""
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
