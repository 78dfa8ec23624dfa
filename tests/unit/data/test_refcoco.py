"""Files of referring expressions in the published forms, made by hand; pickles that want more."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vista.config.data import DATA_SETTINGS, RefCocoData, annotation_files
from vista.config.drawn import DrawnData, SceneCounts
from vista.data.expression_sources import drawn_expressions, refcoco_expressions
from vista.data.expressions import Expression, read_expressions, write_expressions
from vista.data.masks import encode_mask
from vista.data.records import Box, Object, Record, read_records, write_records
from vista.data.skipped import Skipped
from vista.data.source import iterate_records, resolve
from vista.data.world import make_library, object_mask, split_scenes
from vista.errors import UserError
from vista.foreign.plain_pickle import load_plain


def sentence(number: int, raw: str) -> dict[str, Any]:
    sent = raw.lower()
    return {"tokens": sent.split(), "raw": raw, "sent_id": number, "sent": sent}


# Keys as in lichengunc/refer's refs(unc).p: images 1 and 2 are test images, 4 is in two splits.
REFS: list[dict[str, Any]] = [
    {
        "sent_ids": [0, 1],
        "file_name": "COCO_train2014_000000000001_0.jpg",
        "ann_id": 11,
        "ref_id": 0,
        "image_id": 1,
        "split": "testA",
        "sentences": [sentence(0, "Man on LEFT"), sentence(1, "the tall man")],
        "category_id": 1,
    },
    {
        "sent_ids": [2],
        "file_name": "COCO_train2014_000000000002_1.jpg",
        "ann_id": 21,
        "ref_id": 1,
        "image_id": 2,
        "split": "testB",
        "sentences": [sentence(2, "white cup")],
        "category_id": 47,
    },
    {
        "sent_ids": [3],
        "ann_id": 31,
        "ref_id": 2,
        "image_id": 3,
        "split": "val",
        "sentences": [sentence(3, "woman")],
        "category_id": 1,
        "file_name": "COCO_train2014_000000000003_2.jpg",
    },
    {
        "sent_ids": [4],
        "ann_id": 41,
        "ref_id": 3,
        "image_id": 4,
        "split": "train",
        "sentences": [sentence(4, "left out: its image is a test image")],
        "category_id": 1,
        "file_name": "COCO_train2014_000000000004_3.jpg",
    },
]
# Keys as in henghuiding/gRefCOCO's grefs(unc).json.
GREFS: list[dict[str, Any]] = [
    {
        "image_id": 4,
        "split": "testA",
        "sentences": [sentence(5, "both people")],
        "file_name": "COCO_train2014_000000000004.jpg",
        "category_id": [1, 1],
        "ann_id": [41, 42],
        "sent_ids": [5],
        "ref_id": 4,
        "no_target": False,
    },
    {
        "image_id": 4,
        "split": "testA",
        "sentences": [sentence(6, "the dog")],
        "file_name": "COCO_train2014_000000000004.jpg",
        "category_id": [-1],
        "ann_id": [-1],
        "sent_ids": [6],
        "ref_id": 5,
        "no_target": True,
    },
]


def annotation(number: int, image: int, x: float) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [x, 0, 2, 4],
        "iscrowd": 0,
        "area": 8,
        "segmentation": [[x, 0, x + 2, 0, x + 2, 4, x, 4]],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(1, 6):
        Image.new("RGB", (6, 4)).save(tmp_path / f"images/{number}.jpg")
    instances = {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": 6, "height": 4} for n in range(1, 6)
        ],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            *(annotation(10 * n + 1, n, 0) for n in range(1, 6)),
            annotation(42, 4, 3),
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    (tmp_path / "grefs(unc).json").write_text(json.dumps(GREFS))
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(REFS, protocol=2))
    (tmp_path / "refs.json").write_text(json.dumps(REFS))
    return tmp_path


def settings(root: Path, *references: str, **more: Any) -> RefCocoData:
    whole = DATA_SETTINGS.validate_python(
        {
            "kind": "refcoco",
            "images": str(root / "images"),
            "instances": str(root / "instances.json"),
            "references": [str(root / name) for name in references],
            **more,
        }
    )
    assert isinstance(whole, RefCocoData)
    return whole


def read(root: Path, own: RefCocoData) -> tuple[list[Record], list[Expression], Skipped]:
    skipped = Skipped()
    records = list(iterate_records(own, None, None, skipped))
    write_records(root / "records.parquet", records)
    expressions = list(refcoco_expressions(own, read_records(root / "records.parquet")))
    return records, expressions, skipped


@pytest.mark.parametrize("refs", ["refs.json", "refs(unc).p"])
def test_records_and_expressions_of_the_published_files(root: Path, refs: str) -> None:
    own = settings(root, refs, "grefs(unc).json")
    records, expressions, _ = read(root, own)
    # Validation before test; image 5 has no expression.
    assert [(r.image_id, r.split, r.group) for r in records] == [
        ("3", "validation", None),
        ("1", "test", "testA"),
        ("2", "test", "testB"),
        ("4", "test", "testA"),
    ]
    assert records[3].objects[1].box == Box(3, 0, 2, 4)
    assert [(e.image_id, e.text, e.kind) for e in expressions] == [
        ("1", "man on left", "place"),
        ("1", "the tall man", "no_place"),
        ("2", "white cup", "no_place"),
        ("3", "woman", "no_place"),
        ("4", "both people", "several"),
        ("4", "the dog", "none"),
    ]
    both = np.zeros((4, 6), dtype=bool)
    both[:, [0, 1, 3, 4]] = True
    assert (expressions[4].mask() == both).all()
    assert not expressions[5].mask().any()
    path = root / "expressions.parquet"
    assert write_expressions(path, expressions) == 6
    assert read_expressions(path) == expressions
    assert set(annotation_files(own)) == {own.instances, *own.references}


def test_limits_hold_for_each_split_and_missing_images_are_noted(root: Path) -> None:
    stray = [{**REFS[0], "image_id": 9}]
    (root / "stray.json").write_text(json.dumps(stray))
    records, expressions, skipped = read(root, settings(root, "refs.json", "stray.json", limit=1))
    assert [r.image_id for r in records] == ["4", "3", "1"]
    assert {e.image_id for e in expressions} == {"4", "3", "1"}
    assert list(skipped.notes.values()) == [1]


def test_fetched_files_lie_below_their_folder(root: Path) -> None:
    own = DATA_SETTINGS.validate_python(
        {
            "kind": "refcoco",
            "images": "images",
            "instances": "instances.json",
            "references": ["refs.json"],
            "fetch": [{"url": "https://example.org/a.zip"}],
        }
    )
    assert isinstance(own, RefCocoData)
    assert annotation_files(own) == []
    whole = resolve(own, root)
    assert isinstance(whole, RefCocoData)
    assert whole.model_copy(update={"fetch": ()}) == settings(root, "refs.json")


@pytest.mark.parametrize("target", [-1, [-1], []])
def test_no_target_without_the_flag(root: Path, target: object) -> None:
    (root / "refs.json").write_text(json.dumps([{**REFS[0], "ann_id": target}]))
    _, expressions, _ = read(root, settings(root, "refs.json"))
    assert [item.kind for item in expressions] == ["none", "none"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": None}, "key `image_id` is missing"),
        ({"split": "testC"}, "the reference of image id 1 is of split 'testC'; known are train,"),
        ({"sentences": [{"tokens": []}]}, "a sentence of the reference of image id 1 has neither"),
        ({"ann_id": "x" * 3, "split": "testA"}, "lists no annotation xxx, which an expression"),
        ({"ann_id": [None]}, "the reference of image id 1 needs an `ann_id`"),
        ({"ann_id": 21}, "annotation 21 is of image 2, an expression has it in image 1"),
    ],
)
def test_wrong_references_are_named(root: Path, change: dict[str, Any], message: str) -> None:
    (root / "refs.json").write_text(json.dumps([{**REFS[0], **change}]))
    with pytest.raises(UserError, match=message):
        read(root, settings(root, "refs.json"))


class Evil:
    """Unpickled by a common unpickler, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_refused_and_nothing_runs(
    tmp_path: Path, protocol: int
) -> None:
    folder, path = tmp_path / "made", tmp_path / "refs(unc).p"
    content = pickle.dumps([{**REFS[0], "evil": Evil(folder)}], protocol=protocol)
    pickle.loads(content)
    folder.rmdir()  # It does what it says, elsewhere.
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds more than lists, texts and numbers"):
        load_plain(path)
    assert not folder.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # GLOBAL and REDUCE
        b"(S'true'\nios\nsystem\n.",  # INST
        b"Pname\n.",  # PERSID
        b"\x82\x01.",  # EXT1
        b"cbuiltins\nlist\n.",  # even a harmless name
    ],
)
def test_every_way_to_a_name_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(UserError, match="so it is not read"):
        load_plain(path)


def test_the_unpickler_alone_refuses_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vista.foreign.plain_pickle._check", lambda file, size: None)
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps([Evil(tmp_path / "made")]))
    with pytest.raises(UserError, match="so it is not read"):
        load_plain(path)
    assert not (tmp_path / "made").exists()


def test_damaged_pickles_are_one_clear_error(tmp_path: Path) -> None:
    whole, path = pickle.dumps(REFS, protocol=2), tmp_path / "refs.p"
    rng = random.Random(0)
    for _ in range(100):
        content = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(bytes(content))
        with contextlib.suppress(UserError):
            load_plain(path)
    # 16 GiB of places in the memo.
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    with pytest.raises(UserError, match="memo is longer than the file"):
        load_plain(path)


def test_expressions_of_a_drawn_world_say_what_its_scenes_hold(tmp_path: Path) -> None:
    drawn = DrawnData(scenes=SceneCounts(train=1, validation=1, test=8))
    library = make_library(drawn)
    records = []
    for split in ("train", "validation", "test"):
        for i, scene in enumerate(split_scenes(drawn, library, drawn.seed, split)):
            objects = tuple(
                Object(o.noun, Box(*o.box), encode_mask(object_mask(o, library, 48)))
                for o in scene.objects
            )
            caption = (scene.caption,)
            name = f"{split}_{i}"
            records.append(
                Record(name, split, f"{name}.png", 48, 48, captions=caption, objects=objects)
            )
    write_records(tmp_path / "records.parquet", records)
    found = list(drawn_expressions(drawn, read_records(tmp_path / "records.parquet")))
    assert found == list(drawn_expressions(drawn, read_records(tmp_path / "records.parquet")))
    for record in records:
        of_image = [item for item in found if item.image_id == record.image_id]
        described = record.captions[0]
        for thing in record.objects:
            placed, plain = (
                [e for e in of_image if e.kind == kind and thing.category in e.text.split()]
                for kind in ("place", "no_place")
            )
            assert placed[0].text.removeprefix("the ") in described
            assert placed[0].text.startswith(f"{plain[0].text} at ")
            assert placed[0].rle == plain[0].rle == thing.rle
        several = [e for e in of_image if e.kind == "several"]
        assert [e.n_targets for e in several] == [len(record.objects)] * (len(record.objects) > 1)
        absent = [e for e in of_image if e.kind == "none"]
        assert len(absent) == 1
        assert not absent[0].mask().any()
        assert absent[0].text.split()[2] not in record.categories
    with pytest.raises(ValueError, match="other objects than its scene"):
        other = drawn.model_copy(update={"seed": 1})
        list(drawn_expressions(other, read_records(tmp_path / "records.parquet")))
