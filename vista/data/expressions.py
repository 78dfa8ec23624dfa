"""Referring expressions of images, each with the mask of what it means.

`expressions.parquet` has a row an expression. An expression can mean one object, several or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vista.data.masks import Rle, decode_mask
from vista.errors import UserError, reason_of

FILE = "expressions.parquet"
_WORD = re.compile(r"[^\W_]+")
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("n_targets", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("mask", pa.string(), nullable=False),
    ]
)

# Words that say where an object is, in the image or beside another one. RefCOCO+ was collected
# without words of the first kind.
PLACE_WORDS = frozenset(
    {
        *("left", "right", "top", "bottom", "middle", "center", "centre", "central", "upper"),
        *("lower", "corner", "edge", "side", "front", "back", "rear", "behind", "above", "below"),
        *("under", "beneath", "over", "near", "nearest", "close", "closest", "next", "beside"),
        *("between", "far", "farthest", "furthest", "first", "second", "third", "fourth"),
        *("fifth", "last", "leftmost", "rightmost", "topmost", "bottommost", "lefthand"),
        *("righthand"),
    }
)
Kind = Literal["no_place", "place", "several", "none"]
# One object, by words without and with a place; several objects; no object.
KINDS: tuple[Kind, ...] = ("no_place", "place", "several", "none")


@dataclass(frozen=True)
class Expression:
    """An expression about an image.

    Attributes:
        image_id: Id of the image, as records have it.
        text: The expression.
        n_targets: Objects that it means.
        rle: The union of their masks, over the image; empty where there are none.
    """

    image_id: str
    text: str
    n_targets: int
    rle: Rle

    @property
    def kind(self) -> Kind:
        """What is reported together."""
        if self.n_targets != 1:
            return "several" if self.n_targets else "none"
        return (
            "place" if PLACE_WORDS.intersection(_WORD.findall(self.text.casefold())) else "no_place"
        )

    def mask(self) -> NDArray[np.bool_]:
        """Return the mask [h, w]."""
        return decode_mask(self.rle)


def write_expressions(path: Path, expressions: Iterable[Expression]) -> int:
    """Write expressions in their order; return how many there were."""
    rows = [
        {
            "image_id": item.image_id,
            "text": item.text,
            "n_targets": item.n_targets,
            "height": item.rle["size"][0],
            "width": item.rle["size"][1],
            "mask": item.rle["counts"],
        }
        for item in expressions
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")
    return len(rows)


def read_expressions(path: Path) -> list[Expression]:
    """Return the expressions of a table. Raises UserError if it is none."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read as Parquet ({reason_of(error)})") from error
    if table.schema.names != SCHEMA.names or table.schema.types != SCHEMA.types:
        raise UserError(f"{path} has columns {table.schema.names}, expected {SCHEMA.names}")
    return [
        Expression(
            row["image_id"],
            row["text"],
            row["n_targets"],
            {"size": [row["height"], row["width"]], "counts": row["mask"]},
        )
        for row in table.to_pylist()
    ]
