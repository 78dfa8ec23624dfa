"""Tar shards in WebDataset's form as records; images stay in their shards.

A shard is read by its headers: nothing is unpacked, members' names are never file paths, and
links, devices and folders are passed over.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vista.config.data import SPLITS, Fractions, Split, WebDatasetData
from vista.data.images import ImageSource, member_path
from vista.data.records import Box, Object, Record, Turn
from vista.data.skipped import Skipped
from vista.data.splits import Splitter, in_split_order
from vista.errors import UserError

_BLOCK = 512


@dataclass(frozen=True)
class Sample:
    """Members of one name: by extension (lower case), first byte and size in the shard."""

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)


def webdataset_records(settings: WebDatasetData, skipped: Skipped) -> Iterator[Record]:
    """Records of the samples that have an image, shard by shard in the order of their names.

    Raises UserError naming shard and member for a shard that is damaged or cut off, and for a
    caption or class that cannot be read.
    """
    if settings.splits is not None:
        for split in [name for name in SPLITS if name in settings.splits]:
            yield from _records(settings, settings.splits[split], split, skipped)
    else:
        yield from in_split_order(_records(settings, settings.shards, settings.fractions, skipped))


def read_samples(shard: Path) -> Iterator[Sample]:
    """The samples of a shard: members in a row whose names agree up to the first dot.

    Members whose name begins with a dot or has none belong to no sample.
    """
    sample: Sample | None = None
    for name, offset, size in _members(shard):
        folder, slash, base = name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not stem or not dot:
            continue
        key = folder + slash + stem
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key)
        if extension.lower() in sample.members:
            raise UserError(f"{shard}: member {name!r} comes twice")
        sample.members[extension.lower()] = (offset, size)
    if sample is not None:
        yield sample


def _members(shard: Path) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of every plain file of a tar."""
    name = ""
    try:
        # "r:" takes plain tars only: in a compressed one no image has a place of its own.
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                name = member.name
                if member.isreg() and not member.issparse():
                    yield name, member.offset_data, member.size
            # A damaged header ends tarfile's walk as the end mark does, an empty block.
            file.seek(tar.offset)
            end = file.read(_BLOCK)
    except tarfile.TarError as error:
        after = f" after member {name!r}" if name else ": it must be a tar that is not compressed"
        raise UserError(f"{shard} cannot be read{after} ({error})") from error
    except OSError as error:
        raise UserError(f"{shard} cannot be read: {error.strerror or error}") from error
    if len(end) < _BLOCK or any(end):
        what = "is damaged" if len(end) == _BLOCK else "is cut off"
        raise UserError(f"{shard} {what} after member {name!r}: fetch or pack it again")


def _records(
    settings: WebDatasetData,
    shards: str | tuple[str, ...],
    rule: Split | Fractions,
    skipped: Skipped,
) -> Iterator[Record]:
    source = ImageSource(Path(settings.images))
    splitter = Splitter(rule, settings)
    for shard in _find(source, shards):
        relative = shard.relative_to(source.root).as_posix()
        for sample in read_samples(shard):
            image_id = f"{shard.stem}/{sample.key}"
            image = next((each for each in settings.image_keys if each in sample.members), None)
            if image is None:
                skipped.add(image_id, None, "sample without an image")
                continue
            split = splitter.split(image_id)
            if split is None:
                continue
            path = member_path(relative, *sample.members[image])
            size = skipped.image_size(
                source,
                path,
                settings,
                image_id,
                f"member {sample.key}.{image} of {shard}",
            )
            if size is None:
                continue
            captions = _captions(shard, sample, settings.caption_key)
            category = _category(shard, sample, settings.classes)
            whole = Box(0.0, 0.0, float(size[0]), float(size[1]))
            yield Record(
                image_id=image_id,
                split=split,
                path=path,
                width=size[0],
                height=size[1],
                captions=captions,
                turns=tuple(Turn(settings.question, each) for each in captions[:1]),
                objects=(Object(category, whole),) if category is not None else (),
            )


def _find(source: ImageSource, shards: str | tuple[str, ...]) -> list[Path]:
    """The shards of a pattern, sorted, or of a list of names."""
    names = shards if not isinstance(shards, str) else _matching(source.root, shards)
    for name in names:
        if not name.endswith(".tar"):
            raise UserError(f"shard {source.root / name} must be a .tar that is not compressed")
    return [source.locate(name) for name in names]


def _matching(root: Path, pattern: str) -> list[str]:
    if Path(pattern).is_absolute():
        raise UserError(f"`shards` {pattern!r} must be relative to `images`, {root}")
    try:
        names = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))
    except ValueError as error:
        raise UserError(f"`shards` {pattern!r} is no pattern ({error}); try *.tar") from error
    if not names:
        raise UserError(f"{root} holds no shard that matches {pattern!r}")
    return names


def _captions(shard: Path, sample: Sample, caption_key: str | None) -> tuple[str, ...]:
    if caption_key is None:
        text = _text(shard, sample, "txt")
        return (text,) if text else ()
    text = _text(shard, sample, "json")
    if text is None:
        return ()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shard}: member {sample.key}.json is not JSON: {error}") from error
    told = content.get(caption_key) if isinstance(content, Mapping) else None
    captions: list[Any] = told if isinstance(told, list) else [] if told is None else [told]
    if not all(isinstance(each, str) for each in captions):
        raise UserError(f"{shard}: `{caption_key}` of member {sample.key}.json must be text")
    return tuple(each.strip() for each in captions if each.strip())


def _category(shard: Path, sample: Sample, classes: tuple[str, ...] | None) -> str | None:
    text = _text(shard, sample, "cls")
    if text is None or classes is None:
        return text or None
    if not text.isdecimal() or int(text) >= len(classes):
        raise UserError(
            f"{shard}: member {sample.key}.cls is {text[:40]!r}, not a number below the "
            f"{len(classes)} names of `classes`"
        )
    return classes[int(text)]


def _text(shard: Path, sample: Sample, extension: str) -> str | None:
    if extension not in sample.members:
        return None
    offset, size = sample.members[extension]
    with shard.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    try:
        return content.decode().strip()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{shard}: member {sample.key}.{extension} is not UTF-8 text ({error.reason})"
        ) from error
