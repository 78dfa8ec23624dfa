"""A plain folder of images as records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vista.config.data import SPLITS, FolderData, Fractions, Split
from vista.data.images import ImageSource, is_hidden
from vista.data.records import Box, Object, Record, Turn
from vista.data.skipped import Skipped
from vista.data.splits import Splitter, in_split_order
from vista.data.tree import SUFFIXES, image_names
from vista.errors import UserError
from vista.foreign.text import one_line


def folder_records(settings: FolderData, skipped: Skipped) -> Iterator[Record]:
    """Records of the images below a folder, sorted by path; the id is the path.

    Hidden images and linked folders that are not followed are noted. Raises UserError for a folder
    without images, an image file that is no image, and, where folders are classes, an image that
    lies in none and a class folder without images.
    """
    source = ImageSource(Path(settings.images))
    if settings.splits is not None:
        for split in [name for name in SPLITS if name in settings.splits]:
            yield from _folder(settings, source, settings.splits[split], split, skipped)
    else:
        yield from in_split_order(_folder(settings, source, "", settings.fractions, skipped))


def _folder(
    settings: FolderData,
    source: ImageSource,
    folder: str,
    rule: Split | Fractions,
    skipped: Skipped,
) -> Iterator[Record]:
    splitter = Splitter(rule, settings)
    if os.path.isabs(folder):
        folder = os.path.relpath(folder, source.root)
    base = source.root / folder
    if not source.holds(folder):
        raise UserError(f"split folder {folder!r} leads out of {source.root}: it is refused")
    names = image_names(source, folder, skipped) if base.is_dir() else []
    if not names:
        raise UserError(f"{base} holds no images ({', '.join(sorted(SUFFIXES))})")
    if settings.classes:
        _refuse_empty_class(
            base, {PurePosixPath(name).relative_to(folder).parts[0] for name in names}
        )
    for name in names:
        split = splitter.split(name)
        if split is None:
            continue
        size = skipped.image_size(source, name, settings, name, f"in {base}")
        if size is None:
            continue
        category = _category(name, folder, source) if settings.classes else None
        turns: tuple[Turn, ...] = ()
        if settings.answer is not None:
            answer = settings.answer.replace("{class}", category or "")
            turns = (Turn(settings.question, answer),)
        yield image_record(name, split, size, category, turns)


def _refuse_empty_class(base: Path, filled: set[str]) -> None:
    folders = (path for path in base.iterdir() if path.is_dir() and not is_hidden(path.name))
    empty = min((path.name for path in folders if path.name not in filled), default=None)
    if empty is not None:
        link = " that can be read by this path" if (base / empty).is_symlink() else ""
        raise UserError(
            f"class folder {one_line(base / empty)} holds no image{link}: fill it or remove it"
        )


def image_record(
    name: str,
    split: Split,
    size: tuple[int, int],
    category: str | None,
    turns: tuple[Turn, ...] = (),
) -> Record:
    """The record of an image file, its path the id; a category is one object, the whole image."""
    width, height = size
    whole = Box(0.0, 0.0, float(width), float(height))
    return Record(
        image_id=name,
        split=split,
        path=name,
        width=width,
        height=height,
        captions=tuple(turn.answer for turn in turns),
        turns=turns,
        objects=(Object(category, whole),) if category is not None else (),
    )


def class_name(name: str) -> str:
    """The class that a folder or a label names, as records have it."""
    return name.replace("_", " ")


def _category(name: str, folder: str, source: ImageSource) -> str:
    parts = PurePosixPath(name).relative_to(PurePosixPath(folder)).parts
    if len(parts) < 2:
        raise UserError(
            f"{one_line(source.root / name)} lies in no class folder: move it into one, or set "
            "`classes: false`"
        )
    return class_name(parts[0])
