"""One image with its texts and objects, and the row of a table that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from vista.data.masks import Rle


class Box(NamedTuple):
    """A rectangle in image px; x and y are its left top corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Object:
    """One annotated object. `crowd` marks a region of many objects that are not separated."""

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
    """One image; `path` is relative to the images root, `width` and `height` are px.

    `group` names the part of the data that metrics report the image in, beside the whole.
    """

    image_id: str
    split: str
    path: str
    width: int
    height: int
    captions: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    objects: tuple[Object, ...] = ()
    group: str | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """The distinct categories of the objects, in order of first appearance."""
        return tuple(dict.fromkeys(item.category for item in self.objects))


def reference_captions(record: Record) -> tuple[str, ...]:
    """Return the captions that the data give an image, or its first answer where it has none."""
    return record.captions or tuple(turn.answer for turn in record.turns[:1])


def reference(record: Record) -> str:
    """Return the first reference caption of an image, "" where it has none."""
    return next(iter(reference_captions(record)), "")


def record_to_row(record: Record) -> dict[str, Any]:
    """The record as the schema of `vista.data.records` has it, of values that JSON can hold."""
    return {
        "image_id": record.image_id,
        "split": record.split,
        "path": record.path,
        "width": record.width,
        "height": record.height,
        "captions": list(record.captions),
        "turns": [{"question": t.question, "answer": t.answer} for t in record.turns],
        "group": record.group,
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


def row_to_record(row: Mapping[str, Any]) -> Record:
    """The record that `record_to_row` made the row of."""
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
        group=row.get("group"),
    )
