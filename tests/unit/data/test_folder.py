"""Plain folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vista.config.data import FolderData
from vista.data.folder import folder_records
from vista.data.records import Box, Record, Turn
from vista.data.skipped import Skipped
from vista.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/sea_lion/b.png", "train/cat/a.JPEG", "test/cat/c.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(path)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def read(root: Path, skipped: Skipped | None = None, **more: Any) -> list[Record]:
    settings = FolderData(kind="folder", images=str(root), **more)
    return list(folder_records(settings, skipped or Skipped()))


def test_images_are_found_and_sorted(root: Path) -> None:
    records = read(root, fractions={"train": 0, "validation": 0, "test": 1})
    names = ["test/cat/c.png", "train/cat/a.JPEG", "train/sea_lion/b.png"]
    assert [record.path for record in records] == names
    assert [record.image_id for record in records] == names
    assert {record.split for record in records} == {"test"}
    assert all(record.objects == () and record.turns == () for record in records)


def test_folders_as_splits_and_classes(root: Path) -> None:
    records = read(
        root,
        splits={"test": "test", "train": "train"},
        classes=True,
        question="What is it?",
        answer="a photo of a {class}",
    )
    assert [record.split for record in records] == ["train", "train", "test"]
    lion = records[1]
    assert lion.path == "train/sea_lion/b.png"
    assert lion.categories == ("sea lion",)
    assert lion.objects[0].box == Box(0, 0, 6, 4)
    assert lion.turns == (Turn("What is it?", "a photo of a sea lion"),)


def test_what_is_wrong_is_told(root: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        read(root, splits={"test": "nothing"})
    with pytest.raises(UserError, match="leads out of"):
        read(root, splits={"test": ".."})
    Image.new("RGB", (6, 4)).save(root / "test" / "stray.png")
    with pytest.raises(UserError, match=r"stray\.png lies in no class folder"):
        read(root, splits={"test": "test"}, classes=True)
    (root / "test" / "stray.png").write_text("text")
    with pytest.raises(UserError, match=r"stray\.png cannot be read as an image"):
        read(root)
    skipped = Skipped()
    assert len(read(root, skipped, max_unreadable=1)) == 3
    assert skipped.rows == [("test/stray.png", "test/stray.png", "image unreadable")]


def test_a_class_folder_without_images_is_named(root: Path) -> None:
    (root / "train" / "dog" / "deeper").mkdir(parents=True)
    (root / "train" / ".thumbnails").mkdir()
    assert len(read(root, splits={"train": "train"})) == 2
    with pytest.raises(UserError, match=r"class folder .*train/dog holds no image: fill it or"):
        read(root, splits={"train": "train"}, classes=True)
    (root / "train" / "dog" / "deeper").rmdir()
    (root / "train" / "dog").rmdir()
    assert len(read(root, splits={"train": "train"}, classes=True)) == 2


def test_every_and_limit_count_within_a_split(root: Path) -> None:
    for i in range(7):
        Image.new("RGB", (6, 4)).save(root / "test" / f"{i}.png")
    found = read(root, splits={"test": "test", "train": "train"}, every=3, limit=2)
    assert [record.path for record in found] == ["train/cat/a.JPEG", "test/0.png", "test/3.png"]
