"""Controls of an edit: what stands in place of the source's direction, and what captions show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted_words import NOUNS, edit, find, named, publish, read

from vista.config.edits import EditControl, EditSettings
from vista.data.records import Box, Object, Record, read_records, write_records
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.edit_controls import with_wrong_concepts
from vista.inputs.edit_plan import Item, plan_items
from vista.interventions.controls import controlled, random_direction, wrong_concept
from vista.interventions.directions import ConceptDirection, Directions
from vista.interventions.edits import Concept, RowEdit, change
from vista.judges import load_judge

STRONG = 5.0


def test_what_a_control_adds_by_hand() -> None:
    x_nd = torch.zeros(2, 3)
    source, target, other = (Concept(unit_d) for unit_d in torch.eye(3))
    here = torch.tensor([True, False])
    method = RowEdit("remove_add", 2.0, here, source, target, (1,))
    expected: dict[EditControl, list[float]] = {
        "target_only": [0, 2, 0],
        "random_source": [0, 2, -2],
        "wrong_concept": [0, 2, -2],
    }
    for control, added in expected.items():
        made = controlled(method, control, None if control == "target_only" else other)
        assert change(made, x_nd).tolist() == [added] * 2
        assert (made.coefficient, made.blocks, made.patches_p) == (2.0, (1,), here)
    removal = RowEdit("subtract", 2.0, here, source)
    assert change(controlled(removal, "random_source", other), x_nd)[0].tolist() == [0, 0, -2]
    with pytest.raises(ValueError, match="needs a target"):
        controlled(removal, "target_only", None)
    with pytest.raises(ValueError, match="wrong_concept needs a direction"):
        controlled(method, "wrong_concept", None)


def test_a_random_direction_is_of_unit_norm_and_of_its_image() -> None:
    drawn = np.stack([random_direction(64, 0, f"image_{i}") for i in range(200)])
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(np.ones(200), abs=1e-6)
    assert np.array_equal(drawn[3], random_direction(64, 0, "image_3"))
    assert not np.array_equal(drawn[3], random_direction(64, 1, "image_3"))
    # Uniform on the sphere: no preferred direction, and cosines of standard deviation 1 / 8.
    cosines = (drawn @ drawn.T)[np.triu_indices(200, 1)]
    assert cosines.mean() == pytest.approx(0, abs=0.01)
    assert cosines.std() == pytest.approx(1 / 8, rel=0.05)


def test_a_wrong_concept_is_absent_and_every_absent_one_is_drawn() -> None:
    names, present = ("cat", "dog", "star", "cloud"), ("cat", "dog", "moon")
    drawn = [wrong_concept(names, present, 0, f"image_{i}") for i in range(100)]
    assert set(drawn) == {"star", "cloud"}
    assert 30 < drawn.count("star") < 70
    assert drawn == [wrong_concept(names[::-1], present, 0, f"image_{i}") for i in range(100)]
    assert wrong_concept(names, names, 0, "image_0") is None


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    def write(work: Path) -> None:
        (work / "geometry.json").write_text('{"size": 24, "patch": 8, "fit": "pad"}')

    return publish(tmp_path_factory.mktemp("controls"), "features", write)


def planned(
    features: Artifact, folder: Path, names: tuple[str, ...], latents: dict[str, int], **more: Any
) -> tuple[list[Item], list[Item]]:
    """Items of four images of one cat, without and with a wrong concept."""
    box = Box(0, 0, 8, 8)
    others = [(), (Object("dog", box, crowd=True),), (), ()]
    captions = ("a cat", "a cat", "a cat by a star", "a cat")
    records = [
        Record(
            f"i{i}", "test", f"i{i}.png", 24, 24, (captions[i],), objects=(Object("cat", box), *o)
        )
        for i, o in enumerate(others)
    ]
    write_records(folder / "records.parquet", records)
    concepts = tuple(
        ConceptDirection(name, name in latents, 1, latents=((0, latents.get(name, -1)),))
        for name in names
    )
    directions = Directions("latent", "stream", concepts, np.eye(len(names), dtype=np.float32))
    settings, judge = EditSettings(split="test", **more), load_judge("lexical")
    table = read_records(folder / "records.parquet")
    items = plan_items(settings, table, directions, features, judge)
    return items, with_wrong_concepts(items, settings, directions, judge)


def test_a_wrong_concept_is_no_object_and_in_no_caption(features: Artifact, tmp_path: Path) -> None:
    names = ("cat", "dog", "star", "cloud", "kitten", "moon")
    # A kitten has the cat's latent; the moon has no direction.
    latents = {"cat": 0, "dog": 1, "star": 2, "cloud": 3, "kitten": 0}
    items, wrong = planned(features, tmp_path, names, latents)
    assert [item.wrong for item in items] == [None] * 4
    assert [item.record.image_id for item in wrong] == ["i0", "i1", "i2", "i3"]
    for seed in range(10):
        _, drawn = planned(features, tmp_path, names, latents, seed=seed)
        assert {drawn[0].wrong, drawn[3].wrong} <= {"dog", "star", "cloud"}
        assert drawn[1].wrong in ("star", "cloud")  # the dog is a crowd
        assert drawn[2].wrong in ("dog", "cloud")  # the caption says star
        pairs = {"task": "replace", "how": "remove_add", "pairs": (("cat", "cloud"),)}
        _, drawn = planned(features, tmp_path, names, latents, seed=seed, **pairs)
        assert (drawn[1].wrong, drawn[2].wrong) == ("star", "dog")


def test_images_without_a_wrong_concept_are_left_out(features: Artifact, tmp_path: Path) -> None:
    latents = {"cat": 0, "dog": 1}
    _, wrong = planned(features, tmp_path, ("cat", "dog"), latents)
    assert [(item.record.image_id, item.wrong) for item in wrong] == [
        ("i0", "dog"),
        ("i2", "dog"),
        ("i3", "dog"),
    ]
    with pytest.raises(UserError, match="no image has one; find directions of more concepts"):
        planned(features, tmp_path, ("cat",), {"cat": 0})


def test_adding_the_target_alone_is_the_edit_add(made: dict[str, Any]) -> None:
    found, given = find(made, "latent"), {"task": "replace", "coefficients": (1.0, STRONG)}
    alone, facts = edit(
        made, found, how="remove_add", control="target_only", outside=False, **given
    )
    added, plain_facts = edit(made, found, how="add", outside=False, **given)
    assert (facts["control"], plain_facts["control"]) == ("target_only", None)
    assert (facts["how"], facts["tokens"]) == ("remove_add", ["object"])
    n_edited = 0
    for a, b in zip(alone, added, strict=True):
        # The method needs a direction of the source, too, and its control is made where it is.
        if a["found"]:
            assert a == b
            n_edited += a["variant"] == "object"
        else:
            assert a["source"] == NOUNS[-1] or b["found"] is False
    assert n_edited > 10
    # Planted: the stream keeps the source that is not taken away.
    method, _ = edit(made, found, how="remove_add", outside=False, **given)
    reached = [named(rows, "object", "target", STRONG) for rows in (method, alone)]
    assert reached[0] > 0.9 and reached[1] < 0.7


@pytest.mark.parametrize("control", ["random_source", "wrong_concept"])
def test_another_direction_removes_nothing_in_the_planted_world(
    made: dict[str, Any], control: EditControl
) -> None:
    found, given = find(made, "latent"), {"coefficients": (3.0,), "outside": False}
    method, _ = edit(made, found, **given)
    rows, facts = edit(made, found, control=control, **given)
    assert facts["n_images"] == len(rows) / 2
    assert named(method, "object") < 0.1
    assert named(rows, "object") > 0.7
    # The same images, unedited captions and patches, and a direction for the same of them.
    kept = ("image_id", "source", "target", "variant", "coefficient", "blocks", "found", "n_tokens")
    for a, b in zip(method, rows, strict=True):
        assert [a[name] for name in kept] == [b[name] for name in kept]
        assert a["variant"] != "none" or a == b
    again, _ = edit(made, found, control=control, **given)
    assert again == rows


def test_features_are_edited_along_random_directions_of_their_width(made: dict[str, Any]) -> None:
    found = find(made, "vision_latent")
    width = read(found).direction_cd.shape[1]
    assert random_direction(width, 0, "image_24").shape == (width,)
    rows, facts = edit(made, found, control="random_source", coefficients=(0.5,), outside=False)
    assert (facts["space"], facts["blocks"]) == ("features", None)
    edited = [row for row in rows if row["variant"] == "object" and row["found"]]
    assert edited and all(row["damage_sum"] > 0 for row in edited)
