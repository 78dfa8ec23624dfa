"""What a config's probing experiments read, and what is refused before anything runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.reading import parse_config
from vista.engine.plan import load_plan
from vista.errors import UserError

ROOT = Path(__file__).parents[2]
FILES = {"kind": "folder", "images": "real", "classes": True, "splits": {"test": "all"}}


@pytest.fixture
def content() -> dict[str, Any]:
    whole = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    whole |= {"interventions": None, "metrics": {}, "vision_saes": {"a": {}, "b": {}}}
    whole["probing"] = {
        "data": {"far": FILES, "shift": {"kind": "drawn", "noise": 20}},
        "monosemanticity": {},
        "ood_detection": {"far": ["far"]},
        "ood_generalization": {"shifts": ["shift"]},
        "ontology": {},
        "image_attributes": {},
        "shared_latents": {},
    }
    return whole


def test_each_sae_of_each_encoder_is_probed_once(content: dict[str, Any]) -> None:
    plan = load_plan(content)
    encoders = len(content["encoders"])
    sae_stages = ("monosemanticity", "ood_detection", "ood_generalization", "ontology")
    for stage in (*sae_stages, "image_attributes"):
        assert sum(node.stage == stage for node in plan.nodes.values()) == 2 * encoders
    for node in plan.nodes.values():
        if node.stage == "ood_detection":
            (far,), (records,) = node.inputs["set_features"], node.inputs["set_records"]  # type: ignore[misc]
            assert far.inputs["records"] is records
            # The same encoder reads all images.
            assert far.inputs["encoder"] is node.inputs["features"].inputs["encoder"]  # type: ignore[union-attr]
        if node.stage == "monosemanticity":
            own, other = node.inputs["features"], node.inputs["other"]
            assert own.inputs["encoder"] is not other.inputs["encoder"]  # type: ignore[union-attr]


def test_an_encoder_of_the_same_model_does_not_judge(content: dict[str, Any]) -> None:
    first, second, third = content["encoders"]
    del content["encoders"][third]
    # Named so that these would come first.
    content["encoders"] = {
        "again": {**content["encoders"][first], "tokens": "class"},
        "joined": {"source": {"kind": "combined", "encoders": [first, second]}},
        **content["encoders"],
    }
    content["sweep"] = [{"encoders": [first]}]
    content["probing"]["encoders"] = ["again", first]
    nodes = [n for n in load_plan(content).nodes.values() if n.stage == "monosemanticity"]
    assert len(nodes) == 4
    for node in nodes:
        assert node.inputs["other"].name == second  # type: ignore[union-attr]
    # Whoever judges does not judge itself, by whatever name.
    content["probing"]["monosemanticity"] = {"judged_by": first}
    with pytest.raises(UserError, match="by another model than its own, and 'again' has none"):
        parse_config(content)
    content["probing"]["encoders"] = ["again", second]
    nodes = [n for n in load_plan(content).nodes.values() if n.stage == "monosemanticity"]
    assert {node.name for node in nodes} == {f"{second}-a", f"{second}-b"}
    content["probing"] |= {"encoders": [first], "monosemanticity": {}}
    del content["encoders"][second], content["encoders"]["joined"]
    with pytest.raises(UserError, match=f"and '{first}' has none; add one to `encoders`"):
        parse_config(content)


def test_a_judge_that_names_is_shown_the_images(content: dict[str, Any]) -> None:
    plain = next(n for n in load_plan(content).nodes.values() if n.stage == "image_attributes")
    judge = {"kind": "api", "base_url": "http://localhost/v1", "model": "small"}
    content["probing"]["image_attributes"] = {"judge": judge}
    shown = next(n for n in load_plan(content).nodes.values() if n.stage == "image_attributes")
    assert set(shown.inputs) - set(plain.inputs) == {"world"}
    assert (plain.modules, shown.modules) == ((), ("vista.judges.kinds.api",))


def test_gates_are_reported_and_ontology_has_pairs_of_its_own(content: dict[str, Any]) -> None:
    first = next(iter(content["encoders"]))
    content["encoders"]["early"] = {**content["encoders"][first], "layer": 0}
    content["probing"] |= {"encoders": [first], "vision_saes": ["a"]}
    content["probing"]["ontology"] = {"encoders": [first, "early"], "vision_saes": ["b"]}
    report = next(n for n in load_plan(content).nodes.values() if n.stage == "report")
    points = report.settings["points"]
    found = {
        stage: [(p["encoder"], p["method"]) for p in points if p["metric"] == stage]
        for stage in ("check_vision_sae", "ontology", "ood_detection")
    }
    assert found == {
        "check_vision_sae": [(first, "a"), (first, "b"), ("early", "b")],
        "ontology": [(first, "b"), ("early", "b")],
        "ood_detection": [(first, "a")],
    }


def test_another_set_is_new_work_for_what_reads_it_alone(content: dict[str, Any]) -> None:
    before = {node.path for node in load_plan(content).nodes.values()}
    more = copy.deepcopy(content)
    more["probing"]["data"]["near"] = {**FILES, "images": "near"}
    more["probing"]["ood_detection"]["near"] = ["near"]
    new = [n.stage for n in load_plan(more).nodes.values() if n.path not in before]
    encoders = len(content["encoders"])
    expected = ["records", *["features"] * encoders, *["ood_detection"] * 2 * encoders, "report"]
    assert sorted(new) == sorted(expected)


def test_a_device_of_an_sae_is_that_of_what_it_is_put_to_and_in_no_id(
    content: dict[str, Any],
) -> None:
    before = {node.path for node in load_plan(content).nodes.values()}
    content["vision_saes"]["a"] = {"train": {"device": "cuda"}}
    nodes = load_plan(content).nodes.values()
    assert {node.path for node in nodes} == before
    probed = ("monosemanticity", "ood_detection", "ood_generalization")
    for stage in ("train_vision_sae", *probed):
        asked = {node.name.rpartition("-")[2]: node.gpus for node in nodes if node.stage == stage}
        assert asked == {"a": 1, "b": 0}


def test_vision_models_are_probed_without_a_language_model(content: dict[str, Any]) -> None:
    content |= {"llms": {}, "sweep": [{}]}
    del content["probing"]["shared_latents"]
    assert not any(n.stage in ("text", "train_llm") for n in load_plan(content).nodes.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"ood_detection": {"far": ["sky"]}},
            "ood_detection.far names 'sky'; probing.data has far",
        ),
        ({"ood_detection": {"far": ["far"], "near": ["far"]}}, "stands under `near` and `far`"),
        ({"ood_detection": {"far": ["far", "far"]}}, "'far' is named twice"),
        (
            {"ood_generalization": {"shifts": ["shift"], "fit_split": "test"}},
            "fit_split and split are both 'test'",
        ),
        ({"ood_detection": None}, "probing.data.far is read by no experiment"),
        ({"encoders": ["vgg"]}, "probing.encoders names 'vgg'"),
        ({"vision_saes": ["c"]}, "probing.vision_saes names 'c'; vision_saes has a, b"),
        ({"ontology": {"encoders": ["vgg"]}}, "probing.ontology.encoders names 'vgg'"),
        ({"monosemanticity": {"judged_by": "vgg"}}, "judged_by is 'vgg'"),
        ({"monosemanticity": {"split": "train"}}, "vision_saes.a.train.split and images that"),
        ({"image_attributes": {"rank_split": "test"}}, "rank_split and split are both 'test'"),
        ({"image_attributes": {"split": "train", "fit_split": "test"}}, "train.split and images"),
        ({"image_attributes": {"min_share": 0.6}}, "min_share is above max_share"),
        (
            {"ood_detection": {"far": ["far"], "split": "validation"}},
            "ood_detection.far reads split 'validation', but probing.data.far has no such images",
        ),
    ],
)
def test_what_would_mislead_is_refused(
    content: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    content["probing"] |= changes
    with pytest.raises(UserError, match=expected):
        parse_config(content)


def test_points_of_a_language_model_share_the_index_of_words(content: dict[str, Any]) -> None:
    def planned(latent_lens: dict[str, Any]) -> dict[str, set[str]]:
        content["probing"] = {"latent_lens": latent_lens, "embedding_lens": {}}
        nodes = load_plan(content).nodes.values()
        assert all("index" not in n.settings["latent_lens"] for n in nodes if "index" in n.inputs)
        stages = ("index_text", "latent_lens", "embedding_lens")
        return {stage: {n.path for n in nodes if n.stage == stage} for stage in stages}

    plain = planned({})
    assert len(plain["index_text"]) == len(content["llms"])
    assert len(plain["latent_lens"]) > len(content["llms"])
    # Words that are read are no matter of the index; a batch is no reason to read again.
    words = planned({"ks": [1, 2]})
    assert words["index_text"] == plain["index_text"]
    assert not words["latent_lens"] & plain["latent_lens"]
    assert planned({"batch_size": 2}) == plain
    # What is indexed concerns the readout by it, and no other.
    index = planned({"index": {"per_word": 5}})
    assert not index["index_text"] & plain["index_text"]
    assert not index["latent_lens"] & plain["latent_lens"]
    assert index["embedding_lens"] == plain["embedding_lens"]


@pytest.mark.parametrize(
    "experiment",
    ["shared_latents", "logit_lens", "embedding_lens", "latent_lens", "labelled_latents"],
)
def test_a_language_model_is_needed(content: dict[str, Any], experiment: str) -> None:
    content |= {"llms": {}, "sweep": [{}], "probing": {experiment: {}}}
    with pytest.raises(UserError, match=f"probing.{experiment} reads language models"):
        parse_config(content)


def test_the_patch_probe_leaves_class_tokens_out(content: dict[str, Any]) -> None:
    first, second = ({"source": content["encoders"][name]["source"]} for name in ("dinov2", "clip"))
    parts = {"a": {**first, "tokens": "class"}, "b": {**second, "tokens": "class"}}
    both = {"source": {"kind": "combined", "encoders": ["a", "b"]}}
    content |= {"encoders": {"plain": first, **parts, "both": both}, "metrics": {"probe": {}}}
    content |= {"probing": None, "sweep": [{"encoders": ["plain"]}]}
    probes = [n.name for n in load_plan(content).nodes.values() if n.stage == "probe"]
    assert probes == ["plain"]


def test_another_batch_trains_another_pipeline(content: dict[str, Any]) -> None:
    def made() -> str:
        nodes = load_plan(content).nodes.values()
        return next(node.id for node in nodes if node.stage == "train_diffusion")

    diffusion: dict[str, Any] = {"data": "shift"}
    content["probing"] = {"data": {"shift": {"kind": "drawn"}}, "diffusion": diffusion}
    before = made()
    # Where and in what portions images are generated is no reason to train again.
    diffusion["pipeline"] = {"batch_size": 8}
    assert made() == before
    diffusion["pipeline"] = {"source": {"kind": "standin", "batch_size": 8}}
    assert made() != before


def test_vision_saes_are_needed(content: dict[str, Any]) -> None:
    content["vision_saes"] = {}
    with pytest.raises(UserError, match=r"monosemanticity probes SAEs .* no `vision_saes`"):
        parse_config(content)


def test_a_model_alone_has_no_judge_of_its_latents_images(content: dict[str, Any]) -> None:
    alone = next(iter(content["encoders"]))
    content["encoders"] = {alone: content["encoders"][alone]}
    content["probing"] = {"monosemanticity": {}}
    with pytest.raises(UserError) as refusal:
        parse_config(content)
    assert str(refusal.value) == (
        "config: probing.monosemanticity judges a latent's images by another model than its own, "
        f"and {alone!r} has none; add one to `encoders`, or set judged_by"
    )


def test_a_combined_encoder_does_not_judge_a_pipeline(content: dict[str, Any]) -> None:
    both = {"kind": "combined", "encoders": ["dinov2", "clip"]}
    content["encoders"]["both"] = {"source": both}
    content["probing"] = {
        "data": {"shift": {"kind": "drawn"}},
        "diffusion": {"data": "shift", "judged_by": "both"},
    }
    with pytest.raises(UserError) as refusal:
        parse_config(content)
    assert str(refusal.value) == (
        "config: probing.diffusion.judged_by is 'both', which is combined: name its part"
    )


def test_the_head_of_visual_words_is_read_where_a_projector_has_one(
    content: dict[str, Any],
) -> None:
    metrics = ("visual_words", "pseudo_images")
    content |= {"probing": {name: {} for name in metrics}, "interventions": None}
    with pytest.raises(UserError, match="no projector trains one"):
        parse_config(content)
    plain, other = list(content["encoders"])[:2]
    blocks = [{"encoders": [plain]}, {"encoders": [other], "recipe": {"visual_words": {}}}]
    content["sweep"] = blocks
    nodes = list(load_plan(content).nodes.values())
    for name in metrics:
        read = [node for node in nodes if node.stage == name]
        assert {node.name.split("-")[0] for node in read} == {other}
        projectors = [node.inputs["projector"] for node in read]
        assert {node.settings["words_weight"] for node in projectors} == {1.0}
    # With a recipe of its own a block has other projectors, and leaves those of others as they are.
    trained = {node.id for node in nodes if node.stage == "train_projector"}
    content["sweep"] = [{"encoders": [plain, other]}]
    content["probing"] = None
    before = {n.id for n in load_plan(content).nodes.values() if n.stage == "train_projector"}
    assert len(trained & before) == len(before) / 2 > 0
