"""The one form that all data takes: a table of images with their texts and objects.

`records.parquet` has one row an image; the order of its rows is the image index of every store
that follows. `text.parquet` has one row a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vista.data.masks import Rle, decode_mask, encode_mask
from vista.errors import UserError

__all__ = [
    "Box",
    "ImageSource",
    "Object",
    "Record",
    "Turn",
    "decode_mask",
    "encode_mask",
    "read_records",
    "read_text",
    "write_records",
    "write_text",
]


# What Pillow raises over files that are no images, or broken ones.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class Box(NamedTuple):
    """A rectangle in image px; x and y are its left top corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Object:
    """One annotated object. `crowd` marks a region of many objects that none is told apart in."""

    category: str
    box: Box
    rle: Rle | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Record:
    """One image; `path` is relative to the images root, `width` and `height` are px."""

    image_id: str
    split: str
    path: str
    width: int
    height: int
    captions: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    objects: tuple[Object, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """The distinct categories of the objects, in order of first appearance."""
        return tuple(dict.fromkeys(item.category for item in self.objects))


_OBJECT = pa.struct(
    [
        pa.field("category", pa.string(), nullable=False),
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("width", pa.float64(), nullable=False),
        pa.field("height", pa.float64(), nullable=False),
        pa.field("mask", pa.string()),
        pa.field("crowd", pa.bool_(), nullable=False),
    ]
)
_TURN = pa.struct(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("turns", pa.list_(_TURN), nullable=False),
        pa.field("objects", pa.list_(_OBJECT), nullable=False),
    ]
)
TEXT_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
_ROW_GROUP = 8192


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write the records in their order and return how many there were.

    Raises UserError if an image id comes twice: it is the key that stores are read by.
    """
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for record in records:
            if record.image_id in seen:
                raise UserError(
                    f"image id {record.image_id!r} comes twice (second file {record.path}): ids "
                    "must differ over all splits"
                )
            seen.add(record.image_id)
            rows.append(_record_to_row(record))
            if len(rows) == _ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows.clear()
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    return len(seen)


def read_records(path: Path, splits: Sequence[str] | None = None) -> list[Record]:
    """The records of the given splits (all if None), in the table's order.

    The position in the *whole* table is the index in the stores, so ask for all splits where
    that index is needed.
    """
    table = _read_table(path, SCHEMA)
    records = [_row_to_record(row) for row in table.to_pylist()]
    return [record for record in records if splits is None or record.split in splits]


def write_text(path: Path, texts: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Write documents per split and return how many each has."""
    splits: list[str] = []
    documents: list[str] = []
    counts: dict[str, int] = {}
    for split, lines in texts.items():
        before = len(documents)
        documents.extend(lines)
        counts[split] = len(documents) - before
        splits.extend([split] * counts[split])
    table = pa.Table.from_pydict({"split": splits, "text": documents}, schema=TEXT_SCHEMA)
    pq.write_table(table, path, compression="zstd")
    return counts


def read_text(path: Path, split: str) -> list[str]:
    """The documents of one split, "train" or "heldout"."""
    table = _read_table(path, TEXT_SCHEMA)
    texts = [row["text"] for row in table.to_pylist() if row["split"] == split]
    if not texts:
        raise UserError(f"{path} holds no text of split {split!r}: check `text:` in the config")
    return texts


class ImageSource:
    """Opens records' images below one root folder."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"{root} is no folder: `images` must name the images' root folder")
        self.root = root
        self._real_root = root.resolve()

    def locate(self, relative: str) -> Path:
        """The file of a path relative to the root.

        Raises UserError if the path leads out of the root (also by a link) or to no file.
        """
        path = self.root / relative
        if not path.resolve().is_relative_to(self._real_root):
            raise UserError(f"image path {relative!r} leads out of {self.root}: it is refused")
        if not path.is_file():
            raise UserError(f"image {path} is missing")
        return path

    def size(self, relative: str) -> tuple[int, int]:
        """Width and height from the file's header; UserError if it is not an image."""
        path = self.locate(relative)
        try:
            with Image.open(path) as image:
                return image.size
        except _UNREADABLE as error:
            raise UserError(f"{path} cannot be read as an image ({_short(error)})") from error

    def open(self, record: Record) -> Image.Image:
        """The image of a record in RGB, its pixels as stored: boxes refer to those.

        Raises UserError if the file is missing, is not an image, is cut off, or is not of the
        size that the record says (its boxes and masks would then lie elsewhere).
        """
        path = self.locate(record.path)
        try:
            with Image.open(path) as image:
                image.load()
                rgb = image.convert("RGB")
        except _UNREADABLE as error:
            raise UserError(f"{path} cannot be read as an image ({_short(error)})") from error
        if rgb.size != (record.width, record.height):
            raise UserError(
                f"{path} is {rgb.width}x{rgb.height}, its annotations are for "
                f"{record.width}x{record.height}: use the images that were annotated"
            )
        return rgb


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:80] if str(error) else type(error).__name__


def _record_to_row(record: Record) -> dict[str, Any]:
    return {
        "image_id": record.image_id,
        "split": record.split,
        "path": record.path,
        "width": record.width,
        "height": record.height,
        "captions": list(record.captions),
        "turns": [{"question": t.question, "answer": t.answer} for t in record.turns],
        "objects": [
            {
                "category": item.category,
                **item.box._asdict(),
                "mask": _mask_text(record, item.rle),
                "crowd": item.crowd,
            }
            for item in record.objects
        ],
    }


def _mask_text(record: Record, rle: Rle | None) -> str | None:
    if rle is None:
        return None
    if list(rle["size"]) != [record.height, record.width]:
        raise ValueError(f"mask of size {rle['size']} in image {record.image_id}")
    counts = rle["counts"]
    if not isinstance(counts, str):
        raise ValueError("records hold compressed masks: use encode_mask")
    return counts


def _row_to_record(row: dict[str, Any]) -> Record:
    size = [row["height"], row["width"]]
    return Record(
        image_id=row["image_id"],
        split=row["split"],
        path=row["path"],
        width=row["width"],
        height=row["height"],
        captions=tuple(row["captions"]),
        turns=tuple(Turn(t["question"], t["answer"]) for t in row["turns"]),
        objects=tuple(
            Object(
                item["category"],
                Box(item["x"], item["y"], item["width"], item["height"]),
                None if item["mask"] is None else {"size": size, "counts": item["mask"]},
                item["crowd"],
            )
            for item in row["objects"]
        ),
    )


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read as a Parquet table ({_short(error)})") from error
    if table.schema.names != schema.names:
        raise UserError(f"{path} has columns {table.schema.names}, expected {schema.names}")
    return table
