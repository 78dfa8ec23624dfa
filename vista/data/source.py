"""The records of any kind of data, by its settings."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vista.config.composed import ComposedRecords
from vista.config.data import (
    SPLITS,
    AnyFiles,
    AnyRecords,
    CocoData,
    CocoFiles,
    ListData,
    LlavaData,
    RefCocoData,
    reader_module,
)
from vista.config.drawn import DrawnData
from vista.config.text import LinesText
from vista.data.images import ImageSource
from vista.data.lines import read_lines
from vista.data.records import Record, RecordTable
from vista.data.skipped import Skipped
from vista.errors import UserError

_Reader = Callable[[Any, Skipped], Iterator[Record]]


def iterate_records(
    settings: AnyRecords,
    world: Path | None,
    fetched: Path | None,
    skipped: Skipped,
    threads: int = 1,
) -> Iterator[Record]:
    """Records of any kind of data, in the order that becomes the image index.

    `world` is the folder that `draw_world` or `compose_scenes` wrote; it is needed for the kinds
    "drawn" and "composed" alone, and is read like any other COCO data set. `fetched` is the folder
    of downloaded files that the settings' paths are relative to, if they name any. `skipped` notes
    rows left out. Where some images may be unreadable, `threads` threads decode all of them.
    """
    if isinstance(settings, DrawnData | ComposedRecords):
        if world is None:
            raise ValueError("records of the run's own scenes need their folder")
        settings = world_as_coco(
            world, settings.question if isinstance(settings, ComposedRecords) else None
        )
    settings = resolve(settings, fetched)
    records = _records(settings, skipped)
    if settings.max_unreadable == 0:
        return records
    source = ImageSource(Path(settings.images))
    return skipped.readable(records, source, settings.max_unreadable, threads)


def _records(settings: AnyFiles, skipped: Skipped) -> Iterator[Record]:
    # The node of the records names its reader's module, so the other readers are no code of it.
    module = importlib.import_module(reader_module(settings.kind))
    reader: _Reader = getattr(module, f"{settings.kind}_records")
    return reader(settings, skipped)


def resolve(settings: AnyFiles, fetched: Path | None) -> AnyFiles:
    """The settings with every path that is relative to fetched files made whole.

    Settings that fetch nothing come back as they are.
    """
    if not settings.fetch:
        return settings
    if fetched is None:
        raise ValueError("data that are fetched need the folder of their files")

    def whole(name: str | None) -> str | None:
        return None if name is None else str(fetched / name)

    def whole_files(files: CocoFiles) -> CocoFiles:
        names = ("instances", "captions", "conversations")
        return files.model_copy(update={name: whole(getattr(files, name)) for name in names})

    update: dict[str, Any] = {"images": whole(settings.images)}
    if isinstance(settings, CocoData):
        splits = settings.splits
        update["splits"] = splits and {key: whole_files(files) for key, files in splits.items()}
        update["files"] = settings.files and whole_files(settings.files)
    elif isinstance(settings, RefCocoData):
        update["instances"] = whole(settings.instances)
        update["references"] = tuple(str(fetched / name) for name in settings.references)
    elif isinstance(settings, LlavaData):
        named = settings.splits
        update["splits"] = named and {key: whole(name) for key, name in named.items()}
        update["file"] = whole(settings.file)
    elif isinstance(settings, ListData):
        update["splits"] = {key: whole(name) for key, name in settings.splits.items()}
        update["classes"] = whole(settings.classes)
    return settings.model_copy(update=update)


def world_as_coco(world: Path, question: str | None = None) -> CocoData:
    """The settings that read scenes of the run as the COCO and LLaVA files they are.

    Those that have no conversations need the `question` of the turns made of captions.
    """
    folder = world / "annotations"
    return CocoData(
        kind="coco",
        images=str(world / "images"),
        splits={
            split: CocoFiles(
                instances=str(folder / f"instances_{split}.json"),
                captions=str(folder / f"captions_{split}.json"),
                conversations=str(folder / f"llava_{split}.json") if question is None else None,
            )
            for split in SPLITS
        },
        **({} if question is None else {"question": question}),
    )


def images_root(
    records_settings: Mapping[str, Any], world: Path | None, fetched: Path | None = None
) -> Path:
    """Where the images of a records artifact lie, given that artifact's settings.

    `world` and `fetched` are as in `iterate_records`.
    """
    if records_settings["kind"] in ("drawn", "composed"):
        if world is None:
            raise ValueError("images of the run's own scenes need their folder")
        return world / "images"
    if not records_settings["fetch"]:
        return Path(records_settings["images"])
    if fetched is None:
        raise ValueError("images that were fetched need the folder of their files")
    return fetched / str(records_settings["images"])


def line_texts(settings: LinesText) -> dict[str, list[str]]:
    """Documents per split of the user's own text files."""
    return {
        "train": read_lines(Path(settings.train), settings.limit),
        "heldout": read_lines(Path(settings.heldout), settings.limit),
    }


def caption_texts(records: RecordTable, limit: int | None = None) -> dict[str, list[str]]:
    """Documents per split: the captions of each image, or its first answer if it has none.

    A split may be empty: its reader raises an error then. Raises UserError if all splits are.
    """
    sources = {"train": ("train",), "heldout": ("validation", "test")}
    texts: dict[str, list[str]] = {}
    for name, splits in sources.items():
        rows = (row for split in splits for row in records.rows_of(split))
        texts[name] = list(itertools.islice(_spoken(records, rows), limit))
    if not any(texts.values()):
        raise UserError(
            "`text.kind: captions`: no image has a caption or an answer; give the data captions, "
            "or a text of its own"
        )
    return texts


def _spoken(records: RecordTable, rows: Iterable[int]) -> Iterator[str]:
    for row in rows:
        record = records[int(row)]
        texts = record.captions or tuple(turn.answer for turn in record.turns[:1])
        # A document is one line, as in text files.
        yield from filter(None, (" ".join(text.split()) for text in texts))
