"""Tar shards in WebDataset's form as records; images stay in their shards.

A shard is read by its headers: nothing is unpacked, members' names are never file paths, and
links, devices and folders are passed over.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vista.config.data import SPLITS, Fractions, Split, WebDatasetData
from vista.data.images import ImageSource, is_hidden, member_path
from vista.data.records import Box, Object, Record, Turn
from vista.data.skipped import HIDDEN, Skipped
from vista.data.splits import Splitter, in_split_order
from vista.errors import UserError, reason_of
from vista.foreign.text import decode_text, escaped, one_line
from vista.foreign.values import integer

_BLOCK = 512
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Sample:
    """Members of one name: by extension (lower case), first byte and size in the shard."""

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)


def webdataset_records(settings: WebDatasetData, skipped: Skipped) -> Iterator[Record]:
    """Records of the samples that have an image, shard by shard in the order of their names.

    Raises UserError naming shard and member for a shard that is damaged or cut off, one whose
    samples are not grouped, and a caption or class that cannot be read.
    """
    source = ImageSource(Path(settings.images))
    if settings.splits is None:
        shards = _find(source, settings.shards, skipped)
        labels = _labels(shards)
        yield from in_split_order(
            _records(settings, source, shards, labels, settings.fractions, skipped)
        )
    else:
        splits = {
            split: _find(source, settings.splits[split], skipped)
            for split in SPLITS
            if split in settings.splits
        }
        labels = _labels([shard for shards in splits.values() for shard in shards])
        for split, shards in splits.items():
            yield from _records(settings, source, shards, labels, split, skipped)


def read_samples(shard: Path, skipped: Skipped, label: str) -> Iterator[Sample]:
    """The samples of a shard: members in a row whose names agree up to the first dot.

    Members whose name has no dot belong to no sample. Hidden members and links are noted, under
    the shard's `label`. Raises UserError for a sample whose members do not follow one another.
    """
    sample: Sample | None = None
    finished: set[str] = set()
    for member in _members(shard):
        name = escaped(member.name)
        folder, slash, base = name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if is_hidden(name):
            skipped.add(f"{label}/{name}", None, HIDDEN)
            continue
        if not stem or not dot:
            continue
        if not member.isreg() or member.issparse():
            skipped.add(f"{label}/{name}", None, "member of a shard that is no plain file")
            continue
        key = folder + slash + stem
        if sample is None or sample.key != key:
            if sample is not None:
                finished.add(sample.key)
                yield sample
            if key in finished:
                raise UserError(
                    f"{shard}: sample {one_line(key)!r} comes again with member "
                    f"{one_line(name)!r}, but a sample's members must follow one another: pack "
                    "the shard with `tar --sort=name`"
                )
            sample = Sample(key)
        if extension.lower() in sample.members:
            raise UserError(f"{shard}: member {one_line(name)!r} comes twice")
        sample.members[extension.lower()] = (member.offset_data, member.size)
    if sample is not None:
        yield sample


def _members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """All members of a tar but its folders."""
    last = ""
    try:
        # "r:" takes plain tars only: in a compressed one no image has a place of its own.
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.size < 0:  # it would lead back to where the walk was before
                    raise tarfile.ReadError("a member of negative size")
                last = escaped(member.name)
                if not member.isdir():
                    yield member
            # A damaged header ends tarfile's walk as the end mark does, an empty block.
            file.seek(tar.offset)
            end = file.read(_BLOCK)
            more = any(any(block) for block in iter(lambda: file.read(_CHUNK), b""))
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, EOFError) as error:
        after = f" after member {one_line(last)!r}" if last else ""
        hint = "" if last else ": it must be a tar that is not compressed"
        raise UserError(f"{shard} cannot be read{after}{hint} ({reason_of(error)})") from error
    except OSError as error:
        raise UserError(f"{shard} cannot be read: {reason_of(error)}") from error
    if len(end) < _BLOCK or any(end):
        what = "is damaged" if len(end) == _BLOCK else "is cut off"
        raise UserError(f"{shard} {what} after member {one_line(last)!r}: fetch or pack it again")
    if more:
        raise UserError(
            f"{shard} goes on after its end, at member {one_line(last)!r}: join tars with "
            "`tar --concatenate`, not with `cat`"
        )


def _labels(shards: list[Path]) -> dict[Path, str]:
    """What images' ids begin with, by shard: its name without `.tar`, and before that its folders
    if another shard has that name."""
    counts = Counter(shard.stem for shard in set(shards))
    return {
        shard: shard.stem if counts[shard.stem] == 1 else shard.with_suffix("").as_posix()
        for shard in shards
    }


def _records(
    settings: WebDatasetData,
    source: ImageSource,
    shards: list[Path],
    labels: dict[Path, str],
    rule: Split | Fractions,
    skipped: Skipped,
) -> Iterator[Record]:
    splitter = Splitter(rule, settings)
    for shard in shards:
        path = source.root / shard
        for sample in read_samples(path, skipped, labels[shard]):
            image_id = f"{labels[shard]}/{sample.key}"
            image = next((key for key in settings.image_keys if key in sample.members), None)
            if image is None:
                skipped.add(image_id, None, "sample without an image")
                continue
            split = splitter.split(image_id)
            if split is None:
                continue
            place = member_path(shard.as_posix(), *sample.members[image])
            member = f"member {sample.key}.{image} of {path}"
            size = skipped.image_size(source, place, settings, image_id, member)
            if size is None:
                continue
            captions = _captions(path, sample, settings.caption_key)
            if settings.caption_key is not None and not captions:
                skipped.notes[f"samples without caption {settings.caption_key!r}"] += 1
            category = _category(path, sample, settings.classes)
            whole = Box(0.0, 0.0, float(size[0]), float(size[1]))
            yield Record(
                image_id=image_id,
                split=split,
                path=place,
                width=size[0],
                height=size[1],
                captions=captions,
                turns=tuple(Turn(settings.question, caption) for caption in captions[:1]),
                objects=(Object(category, whole),) if category is not None else (),
            )


def _find(source: ImageSource, shards: str | tuple[str, ...], skipped: Skipped) -> list[Path]:
    """The shards of a pattern, sorted, or of a list of names, relative to the root."""
    names = shards if not isinstance(shards, str) else _matching(source.root, shards, skipped)
    for name in names:
        if not name.endswith(".tar"):
            raise UserError(f"shard {source.root / name} must be a .tar that is not compressed")
    return [source.locate(name).relative_to(source.root) for name in names]


def _matching(root: Path, pattern: str, skipped: Skipped) -> list[str]:
    if Path(pattern).is_absolute():
        raise UserError(f"`shards` {pattern!r} must be relative to `images`, {root}")
    try:
        names = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))
    except ValueError as error:
        raise UserError(
            f"`shards` {pattern!r} is no pattern ({reason_of(error)}); try *.tar"
        ) from error
    shown = [name for name in names if not is_hidden(name)]
    for name in sorted(set(names) - set(shown)):
        skipped.add(name, name, HIDDEN)
    if not shown:
        raise UserError(f"{root} holds no shard that matches {pattern!r}")
    return shown


def _captions(shard: Path, sample: Sample, caption_key: str | None) -> tuple[str, ...]:
    if caption_key is None:
        text = _text(shard, sample, "txt")
        return (text,) if text else ()
    text = _text(shard, sample, "json")
    if text is None:
        return ()
    member = f"{shard}: member {one_line(sample.key)}.json"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{member} is not JSON: {reason_of(error)}") from error
    value = content.get(caption_key) if isinstance(content, dict) else None
    captions = [
        text for text in (value if isinstance(value, list) else [value]) if text is not None
    ]
    if not all(isinstance(text, str) for text in captions):
        raise UserError(
            f"{shard}: `{caption_key}` of member {one_line(sample.key)}.json must be text"
        )
    return tuple(text.strip() for text in captions if text.strip())


def _category(shard: Path, sample: Sample, classes: tuple[str, ...] | None) -> str | None:
    text = _text(shard, sample, "cls")
    if text is None or classes is None:
        return text or None
    label = integer(text)
    if label is None or not 0 <= label < len(classes):
        raise UserError(
            f"{shard}: member {one_line(sample.key)}.cls is {text[:40]!r}, not a number below the "
            f"{len(classes)} names of `classes`"
        )
    return classes[label]


def _text(shard: Path, sample: Sample, extension: str) -> str | None:
    if extension not in sample.members:
        return None
    offset, size = sample.members[extension]
    try:
        with shard.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise UserError(f"{shard} cannot be read: {reason_of(error)}") from error
    return decode_text(content, f"{shard}: member {one_line(sample.key)}.{extension}").strip()
