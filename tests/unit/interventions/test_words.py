"""Which images are edited, and where, when concepts are words of the captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_words import publish

from vista.config.edits import EditSettings
from vista.data.masks import encode_mask
from vista.data.records import Box, Object, Record, RecordTable, read_records, write_records
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.edit_plan import Item, plan_items
from vista.interventions.directions import ConceptDirection, Directions
from vista.judges import load_judge

WORDS = ("blue", "red", "grass", "sand", "top", "top left")
# A grid of 3 x 3 patches of 8 px.
TOP_LEFT, TOP, BOTTOM = Box(0, 0, 8, 8), Box(8, 0, 8, 8), Box(0, 16, 24, 8)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    def write(work: Path) -> None:
        (work / "geometry.json").write_text('{"size": 24, "patch": 8, "fit": "pad"}')

    return publish(tmp_path_factory.mktemp("artifacts"), "features", write)


def record(image_id: str, caption: str, *objects: Object) -> Record:
    return Record(image_id, "test", f"{image_id}.png", 24, 24, (caption,), objects=objects)


def table(folder: Path, *made: Record) -> RecordTable:
    write_records(folder / "records.parquet", made)
    return read_records(folder / "records.parquet")


def planned(features: Artifact, records: RecordTable, **changes: Any) -> list[Item]:
    found = tuple(ConceptDirection(word, True, 1) for word in WORDS)
    rows = np.eye(len(WORDS), dtype=np.float32)
    given: dict[str, Any] = {"split": "test", "sources": "words", "images": "any", **changes}
    directions = Directions("latent", "stream", found, rows)
    return plan_items(EditSettings(**given), records, directions, features, load_judge("lexical"))


def patches(chosen_p: Any) -> list[int]:
    return [int(p) for p in np.flatnonzero(chosen_p)]


def test_the_patches_are_those_of_all_objects(features: Artifact, tmp_path: Path) -> None:
    crowd = Object("dog", Box(16, 8, 8, 8), crowd=True)
    both = [Object("cat", TOP_LEFT), Object("dog", TOP)]
    records = table(
        tmp_path,
        record("two", "a red cat and a dog", *both, crowd),
        record("one", "a red cat", Object("cat", BOTTOM)),
    )
    two, one = planned(features, records)
    assert patches(two.object_p) == [0, 1]
    # Two of those outside every box, the crowd's too.
    assert len(patches(two.outside_p)) == 2
    assert set(patches(two.outside_p)) <= {2, 3, 4, 6, 7, 8}
    assert patches(one.object_p) == [6, 7, 8]
    assert [item.record.image_id for item in planned(features, records, images="one_object")] == [
        "one"
    ]


@pytest.mark.parametrize("seed", range(8))
def test_patches_outside_are_outside_crowds_too(
    features: Artifact, tmp_path: Path, seed: int
) -> None:
    crowd = Object("cat", Box(0, 8, 24, 16), crowd=True)
    records = table(tmp_path, record("a", "a red cat", Object("cat", TOP_LEFT), crowd))
    (item,) = planned(features, records, seed=seed)
    assert patches(item.outside_p)[0] in (1, 2)


def test_images_without_objects_can_be_edited_everywhere(
    features: Artifact, tmp_path: Path
) -> None:
    records = table(tmp_path, record("empty", "red grass"), record("plain", "nothing"))
    assert planned(features, records) == []
    (item,) = planned(features, records, tokens=("all",), only=("red",))
    assert (item.record.image_id, item.source) == ("empty", "red")
    assert item.patches("all", None).all()
    assert planned(features, records, tokens=("all",), images="one_object") == []


def test_masks_of_several_objects_are_joined(features: Artifact, tmp_path: Path) -> None:
    def masked(*columns: int) -> Object:
        mask = np.zeros((24, 24), dtype=bool)
        mask[:8, list(columns)] = True
        return Object("cat", TOP_LEFT, encode_mask(mask))

    # Each covers three eighths of the first patch.
    records = table(
        tmp_path,
        record("halves", "a red cat", masked(0, 1, 2), masked(3, 4, 5)),
        record("bare", "a red cat", masked(*range(8)), Object("dog", TOP)),
    )
    given: dict[str, Any] = {"object_by": "mask", "mask_cover": 0.6}
    (item,) = planned(features, records, **given)
    assert item.record.image_id == "halves"
    assert patches(item.object_p) == [0]


def test_a_source_is_one_of_those_asked_for(features: Artifact, tmp_path: Path) -> None:
    captions = [f"a red cat and a blue dog on grass {i}" for i in range(30)]
    made = [record(f"i{i:02d}", text, Object("cat", TOP)) for i, text in enumerate(captions)]
    records = table(tmp_path, *made)
    items = planned(features, records)
    # Drawn: none of the three is always taken.
    assert {item.source for item in items} == {"red", "blue", "grass"}
    again = planned(features, records, max_images=5)
    whole = {item.record.image_id: item.source for item in items}
    assert [whole[item.record.image_id] for item in again] == [item.source for item in again]
    assert {item.source for item in planned(features, records, only=("grass",))} == {"grass"}


def test_pairs_of_words_and_only(features: Artifact, tmp_path: Path) -> None:
    records = table(
        tmp_path,
        record("a", "a red cat on grass", Object("cat", TOP)),
        record("b", "a red cat and a blue dog on sand", Object("cat", TOP)),
        record("c", "a cat on grass, not on sand", Object("cat", TOP)),
    )
    kinds = (("red", "blue"), ("grass", "sand"), ("sand", "grass"))
    given: dict[str, Any] = {"task": "replace", "how": "remove_add", "pairs": kinds}
    items = planned(features, records, **given, only=("grass", "sand"))
    # In c the target is named already, so nothing could be replaced.
    assert [(item.record.image_id, item.source, item.target) for item in items] == [
        ("a", "grass", "sand"),
        ("b", "sand", "grass"),
    ]
    red = planned(features, records, **given, only=("red",))
    assert [(item.record.image_id, item.target) for item in red] == [("a", "blue")]
    assert red[0].touched.findall("a red cat, a blue dog on grass") == ["red", "blue"]


def test_a_longer_concept_is_no_shorter_one(features: Artifact, tmp_path: Path) -> None:
    records = table(
        tmp_path,
        record("corner", "a cat top left", Object("cat", TOP_LEFT)),
        record("edge", "a cat top", Object("cat", TOP)),
    )
    (item,) = planned(features, records, only=("top",))
    assert item.record.image_id == "edge"


def test_pairs_without_a_direction_are_named_where_they_are_asked_for(
    features: Artifact, tmp_path: Path
) -> None:
    records = table(tmp_path, record("a", "a red cat", Object("cat", TOP)))
    given: dict[str, Any] = {"task": "replace", "how": "add"}
    pairs = (("red", "blue"), ("blue", "violet"))
    with pytest.raises(UserError, match="'violet'"):
        planned(features, records, pairs=pairs, **given)
    assert len(planned(features, records, pairs=pairs, only=("red",), **given)) == 1
    # A word that no direction has an entry for is not looked for in captions.
    with pytest.raises(UserError, match="'pink'"):
        planned(features, records, pairs=(("pink", "blue"),), **given)
