"""directions and edit_captions on a model that reads planted words out of image features."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from vista.artifacts import Artifact, Job, open_artifact, publishing
from vista.artifacts import Record as ArtifactRecord
from vista.config.interventions import DirectionSettings, EditSettings
from vista.config.language import LanguageSettings, StandinLlm
from vista.config.projector import LatentsSettings
from vista.data.records import (
    Box,
    Object,
    Record,
    Turn,
    read_records,
    write_records,
    write_text,
)
from vista.errors import UserError
from vista.interventions.directions import Directions, read_directions
from vista.language.model import LanguageModel
from vista.projector.module import make_projector, save_projector
from vista.sae.label_table import LatentLabels, write_labels
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.stages import directions, edit_captions, latents, train_llm
from vista.stages.edit_plan import plan_items
from vista.standins import llm as standin
from vista.store.features import FeatureWriter

NOUNS = ("cat", "dog", "anchor", "umbrella", "star", "cloud")
GROUNDS = ("sand", "grass")
QUESTION = "what is here ?"
SOURCE = StandinLlm(family="llama", d_model=32, n_blocks=2, n_heads=2, d_mlp=32, steps=300, seed=1)
N_SELECT, N_TEST = 24, 18
SIDE = 8.0


def publish(root: Path, stage: str, write: Callable[[Path], object]) -> Artifact:
    with publishing(root, stage, "node", ArtifactRecord(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "node")


def place(i: int) -> int:
    """The row of the 3 x 3 grid that image `i` has its object in."""
    return i % 3


def records() -> list[Record]:
    found = []
    for i in range(N_SELECT + N_TEST):
        noun, ground = NOUNS[i % len(NOUNS)], GROUNDS[(i // 3) % 2]
        objects = [Object(noun, Box(0.0, SIDE * place(i), 3 * SIDE, SIDE))]
        if i == N_SELECT + N_TEST - 1:
            objects.append(objects[0])  # two objects: not to be edited
        found.append(
            Record(
                f"image_{i}",
                "validation" if i < N_SELECT else "test",
                f"image_{i}.png",
                24,
                24,
                captions=(f"{noun} on {ground}",),
                turns=(Turn(QUESTION, f"{noun} on {ground}"),),
                objects=tuple(objects),
            )
        )
    return found


def opening(noun: str, ground: str, at: Iterable[int]) -> str:
    words = np.full(9, ground, dtype=object)
    words[list(at)] = noun
    return " ".join(words)


build_model = standin.build_model


def without_first_attention(*args: Any) -> Any:
    """A model whose block 0 moves nothing between tokens: text can read what is planted only in
    the later blocks, so an edit after block 0 decides what is read."""
    model = build_model(*args)
    weight = model.model.layers[0].self_attn.o_proj.weight
    weight.data.zero_()
    weight.requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("artifacts")
    rng = np.random.default_rng(0)

    def documents(n: int) -> list[str]:
        drawn = zip(rng.choice(NOUNS, n), rng.choice(GROUNDS, n), strict=True)
        return [
            f"{opening(noun, ground, rng.choice(9, 3, replace=False))}\t{QUESTION}\t"
            f"{noun} on {ground}"
            for noun, ground in drawn
        ]

    texts = {"train": documents(800), "heldout": documents(50)}
    text = publish(root, "text", lambda work: write_text(work / "text.parquet", texts))
    settings = SOURCE.model_dump(mode="json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standin, "build_model", without_first_attention)
        llm = publish(
            root, "train_llm", lambda work: train_llm.run(Job("n", settings, {"text": text}, work))
        )
    model = LanguageModel.load(llm.folder("model"))
    every = records()

    def write_features(work: Path) -> None:
        words = [
            opening(r.objects[0].category, r.captions[0].split()[-1], range(3 * p, 3 * p + 3))
            for r, p in zip(every, map(place, range(len(every))), strict=True)
        ]
        stream_bpd = model.embed(torch.tensor(model.tokenizer(words)["input_ids"]))[:, 1:].numpy()
        ids = [r.image_id for r in every]
        writer = FeatureWriter(work / "features.zarr", ids, (3, 3), model.d_model)
        writer.write_shard(0, stream_bpd)
        writer.close()
        (work / "geometry.json").write_text('{"size": 24, "patch": 8, "fit": "pad"}')

    def write_projector(work: Path) -> None:
        projector = make_projector("linear", model.d_model, model.d_model, 0)
        with torch.no_grad():
            projector.linears()[0].weight.copy_(torch.eye(model.d_model))
            projector.linears()[0].bias.zero_()
        save_projector(work, projector)

    base = {
        "root": root,
        "llm": llm,
        "records": publish(root, "records", lambda w: write_records(w / "records.parquet", every)),
        "features": publish(root, "features", write_features),
        "projector": publish(root, "train_projector", write_projector),
    }
    return base | latent_inputs(root, model, base)


def latent_inputs(root: Path, model: LanguageModel, base: dict[str, Any]) -> dict[str, Any]:
    """An SAE after block 0 and one on the features with a latent for every noun but the last, and
    one for each ground."""
    words = [*NOUNS[:-1], *GROUNDS]
    every = [*NOUNS, *GROUNDS]
    ids = torch.tensor(model.tokenizer([" ".join([word] * 9) for word in every])["input_ids"])
    stream = model.forward(ids, taps=[0], stop_after=0).taps[0][:, 1:].mean(1)
    found: dict[str, Any] = {}
    for role, means_sd in (("sae", stream), ("vision_sae", model.embed(ids)[:, 1:].mean(1))):
        centre_d = means_sd.mean(0)
        kept = [every.index(word) for word in words]
        weights = {
            "W_enc": torch.linalg.pinv((means_sd - centre_d)[kept]),
            "W_dec": (means_sd - centre_d)[kept].clone(),
            "b_dec": centre_d,
            "b_enc": torch.full((len(words),), -0.3),
        }
        config = SaeConfig("standard", model.d_model, len(words), 0, role)
        sae = SparseAutoencoder(config, weights)
        artifact = publish(root, role, lambda work, sae=sae: save_sae(work, sae))
        share = np.full(len(words), 0.9, np.float32)
        table = LatentLabels(0, role, 1, tuple(words), share, share / 9, ((),) * len(words))
        record = ArtifactRecord("labels", {}, {"sae": artifact.digest}, "code", {})
        with publishing(root, f"labels_{role}", "node", record) as work:
            assert work is not None
            write_labels(work / "labels.parquet", table)
        labels = open_artifact(root / f"labels_{role}" / "node")
        found |= {role: artifact, f"labels_{role}": labels}
    inputs = {role: base[role] for role in ("llm", "records", "features", "projector")}
    inputs["saes"] = [found["sae"]]
    own = {"llm": llm_settings(), "latents": LatentsSettings(split="validation").model_dump()}
    record = ArtifactRecord("latents", {}, {"saes": [found["sae"].digest]}, "code", {})
    with publishing(root, "latents", "node", record) as work:
        assert work is not None
        latents.run(Job("latents", own, inputs, work))
    return found | {"latents": open_artifact(root / "latents" / "node")}


def llm_settings() -> dict[str, Any]:
    whole = LanguageSettings(source=SOURCE).model_dump(mode="json")
    return whole | {"source": {"kind": "standin", "family": "llama"}}


_COUNT: Iterator[int] = iter(range(1000))


def find(made: dict[str, Any], method: str, **changes: Any) -> Artifact:
    settings = DirectionSettings(method=method, **changes).model_dump(mode="json")
    inputs = {role: made[role] for role in ("records", "features", "projector", "llm", "latents")}
    inputs |= {"saes": [made["sae"]], "labels": [made["labels_sae"]]}
    if method == "vision_latent":
        inputs |= {"vision_sae": made["vision_sae"], "labels": made["labels_vision_sae"]}
    own = {"directions": settings, "llm": llm_settings()}
    name = f"directions_{next(_COUNT)}"
    return publish(made["root"], name, lambda work: directions.run(Job("d", own, inputs, work)))


def read(artifact: Artifact) -> Directions:
    return read_directions(artifact, {"stream": 32, "features": 32})


def edit_job(made: dict[str, Any], found: Artifact, work: Path, **changes: Any) -> Job:
    given = {"split": "test", "blocks": (0,), "max_new_tokens": 4, "batch_size": 11, **changes}
    inputs = {role: made[role] for role in ("records", "features", "projector", "llm")}
    inputs |= {"directions": found, "saes": [made["sae"]], "vision_sae": made["vision_sae"]}
    own = {"llm": llm_settings(), "edit": EditSettings(**given).model_dump(mode="json")}
    return Job("edit_captions", own, inputs, work)


def edit(made: dict[str, Any], found: Artifact, **changes: Any) -> tuple[list[Any], dict[str, Any]]:
    name = f"edit_captions_{next(_COUNT)}"
    artifact = publish(
        made["root"], name, lambda work: edit_captions.run(edit_job(made, found, work, **changes))
    )
    facts = json.loads(artifact.file("edits.json").read_text())
    return pq.read_table(artifact.file("captions.parquet")).to_pylist(), facts


def named(rows: list[Any], variant: str, key: str = "source", coefficient: float = -1) -> float:
    """Share of a variant's captions, of concepts with a direction, that name source or target."""
    chosen = [
        key_in(row, key)
        for row in rows
        if row["variant"] == variant
        and row["found"]
        and (coefficient < 0 or row["coefficient"] == coefficient)
    ]
    return float(np.mean(chosen))


def key_in(row: dict[str, Any], key: str) -> bool:
    return row[key] in row["caption"].split()


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
    rows, _ = edit(
        made,
        find(made, "latent", concepts=concepts),
        sources="words",
        task="replace",
        how="remove_add",
        tokens=("all",),
        coefficients=(6.0,),
    )
    assert {row["source"] for row in rows} == set(GROUNDS)
    assert named(rows, "none") > 0.9
    assert named(rows, "all", "target") > 0.8


@pytest.mark.parametrize("method", ["latent", "mean_difference", "logistic", "vision_latent"])
def test_planted_nouns_are_removed_and_replaced(made: dict[str, Any], method: str) -> None:
    found = find(made, method)
    strong = 6.0 if method == "vision_latent" else 5.0
    rows, facts = edit(made, found, coefficients=(0.001, strong))
    assert facts["n_images"] == N_TEST - 1  # one image has two objects
    assert facts["space"] == ("features" if method == "vision_latent" else "stream")
    assert len(rows) == facts["n_images"] * (1 + 2 * 2)
    assert named(rows, "none") > 0.9
    assert named(rows, "object", coefficient=0.001) > 0.9
    assert named(rows, "object", coefficient=strong) < 0.2
    assert {row["n_tokens"] for row in rows if row["variant"] != "none" and row["found"]} == {3}
    rows, _ = edit(made, found, task="replace", how="remove_add", coefficients=(strong,))
    assert named(rows, "object", "target") > 0.8
    assert named(rows, "outside", "source") > named(rows, "object", "source")


def test_a_random_direction_neither_removes_nor_replaces(made: dict[str, Any]) -> None:
    found = find(made, "random")
    rows, _ = edit(made, found, coefficients=(2.0,))
    assert named(rows, "object") > 0.7
    rows, _ = edit(made, found, task="replace", how="remove_add", coefficients=(5.0,))
    assert named(rows, "object", "target") == 0


def test_ablation_and_swap_take_the_latent_that_fires(made: dict[str, Any]) -> None:
    found = find(made, "latent")
    rows, _ = edit(made, found, how="ablate", tokens=("active",), coefficients=(1.0, 2.0))
    assert named(rows, "active", coefficient=2.0) < 0.2
    fired = {row["n_tokens"] for row in rows if row["variant"] == "active" and row["found"]}
    assert fired == {3}
    rows, _ = edit(made, found, task="replace", how="swap", blocks=None, coefficients=(1.5,))
    assert named(rows, "object", "target") > 0.8
    with pytest.raises(UserError, match="no latent that fires"):
        edit(made, find(made, "random"), how="ablate")


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
        assert a.pop("loss_sum") == pytest.approx(b.pop("loss_sum"), rel=1e-3, abs=1e-4)
        assert a == b


def test_an_interrupted_run_goes_on_with_the_same_bytes(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find(made, "latent")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    edit_captions.run(edit_job(made, found, whole, coefficients=(6.0,)))
    captioned = edit_captions._Editor._captioned
    calls: list[int] = []

    def fail_at_third(self: Any, items: Any) -> Any:
        calls.append(len(items))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return captioned(self, items)

    monkeypatch.setattr(edit_captions._Editor, "_captioned", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        edit_captions.run(edit_job(made, found, resumed, coefficients=(6.0,)))
    before = len(calls)
    edit_captions.run(edit_job(made, found, resumed, coefficients=(6.0,)))
    n_batches = len(calls) - before + 2
    assert n_batches > 3
    names = sorted(path.name for path in whole.iterdir())
    assert names == ["captions.parquet", "edits.json"]
    assert sorted(path.name for path in resumed.iterdir()) == names
    for name in names:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()
    # Parts of batches of another size are not taken for those of this run.
    (resumed / "captions.parquet").unlink()
    calls[:] = [0]
    with pytest.raises(KeyboardInterrupt):
        edit_captions.run(edit_job(made, found, resumed, coefficients=(6.0,), batch_size=4))
    calls[:] = [0] * 3
    edit_captions.run(edit_job(made, found, resumed, coefficients=(6.0,)))
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
    items = plan_items(settings, table, found, made["features"])
    assert [item.record.image_id for item in items] == [
        f"image_{i}" for i in range(N_SELECT, N_SELECT + N_TEST - 1)
    ]
    for item in items:
        row = place(int(item.record.image_id.split("_")[1]))
        assert np.flatnonzero(item.object_p).tolist() == [3 * row, 3 * row + 1, 3 * row + 2]
        assert item.outside_p.sum() == 3
        assert not (item.outside_p & item.object_p).any()
    # What is drawn for an image does not depend on which others are edited.
    few = plan_items(settings.model_copy(update={"max_images": 4}), table, found, made["features"])
    whole = {item.record.image_id: item for item in items}
    assert len(few) == 4
    for item in few:
        assert np.array_equal(item.outside_p, whole[item.record.image_id].outside_p)
    masked = settings.model_copy(update={"object_by": "mask"})
    assert plan_items(masked, table, found, made["features"]) == []  # no object has a mask
