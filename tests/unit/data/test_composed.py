"""Scenes of cut-outs: the pixels agree with masks, captions and groups, read back as COCO data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.composed_scenes import COLOURS, composed, write_cutouts
from vista.config.composed import ComposedData, ComposedRecords
from vista.config.data import records_settings
from vista.data.composed import compose_scenes, describe
from vista.data.cutouts import list_grounds
from vista.data.images import ImageSource
from vista.data.records import Record, decode_mask, read_records, write_records
from vista.data.skipped import Skipped
from vista.data.source import images_root, iterate_records

COUNTS = {"cat": 4, "owl": 3, "scissors": 1}


def compose(folder: Path, **changes: Any) -> Path:
    """Compose scenes and return their folder."""
    if not (folder / "map.json").exists():
        write_cutouts(folder, COUNTS)
    settings = composed(folder, **changes)
    out = folder / f"out{len(list(folder.glob('out*')))}"
    out.mkdir()
    grounds = list_grounds(settings.grounds, [None] * len(settings.grounds))
    compose_scenes(settings, folder / "cutouts", grounds, out)
    return out


def read(out: Path, folder: Path) -> list[Record]:
    """The records of composed scenes, through the order that a records job gets."""
    order = ComposedRecords.model_validate(records_settings(composed(folder)))
    return list(iterate_records(order, out, None, Skipped()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("composed")


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    return compose(folder)


@pytest.fixture(scope="module")
def records(out: Path, folder: Path) -> list[Record]:
    return read(out, folder)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
    }


def test_records_have_the_splits_and_groups_of_the_scenes(records: list[Record]) -> None:
    assert Counter((record.split, record.group) for record in records) == {
        ("train", None): 12,
        ("validation", None): 4,
        ("test", "seen"): 8,
        ("test", "held_out"): 6,
    }
    assert all(record.turns[0].question == "Describe the image." for record in records)
    assert all(record.turns[0].answer == record.captions[0] for record in records)
    assert all(len(set(record.captions)) == 3 for record in records)


def test_groups_go_through_the_table(records: list[Record], tmp_path: Path) -> None:
    write_records(tmp_path / "records.parquet", records)
    assert list(read_records(tmp_path / "records.parquet")) == records


def test_masks_are_the_pixels_that_show_the_object(out: Path, records: list[Record]) -> None:
    """Every pixel of a mask has its noun's colour, and no pixel outside has any object's."""
    source = ImageSource(images_root({"kind": "composed"}, out))
    pairs = 0
    for record in records:
        pixels_hw3 = np.asarray(source.open(record)).astype(int)
        outside_hw = np.ones(pixels_hw3.shape[:2], bool)
        for item in record.objects:
            assert item.rle is not None
            mask_hw = decode_mask(item.rle)
            rows, columns = np.nonzero(mask_hw)
            assert item.box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            off_hw = np.abs(pixels_hw3 - COLOURS[item.category]).max(-1)
            # The rim is mixed with what lies behind.
            assert (off_hw[mask_hw] < 12).mean() > 0.75
            assert np.median(off_hw[mask_hw]) < 8
            assert not (mask_hw & ~outside_hw).any()
            outside_hw &= ~mask_hw
        for colour in COLOURS.values():
            assert (np.abs(pixels_hw3 - colour).max(-1)[outside_hw] > 12).all()
        pairs += len(record.objects) == 2
    assert 3 <= pairs <= 20


def test_held_out_photographs_are_in_no_other_scene(out: Path) -> None:
    """The red channel of a cut-out tells its number, see tests.composed_scenes."""
    shown: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        content = json.loads((out / f"annotations/instances_{split}.json").read_text())
        group = {image["id"]: image.get("vista_group", split) for image in content["images"]}
        for item in content["annotations"]:
            shown.setdefault(group[item["image_id"]], set()).add(item["photograph"])
    others = shown["train"] | shown["validation"] | shown["seen"]
    assert len(shown["held_out"]) >= 2
    assert not shown["held_out"] & others
    assert {name.split("/")[0] for name in others} == set(COUNTS)
    # A noun with one photograph cannot be held out.
    assert {name.split("/")[0] for name in shown["held_out"]} == {"cat", "owl"}


def test_captions_name_all_objects_and_the_ground(out: Path, records: list[Record]) -> None:
    source = ImageSource(out / "images")
    for record in records:
        corner = np.asarray(source.open(record))[:2, :2].reshape(-1, 3)
        for caption in record.captions:
            assert all(noun in caption for noun in record.categories)
            assert not any(noun in caption for noun in set(COUNTS) - set(record.categories))
            if "on snow" in caption:
                assert (corner > 100).any(), "a black ground has no name"


def test_same_settings_same_bytes_and_another_seed_others(folder: Path, out: Path) -> None:
    assert digests(compose(folder)) == digests(out)
    other = digests(compose(folder, seed=1))
    assert not set(other.values()) & set(digests(out).values())


def test_more_scenes_do_not_change_those_there_were(folder: Path, out: Path) -> None:
    scenes = {"train": 15, "validation": 4, "test": 8, "held_out": 6}
    more, before = digests(compose(folder, scenes=scenes)), digests(out)
    images = {name: digest for name, digest in before.items() if name.startswith("images")}
    assert images.items() <= more.items()
    assert len(more) == len(before) + 3


def test_every_noun_comes_equally_often(folder: Path) -> None:
    alone = read(compose(folder, pair_share=0), folder)
    train = Counter(r.categories for r in alone if r.split == "train")
    assert train == {("cat",): 4, ("owl",): 4, ("scissors",): 4}


@pytest.mark.parametrize("most", [0.0, 0.2])
def test_the_front_object_covers_no_more_than_it_may(folder: Path, most: float) -> None:
    """Discs of equal size: a disc of which too little can be seen has a smaller area."""
    settings = {"pair_share": 1, "pair_scale": [0.5, 0.5], "max_occlusion": most}
    for record in read(compose(folder, **settings), folder):
        rear, front = (decode_mask(item.rle).sum() for item in record.objects if item.rle)
        assert rear >= (1 - most) * front - 1


def test_objects_that_fill_the_image_stand_side_by_side(folder: Path) -> None:
    changes = {"pair_share": 1, "pair_scale": [0.5, 1], "max_occlusion": 0, "image_size": 33}
    records = read(compose(folder, **changes), folder)
    starts = [tuple(item.box.x for item in record.objects) for record in records]
    assert (0.0, 16.0) in starts


def test_without_held_out_scenes_there_are_no_groups(folder: Path) -> None:
    scenes = {"train": 2, "validation": 1, "test": 2, "held_out": 0}
    assert {record.group for record in read(compose(folder, scenes=scenes), folder)} == {None}


def words(folder: Path, nouns: list[str], ground: str | None, **changes: Any) -> tuple[str, ...]:
    settings: ComposedData = composed(folder, **changes)
    return describe(np.random.default_rng(0), settings, nouns, ground)


def test_wordings(tmp_path: Path) -> None:
    captions = ["there {is} {objects}.", "one: {object}.", "{objects} on {ground}."]
    assert set(words(tmp_path, ["owl"], None, captions=captions)) == {
        "there is an owl.",
        "one: an owl.",
    }
    assert set(words(tmp_path, ["scissors", "cat"], "snow", captions=captions)) == {
        "there are scissors and a cat.",
        "scissors and a cat on snow.",
    }
    assert len(words(tmp_path, ["cat"], "snow", captions=captions, captions_per_scene=2)) == 2
