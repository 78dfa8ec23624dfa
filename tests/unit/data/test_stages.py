"""The three data stages, from settings to tables."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vista.config.data import DATA_SETTINGS, records_settings
from vista.config.packages import FolderPackage
from vista.data.images import ImageSource
from vista.data.records import Record, Turn, read_records, read_text, write_records
from vista.data.source import images_root
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.engine.package_nodes import package_node
from vista.errors import UserError
from vista.stages import draw_world, fetch_package, records, text

DRAWN: dict[str, Any] = {
    "kind": "drawn",
    "scenes": {"train": 5, "validation": 2, "test": 3},
    "documents": {"train": 8, "heldout": 4},
}


def make(
    tmp_path: Path,
    stage: Any,
    settings: dict[str, Any],
    threads: int = 1,
    **inputs: Artifact | list[Artifact],
) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[-1]
    record = Provenance(name, settings, {}, "code", {})
    with publishing(tmp_path, name, "it", record) as work:
        assert work is not None
        stage.run(Job(name, settings, dict(inputs), work, threads))
    return open_artifact(tmp_path / name / "it", name)


def test_a_drawn_world_becomes_tables(tmp_path: Path) -> None:
    world = make(tmp_path, draw_world, DRAWN)
    table = make(tmp_path, records, {"kind": "drawn"}, world=world)
    found = read_records(table.file("records.parquet"))
    assert [r.split for r in found] == ["train"] * 5 + ["validation"] * 2 + ["test"] * 3
    source = ImageSource(images_root(table.settings, world.path))
    assert all(source.open(record).size == (48, 48) for record in found)
    corpus = make(tmp_path, text, {"kind": "drawn"}, world=world)
    assert len(read_text(corpus.file("text.parquet"), "train")) == 8
    assert len(read_text(corpus.file("text.parquet"), "heldout")) == 4


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_damaged_world_is_to_be_drawn_again(tmp_path: Path, damage: str) -> None:
    world = make(tmp_path, draw_world, DRAWN)
    image = sorted((world.path / "images").rglob("*.png"))[4]
    if damage == "missing":
        image.unlink()
    else:
        image.write_bytes(bytes(image.stat().st_size))
    with pytest.raises(UserError, match=r"is damaged.*rm -r") as raised:
        make(tmp_path, records, {"kind": "drawn"}, world=world)
    assert str(image) in str(raised.value)
    assert str(world.path) in str(raised.value)


def unreadable_files(tmp_path: Path, max_unreadable: int) -> dict[str, Any]:
    """Seven rows: three about one image that is cut off, one about text, three about good ones."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name in ("a", "b", "cut"):
        Image.fromarray(noise).save(folder / f"{name}.jpg")
    cut = folder / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    (folder / "text.jpg").write_text("no image")
    said = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]
    rows = [
        {"id": f"{i}", "image": f"{name}.jpg", "conversations": said}
        for i, name in enumerate(("cut", "a", "text", "cut", "b", "cut", "a"))
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    settings = {
        "kind": "llava",
        "images": str(folder),
        "splits": {"train": str(tmp_path / "rows.json")},
        "max_unreadable": max_unreadable,
    }
    return records_settings(DATA_SETTINGS.validate_python(settings))


@pytest.mark.parametrize("batch", [2, 256])
def test_unreadable_images_are_listed_and_left_out(
    tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vista.data.skipped._BATCH", batch)
    opened: Counter[str] = Counter()
    whole = ImageSource.open

    def counting(source: ImageSource, record: Record) -> Image.Image:
        opened[record.path] += 1
        return whole(source, record)

    monkeypatch.setattr(ImageSource, "open", counting)
    table = make(tmp_path, records, unreadable_files(tmp_path, 2), threads=3)
    found = read_records(table.file("records.parquet"))
    assert [each.image_id for each in found] == ["1", "4", "6"]
    listed = pq.read_table(table.file("skipped.parquet")).to_pylist()
    assert sorted((row["id"], row["path"]) for row in listed) == [
        ("0", "cut.jpg"),
        ("2", "text.jpg"),
        ("3", "cut.jpg"),
        ("5", "cut.jpg"),
    ]
    assert {row["reason"] for row in listed} == {"image unreadable"}
    # Images count, not the rows about them; each is decoded once.
    assert opened == {"a.jpg": 1, "b.jpg": 1, "cut.jpg": 1}


def test_more_unreadable_images_than_the_settings_allow(tmp_path: Path) -> None:
    settings = unreadable_files(tmp_path, 1)
    with pytest.raises(UserError, match=r"2 images cannot be read, `max_unreadable` allows 1") as e:
        make(tmp_path, records, settings)
    assert all(
        str(tmp_path / "pictures" / name) in str(e.value) for name in ("cut.jpg", "text.jpg")
    )
    assert not (tmp_path / "records" / "it" / "manifest.json").exists()


def test_no_unreadable_image_is_allowed_by_default(tmp_path: Path) -> None:
    settings = unreadable_files(tmp_path, 0)
    with pytest.raises(UserError, match=r"text\.jpg cannot be read .*'2' .*`max_unreadable: 1`"):
        make(tmp_path, records, settings)


def test_a_users_own_files(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "pictures" / "a.png")
    row = {"id": "1", "image": "a.png"}
    row["conversations"] = [  # type: ignore[assignment]
        {"from": "human", "value": "<image>\nWhat?"},
        {"from": "gpt", "value": "It."},
    ]
    (tmp_path / "rows.json").write_text(json.dumps([row, {"id": "2", "conversations": []}]))
    settings = {
        "kind": "llava",
        "images": str(tmp_path / "pictures"),
        "splits": {"test": str(tmp_path / "rows.json")},
    }
    settings = records_settings(DATA_SETTINGS.validate_python(settings))
    table = make(tmp_path, records, settings)
    (found,) = read_records(table.file("records.parquet"))
    assert found.turns[0].answer == "It."
    assert images_root(table.settings, None) == tmp_path / "pictures"
    assert pq.read_table(table.file("skipped.parquet")).to_pylist() == [
        {"id": "2", "path": None, "reason": "text only"}
    ]


def fetched_coco(tmp_path: Path) -> Artifact:
    """What `fetch_data` leaves: pictures and annotations below data/."""
    with publishing(
        tmp_path, "fetch_data", "it", Provenance("fetch_data", {}, {}, "c", {})
    ) as work:
        assert work is not None
        (work / "data" / "val2017").mkdir(parents=True)
        Image.new("RGB", (5, 4)).save(work / "data" / "val2017" / "1.png")
        image = {"id": 1, "file_name": "1.png", "width": 5, "height": 4}
        told = [{"id": i, "image_id": 1, "caption": f"Caption\n {i}."} for i in range(3)]
        content = {"images": [image], "annotations": told}
        (work / "data" / "captions.json").write_text(json.dumps(content))
    return open_artifact(tmp_path / "fetch_data" / "it", "fetch_data")


def test_fetched_files(tmp_path: Path) -> None:
    fetched = fetched_coco(tmp_path)
    settings = {
        "kind": "coco",
        "images": "val2017",
        "splits": {"test": {"captions": "captions.json"}},
        "fetch": [{"url": "https://example.org/val2017.zip"}],
    }
    parsed = DATA_SETTINGS.validate_python(settings)
    table = make(tmp_path, records, records_settings(parsed), fetched=fetched)
    (found,) = read_records(table.file("records.parquet"))
    assert found.path == "1.png"
    root = images_root(table.settings, None, fetched.path / "data")
    assert ImageSource(root).open(found).size == (5, 4)
    assert "skipped.parquet" not in table.checksums
    corpus = make(tmp_path, text, {"kind": "captions"}, records=table).file("text.parquet")
    # All images are of the test split: only who reads the other documents misses them.
    assert read_text(corpus, "heldout")
    with pytest.raises(UserError, match="no text of split 'train'"):
        read_text(corpus, "train")


def test_captions_as_a_corpus(tmp_path: Path) -> None:
    turn = Turn("What?", "An\nanswer.")
    rows = [
        Record("a", "train", "a", 1, 1, ("A cat. ", "Two\n cats."), (turn,)),
        Record("b", "train", "b", 1, 1, (), (turn, turn)),
        Record("c", "train", "c", 1, 1),
        Record("d", "test", "d", 1, 1, ("Test.",)),
        Record("e", "validation", "e", 1, 1, ("", "Validation.")),
    ]
    with publishing(tmp_path, "records", "it", Provenance("records", {}, {}, "c", {})) as work:
        assert work is not None
        write_records(work / "records.parquet", rows)
    table = open_artifact(tmp_path / "records" / "it", "records")
    corpus = make(tmp_path, text, {"kind": "captions"}, records=table).file("text.parquet")
    assert read_text(corpus, "train") == ["A cat.", "Two cats.", "An answer."]
    assert read_text(corpus, "heldout") == ["Validation.", "Test."]
    settings = {"kind": "captions", "limit": 1}
    corpus = make(tmp_path / "x", text, settings, records=table).file("text.parquet")
    assert read_text(corpus, "train") == ["A cat."]
    assert read_text(corpus, "heldout") == ["Validation."]


def test_text_files(tmp_path: Path) -> None:
    for name in ("train", "heldout"):
        (tmp_path / f"{name}.txt").write_text(f"first {name}\n\n  second\nthird\n")
    settings = {
        "kind": "lines",
        "train": str(tmp_path / "train.txt"),
        "heldout": str(tmp_path / "heldout.txt"),
        "limit": 2,
    }
    corpus = make(tmp_path, text, settings)
    assert read_text(corpus.file("text.parquet"), "train") == ["first train", "second"]
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"train\.txt is UTF-16 text: save it as UTF-8"):
        make(tmp_path / "x", text, settings)
    (tmp_path / "train.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"train\.txt holds no text"):
        make(tmp_path / "x", text, settings)


def test_no_record_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "rows.json").write_text("[]")
    settings = {
        "kind": "llava",
        "images": str(tmp_path / "pictures"),
        "file": str(tmp_path / "rows.json"),
    }
    with pytest.raises(UserError, match="no image at all"):
        make(tmp_path, records, settings)
    assert not (tmp_path / "records" / "it" / "manifest.json").exists()


def test_what_is_read_in_another_way_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    (folder / ".cache").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(folder / "a.jpg", exif=exif)
    settings = DATA_SETTINGS.validate_python({"kind": "folder", "images": str(folder)})
    table = make(tmp_path, records, records_settings(settings))
    printed = capsys.readouterr().err
    assert "records: 1 rows left out (hidden, no data)" in printed
    assert "records: 1 rows whose image EXIF turns, read as its pixels are stored" in printed
    assert pq.read_table(table.file("skipped.parquet"))["id"].to_pylist() == [".cache"]


def test_text_of_packages_is_mixed_with_other_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make(tmp_path, draw_world, DRAWN)
    folder = tmp_path / "wiki"
    folder.mkdir()
    summaries = [{"extract": f"Summary {i}."} for i in range(40)]
    (folder / "wiki.json").write_text(json.dumps(summaries))
    package = FolderPackage(kind="folder", path=str(folder))
    order = package_node("wiki", package).order
    wiki = make(tmp_path, fetch_package, order)
    parts = [
        {"kind": "drawn"},
        {"kind": "json", "package": "0", "file": "wiki.json", "key": "extract", "heldout": 0.3},
    ]
    settings = {"kind": "mixed", "parts": parts}
    corpus = make(tmp_path, text, settings, world=world, packages=[wiki])
    documents = read_text(corpus.file("text.parquet"), "train")
    heldout = read_text(corpus.file("text.parquet"), "heldout")
    of_wiki = [document for document in (*documents, *heldout) if document.startswith("Summary")]
    assert len(of_wiki) == 40 and len(documents) + len(heldout) == 40 + 12
    printed = capsys.readouterr().out
    assert "text of kind drawn: train 8 documents" in printed
    assert f"text: train {len(documents)} documents of" in printed


def test_a_users_own_json_needs_no_package(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f'"text {i}"\n' for i in range(40)))
    corpus = make(tmp_path, text, {"kind": "json", "file": str(path), "heldout": 0.3})
    assert len(read_text(corpus.file("text.parquet"), "train")) > 20
    with pytest.raises(UserError, match="no documents of split 'heldout'"):
        make(tmp_path, text, {"kind": "json", "file": str(path), "heldout": 1e-9})


def test_glosses_of_a_users_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "dict"
    folder.mkdir()
    for part in ("noun", "adv"):
        lines = (f"{i:08} 00 n 01 {part}{i} 0 000 | gloss\n" for i in range(20))
        (folder / f"data.{part}").write_text("".join(lines))
    settings = {
        "kind": "wordnet",
        "folder": str(folder),
        "parts_of_speech": ["noun", "adverb"],
        "heldout": 0.3,
    }
    corpus = make(tmp_path, text, settings)
    documents = read_text(corpus.file("text.parquet"), "train")
    assert "noun0: gloss" in documents or "noun1: gloss" in documents
    assert any(document.startswith("adv") for document in documents)
    with pytest.raises(UserError, match=r"text.folder: .*data.verb is not a file"):
        make(tmp_path, text, {**settings, "parts_of_speech": ["verb"]})
