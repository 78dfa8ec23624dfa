"""The contact sheet of a vision SAE's latents: their top images, as the encoder sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from vista.data.geometry import ImageGeometry, prepare_image
from vista.data.images import ImageSource
from vista.data.records import RecordTable
from vista.engine.artifacts import Artifact
from vista.inputs.latents import read_geometry
from vista.inputs.vision import TOP_FILE

SHEET = "top_images"
_DPI = 150
_MARGIN = (255, 255, 255)


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

    Only latents that fire on at least `images` of the judged images are drawn: otherwise latents of
    a few images that happen to be alike would come first. The top images of a latent are those that
    its label was made of.

    Args:
        work: The stage's work folder.
        source: The files of the images.
        features: The features that the SAE reads.
        labels: The labels of the SAE's latents, with their top images.
        records: The records of the images.
        score_s: Score of each latent.
        fired_s: Judged images that each latent fires on.
        latents: Latents to draw.
        images: Top images to draw of each latent.
    """
    from vista.report import style
    from vista.report.monosemanticity_sheet import sheet_figure, tile

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
