"""Annotation files that are wrong anywhere: records as the file says, or one error about it."""

from __future__ import annotations

import copy
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safety.mutations import damaged, ends, read_or_told

from vista.config.data import DATA_SETTINGS
from vista.data.masks import decode_mask, encode_mask, mask_runs
from vista.data.records import Record, read_records, write_records
from vista.data.skipped import Skipped
from vista.data.source import iterate_records
from vista.errors import UserError
from vista.foreign.values import identifier

MASK = np.zeros((16, 20), dtype=bool)
MASK[3:9, 4:11] = True
RUNS = {"size": [16, 20], "counts": mask_runs(MASK)}
IMAGES = [
    {"id": i, "file_name": f"{name}.png", "width": 20, "height": 16}
    for i, name in enumerate("ab", 1)
]
SEGMENTATIONS = [[[1, 2, 6, 2, 6, 8, 1, 8]], encode_mask(MASK), RUNS]
INSTANCES: dict[str, Any] = {
    "images": IMAGES,
    "categories": [{"id": 1, "name": "cat"}, {"id": 8, "name": "dog"}],
    "annotations": [
        {"id": i, "image_id": 2, "category_id": 8, "bbox": [4.0, 3, 7, 6], "segmentation": each}
        for i, each in enumerate(SEGMENTATIONS)
    ],
}
CAPTIONS: dict[str, Any] = {
    "images": IMAGES,
    "annotations": [{"id": i, "image_id": i, "caption": "a cat"} for i in (1, 2)],
}
TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
LLAVA = [{"id": f"row {name}", "image": f"{name}.png", "conversations": TALK} for name in "ab"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for name in "ab":
        Image.new("RGB", (20, 16)).save(root / f"{name}.png")
    return root


def read(root: Path, kind: str, text: str) -> list[Record]:
    """The records of one annotation file, written as a table and read back."""
    file = root / "annotations.json"
    file.write_text(text)
    whole = {"images": str(root), "fractions": {"train": 1, "validation": 0, "test": 0}}
    source: dict[str, Any] = {"kind": "coco", "files": {kind: str(file)}}
    if kind == "llava":
        source = {"kind": "llava", "file": str(file)}
    found = iterate_records(DATA_SETTINGS.validate_python(whole | source), None, None, Skipped())
    records = list(found)
    write_records(root / "records.parquet", records)
    assert list(read_records(root / "records.parquet")) == records
    return records


def check(content: Any, records: list[Record]) -> None:
    """Each figure that was read stands in the file, and can be used."""
    for record in records:
        assert (record.width, record.height) == (20, 16)
        for each in record.objects:
            (item,) = [
                item
                for item in content["annotations"]
                if [float(n) for n in item["bbox"]] == list(each.box) and _same(item, each.rle)
            ][:1]
            names = {identifier(row["id"]): row["name"] for row in content["categories"]}
            assert each.category == names[identifier(item["category_id"])]


def _same(item: dict[str, Any], rle: Any) -> bool:
    drawn = item.get("segmentation")
    if rle is None or isinstance(drawn, list):
        return (rle is None) == (not drawn)
    return bool((decode_mask(rle) == decode_mask(drawn)).all())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_annotations_are_read_or_told(root: Path, data: st.DataObject) -> None:
    files: dict[str, Any] = {"instances": INSTANCES, "captions": CAPTIONS, "llava": LLAVA}
    kind = data.draw(st.sampled_from(sorted(files)))
    content = data.draw(damaged(files[kind], most=2))
    with read_or_told("annotations.json", "comes twice"):
        records = read(root, kind, json.dumps(content))
        if kind == "instances":
            check(content, records)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_off_annotations_are_told(root: Path, data: st.DataObject) -> None:
    text = json.dumps(INSTANCES)
    end = data.draw(st.integers(0, len(text) - 1))
    rest = data.draw(st.sampled_from(["", "\0", "}", "]", '"', "{", "\ufeff"]))
    with pytest.raises(UserError, match=r"annotations\.json"):
        read(root, "instances", text[:end] + rest)


def instances(path: tuple[Any, ...], value: Any) -> str:
    content = copy.deepcopy(INSTANCES)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(content)


FIRST = ("annotations", 0)
COUNTS = ("annotations", 2, "segmentation", "counts")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        # A bool counts as the int 1 in Python, and there is a category and an image 1.
        ((*FIRST, "category_id"), True, "`category_id` of entry 0"),
        ((*FIRST, "image_id"), True, "about image True"),
        (("images", 0, "id"), True, "has no id"),
        ((*FIRST, "bbox", 0), True, "needs a bbox"),
        ((*FIRST, "bbox", 2), -1, "needs a bbox"),
        ((*FIRST, "bbox", 2), float("nan"), "is not JSON"),
        ((*COUNTS, 0), RUNS["counts"][0] + 0.5, "no whole number"),
        ((*COUNTS, 0), str(RUNS["counts"][0]), "no whole number"),
        ((*COUNTS, 0), 10**400, "is not JSON"),
        # A run in base 32 that never ends takes time that grows with its square.
        (("annotations", 1, "segmentation", "counts"), "o" * 3_000_000, "longer than any mask"),
        ((*FIRST, "segmentation"), [[-1e308, 0, 1e308, 0, 3, 1e308]], "finite number of pixels"),
        ((*FIRST, "segmentation"), [["1", "2", "3", "4", "5", "x"]], "cannot be read"),
        (("images", 0, "file_name"), "a\0.png", "cannot be read as an image"),
        (("images", 0, "file_name"), "n" * 5000, "is missing"),
        (("images", 0, "file_name"), "/etc/passwd", "leads out of"),
        (("images", 0, "file_name"), "../images/../a.png", "leads out of"),
    ],
)
def test_values_that_would_read_as_others(
    root: Path, path: tuple[Any, ...], value: Any, sentence: str
) -> None:
    with ends(), pytest.raises(UserError, match=sentence):
        read(root, "instances", instances(path, value))


@pytest.mark.parametrize("kind", ["instances", "llava"])
@pytest.mark.parametrize("text", ["[" * 300_000, '{"images": ' + "[" * 300_000])
def test_brackets_without_end_take_neither_time_nor_memory(
    root: Path, kind: str, text: str
) -> None:
    with ends(), pytest.raises(UserError, match=r"annotations\.json (nests values|must hold)"):
        read(root, kind, text)


def test_brackets_in_texts_are_no_nesting(root: Path) -> None:
    told = 'a cat [[[{{{ \\" ] \\\\' * 50
    rows = [{"id": i, "image_id": 1, "caption": told} for i in range(20)]
    text = json.dumps({**CAPTIONS, "annotations": rows})
    assert read(root, "captions", text)[0].captions == (told,) * 20


def test_links_are_followed_within_the_root_only(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        os.link(root / f"{name}.png", folder / f"{name}.png")
    (tmp_path / "outside.png").write_bytes((root / "a.png").read_bytes())
    os.symlink("b.png", folder / "within.png")
    os.symlink(tmp_path / "outside.png", folder / "out.png")
    os.symlink(tmp_path, folder / "up")
    os.symlink("circle.png", folder / "circle.png")
    os.mkfifo(folder / "pipe.png")
    name = ("images", 0, "file_name")
    assert read(folder, "instances", instances(name, "within.png"))[0].path == "within.png"
    for file, sentence in [
        ("out.png", "leads out of"),
        ("up/outside.png", "leads out of"),
        ("circle.png", "is missing"),
        ("pipe.png", "is missing"),
        ("up", "leads out of"),
        ("", "is missing"),
    ]:
        with pytest.raises(UserError, match=sentence):
            read(folder, "instances", instances(name, file))


@pytest.mark.parametrize(
    "place", ["0:999999999999999999", "999999999999999999:5", f"{'9' * 30}:5", f"0:{'9' * 5000}"]
)
def test_a_place_beyond_a_shard_is_not_read(root: Path, place: str) -> None:
    (root / "s.tar").write_bytes(b"\0" * 1024)
    text = instances(("images", 0, "file_name"), f"s.tar#{place}")
    with pytest.raises(UserError, match=r"cannot be read as an image|is missing"):
        read(root, "instances", text)


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, Any]:
    """A folder and a function that packs members into its shard."""

    def pack(members: dict[str, bytes | tuple[bytes, str]]) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                if isinstance(content, tuple):
                    info.type, info.linkname = content
                    tar.addfile(info)
                else:
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))

    return tmp_path, pack


def samples(folder: Path, **more: Any) -> list[Record]:
    whole = {"kind": "webdataset", "images": str(folder), **more}
    return list(iterate_records(DATA_SETTINGS.validate_python(whole), None, None, Skipped()))


def test_members_names_and_links_of_a_shard_are_no_paths(
    shard: tuple[Path, Any], root: Path
) -> None:
    folder, pack = shard
    image = (root / "a.png").read_bytes()
    evil = {"../../out.png": image, "/etc/x.png": image, "n" * 3000 + ".png": image}
    links = {f"l{kind.decode()}.png": (kind, "/etc/passwd") for kind in b"1 2 3 4 6".split()}
    pack({**evil, **links})
    assert [record.path.partition("#")[0] for record in samples(folder)] == ["a.tar"] * 3
    assert sorted(path.name for path in folder.iterdir()) == ["a.tar"]


@pytest.mark.parametrize(
    ("shards", "sentence"),
    [
        ("", "is no pattern"),
        ("**x.tar", "is no pattern"),
        ("/a.tar", "must be relative"),
        ("../*/a.tar", "leads out of|holds no shard"),
        (["a\0.tar"], "cannot be read"),
        (["n" * 5000 + ".tar"], "is missing"),
    ],
)
def test_shards_that_cannot_be(shard: tuple[Path, Any], shards: Any, sentence: str) -> None:
    folder, pack = shard
    pack({})
    with pytest.raises(UserError, match=sentence):
        samples(folder, shards=shards)


def test_json_without_end_in_a_shard_is_told(shard: tuple[Path, Any], root: Path) -> None:
    folder, pack = shard
    pack({"x.png": (root / "a.png").read_bytes(), "x.json": b"[" * 100_000})
    with pytest.raises(UserError, match=r"x\.json is not JSON"):
        samples(folder, caption_key="caption")
