"""From settings to records: one door for every kind of data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vista.config.data import (
    SPLITS,
    CocoData,
    CocoFiles,
    DrawnData,
    FolderData,
    LinesText,
    LlavaData,
)
from vista.data.coco import coco_records
from vista.data.folder import folder_records
from vista.data.llava import llava_records
from vista.data.records import Record
from vista.errors import UserError


def iterate_records(
    settings: DrawnData | CocoData | LlavaData | FolderData,
    world: Path | None,
    skipped: Counter[str],
) -> Iterator[Record]:
    """Records of any kind of data, in the order that becomes the image index.

    `world` is the folder that `draw_world` wrote; it is needed for kind "drawn" alone, and is read
    like any other COCO data set. `skipped` counts rows left out, by reason.
    """
    if isinstance(settings, DrawnData):
        if world is None:
            raise ValueError("records of a drawn world need its folder")
        return coco_records(world_as_coco(world))
    if isinstance(settings, CocoData):
        return coco_records(settings)
    if isinstance(settings, LlavaData):
        return llava_records(settings, skipped)
    return folder_records(settings)


def world_as_coco(world: Path) -> CocoData:
    """The settings that read a drawn world as the COCO and LLaVA files it is."""
    folder = world / "annotations"
    return CocoData(
        kind="coco",
        images=str(world / "images"),
        splits={
            split: CocoFiles(
                instances=str(folder / f"instances_{split}.json"),
                captions=str(folder / f"captions_{split}.json"),
                conversations=str(folder / f"llava_{split}.json"),
            )
            for split in SPLITS
        },
    )


def images_root(records_settings: Mapping[str, Any], world: Path | None) -> Path:
    """Where the images of a records artifact lie, given that artifact's settings."""
    if records_settings["kind"] == "drawn":
        if world is None:
            raise ValueError("images of a drawn world need its folder")
        return world / "images"
    return Path(records_settings["images"])


def read_lines(path: Path, limit: int | None = None) -> list[str]:
    """The non-empty lines of a text file; UserError if it cannot be read or has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at {error.start})") from error
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise UserError(f"{path} holds no text: one document a line is expected")
    return lines[:limit]


def line_texts(settings: LinesText) -> dict[str, list[str]]:
    """Documents per split of the user's own text files."""
    return {
        "train": read_lines(Path(settings.train), settings.limit),
        "heldout": read_lines(Path(settings.heldout), settings.limit),
    }
