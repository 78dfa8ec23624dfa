"""Plain folders of images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vista.config.data import FolderData
from vista.data.readers.folder import folder_records
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


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path, "PNG")


def test_hidden_files_and_folders_are_no_data(tmp_path: Path) -> None:
    for name in (
        "dog/1.png",
        "cat/1.png",
        "cat/.ipynb_checkpoints/1-checkpoint.png",
        ".ipynb_checkpoints/1-checkpoint.png",
        "__MACOSX/cat/2.png",
        "cat/@eaDir/1.png",
    ):
        picture(tmp_path / name)
    (tmp_path / "cat" / "._1.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"\0")
    skipped = Skipped()
    records = read(tmp_path, skipped, classes=True)
    assert sorted((each.path, each.categories) for each in records) == [
        ("cat/1.png", ("cat",)),
        ("dog/1.png", ("dog",)),
    ]
    assert sorted(path for _, path, _ in skipped.rows) == [
        ".ipynb_checkpoints",
        "__MACOSX",
        "cat/._1.png",
        "cat/.ipynb_checkpoints",
        "cat/@eaDir",
    ]
    assert skipped.counts() == {"hidden, no data": 5}


def test_a_linked_class_folder_is_read_once_and_within_the_root_only(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("images/train/cat/1.png", "images/pool/dog/2.png", "elsewhere/3.png"):
        picture(tmp_path / name)
    links = {
        "animal": "../pool/dog",  # before its fellows by name, and read after them
        "cat/again": "../cat",
        "cat/up": "../..",
        "cat/round": "round",
        "outside": str(tmp_path / "elsewhere"),
    }
    for name, target in links.items():
        os.symlink(target, root / "train" / name)
    skipped = Skipped()
    more: dict[str, Any] = {"splits": {"train": "train"}}
    assert [each.path for each in read(root, skipped, **more)] == [
        "train/animal/2.png",
        "train/cat/1.png",
    ]
    assert skipped.rows == [
        ("train/outside", "train/outside", "linked folder outside the folder of images"),
        ("train/cat/again", "train/cat/again", "linked folder that is read by another path"),
        ("train/cat/up", "train/cat/up", "linked folder that is read by another path"),
    ]
    with pytest.raises(UserError, match=r"outside holds no image that can be read by this path"):
        read(root, classes=True, **more)
    (root / "train" / "outside").unlink()
    found = read(root, classes=True, **more)
    assert [each.categories for each in found] == [("animal",), ("cat",)]


def test_a_link_to_an_image_that_is_not_there_is_a_missing_image(root: Path) -> None:
    os.symlink("nowhere.png", root / "train" / "cat" / "b.png")
    with pytest.raises(UserError, match=r"cat/b\.png is missing .*`missing_images: skip`"):
        read(root)
    skipped = Skipped()
    assert len(read(root, skipped, missing_images="skip")) == 3
    assert skipped.rows == [("train/cat/b.png", "train/cat/b.png", "image missing")]


def test_a_name_that_is_no_utf_8_is_told(root: Path) -> None:
    name = os.fsencode(root / "train" / "cat") + b"/caf\xe9.png"
    with open(name, "wb") as file:
        Image.new("RGB", (6, 4)).save(file, "PNG")
    with pytest.raises(UserError, match=r"caf\\udce9\.png: the name .* is not UTF-8: rename it"):
        read(root)


@pytest.mark.parametrize("name", ["a {b}.png", "{a}.png", "a\nb.png", "ä*?[x].png", "a#0:5.png"])
def test_any_other_name_is_read(root: Path, name: str) -> None:
    picture(root / name)
    assert name in [each.path for each in read(root)]


def test_a_split_folder_may_be_named_in_other_ways(root: Path) -> None:
    plain = read(root, splits={"train": "train"})
    for folder in ("train/", "./train", str(root / "train")):
        assert read(root, splits={"train": folder}) == plain
    assert len(read(root, splits={"train": "."})) == 3
