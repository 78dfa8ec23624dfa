"""LLaVA conversation files as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vista.config.data import SPLITS, Fractions, LlavaData, Split
from vista.data.images import ImageSource
from vista.data.jsonfile import stream_list
from vista.data.records import Record, Turn
from vista.data.skipped import Skipped
from vista.data.splits import Splitter, in_split_order
from vista.errors import UserError
from vista.foreign.text import one_line
from vista.foreign.values import identifier

PLACEHOLDER = "<image>"


def llava_records(settings: LlavaData, skipped: Skipped) -> Iterator[Record]:
    """Records of the rows that have an image and an answer to a question; the others are noted.

    A row's id may come several times in such files (one image, several conversations): the second
    becomes "id#2". Raises UserError naming file and row for what cannot be read.
    """
    seen: Counter[str] = Counter()
    if settings.splits is not None:
        for split in [name for name in SPLITS if name in settings.splits]:
            yield from _file_records(settings, settings.splits[split], split, seen, skipped)
    elif settings.file is not None:
        yield from in_split_order(
            _file_records(settings, settings.file, settings.fractions, seen, skipped)
        )


def conversation_turns(row: dict[str, Any], path: Path) -> tuple[Turn, ...]:
    """Question and answer pairs of a row, without the image placeholder; there may be none.

    A first message from gpt and a last one from human make no pair and are dropped; LLaVA's own
    training drops the first too and learns nothing from the last (llava/train/train.py). So is a
    question with a blank answer. Raises UserError unless human and gpt take turns.
    """
    label = f"row {one_line(repr(row.get('id')))}"
    messages = row.get("conversations")
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{path}: {label} needs `conversations`, human and gpt messages in turn")
    first = int(isinstance(messages[0], dict) and messages[0].get("from") == "gpt")
    texts: list[str] = []
    for i, message in enumerate(messages[first:], first):
        speaker = "human" if i % 2 == first else "gpt"
        value = message.get("value") if isinstance(message, dict) else None
        if not isinstance(value, str) or message.get("from") != speaker:
            raise UserError(f"{path}: message {i} of {label} must be a text from {speaker!r}")
        text = value.replace(PLACEHOLDER, " ") if speaker == "human" else value
        texts.append(text.strip())
    return tuple(Turn(q, a) for q, a in zip(texts[::2], texts[1::2], strict=False) if a)


def _row_id(row: dict[str, Any], unnamed: str, path: Path) -> str:
    if row.get("id") is None:
        return unnamed
    row_id = identifier(row["id"])
    if row_id is None:
        raise UserError(
            f"{path}: `id` of a row is {one_line(repr(row['id']))}: a text or whole number is "
            "expected"
        )
    return row_id


def _file_records(
    settings: LlavaData,
    file: str,
    rule: Split | Fractions,
    seen: Counter[str],
    skipped: Skipped,
) -> Iterator[Record]:
    path = Path(file)
    source = ImageSource(Path(settings.images))
    splitter = Splitter(rule, settings)
    for i, row in enumerate(stream_list(path)):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {i} must be an object with `image` and `conversations`")
        relative = row.get("image")
        if relative is not None and not isinstance(relative, str):
            raise UserError(
                f"{path}: `image` of row {one_line(repr(row.get('id', i)))} must be one file name"
            )
        row_id = _row_id(row, relative or str(i), path)
        if not relative:
            skipped.add(row_id, None, "text only")
            continue
        # The split follows the image, so that conversations of one image stay together.
        split = splitter.split(relative)
        if split is None:
            continue
        seen[row_id] += 1
        image_id = row_id if seen[row_id] == 1 else f"{row_id}#{seen[row_id]}"
        turns = conversation_turns(row, path)
        if not turns:
            skipped.add(image_id, relative, "no question with an answer")
            continue
        size = skipped.image_size(source, relative, settings, image_id, f"row {row_id!r} of {path}")
        if size is None:
            continue
        width, height = size
        yield Record(image_id, split, relative, width, height, turns=turns)
