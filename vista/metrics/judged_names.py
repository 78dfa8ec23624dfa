"""Names that a judge gives to latents by what they fire on most: sheets of images, or prompts."""

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
    """A name for each of `latents`, by the texts that they fire on most; None where the judge gave
    none. Raises UserError where the judge cannot be asked."""
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
    """A name for each of `latents`, by the images of `rows` that they fire on most; None where the
    judge gave none.

    Raises UserError where an image cannot be read, or the judge cannot be asked.
    """

    def sheet(places: list[int]) -> bytes:
        return sheet_of([images.open(record) for record in records.select(rows[places])])

    top = (_strongest(score_ns[:, latent]) for latent in latents.tolist())
    return namer.names([Evidence.of_image(partial(sheet, shown)) for shown in top])


def _strongest(score_n: NDArray[np.float32]) -> list[int]:
    """Where a latent fires most, strongest first."""
    order = np.argsort(-score_n, kind="stable")[:_SHOWN]
    found: list[int] = order[score_n[order] > 0].tolist()
    return found


def sheet_of(images: Sequence[Image.Image]) -> bytes:
    """Images on white, whole, three a line, as a PNG file."""
    step, lines = _SIDE + _GAP, -(-len(images) // _COLUMNS)
    canvas = Image.new("RGB", (_COLUMNS * step - _GAP, lines * step - _GAP), "white")
    for at, image in enumerate(images):
        shown = ImageOps.pad(image, (_SIDE, _SIDE), color="white")
        canvas.paste(shown, (at % _COLUMNS * step, at // _COLUMNS * step))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()
