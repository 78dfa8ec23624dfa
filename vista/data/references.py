"""Referring expressions in the published form of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO.

A file is a list of references; JSON, or a pickle of plain values (`.p`). A reference has
`image_id`, `ann_id`, `split`, `sentences` (each with `sent` and `raw`) and further keys. In
gRefCOCO `ann_id` is a list, and [-1] where no object is meant (`no_target`). Formats:
lichengunc/refer (Yu et al., 2016) and henghuiding/gRefCOCO (Liu et al., 2023).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vista.config.data import SPLITS, Split
from vista.data.jsonfile import get_identifier, get_key, stream_list
from vista.errors import UserError
from vista.foreign.plain_pickle import load_plain
from vista.foreign.text import escaped, one_line
from vista.foreign.values import identifier

# The data sets' splits, as splits of a run.
SPLIT_OF: Mapping[str, Split] = {
    "train": "train",
    "val": "validation",
    "test": "test",
    "testA": "test",
    "testB": "test",
}
NO_TARGET = "-1"


@dataclass(frozen=True)
class Reference:
    """Expressions for the same objects of one image.

    Attributes:
        image_id: Id of the image, as records have it.
        split: Split in the data set: train, val, test, testA or testB.
        targets: Ids of the annotations that are meant; none where the image shows nothing such.
        texts: The expressions.
    """

    image_id: str
    split: str
    targets: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def run_split(self) -> Split:
        """The split of a run that images of this split are in."""
        return SPLIT_OF[self.split]


def read_references(paths: Iterable[Path]) -> Iterator[Reference]:
    """Yield the references of all files, in order.

    Raises:
        UserError: A file cannot be read, or one of its references lacks a key or has one of another
            type.
    """
    for path in paths:
        for item in _items(path):
            yield _reference(item, path)


def image_splits(references: Iterable[Reference]) -> dict[str, set[str]]:
    """Return the data set's splits of each image that has an expression."""
    splits: dict[str, set[str]] = {}
    for reference in references:
        splits.setdefault(reference.image_id, set()).add(reference.split)
    return splits


def split_of(splits: Iterable[str]) -> Split:
    """Return the split of a run of an image with expressions of these splits: the last one, so that
    no image of the test split is trained on."""
    return max((SPLIT_OF[split] for split in splits), key=SPLITS.index)


def group_of(splits: Iterable[str]) -> str | None:
    """Return testA or testB where an image is in one of them alone."""
    groups = set(splits) & {"testA", "testB"}
    return groups.pop() if len(groups) == 1 else None


def _items(path: Path) -> Iterator[Any]:
    if path.suffix != ".p":
        yield from stream_list(path)
        return
    items = load_plain(path)
    if not isinstance(items, list):
        raise UserError(f"{path} must hold a list of references, as refs(unc).p does")
    yield from items


def _reference(item: Any, path: Path) -> Reference:
    image_id = get_identifier(item, "image_id", path)
    label = f"the reference of image id {one_line(image_id)}"
    split = get_key(item, "split", str, path)
    if split not in SPLIT_OF:
        raise UserError(
            f"{path}: {label} is of split {one_line(split)!r}; known are {', '.join(SPLIT_OF)}"
        )
    texts = []
    for sentence in get_key(item, "sentences", list, path):
        text = _text(sentence)
        if text is None:
            raise UserError(f"{path}: a sentence of {label} has neither `sent` nor `raw`")
        texts.append(text)
    return Reference(image_id, split, _targets(item, label, path), tuple(filter(None, texts)))


def _targets(item: Mapping[str, Any], label: str, path: Path) -> tuple[str, ...]:
    value = item.get("ann_id")
    ids = [identifier(entry) for entry in (value if isinstance(value, list) else [value])]
    known = [entry for entry in ids if entry is not None]
    if len(known) != len(ids):
        raise UserError(f"{path}: {label} needs an `ann_id`, a number or a list of numbers")
    if item.get("no_target") is True:
        return ()
    return tuple(dict.fromkeys(entry for entry in known if entry != NO_TARGET))


def _text(sentence: Any) -> str | None:
    """The expression of a sentence, on one line and bounded; "" where it has no letter."""
    values = [sentence.get(key) for key in ("sent", "raw")] if isinstance(sentence, dict) else []
    texts = [value for value in values if isinstance(value, str)]
    return escaped(one_line(next(filter(None, texts), "")).strip()) if texts else None
