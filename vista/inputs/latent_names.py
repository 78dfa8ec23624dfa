"""Names that a judge gives to latents: it sees the images or texts on which they fire most."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vista.data.images import ImageSource
from vista.data.records import RecordTable
from vista.judges.naming import Evidence, Namer

# Images of a sheet (three a line) or prompts; the side of an image in px.
_SHOWN = 9
_COLUMNS, _SIDE, _GAP = 3, 128, 4


def names_by_texts(
    namer: Namer,
    texts: Sequence[str],
    score_ns: NDArray[np.float32],
    latents: NDArray[np.int64],
) -> list[str | None]:
    """Return a name for each of `latents`, by the texts on which it fires most.

    It is None where the judge gave none.

    Args:
        namer: The judge.
        texts: The texts.
        score_ns: Activation of each latent on each text.
        latents: Numbers of the latents to name.

    Raises:
        UserError: The judge cannot be asked.
    """
    top = (_strongest(score_ns[:, latent]) for latent in latents.tolist())
    return namer.names([Evidence.of_texts([texts[n] for n in shown]) for shown in top])


def names_by_images(
    images: ImageSource,
    namer: Namer,
    records: RecordTable,
    rows: NDArray[np.int64],
    score_ns: NDArray[np.float32],
    latents: NDArray[np.int64],
) -> list[str | None]:
    """Return a name for each of `latents`, by the images on which it fires most.

    It is None where the judge gave none.

    Args:
        images: The files of the images.
        namer: The judge.
        records: The records of the images.
        rows: The row of `records` of each image.
        score_ns: Activation of each latent on each image.
        latents: Numbers of the latents to name.

    Raises:
        UserError: An image cannot be read, or the judge cannot be asked.
    """

    def sheet(places: list[int]) -> bytes:
        return sheet_of([images.open(record) for record in records.select(rows[places])])

    top = (_strongest(score_ns[:, latent]) for latent in latents.tolist())
    return namer.names([Evidence.of_image(partial(sheet, shown)) for shown in top])


def _strongest(score_n: NDArray[np.float32]) -> list[int]:
    """Return the items on which a latent fires most, strongest first."""
    order = np.argsort(-score_n, kind="stable")[:_SHOWN]
    items: list[int] = order[score_n[order] > 0].tolist()
    return items


def sheet_of(images: Sequence[Image.Image]) -> bytes:
    """Return images as one PNG file: whole, on white, three a line."""
    step, lines = _SIDE + _GAP, -(-len(images) // _COLUMNS)
    canvas = Image.new("RGB", (_COLUMNS * step - _GAP, lines * step - _GAP), "white")
    for i, image in enumerate(images):
        tile = ImageOps.pad(image, (_SIDE, _SIDE), color="white")
        canvas.paste(tile, (i % _COLUMNS * step, i // _COLUMNS * step))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()
