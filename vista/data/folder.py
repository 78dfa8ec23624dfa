"""A plain folder of images as records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vista.config.data import SPLITS, FolderData, Fractions, Split
from vista.data.images import ImageSource
from vista.data.records import Box, Object, Record, Turn
from vista.data.skipped import Skipped
from vista.data.splits import Splitter, in_split_order
from vista.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def folder_records(settings: FolderData, skipped: Skipped) -> Iterator[Record]:
    """Records of the images below a folder, sorted by path; the id is the path.

    Raises UserError for a folder without images, an image file that is no image, and, where
    folders are classes, an image that lies in none.
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
    base = source.root / folder
    if not base.resolve().is_relative_to(source.root.resolve()):
        raise UserError(f"split folder {folder!r} leads out of {source.root}: it is refused")
    names = sorted(
        path.relative_to(source.root).as_posix()
        for path in base.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not names:
        raise UserError(f"{base} holds no images ({', '.join(sorted(SUFFIXES))})")
    for name in names:
        split = splitter.split(name)
        if split is None:
            continue
        size = skipped.image_size(source, name, settings, name, f"in {base}")
        if size is None:
            continue
        width, height = size
        category = _category(name, folder, source) if settings.classes else None
        turns: tuple[Turn, ...] = ()
        if settings.answer is not None:
            answer = settings.answer.replace("{class}", category or "")
            turns = (Turn(settings.question, answer),)
        whole = Box(0.0, 0.0, float(width), float(height))
        yield Record(
            image_id=name,
            split=split,
            path=name,
            width=width,
            height=height,
            captions=tuple(turn.answer for turn in turns),
            turns=turns,
            objects=(Object(category, whole),) if category is not None else (),
        )


def _category(name: str, folder: str, source: ImageSource) -> str:
    parts = PurePosixPath(name).relative_to(PurePosixPath(folder)).parts
    if len(parts) < 2:
        raise UserError(
            f"{source.root / name} lies in no class folder: move it into one, or set "
            "`classes: false`"
        )
    return parts[0].replace("_", " ")
