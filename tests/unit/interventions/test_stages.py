"""directions and edit_captions on a model that reads planted words out of image features."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from planted_words import (
    GROUNDS,
    N_SELECT,
    N_TEST,
    NOUNS,
    edit,
    edit_job,
    find,
    named,
    place,
    read,
)
from safetensors.numpy import load_file

from vista.config.edits import DirectionSettings, EditSettings
from vista.data.records import read_records
from vista.engine.artifacts import CHECKPOINTS
from vista.errors import UserError
from vista.inputs.edit_plan import plan_items, refuse_unfit_edits
from vista.interventions.directions import ConceptDirection
from vista.interventions.selection import derangement
from vista.judges import load_judge
from vista.stages import edit_captions

JUDGE = load_judge("lexical")


def test_latents_are_found_by_label_and_marked_by_auroc(made: dict[str, Any]) -> None:
    found = read(find(made, "latent"))
    assert (found.space, found.names) == ("stream", sorted(NOUNS))
    by_name = {each.concept: each for each in found.concepts}
    for noun in NOUNS[:-1]:
        each = by_name[noun]
        assert (each.found, each.layer, each.label) == (True, 0, noun)
        assert each.latent == NOUNS.index(noun)
        assert each.n_images == N_SELECT // len(NOUNS)
        assert each.auroc is not None and each.auroc > 0.95
    last = by_name[NOUNS[-1]]
    assert (last.found, last.latent, last.n_images) == (False, None, N_SELECT // len(NOUNS))
    lengths = np.linalg.norm(found.direction_cd, axis=1)
    assert lengths == pytest.approx([float(each.found) for each in found.concepts], abs=1e-5)


def test_controls_have_other_latents(made: dict[str, Any]) -> None:
    right, wrong = read(find(made, "latent")), read(find(made, "wrong_concept"))
    like = read(find(made, "random_latent"))
    for a, b, c in zip(right.concepts, wrong.concepts, like.concepts, strict=True):
        assert a.found == b.found == c.found
        assert not a.found or (a.latent != b.latent and a.latent != c.latent)
    drawn = read(find(made, "random"))
    assert all(each.found for each in drawn.concepts)
    # Nor is the wrong concept the one that would replace it: that control would always fail.
    target = derangement(len(NOUNS), seed=0)
    latents = [each.latent for each in right.concepts]
    for c, each in enumerate(wrong.concepts):
        assert not each.found or each.latent in set(latents) - {latents[target[c]]}


def test_given_latents_are_taken_as_they_are(made: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    path.write_text('{"cat": {"layer": 0, "latent": 3}, "meat": {"layer": 0, "latent": 1}}')
    found = read(find(made, "latent_at", path=str(path)))
    assert found.names == sorted([*NOUNS, "meat"])
    at = {each.concept: each.latent for each in found.concepts if each.found}
    assert at == {"cat": 3, "meat": 1}
    path.write_text('{"cat": {"layer": 5, "latent": 3}}')
    with pytest.raises(UserError, match="layer 5"):
        find(made, "latent_at", path=str(path))
    with pytest.raises(UserError, match="the latents are of 'validation'"):
        find(made, "latent", split="test")


def test_a_word_is_a_concept_without_a_place(made: dict[str, Any]) -> None:
    concepts = {"kind": "words", "words": list(GROUNDS)}
    for method in ("latent", "mean_difference", "vision_latent"):
        found = read(find(made, method, concepts=concepts))
        assert found.names == list(GROUNDS)
        assert all(each.found and each.n_images == N_SELECT // 2 for each in found.concepts)
        assert all(each.auroc is not None and each.auroc > 0.95 for each in found.concepts)
    rows, facts = edit(
        made,
        find(made, "latent", concepts=concepts),
        sources="words",
        images="any",
        task="replace",
        how="remove_add",
        tokens=("all",),
        coefficients=(6.0,),
    )
    assert facts["n_images"] == N_TEST  # the one with two objects too
    assert facts["words"] == list(GROUNDS)
    assert {row["source"] for row in rows} == set(GROUNDS)
    assert named(rows, "none") > 0.9
    assert named(rows, "all", "target") > 0.8


@pytest.mark.parametrize(
    "method", ["latent", "mean_difference", "logistic", "rfm", "vision_latent"]
)
def test_planted_nouns_are_removed_and_replaced(made: dict[str, Any], method: str) -> None:
    found = find(made, method)
    strong = 6.0 if method == "vision_latent" else 5.0
    rows, facts = edit(made, found, coefficients=(0.001, strong))
    assert facts["n_images"] == N_TEST - 1  # one image has two objects
    assert facts["words"] == []
    assert facts["space"] == ("features" if method == "vision_latent" else "stream")
    assert len(rows) == facts["n_images"] * (1 + 2 * 2)
    assert named(rows, "none") > 0.9
    assert named(rows, "object", coefficient=0.001) > 0.9
    assert named(rows, "object", coefficient=strong) < 0.2
    assert {row["n_tokens"] for row in rows if row["variant"] != "none" and row["found"]} == {3}
    for row in rows:
        first = 3 * place(int(row["image_id"].removeprefix("image_")))
        of_object, edited = set(range(first, first + 3)), set(row["patches"])
        assert len(edited) == row["n_tokens"] and edited <= set(range(9))
        if edited and row["variant"] == "object":
            assert edited == of_object
        if row["variant"] == "outside":
            assert not edited & of_object
    rows, _ = edit(made, found, task="replace", how="remove_add", coefficients=(strong,))
    assert named(rows, "object", "target") > 0.8
    assert named(rows, "outside", "source") > named(rows, "object", "source")


@pytest.mark.parametrize("method", ["mean_difference", "rfm"])
def test_each_block_has_the_direction_that_is_fitted_after_it(
    made: dict[str, Any], method: str
) -> None:
    alone = [read(find(made, method, layer=layer)) for layer in (0, 1)]
    both = read(find(made, method, layer=0, further_layers=[1]))
    np.testing.assert_array_equal(both.direction_cd, alone[0].direction_cd)
    np.testing.assert_array_equal(both.further[1], alone[1].direction_cd)
    assert both.concepts == alone[0].concepts
    assert not np.allclose(both.further[1], both.direction_cd, atol=1e-3)
    with pytest.raises(UserError, match=r"further_layers 9: .* 0\.\.1"):
        find(made, method, further_layers=[9])


def test_further_layers_are_of_fitted_methods() -> None:
    for wrong, why in (
        ({"method": "latent", "further_layers": [1]}, "belongs to methods mean_difference"),
        ({"method": "rfm", "layer": 1, "further_layers": [1]}, "which is `layer`"),
        ({"method": "rfm", "further_layers": [1, 1]}, "none twice"),
    ):
        with pytest.raises(ValueError, match=why):
            DirectionSettings.model_validate(wrong)


def test_a_random_direction_neither_removes_nor_replaces(made: dict[str, Any]) -> None:
    found = find(made, "random")
    rows, _ = edit(made, found, coefficients=(2.0,))
    assert named(rows, "object") > 0.7
    rows, _ = edit(made, found, task="replace", how="remove_add", coefficients=(5.0,))
    assert named(rows, "object", "target") == 0


def test_ablation_and_swap_take_the_latent_that_fires(made: dict[str, Any]) -> None:
    found = find(made, "latent")
    rows, _ = edit(made, found, how="ablate", tokens=("active",), blocks=None, coefficients=(1, 2))
    assert named(rows, "active", coefficient=2.0) < 0.2
    fired = {row["n_tokens"] for row in rows if row["variant"] == "active" and row["found"]}
    assert fired == {3}
    rows, facts = edit(made, found, task="replace", how="swap", blocks=None, coefficients=(1.5,))
    assert named(rows, "object", "target") > 0.8
    assert facts["blocks"] is None
    assert all(row["blocks"] is None for row in rows)


def test_latents_of_two_layers_have_no_block_of_their_own() -> None:
    def check(*latents: tuple[int, int], **changes: Any) -> None:
        cat = ConceptDirection("cat", True, 3, *latents[0], latents=latents)
        refuse_unfit_edits(EditSettings(**changes), [cat], n_blocks=4)

    check((1, 4), (1, 5), blocks=None)
    check((1, 4), (2, 5), blocks=(0,))
    with pytest.raises(UserError, match=r"latents of 'cat' are of layers \[1, 2\]"):
        check((1, 4), (2, 5), blocks=None)


def test_a_concept_without_direction_keeps_its_rows(made: dict[str, Any]) -> None:
    rows, facts = edit(made, find(made, "latent"), coefficients=(6.0,))
    assert (facts["concepts_found"], facts["concepts"]) == (len(NOUNS) - 1, len(NOUNS))
    lost = [row for row in rows if row["source"] == NOUNS[-1]]
    assert len(lost) == 3 * 2  # without its image of two objects
    assert not any(row["found"] for row in lost)
    assert {row["n_tokens"] for row in lost} == {0}
    for image in {row["image_id"] for row in lost}:
        assert len({row["caption"] for row in lost if row["image_id"] == image}) == 1


def test_loss_counts_what_the_edit_should_leave_alone(made: dict[str, Any]) -> None:
    rows, _ = edit(made, find(made, "latent"), coefficients=(6.0,))
    # "cat on sand" and the end of the answer, less the cat.
    assert {row["loss_tokens"] for row in rows} == {3}
    plain = np.mean([row["loss_sum"] for row in rows if row["variant"] == "none"])
    assert 0 < plain < 1
    outside = np.mean([row["loss_sum"] for row in rows if row["variant"] == "outside"])
    assert outside != plain


def test_batches_of_any_size_give_the_same_captions(made: dict[str, Any]) -> None:
    found = find(made, "latent")
    one, _ = edit(made, found, coefficients=(1.0, 6.0), batch_size=1)
    many, _ = edit(made, found, coefficients=(1.0, 6.0), batch_size=64)
    for a, b in zip(one, many, strict=True):
        for nats in ("loss_sum", "damage_sum"):
            assert a.pop(nats) == pytest.approx(b.pop(nats), rel=1e-3, abs=1e-4)
        assert a == b


def test_an_interrupted_run_goes_on_with_the_same_bytes(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find(made, "latent")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    sweep: dict[str, Any] = {"coefficients": (6.0,), "blocks": ((0,), (0, 1))}
    edit_captions.run(edit_job(made, found, whole, **sweep))
    captioned = edit_captions._Editor._captioned
    calls: list[int] = []

    def fail_at_third(self: Any, items: Any) -> Any:
        calls.append(len(items))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return captioned(self, items)

    synced: Counter[str] = Counter()
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        synced[os.readlink(f"/proc/self/fd/{descriptor}")] += 1
        fsync(descriptor)

    monkeypatch.setattr(edit_captions._Editor, "_captioned", fail_at_third)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "fsync", counted)
        edit_captions.run(edit_job(made, found, resumed, **sweep))
    # A power cut leaves both finished batches: their content, then their names.
    folder = resumed / CHECKPOINTS
    parts = {f"{path}.unfinished": 1 for path in folder.iterdir()}
    assert len(parts) == 2
    assert synced == {**parts, str(folder): 2, str(resumed): 1}
    before = len(calls)
    edit_captions.run(edit_job(made, found, resumed, **sweep))
    n_batches = len(calls) - before + 2
    assert n_batches > 3
    names = ["captions.parquet", "edits.json"]
    assert sorted(path.name for path in whole.iterdir()) == sorted([*names, CHECKPOINTS])
    assert sorted(path.name for path in resumed.iterdir()) == sorted([*names, CHECKPOINTS])
    for name in names:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()
    # Killed while it is published: nothing is asked of the model again.
    calls[:] = [0] * 3
    edit_captions.run(edit_job(made, found, resumed, **sweep))
    assert calls == [0] * 3
    # Parts of batches of another size are not taken for those of this run.
    (resumed / "captions.parquet").unlink()
    calls[:] = [0]
    with pytest.raises(KeyboardInterrupt):
        edit_captions.run(edit_job(made, found, resumed, **sweep, batch_size=4))
    calls[:] = [0] * 3
    edit_captions.run(edit_job(made, found, resumed, **sweep))
    ids = [pq.read_table(each / "captions.parquet")["image_id"] for each in (whole, resumed)]
    assert ids[0].equals(ids[1])


def test_the_same_settings_give_the_same_directions(made: dict[str, Any]) -> None:
    a, b = (find(made, "random_latent", seed=3) for _ in range(2))
    assert a.digest == b.digest
    vectors = load_file(a.file("directions.safetensors"))["direction"]
    assert vectors.dtype == np.float32


def test_pairs_that_nobody_knows_are_named(made: dict[str, Any]) -> None:
    found = find(made, "latent")
    with pytest.raises(UserError, match="'unicorn'"):
        edit(made, found, task="replace", how="add", pairs=(("cat", "unicorn"),))
    with pytest.raises(UserError, match="has blocks"):
        edit(made, found, blocks=(0, 9))
    rows, _ = edit(
        made, found, task="replace", how="add", pairs=(("cat", "dog"),), coefficients=(9.0,)
    )
    assert {(row["source"], row["target"]) for row in rows} == {("cat", "dog")}


def test_patches_outside_are_as_many_and_lie_outside(made: dict[str, Any]) -> None:
    found = read(find(made, "latent"))
    table = read_records(made["records"].file("records.parquet"))
    settings = EditSettings(split="test", seed=3)
    items = plan_items(settings, table, found, made["features"], JUDGE)
    assert [item.record.image_id for item in items] == [
        f"image_{i}" for i in range(N_SELECT, N_SELECT + N_TEST - 1)
    ]
    for item in items:
        row = place(int(item.record.image_id.split("_")[1]))
        assert np.flatnonzero(item.object_p).tolist() == [3 * row, 3 * row + 1, 3 * row + 2]
        assert item.outside_p.sum() == 3
        assert not (item.outside_p & item.object_p).any()
    # What is drawn for an image does not depend on which others are edited.
    fewer = settings.model_copy(update={"max_images": 4})
    few = plan_items(fewer, table, found, made["features"], JUDGE)
    whole = {item.record.image_id: item for item in items}
    assert len(few) == 4
    for item in few:
        assert np.array_equal(item.outside_p, whole[item.record.image_id].outside_p)
    masked = settings.model_copy(update={"object_by": "mask"})
    assert plan_items(masked, table, found, made["features"], JUDGE) == []  # no object has a mask
