"""LLaVA conversation files as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vista.config.data import SPLITS, LlavaData
from vista.data.jsonfile import read_json
from vista.data.records import ImageSource, Record, Turn
from vista.data.splits import Splitter
from vista.errors import UserError

PLACEHOLDER = "<image>"


def llava_records(settings: LlavaData, skipped: Counter[str]) -> Iterator[Record]:
    """Records of the rows that have an image; `skipped["text only"]` counts the others.

    A row's id may come several times in such files (one image, several conversations): the second
    becomes "id#2". Raises UserError naming file and row for what cannot be read.
    """
    source = ImageSource(Path(settings.images))
    seen: Counter[str] = Counter()
    if settings.splits is not None:
        for split in [name for name in SPLITS if name in settings.splits]:
            splitter = Splitter(split, settings.limit)
            yield from _file_records(Path(settings.splits[split]), source, splitter, seen, skipped)
    elif settings.file is not None:
        splitter = Splitter(settings.fractions, settings.limit)
        records = _file_records(Path(settings.file), source, splitter, seen, skipped)
        yield from splitter.in_split_order(records)


def conversation_turns(row: dict[str, Any], path: Path) -> tuple[Turn, ...]:
    """Question and answer pairs of a row, without the image placeholder.

    Raises UserError unless human and gpt take turns, human first.
    """
    number = row.get("id")
    said = row.get("conversations")
    if not isinstance(said, list) or not said or len(said) % 2:
        raise UserError(
            f"{path}: row {number!r} needs `conversations`, human and gpt messages in turn"
        )
    texts: list[str] = []
    for i, message in enumerate(said):
        speaker = "gpt" if i % 2 else "human"
        value = message.get("value") if isinstance(message, dict) else None
        if not isinstance(value, str) or message.get("from") != speaker:
            raise UserError(
                f"{path}: message {i} of row {number!r} must be a text from {speaker!r}"
            )
        texts.append(value.replace(PLACEHOLDER, " ").strip() if i % 2 == 0 else value.strip())
    return tuple(Turn(q, a) for q, a in zip(texts[::2], texts[1::2], strict=True))


def _file_records(
    path: Path,
    source: ImageSource,
    splitter: Splitter,
    seen: Counter[str],
    skipped: Counter[str],
) -> Iterator[Record]:
    for i, row in enumerate(read_json(path, list)):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {i} must be an object with `image` and `conversations`")
        relative = row.get("image")
        if relative is None:
            skipped["text only"] += 1
            continue
        if not isinstance(relative, str):
            raise UserError(f"{path}: `image` of row {row.get('id', i)!r} must be one file name")
        # The split follows the image, so that conversations of one image stay together.
        split = splitter.split(relative)
        if split is None:
            continue
        row_id = str(row.get("id", relative))
        seen[row_id] += 1
        turns = conversation_turns(row, path)
        try:
            width, height = source.size(relative)
        except UserError as error:
            raise UserError(f"{path}: row {row_id!r}: {error}") from error
        yield Record(
            image_id=row_id if seen[row_id] == 1 else f"{row_id}#{seen[row_id]}",
            split=split,
            path=relative,
            width=width,
            height=height,
            captions=(),
            turns=turns,
        )
