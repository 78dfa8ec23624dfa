"""The record table and the images that it points to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vista.data.records import (
    Box,
    ImageSource,
    Object,
    Record,
    Turn,
    encode_mask,
    read_records,
    read_text,
    write_records,
    write_text,
)
from vista.errors import UserError

RECORD = Record(
    image_id="7",
    split="test",
    path="sub/a.png",
    width=4,
    height=3,
    captions=("a cat .", "a grey cat ."),
    turns=(Turn("what ?", "a cat"), Turn("where ?", "here")),
    objects=(
        Object("cat", Box(1.0, 0.5, 2.0, 2.0), encode_mask(np.eye(3, 4, dtype=bool))),
        Object("dog", Box(0.0, 0.0, 4.0, 3.0), None, crowd=True),
        Object("cat", Box(0.0, 0.0, 1.0, 1.0)),
    ),
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    Image.new("RGB", (4, 3), (9, 8, 7)).save(root / "sub" / "a.png")
    return root


def test_records_come_back_as_they_went_in(tmp_path: Path) -> None:
    bare = Record("x", "train", "b.png", 5, 5)
    path = tmp_path / "records.parquet"
    assert write_records(path, [RECORD, bare]) == 2
    assert read_records(path) == [RECORD, bare]
    assert read_records(path, ["train"]) == [bare]
    assert RECORD.categories == ("cat", "dog")


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    write_records(tmp_path / "a.parquet", [RECORD])
    write_records(tmp_path / "b.parquet", iter([RECORD]))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_order_is_kept_over_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vista.data.records._ROW_GROUP", 3)
    records = [replace(RECORD, image_id=str(i)) for i in (5, 3, 9, 1, 7, 0, 2)]
    write_records(tmp_path / "r.parquet", records)
    assert [r.image_id for r in read_records(tmp_path / "r.parquet")] == list("5391702")


def test_an_image_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'7' comes twice"):
        write_records(tmp_path / "r.parquet", [RECORD, RECORD])


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mask of size"):
        write_records(tmp_path / "r.parquet", [replace(RECORD, width=5)])


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"r\.parquet cannot be read as a Parquet table"):
        read_records(tmp_path / "r.parquet")
    write_text(tmp_path / "t.parquet", {"train": ["a"]})
    with pytest.raises(UserError, match="has columns"):
        read_records(tmp_path / "t.parquet")


def test_text_keeps_splits_and_order(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    assert write_text(path, {"train": ["b", "a"], "heldout": ["c"]}) == {"train": 2, "heldout": 1}
    assert read_text(path, "train") == ["b", "a"]
    assert read_text(path, "heldout") == ["c"]
    with pytest.raises(UserError, match="no text of split 'test'"):
        read_text(path, "test")


def test_an_image_opens_in_rgb(images: Path) -> None:
    Image.new("L", (4, 3), 5).save(images / "sub" / "a.png")
    image = ImageSource(images).open(RECORD)
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (5, 5, 5)


def test_paths_out_of_the_root_are_refused(images: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "secret.png")
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    source = ImageSource(images)
    for path in ("../secret.png", str(tmp_path / "secret.png"), "sub/../../secret.png", "link.png"):
        with pytest.raises(UserError, match="leads out of"):
            source.open(replace(RECORD, path=path))


def test_broken_images_are_named(images: Path) -> None:
    source = ImageSource(images)
    (images / "text.png").write_text("I am not an image")
    with pytest.raises(UserError, match=r"text\.png cannot be read as an image"):
        source.open(replace(RECORD, path="text.png"))
    whole = (images / "sub" / "a.png").read_bytes()
    (images / "short.png").write_bytes(whole[:-25])
    with pytest.raises(UserError, match=r"short\.png cannot be read as an image"):
        source.open(replace(RECORD, path="short.png"))
    flipped = bytearray(whole)
    flipped[whole.index(b"IDAT") + 7] ^= 0xFF
    (images / "flipped.png").write_bytes(bytes(flipped))
    with pytest.raises(UserError, match=r"flipped\.png cannot be read as an image"):
        source.open(replace(RECORD, path="flipped.png"))
    with pytest.raises(UserError, match=r"gone\.png is missing"):
        source.open(replace(RECORD, path="gone.png"))
    with pytest.raises(UserError, match="no folder"):
        ImageSource(images / "gone")


def test_an_image_of_another_size_than_its_boxes_is_refused(images: Path) -> None:
    with pytest.raises(UserError, match="is 4x3, its annotations are for 8x6"):
        ImageSource(images).open(replace(RECORD, width=8, height=6))
