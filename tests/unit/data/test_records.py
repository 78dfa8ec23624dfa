"""The record table and the images that it points to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vista.config.data import Fractions
from vista.data.images import ImageSource
from vista.data.records import (
    SCHEMA,
    Box,
    Object,
    Record,
    Turn,
    encode_mask,
    read_records,
    read_text,
    write_records,
    write_text,
)
from vista.data.skipped import Skipped
from vista.data.spill import Spill
from vista.data.splits import hash_split
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
    table = read_records(path)
    assert list(table) == [RECORD, bare]
    assert (len(table), table[1], table[-2]) == (2, bare, RECORD)
    assert table[:1] == [RECORD]
    with pytest.raises(IndexError):
        table[2]
    assert RECORD.categories == ("cat", "dog")


def test_groups_are_a_column_only_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vista.data.records._ROW_GROUP", 3)
    rows = [Record(f"{i}", "train", f"{i}.png", 5, 5) for i in range(7)]
    write_records(tmp_path / "none.parquet", rows)
    assert pq.read_schema(tmp_path / "none.parquet").names == SCHEMA.names
    # The first group comes after a part of the table is written.
    grouped = [*rows[:4], *(replace(row, group=f"g{i}") for i, row in enumerate(rows[4:]))]
    write_records(tmp_path / "some.parquet", grouped)
    assert pq.read_schema(tmp_path / "some.parquet").names == [*SCHEMA.names, "group"]
    table = read_records(tmp_path / "some.parquet")
    assert list(table) == grouped
    assert table[5] == grouped[5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.parquet", "some.parquet"]


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    write_records(tmp_path / "a.parquet", [RECORD])
    write_records(tmp_path / "b.parquet", iter([RECORD]))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_order_is_kept_over_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vista.data.records._ROW_GROUP", 3)
    records = [replace(RECORD, image_id=str(i)) for i in (5, 3, 9, 1, 7, 0, 2)]
    write_records(tmp_path / "r.parquet", records)
    table = read_records(tmp_path / "r.parquet")
    assert [r.image_id for r in table] == list("5391702")
    assert table.select([6, 0, 3]) == [records[6], records[0], records[3]]


def test_batches_of_rows_do_not_show_in_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [replace(RECORD, image_id=str(i), captions=(f"no {i}",)) for i in range(50)]
    write_records(tmp_path / "a.parquet", records)
    monkeypatch.setattr("vista.data.records._BATCH", 7)
    write_records(tmp_path / "b.parquet", records)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert list(read_records(tmp_path / "b.parquet")) == records


def test_columns_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vista.data.records._ROW_GROUP", 2)
    bare = Record("x", "train", "b.png", 5, 5)
    rows = [
        bare,
        RECORD,
        replace(RECORD, image_id="8", split="train", path="b.png", turns=RECORD.turns[:1]),
        replace(bare, image_id="y", path="a.png", objects=(Object("cow", Box(0, 0, 1, 1)),)),
        replace(RECORD, image_id="9"),
    ]
    write_records(tmp_path / "r.parquet", rows)
    table = read_records(tmp_path / "r.parquet")
    assert table.rows_of("train").tolist() == [0, 2, 3]
    assert table.rows_of("validation").tolist() == []
    assert table.rows_with_turns("train").tolist() == [2]
    chosen = table.rows_with_turns("test")
    assert chosen.tolist() == [1, 4]
    turns = table.turns(np.array([4, 2]))
    assert (len(turns), turns[0], turns[1]) == (2, RECORD.turns, RECORD.turns[:1])
    assert list(turns) == [RECORD.turns, RECORD.turns[:1]]
    assert table.categories() == {"cat", "dog", "cow"}
    assert table.rows_by_id(["9", "x", "9"]).tolist() == [4, 0, 4]
    with pytest.raises(UserError, match="no image 'z'"):
        table.rows_by_id(["9", "z"])


def test_an_image_of_many_rows_has_features_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vista.data.records._ROW_GROUP", 2)
    for names, paths, image_of in (
        ("bab", ["b", "a"], [0, 1, 0]),
        ("cbabc", ["c", "b", "a"], [0, 1, 2, 1, 0]),
        ("bca", ["b", "c", "a"], [0, 1, 2]),
    ):
        rows = [replace(RECORD, image_id=str(i), path=name) for i, name in enumerate(names)]
        write_records(tmp_path / "r.parquet", rows)
        found = read_records(tmp_path / "r.parquet").feature_rows()
        assert (found[0], found[1].tolist(), found[1].dtype) == (paths, image_of, np.int64)


def test_an_image_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'7' comes twice"):
        write_records(tmp_path / "r.parquet", [RECORD, RECORD])


@pytest.mark.parametrize(
    "odd",
    [
        replace(RECORD, path="caf\udce9.png"),
        replace(RECORD, image_id="\ud800"),
        replace(RECORD, captions=("\ud800",)),
        replace(RECORD, turns=(Turn("a", "\ud800"),)),
        replace(RECORD, objects=(Object("\ud800", Box(0, 0, 1, 1)),)),
    ],
    ids=["path", "id", "caption", "answer", "class"],
)
def test_text_that_is_no_unicode_is_told(tmp_path: Path, odd: Record) -> None:
    with pytest.raises(UserError, match="is no Unicode text: rename the file, or mend"):
        write_records(tmp_path / "r.parquet", [odd])
    assert hash_split("\ud800", Fractions()) in ("train", "validation", "test")
    skipped = Skipped()
    skipped.add("\ud800", None, "text only")
    skipped.write(tmp_path / "s.parquet")
    assert pq.read_table(tmp_path / "s.parquet")["id"].to_pylist() == ["\\ud800"]


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


def test_spilt_values_come_back_by_key_in_their_order() -> None:
    with Spill() as spill:
        spill.add(3, [1.1, "ä\n\u2028"])
        spill.add("three", {"a": None})
        assert list(spill[3]) == [[1.1, "ä\n\u2028"]]
        spill.add(3, 2)
        assert list(spill[3]) == [[1.1, "ä\n\u2028"], 2]
        assert list(spill["three"]) == [{"a": None}]
        assert list(spill["four"]) == []
        assert "three" in spill and "four" not in spill
