"""Attention on objects: planted maps, maps that know nothing, and the stage on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from tests.long_table import figures_of
from vista.config.cross_attention import CrossAttentionSettings
from vista.config.language import LanguageSettings, StandinLlm
from vista.data.records import Box, Object, Record, Turn, read_records, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.engine.plan import load_plan
from vista.errors import UserError
from vista.inputs.visual_tokens import read_visual_tokens
from vista.language.attention import visual_attention
from vista.language.model import LanguageModel
from vista.metrics.cross_attention import stage as cross_attention
from vista.metrics.cross_attention.report import cross_attention_section
from vista.metrics.grounding_attention import GroundingAttentionSettings
from vista.metrics.grounding_attention import stage as grounding
from vista.metrics.grounding_attention.maps import Readings, map_values, other_regions
from vista.metrics.grounding_attention.measure import (
    Measured,
    Words,
    auroc_interval,
    caption_scores,
    grounding_attention,
)
from vista.metrics.grounding_attention.mentions import mentioned
from vista.metrics.grounding_attention.report import grounding_attention_section
from vista.metrics.results import read_result
from vista.projector.module import make_projector, save_projector
from vista.report.table import LongTable
from vista.stages import train_cross_attention
from vista.standins.llm import build_model, build_tokenizer
from vista.store.features import FeatureWriter

ROOT = Path(__file__).parents[3]
D, N_VISUAL, WIDTH = 32, 4, 8
READINGS = Readings(layers=2, heads=2)
# Readings: all, layer 0, layer 1, then heads 0.0, 0.1, 1.0, 1.1.
HEAD_1_0 = 5


def planted(n: int, head: tuple[int, int], seed: int = 0) -> tuple[Any, Any, Any]:
    """Weights [i, l, h, p] of which one head sees the object alone, regions, images."""
    rng = np.random.default_rng(seed)
    region_ip = np.zeros((n, 9), dtype=bool)
    region_ip[np.arange(n), rng.integers(9, size=n)] = True
    weights = rng.random((n, 2, 2, 9)) / 9
    weights[:, head[0], head[1]] = region_ip * 0.5
    return weights, region_ip, np.arange(n)


def words(weights: Any, region_ip: Any, image_i: Any) -> Words:
    values = map_values(READINGS.of(weights), region_ip, other_regions(region_ip, image_i))
    even = np.full(len(image_i), 0.5)
    return Words(
        image_i,
        region_ip.mean(axis=1),
        {"word": values, "before": values},
        {"word": even, "before": even},
    )


def measured(weights: Any, region_ip: Any, image_i: Any, other: Any, nats: Any) -> Measured:
    own = words(weights, region_ip, image_i)
    behind = words(other, region_ip, image_i)
    return Measured(
        own,
        caption_scores(own.values, image_i, nats[0]),
        caption_scores(behind.values, image_i, nats[1]),
    )


def test_readings_are_means_of_heads() -> None:
    weights = np.random.default_rng(0).random((3, 2, 2, 5))
    maps = READINGS.of(weights)
    assert maps.shape == (3, len(READINGS), 5)
    np.testing.assert_allclose(maps[:, 0], weights.mean(axis=(1, 2)))
    np.testing.assert_allclose(maps[:, 2], weights[:, 1].mean(axis=1))
    np.testing.assert_array_equal(maps[:, HEAD_1_0], weights[:, 1, 0])
    assert READINGS.head(HEAD_1_0) == (1, 0)


def test_scores_are_those_of_definitions_pair_by_pair() -> None:
    rng = np.random.default_rng(1)
    image_i = np.array([0, 0, 1, 2, 2])
    region_ip = rng.random((5, 9)) < 0.4
    region_ip[:, 0], region_ip[:, 1] = True, False
    maps_irp = rng.integers(0, 4, size=(5, 3, 9)) / 20  # with ties
    values = map_values(maps_irp, region_ip, other_regions(region_ip, image_i))
    for i in range(5):
        for r in range(3):
            x = maps_irp[i, r]
            assert values.on_object[i, r] == pytest.approx(x[region_ip[i]].sum() / x.sum())
            assert values.auroc[i, r] == pytest.approx(roc_auc_score(region_ip[i], x))
            assert values.on_image[i, r] == pytest.approx(x.sum())
            others = [j for j in range(5) if image_i[j] != image_i[i]]
            assert values.shuffled_auroc[i, r] == pytest.approx(
                np.mean([roc_auc_score(region_ip[j], x) for j in others])
            )
            assert values.shuffled_on_object[i, r] == pytest.approx(
                np.mean([x[region_ip[j]].sum() / x.sum() for j in others])
            )
            best = x == x.max()
            assert values.pointing[i, r] == pytest.approx(region_ip[i][best].mean())
    flat = map_values(np.ones((5, 1, 9)), region_ip, other_regions(region_ip, image_i))
    np.testing.assert_allclose(flat.entropy, 1)
    np.testing.assert_allclose(flat.auroc, 0.5)
    np.testing.assert_allclose(flat.on_object[:, 0], region_ip.mean(axis=1))


def test_planted_attention_is_found_on_other_images() -> None:
    weights, region_ip, image_i = planted(60, (1, 0))
    fit = measured(*planted(60, (1, 0), seed=9), weights, np.ones((2, 60)))
    test = measured(weights, region_ip, image_i, weights, np.ones((2, 60)))
    draws: Any = {"region": "mask", "seed": 0, "resamples": 50, "level": 0.9}
    result = grounding_attention(READINGS, test, fit, **draws)
    best = next(part for part in result.grounding if part.head is not None)
    assert (best.layer, best.head) == (1, 0)
    assert best.auroc.value == best.on_object.value == best.pointing.value == 1.0
    assert best.on_image.value == pytest.approx(0.5)
    assert best.on_object.chance == pytest.approx(1 / 9)
    # Other images' objects are elsewhere, but for one in nine.
    assert best.shuffled_on_object.value < 0.2  # type: ignore[operator]
    assert best.shuffled_auroc.value < 0.6  # type: ignore[operator]
    blind = next(part for part in result.grounding if part.layer == 0)
    assert blind.auroc.value == pytest.approx(0.5, abs=0.1)
    # A head that is chosen on images where another one was planted is not the best here.
    wrong = measured(*planted(60, (0, 1), seed=9), weights, np.ones((2, 60)))
    moved = grounding_attention(READINGS, test, wrong, **draws)
    chosen = next(part for part in moved.grounding if part.head is not None)
    assert (chosen.layer, chosen.head) == (0, 1)
    assert chosen.auroc.value < 0.7  # type: ignore[operator]


def test_the_right_image_is_told_by_what_differs() -> None:
    weights, region_ip, image_i = planted(40, (1, 0))
    nats = np.stack([np.linspace(1, 2, 40), np.linspace(1, 2, 40) + 0.01])
    test = measured(weights, region_ip, image_i, weights / 2, nats)
    draws: Any = {"region": "mask", "seed": 0, "resamples": 50, "level": 0.9}
    result = grounding_attention(READINGS, test, test, **draws)
    found = {
        part.score: (part.auroc.value, part.choice.value)
        for part in result.right_image
        if part.layer is None
    }
    assert found["attention"] == (1.0, 1.0)
    # The shape of the maps is the same behind both images.
    assert found["focus"][1] == pytest.approx(0.5, abs=0.2)
    # One threshold for all captions tells little, the difference of a caption all.
    auroc, choice = found["cross_entropy"]
    assert 0.5 < auroc < 0.55  # type: ignore[operator]
    assert choice == 1.0
    equal = measured(weights, region_ip, image_i, weights, np.ones((2, 40)))
    blind = grounding_attention(READINGS, equal, equal, **draws)
    assert blind.right_image
    assert {(part.auroc.value, part.choice.value) for part in blind.right_image} == {(0.5, 0.5)}


def test_the_interval_of_the_auroc_is_that_of_drawn_captions() -> None:
    rng = np.random.default_rng(2)
    own, other = rng.normal(0.8, 1, 50), rng.normal(0, 1, 50)
    value, low, high = auroc_interval(own, other, (3, 400, 0.9))
    truth = np.repeat([1, 0], 50)
    assert value == pytest.approx(roc_auc_score(truth, np.concatenate([own, other])))
    drawn = [(own[rows, None] > other[rows]).mean() for rows in rng.integers(50, size=(4000, 50))]
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=0.02)


# The stage.

ANSWERS = ["a red cat at left .", "a blue dog and a cat .", "two dogs at right .", "grass ."]


def record(split: str, i: int) -> Record:
    objects = [Object("cat", Box(0, 0, 4, 4)), Object("dog", Box(4, 4, 4, 4))]
    shown = {0: objects[:1], 1: objects, 2: objects[1:], 3: objects}[i]
    turns = (Turn("describe the scene .", ANSWERS[i]),)
    name = f"{split}{i}"
    return Record(name, split, f"{name}.png", 8, 8, turns=turns, objects=tuple(shown))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("artifacts")
    tokenizer = build_tokenizer([*ANSWERS, "describe the scene ."])
    source = StandinLlm(family="gemma2", d_model=D, n_blocks=2, n_heads=2, d_mlp=32, seed=1)
    model = build_model(source, tokenizer)
    images = [record(split, i) for split in ("validation", "test") for i in range(4)]

    def write_llm(work: Path) -> None:
        model.save_pretrained(work / "model")
        tokenizer.save_pretrained(work / "model")

    def write_features(work: Path) -> None:
        rng = np.random.default_rng(0)
        writer = FeatureWriter(work / "features.zarr", [r.image_id for r in images], (2, 2), WIDTH)
        features = rng.normal(size=(len(images), N_VISUAL, WIDTH)).astype(np.float32)
        writer.write_shard(0, features)
        writer.close()
        placing = {"size": 8, "patch": 4, "fit": "pad"}
        (work / "geometry.json").write_text(json.dumps(placing))

    def write_projector(work: Path, scale: float) -> None:
        projector: Any = make_projector("linear", WIDTH, D, 0)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            projector.layers[0].weight.copy_(scale * torch.randn(D, WIDTH, generator=generator))
        save_projector(work, projector)

    return {
        "llm": publish(root, "train_llm", write_llm),
        "records": publish(
            root, "records", lambda work: write_records(work / "records.parquet", images)
        ),
        "features": publish(root, "features", write_features),
        "projector": publish(root, "sees", lambda work: write_projector(work, 20)),
        "blind": publish(root, "blind", lambda work: write_projector(work, 0)),
    }


def publish(root: Path, stage: str, write: Callable[[Path], Any]) -> Artifact:
    with publishing(root, stage, "node", Provenance(stage, {}, {}, {}, {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "node")


def run(made: dict[str, Any], folder: Path, projector: str = "projector", **changes: Any) -> Any:
    llm = LanguageSettings(source=StandinLlm(family="gemma2")).model_dump(mode="json")
    own = GroundingAttentionSettings(**changes).model_dump(mode="json")
    inputs = {name: made[name] for name in ("llm", "records", "features")}
    inputs["projector"] = made[projector]
    order = {"llm": llm, "grounding_attention": own}
    return publish(
        folder, "grounding_attention", lambda work: grounding.run(Job("n", order, inputs, work))
    )


def test_the_stage_reads_each_mention_with_its_patches(
    made: dict[str, Any], tmp_path: Path
) -> None:
    artifact = run(made, tmp_path)
    items = pq.read_table(artifact.file("items.parquet")).to_pylist()
    # The last image's answer names neither of its objects.
    keys = [("test0", "cat"), ("test1", "cat"), ("test1", "dog"), ("test2", "dog")]
    assert [(row["image_id"], row["category"]) for row in items] == 2 * 3 * keys
    assert {row["covered"] for row in items} == {0.25}
    result = read_result(artifact)
    assert (result["n_images"], result["n_pairs"], result["n_fit_images"]) == (3, 4, 3)
    assert (result["n_layers"], result["n_heads"]) == (2, 2)
    # The last pair by hand: its word is one token.
    llm = LanguageModel.load(made["llm"].folder("model"))
    table = read_records(made["records"].file("records.parquet"))
    visual = read_visual_tokens(made["projector"], made["features"], table, llm)
    (row,) = table.rows_by_id(["test2"]).tolist()
    batch = llm.batch([table[row].turns], N_VISUAL, 64)
    at_bt = batch.input_ids == llm.tokenizer.convert_tokens_to_ids("dogs")
    with torch.no_grad():
        for position, chosen_bt in (("word", at_bt), ("before", at_bt.roll(-1, 1))):
            weights_nlhp, _ = visual_attention(llm, batch, visual.of([row]), chosen_bt)
            expected = float(weights_nlhp.mean(dim=(1, 2)).sum())
            found = [r for r in items if (r["image_id"], r["position"]) == ("test2", position)]
            assert found[0]["layer"] is None
            assert found[0]["on_image"] == pytest.approx(expected, rel=1e-4)
    other = run(made, tmp_path / "one", batch_size=1)
    again = pq.read_table(other.file("items.parquet")).to_pylist()
    for name in ("on_object", "on_image"):
        assert [row[name] for row in again] == pytest.approx([r[name] for r in items], rel=1e-4)


def test_attention_to_a_patch_is_that_to_its_frames(made: dict[str, Any], tmp_path: Path) -> None:
    table = read_records(made["records"].file("records.parquet"))
    images = [f"{split}{i}" for split in ("validation", "test") for i in range(4)]
    tokens = 2 * N_VISUAL

    def write(work: Path, **more: int) -> None:
        rng = np.random.default_rng(3)
        writer = FeatureWriter(work / "features.zarr", images, (2, 4), WIDTH)
        writer.write_shard(0, rng.normal(size=(8, tokens, WIDTH)).astype(np.float32))
        writer.close()
        placing = {"size": 8, "patch": 4, "fit": "pad", "per_patch": 2, **more}
        (work / "geometry.json").write_text(json.dumps(placing))

    apart = publish(tmp_path / "apart", "features", write)
    clip = publish(tmp_path / "clip", "features", lambda work: write(work, frames=2))
    found, beside = (
        pq.read_table(
            run({**made, "features": some}, tmp_path / name).file("items.parquet")
        ).to_pylist()
        for some, name in ((clip, "of_clip"), (apart, "of_tokens"))
    )
    # What goes to the image and to the object is the same; the order of places is not.
    for key in ("covered", "on_object", "on_image"):
        expected = [row[key] for row in beside]
        assert [row[key] for row in found] == pytest.approx(expected, rel=1e-5)
    assert [row["auroc"] for row in found] != [row["auroc"] for row in beside]
    # The last pair by hand: its word is one token, the dog lies on the last patch.
    llm = LanguageModel.load(made["llm"].folder("model"))
    visual = read_visual_tokens(made["projector"], clip, table, llm)
    (row,) = table.rows_by_id(["test2"]).tolist()
    batch = llm.batch([table[row].turns], tokens, 64)
    at_bt = batch.input_ids == llm.tokenizer.convert_tokens_to_ids("dogs")
    with torch.no_grad():
        weights_nlhp, _ = visual_attention(llm, batch, visual.of([row]), at_bt)
    map_p = weights_nlhp.mean(dim=(0, 1, 2)).reshape(N_VISUAL, 2).mean(dim=1)
    place = ("test2", "word", None)
    (dog,) = (r for r in found if (r["image_id"], r["position"], r["layer"]) == place)
    assert dog["auroc"] == pytest.approx(float((map_p[3] > map_p[:3]).float().mean()))


def test_a_model_that_sees_no_difference_is_at_chance(made: dict[str, Any], tmp_path: Path) -> None:
    result = read_result(run(made, tmp_path, projector="blind"))
    chosen = [(part["auroc"]["value"], part["choice"]["value"]) for part in result["right_image"]]
    assert chosen
    assert set(chosen) == {(0.5, 0.5)}
    seen = read_result(run(made, tmp_path / "sees"))
    assert {part["choice"]["value"] for part in seen["right_image"]} != {0.5}


def test_the_words_are_found_as_whole_names(made: dict[str, Any]) -> None:
    llm = LanguageModel.load(made["llm"].folder("model"))
    batch = llm.batch([(Turn("describe the scene .", "two dogs at left and a cat ."),)], 4, 64)
    places = mentioned(llm, batch, ["cat", "dog", "car"])
    texts = {
        name: llm.tokenizer.decode(batch.input_ids[0, list(tokens)])
        for name, tokens in places.items()
    }
    assert texts == {"dog": "dogs", "cat": "cat"}


def test_a_split_without_mentions_is_refused(made: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grounding_attention\.split 'train': no reference answer"):
        run(made, tmp_path, split="train")


def test_the_section_shows_both_tables(made: dict[str, Any], tmp_path: Path) -> None:
    rows = pq.read_table(run(made, tmp_path).file("rows.parquet")).to_pylist()
    point = {"encoder": "clip", "llm": "gemma", "sae_weight": 1.0, "seed": 0}
    table = LongTable(figures_of(point | {"metric": "grounding_attention"}, rows))
    first, second = grounding_attention_section(table).grids
    assert len(first.rows) == 2 * (1 + 2 + 1)
    assert [row[3] for row in second.rows] == [
        *("attention", "attention_before", "cross_entropy", "focus", "focus_before"),
    ]
    assert {row[-1] for row in first.rows} == {"4"}


# Gated cross-attention, which is measured by the same figures.


def trained(made: dict[str, Any], folder: Path, weight: float, steps: int) -> Artifact:
    llm = LanguageSettings(source=StandinLlm(family="gemma2")).model_dump(mode="json")
    train = CrossAttentionSettings(steps=steps, batch_size=2, heads=2, split="validation")
    order = {
        "llm": llm,
        "cross_attention": train.model_dump(mode="json"),
        "weight": weight,
        "seed": 0,
    }
    inputs = {name: made[name] for name in ("llm", "records", "features")}
    return publish(
        folder,
        f"train{weight:g}",
        lambda work: train_cross_attention.run(Job("n", order, inputs, work)),
    )


def test_cross_attention_is_trained_and_measured(made: dict[str, Any], tmp_path: Path) -> None:
    llm = LanguageSettings(source=StandinLlm(family="gemma2")).model_dump(mode="json")
    train = CrossAttentionSettings()
    own = {
        "weights": [0.0, 1.0],
        "split": "test",
        "fit_split": "validation",
        "max_images": 9,
        "batch_size": 2,
        "max_length": 64,
        "region": train.region,
        "mask_cover": train.mask_cover,
        "bootstrap": {},
    }
    parts = [trained(made, tmp_path, weight, steps=3) for weight in (0.0, 1.0)]
    inputs = {**{name: made[name] for name in ("llm", "records", "features")}, "trained": parts}
    artifact = publish(
        tmp_path,
        "cross_attention",
        lambda work: cross_attention.run(
            Job("n", {"llm": llm, "cross_attention": own}, inputs, work)
        ),
    )
    result = read_result(artifact)
    assert [part["weight"] for part in result["trained"]] == [0.0, 1.0]
    for part in result["trained"]:
        assert list(part["gates"]) == ["0"]
        assert part["gates"]["0"] != 0
        attention = part["attention"]
        assert (attention["n_pairs"], attention["n_layers"], attention["n_heads"]) == (4, 1, 2)
        # All of it goes to the patches.
        assert attention["grounding"][0]["on_image"]["value"] == pytest.approx(1)
        plain = result["without_image"]["value"]
        assert attention["cross_entropy"]["value"] != pytest.approx(plain, abs=1e-6)
    first, second = (part["attention"]["cross_entropy"]["value"] for part in result["trained"])
    assert result["trained"][1]["cost"]["value"] == pytest.approx(second - first)
    assert result["without_image_cost"]["value"] == pytest.approx(plain - first)
    rows = pq.read_table(artifact.file("rows.parquet")).to_pylist()
    point = {"encoder": "clip", "llm": "gemma", "sae_weight": 0.0, "seed": 0}
    table = LongTable(figures_of(point | {"metric": "cross_attention"}, rows))
    captions, words = cross_attention_section(table).grids
    assert [row[2] for row in captions.rows] == ["0", "1", "without image"]
    assert [row[5] == "–" for row in captions.rows] == [True, False, False]
    assert [row[2:4] for row in words.rows] == [
        [weight, position] for weight in ("0", "1") for position in ("before", "word")
    ]


def test_cross_attention_is_planned_once_whatever_the_sae_weights() -> None:
    content = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    before = load_plan(content)
    content["metrics"]["cross_attention"] = {"weights": [0, 0.5], "train": {"steps": 10}}
    after = load_plan(content)
    added = [node for node in after.nodes.values() if node.path not in paths(before)]
    assert sorted(node.stage for node in added) == [
        *["cross_attention"] * 2,
        "report",
        *["train_cross_attention"] * 4,
    ]
    assert {node.name for node in added if node.stage == "train_cross_attention"} == {
        f"{encoder}-gemma2-a{weight}-s0"
        for encoder in ("dinov2", "siglip")
        for weight in ("0", "0.5")
    }
    # What is measured, and in what portions, is no matter of the training.
    content["metrics"]["cross_attention"]["max_images"] = 7
    changed = [
        node.stage for node in load_plan(content).nodes.values() if node.path not in paths(after)
    ]
    assert sorted(changed) == [*["cross_attention"] * 2, "report"]


def paths(plan: Any) -> set[Any]:
    return {node.path for node in plan.nodes.values()}
