"""The plan: what is asked for, shared between configs, and changed by exactly which setting."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.reading import load_config, parse_config
from vista.engine.node import Node
from vista.engine.plan import LONGEST_ORDER, Plan, load_plan
from vista.errors import UserError

CONFIGS = Path(__file__).parents[2] / "config"


@pytest.fixture
def content() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    return loaded


def nodes(content: dict[str, Any]) -> set[tuple[str, str]]:
    return set(load_plan(content).nodes)


def new(before: dict[str, Any], after: dict[str, Any]) -> Counter[str]:
    return Counter(stage for stage, _ in nodes(after) - nodes(before))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_has_a_plan_and_a_header(path: Path) -> None:
    plan = load_plan(path)
    assert len(plan.nodes) > 10
    header = path.read_text().split("name:")[0]
    for word in ("Question", "Run", "Hardware", "Time", "Expected"):
        assert f"# {word}" in header


def test_a_node_comes_after_its_inputs_and_its_order_is_one_json_text(
    content: dict[str, Any],
) -> None:
    plan = load_plan(content)
    seen: set[str] = set()
    for node in plan.nodes.values():
        assert all(parent.path in seen for parent in node.parents())
        seen.add(node.path)
        assert json.dumps(json.loads(node.spec), sort_keys=True, separators=(",", ":")) == node.spec


def test_text_tokens_of_an_llms_saes_are_left_out_of_all_three_stages(
    content: dict[str, Any],
) -> None:
    """Set once for training, check and labels; what a stage's own `text` says goes first."""
    before = copy.deepcopy(content)
    content["llms"]["llama"]["saes"]["tokens"] = {"skip_first": 2, "max_norm_ratio": 8.0}
    content["label_latents"] = {"text": {"skip_first": 1}}
    plan = load_plan(content)
    for stage, key, skipped in (
        ("train_sae", "sae", 2),
        ("check_sae", "check", 2),
        ("label_latents", "labels", 1),
    ):
        orders = [node.order for node in plan.nodes.values() if node.stage == stage]
        of = {
            name: [o for o in orders if (o["llm"]["source"]["family"] == name)]
            for name in ("llama", "gemma2")
        }
        assert of["llama"] and of["gemma2"]
        for order in of["llama"]:
            text = order[key]["text"]
            assert (text["skip_first"], text["max_norm_ratio"]) == (skipped, 8.0)
        assert all("max_norm_ratio" not in order[key]["text"] for order in of["gemma2"])
    before["llms"]["llama"]["saes"]["tokens"] = {}
    assert not new(before, yaml.safe_load((CONFIGS / "default.yaml").read_text()))


def test_a_cache_of_text_is_read_by_all_saes_of_an_llm_and_by_any_recipe(
    content: dict[str, Any],
) -> None:
    content["llms"]["llama"]["saes"]["cache_text"] = {}
    before = load_plan(content).nodes.values()
    (cache,) = [node for node in before if node.stage == "cache_text"]
    assert cache.order["layers"] == content["llms"]["llama"]["saes"]["layers"]
    readers = Counter(n.stage for n in before if n.inputs.get("cache") is not None)
    layers = len(cache.order["layers"])
    assert readers == dict.fromkeys(("train_sae", "check_sae", "label_latents"), layers)
    content["llms"]["llama"]["saes"]["train"]["lr"] = 1e-3
    after = [n for n in load_plan(content).nodes.values() if n.stage == "cache_text"]
    assert [node.id for node in after] == [cache.id]


def test_an_order_too_long_for_a_command_lies_in_a_file(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["results"] = str(tmp_path)
    content["sweep"] = [{"llms": ["gemma2"], "seeds": list(range(60))}]
    plan = load_plan(content)
    node = plan.nodes[tuple(Path(plan.report).parent.parts[-2:])]  # type: ignore[index]
    order = plan.spec(node.folder)
    assert len(node.spec) > LONGEST_ORDER > len(order)
    file = Path(order.removeprefix("@"))
    assert file.read_text() == node.spec
    # Another order is another parameter of the job; a short one stays as it is.
    content["report"] = {"dpi": 71}
    assert load_plan(content).spec(load_plan(content).report.split("/")[-2]) != order
    (world,) = (each for each in plan.nodes.values() if each.stage == "draw_world")
    assert plan.spec(world.folder) == world.spec
    assert [each.suffix for each in file.parent.iterdir()] == [".json", ".json"]


def test_reordered_keys_change_nothing(content: dict[str, Any]) -> None:
    turned = {key: content[key] for key in reversed(list(content))}
    turned["encoders"] = {key: content["encoders"][key] for key in reversed(content["encoders"])}
    before = nodes(content)
    assert {key for key in nodes(turned) if key[0] != "report"} == {
        key for key in before if key[0] != "report"
    }


def test_a_new_weight_adds_its_projectors_latents_and_metrics(content: dict[str, Any]) -> None:
    after = copy.deepcopy(content)
    after["sweep"].append(
        {"llms": ["gemma2"], "encoders": ["clip"], "sae_weights": [2], "seeds": [0]}
    )
    stages = ("train_projector", "latents", "reconstruction", "matching_rate", "localization")
    # Latents of the measured images, and of those that the frequency mask is estimated on.
    further = ("latents", "spliced_loss", "caption", "report")
    # The same point with its SAEs' input in the scale of text.
    control = ("latents", "latents", "reconstruction", "matching_rate", "localization")
    assert new(content, after) == Counter([*stages, *further, *control])


def test_without_the_term_a_projector_depends_on_no_sae(content: dict[str, Any]) -> None:
    after = copy.deepcopy(content)
    after["llms"]["llama"]["saes"]["train"] = {"d_sae": 100}
    before, then = load_plan(content), load_plan(after)

    def projectors(plan: Plan) -> set[str]:
        return {folder for stage, folder in plan.nodes if stage == "train_projector"}

    changed = projectors(then) - projectors(before)
    assert changed
    assert all("llama-w1" in folder for folder in changed)


def test_a_metrics_setting_changes_that_metric_alone(content: dict[str, Any]) -> None:
    after = copy.deepcopy(content)
    after["metrics"]["matching_rate"]["top_k"] = 2
    found = new(content, after)
    assert set(found) == {"matching_rate", "report"}


def test_a_metric_is_measured_at_the_encoders_that_it_names(content: dict[str, Any]) -> None:
    def measured(encoders: list[str] | None) -> set[tuple[str, str]]:
        content["metrics"]["grounding_attention"] = {"encoders": encoders}
        return {node for node in nodes(content) if node[0] == "grounding_attention"}

    everywhere, at_clip = measured(None), measured(["clip"])
    assert at_clip == {node for node in everywhere if node[1].startswith("clip-")}
    assert 0 < len(at_clip) < len(everywhere)
    with pytest.raises(UserError, match=r"grounding_attention.encoders names 'vit', which no"):
        measured(["vit"])


def test_what_a_metric_fits_on_is_not_what_it_is_measured_on(content: dict[str, Any]) -> None:
    content["metrics"]["direction_detection"] = {"fit_split": "test"}
    with pytest.raises(UserError, match="detection: fit_split and split are both 'test'; choose"):
        load_plan(content)
    content["metrics"]["direction_detection"] = {}
    content["paper_faithful"] = True
    content["data"]["scenes"] = {"train": 3000, "validation": 300, "test": 400}
    orders = [
        node.settings["direction_detection"]
        for (stage, _), node in load_plan(content).nodes.items()
        if stage == "direction_detection"
    ]
    assert {(order["fit_split"], order["split"]) for order in orders} == {("validation", "train")}
    content["metrics"]["direction_detection"] = {"fit_split": "train"}
    with pytest.raises(UserError, match="both 'train', which paper_faithful evaluates on"):
        load_plan(content)


def test_a_metric_that_is_left_out_is_not_planned(content: dict[str, Any]) -> None:
    del content["metrics"]["caption"]
    assert not [stage for stage, _ in nodes(content) if stage == "caption"]


def test_stand_ins_of_a_users_data_learn_from_a_drawn_world(content: dict[str, Any]) -> None:
    content["data"] = {"kind": "folder", "images": "photos"}
    with pytest.raises(UserError, match=r"add `pretraining: \{kind: drawn\}`"):
        load_plan(content)
    content["pretraining"] = {"kind": "drawn"}
    plan = load_plan(content)
    features = [node for node in plan.nodes.values() if node.stage == "features"]
    assert all(set(node.inputs) == {"records", "encoder"} for node in features)


def test_the_users_annotation_files_are_inputs_of_the_records(content: dict[str, Any]) -> None:
    files = {"instances": "i.json", "captions": "c.json"}
    content["data"] = {"kind": "coco", "images": "photos", "files": files}
    content["pretraining"] = {"kind": "drawn"}
    plan = load_plan(content)
    coco = next(folder for stage, folder in plan.nodes if folder.startswith("coco"))
    assert plan.inputs(coco, ["files"]) == {"files": ["c.json", "i.json"]}


def test_an_edit_of_a_family_or_a_judge_is_code_of_what_uses_it(content: dict[str, Any]) -> None:
    modules = {
        (node.stage, node.name.split("-")[0]): node.modules
        for node in load_plan(content).nodes.values()
    }
    assert modules["features", "clip"] == ("vista.encoders.families.clip",)
    assert modules["features", "dinov2"] == ("vista.encoders.families.dinov2",)
    assert modules["localization", "clip"] == ("vista.judges.kinds.whole_word",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metrcs": {}}, "unknown key metrcs; did you mean 'metrics'?"),
        ({"metrics": {"caption": {"max_new_token": 3}}}, "unknown key metrics.caption.max_new_to"),
        (
            {"projector": {"stages": [{"steps": "many"}]}},
            "projector.stages.0.steps: input",
        ),
        ({"projector": {"layers": [7]}}, r"projector.layers asks for layers \[7\]"),
        ({"sweep": [{"encoders": ["resnet"]}]}, "sweep names 'resnet'; encoders has clip, dinov2"),
        ({"sweep": [{"seeds": [1, 1]}]}, r"sweep.0: seeds must name at least one value"),
        ({"encoders": {"x": {"source": {"kind": "standin", "family": "vit"}}}}, "encoders.x.sour"),
        ({"data": {"kind": "draw"}}, "data: .*drawn"),
        ({"name": "a/b"}, "name: string should match"),
    ],
)
def test_a_wrong_key_or_value_is_named(
    content: dict[str, Any], change: dict[str, Any], expected: str
) -> None:
    content.update(change)
    with pytest.raises(UserError, match=expected.replace("?", r"\?").replace("many'", "many'")):
        parse_config(content)


def test_a_results_folder_that_snakemake_would_misread_is_refused(
    content: dict[str, Any],
) -> None:
    content["results"] = "out {x}"
    with pytest.raises(UserError, match=r"results: .*braces.*name another folder"):
        load_plan(content)


def test_a_missing_key_and_a_missing_file_are_named(
    content: dict[str, Any], tmp_path: Path
) -> None:
    del content["encoders"]
    with pytest.raises(UserError, match="key encoders is missing, and so is vlms"):
        parse_config(content)
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(UserError, match=r"bad\.yaml cannot be read as YAML"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(UserError, match="must hold keys and values"):
        load_config(tmp_path / "list.yaml")


def published() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CONFIGS / "paper.yaml").read_text())
    return loaded


def test_where_and_in_what_portions_a_job_runs_is_no_part_of_an_id() -> None:
    before = published()
    after = copy.deepcopy(before)
    for stage in after["projector"]["stages"]:
        stage |= {"micro_batch": 2, "checkpoint_every": 7}
    after["encoders"]["clip"] |= {"device": "cpu", "batch_size": 3}
    after["llms"]["gemma2_2b"]["model"] |= {"device": "cuda:1"}
    after["latents"]["batch_size"] = 1
    assert new(before, after) == Counter()
    # The jobs are told all the same.
    plan = load_plan(after)
    order = next(node.order for node in plan.nodes.values() if node.stage == "train_projector")
    assert order["training"]["micro_batch"] == 2
    assert order["llm"]["device"] == "cuda:1"
    spec = json.loads(next(n for n in plan.nodes.values() if n.stage == "latents").spec)
    assert spec["options"]["latents"] == {"batch_size": 1}
    # The number format is another matter.
    after["llms"]["gemma2_2b"]["model"] |= {"dtype": "float32"}
    assert {"train_projector", "latents", "caption", "check_sae"} <= set(new(before, after))


def test_a_job_on_a_gpu_asks_for_one(content: dict[str, Any]) -> None:
    gpus = {(n.stage, n.gpus) for n in load_plan(published()).nodes.values()}
    for stage in ("features", "train_projector", "latents", "caption", "check_sae"):
        assert (stage, 1) in gpus
        assert (stage, 0) not in gpus
    assert ("matching_rate", 0) in gpus
    assert {n.gpus for n in load_plan(content).nodes.values()} == {0}
    content["llms"]["llama"]["model"] |= {"device_map": "auto"}
    assert {n.gpus for n in load_plan(content).nodes.values()} == {0, 1}


def test_pretrained_parts_are_fetched_unless_the_user_has_them() -> None:
    content = published()
    stages = Counter(stage for stage, _ in nodes(content))
    assert stages["fetch_model"] == 4
    assert stages["fetch_sae"] == stages["import_sae"] == stages["fetch_labels"] == 26
    del content["data"]["fetch"]
    content["encoders"]["clip"]["source"] = {"kind": "checkpoint", "family": "clip", "path": "c"}
    saes = content["llms"]["gemma2_2b"]["saes"]
    saes |= {"pretrained": {"path": "saes/{layer}"}, "labels": {"path": "labels/{layer}"}}
    stages = Counter(stage for stage, _ in nodes(content))
    assert stages["fetch_model"] == 3
    assert not stages["fetch_sae"] and not stages["fetch_labels"]
    assert stages["import_labels"] == 26


def test_stages_of_training_follow_one_another_and_read_their_own_data() -> None:
    plan = load_plan(published())
    seconds = [n for n in plan.nodes.values() if "start" in n.inputs]
    assert len(seconds) == 6
    for node in seconds:
        start = node.inputs["start"]
        assert start.stage == "train_projector"  # type: ignore[union-attr]
        assert start.inputs["records"].name == "llava-blip_laion_cc_sbu_558k"  # type: ignore[union-attr]
        assert node.inputs["records"].name == "llava-llava_v1_5_mix665k"  # type: ignore[union-attr]
        assert "projector" not in node.settings
        assert start.settings["projector"] == {"kind": "linear", "init_scale": 1.0}  # type: ignore[union-attr]
        # No SAEs, no format of theirs.
        coarse = None if node.settings["sae_weight"] == 0 else "bfloat16"
        assert node.settings.get("sae_dtype") == start.settings.get("sae_dtype") == coarse  # type: ignore[union-attr]
    latents = [n for n in plan.nodes.values() if n.stage == "latents"]
    assert {n.inputs["projector"] for n in latents} == set(seconds)


def test_a_pretrained_projector_is_one_point_and_enters_at_evaluation(
    content: dict[str, Any],
) -> None:
    block = {"encoders": ["clip"], "llms": ["llama"], "sae_weights": [1], "seeds": [0]}
    after = copy.deepcopy(content)
    after["sweep"].append({**block, "projector": {"pretrained": "theirs.pth"}})
    found = new(content, after)
    assert found["import_projector"] == 1
    assert found["train_projector"] == 0
    (node,) = (n for n in load_plan(after).nodes.values() if n.stage == "import_projector")
    assert node.files == ("theirs.pth",)
    after["sweep"].append(block)
    with pytest.raises(UserError, match="two different projectors"):
        parse_config(after)
    content["sweep"].append({**block, "seeds": [0, 1], "projector": {"pretrained": "p.pth"}})
    with pytest.raises(UserError, match="is one point: give seeds one value"):
        parse_config(content)


@pytest.mark.parametrize(
    ("place", "change", "expected"),
    [
        ("pretrained", {"sae_id": "layer_0/width_16k/canonical"}, "put {layer} where"),
        ("labels", {"source": "0-gemmascope-res-16k"}, "labels.source .* is the same for layers"),
        ("layers", [0, 0], "name none twice"),
        ("layers", [-1], "must count from 0"),
    ],
)
def test_one_sae_for_several_layers_is_refused(place: str, change: Any, expected: str) -> None:
    content = published()
    saes = content["llms"]["gemma2_2b"]["saes"]
    saes[place] = {**saes[place], **change} if isinstance(change, dict) else change
    with pytest.raises(UserError, match=expected):
        parse_config(content)


def test_a_split_without_images_is_refused_before_anything_runs() -> None:
    content = published()
    content["latents"]["split"] = "tset"
    with pytest.raises(UserError, match=r"latents\.split"):
        parse_config(content)
    content["latents"]["split"] = "validation"
    content["data"]["fractions"] = {"train": 0, "validation": 0, "test": 1}
    with pytest.raises(UserError, match=r"latents\.split reads split 'validation', but data has"):
        parse_config(content)
    content = published()
    content["projector"]["stages"][0]["data"] = "laion"
    with pytest.raises(UserError, match="names data 'laion'; training has mix665k, pretrain_558k"):
        parse_config(content)


def with_interventions(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The default config with interventions of its first method alone, and changes to them."""
    content["interventions"] = {"methods": {"latent": {}}, **changes}
    return content


SAE = {"directions": {"method": "vision_latent"}, "vision_sae": "topk"}
NO_LATENT = {"directions": {"method": "random"}}


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        (
            {"directions": {"split": "test"}},
            {},
            "methods.x.directions.split and interventions.test are both 'test'",
        ),
        (
            {"directions": {"split": "validation"}},
            {"test": "validation", "development": "train"},
            "methods.x.directions.split and interventions.test are both 'validation'",
        ),
        (
            {**SAE, "directions": {"method": "vision_latent", "split": "validation"}},
            {"test": "train"},
            "vision_saes.topk.train.split and interventions.test are both 'train'",
        ),
        ({"removal": {"split": "train"}}, {}, "methods.x.removal.split is read by nobody"),
        ({}, {"removal": {"split": "test"}}, "interventions: removal.split is read by nobody"),
        ({"removal": {"task": "replace", "how": "add"}}, {}, "methods.x.removal.task must be"),
        ({"removal": {"blocks": 0}}, {}, "interventions.methods.x.removal.blocks: give blocks as"),
        ({"removal": {"blocks": [0, [1]]}}, {}, "methods.x.removal.blocks: give blocks as"),
        ({"removal": {"block": [0]}}, {}, "unknown key interventions.methods.x.removal.block; did"),
        ({"removal": {"preset": ["a"]}}, {}, "interventions.methods.x.removal.preset: input"),
        ({"removal": {"blocks": [99]}}, {}, r"removal.blocks names block 99; .* has blocks 0\.\.3"),
        ({"removal": {"coefficients": [0]}}, {}, "removal.coefficients.0: input should be greater"),
        ({"removal": {"coefficients": [-1]}}, {}, "coefficients.0: input should be greater"),
        ({"removal": {"max_images": 3}}, {"removal": None}, "interventions.removal is null"),
        (
            {"removal": {"controls": ["random_source", "random_source"]}},
            {},
            "methods.x.removal: controls names a control twice",
        ),
        (
            {"removal": {"controls": ["target_only"]}},
            {},
            "target_only, but a removal has no target",
        ),
        (
            {"replacement": {"how": "add", "controls": ["random_source"]}},
            {},
            "methods.x.replacement: controls replace the source's direction, which how 'add' does",
        ),
        (
            {"removal": {"how": "ablate", "blocks": None, "controls": ["wrong_concept"]}},
            {},
            "choose how remove_add or subtract, or set controls to",
        ),
        ({"removal": {"controls": ["random"]}}, {}, "removal.controls.0: input should be"),
        ({"removal": None, "replacement": None}, {}, "in neither removal nor replacement"),
        ({"sae_weights": [0.5]}, {}, "methods.x.sae_weights names 0.5, but"),
        ({"sae_weights": [0, 1, 2]}, {}, "methods.x.sae_weights names 2.0, but"),
        ({"encoders": ["clip"]}, {"encoders": ["dinov2"]}, "methods.x.encoders names 'clip', but"),
        ({"encoders": ["clip"]}, {"llms": ["llama"]}, "methods.x.encoders names 'clip', but"),
        ({}, {"encoders": ["siglip"], "llms": ["llama"]}, "leave no projector of the sweep"),
        ({"removal": {"how": "ablate"}}, {}, "set interventions.methods.x.removal.blocks to null"),
        ({**NO_LATENT, "removal": {"how": "ablate", "blocks": None}}, {}, "random have no latent"),
        ({**NO_LATENT, "removal": {"tokens": ["active"]}}, {}, "`tokens: active`, but directions"),
        ({**NO_LATENT, "removal": {"blocks": None}}, {}, "random belong to no block"),
        (
            {"directions": {"method": "vision_latent"}},
            {},
            "methods.x: `vision_sae` and directions of method vision_latent belong together",
        ),
        (
            {"vision_sae": "topk"},
            {},
            "methods.x: `vision_sae` and directions of method vision_latent belong together",
        ),
        (
            {"directions": {"method": "logistics"}},
            {},
            "methods.x.directions.method: method 'logistics' is unknown; choose one of latent, ",
        ),
        (
            {"directions": {"concepts": {"kind": "words", "words": "red"}}},
            {},
            r"concepts.words: give a list, e.g. \[red\]",
        ),
        ({"directions": {"judge": "lexicl"}}, {}, "judge 'lexicl' is unknown"),
        ({"removal": {"judge": "api"}}, {}, "methods.x.removal.judge: judge 'api' needs settings"),
        ({}, {"scores": {"judge": "lexicl"}}, "interventions.scores.judge: judge 'lexicl'"),
        (
            {"directions": {"judge": {"kind": "vlm", "source": {"path": "m"}, "model": "m"}}},
            {},
            "judge.model; it belongs to another part",
        ),
        (
            {},
            {
                "scores": {
                    "judge": {
                        "kind": "embedding",
                        "source": {"kind": "checkpoint", "path": "m"},
                        "fit_split": "test",
                    }
                }
            },
            "interventions.scores.judge.fit_split is 'test'",
        ),
    ],
)
def test_interventions_that_would_mislead_are_refused(
    content: dict[str, Any], method: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    content["vision_saes"] = {"topk": {}}
    with_interventions(content, methods={"x": method}, **changes)
    with pytest.raises(UserError, match=expected) as error:
        load_plan(content)
    assert str(error.value).startswith("config: ")


def test_edits_that_read_a_latent_in_its_own_block_are_planned(content: dict[str, Any]) -> None:
    content["vision_saes"] = {"topk": {}}
    own = {"removal": {"how": "ablate", "blocks": None, "tokens": ["active"]}}
    methods = {"latent": own, "topk": {**SAE, "removal": {"how": "ablate"}}}
    fitted = {"directions": {"method": "mean_difference", "layer": 1}, "removal": {"blocks": None}}
    load_plan(with_interventions(content, methods={**methods, "fitted": fitted}))


def test_interventions_off_the_sweep_or_without_images_are_refused(content: dict[str, Any]) -> None:
    only = [{"encoders": ["dinov2"], "llms": ["gemma2"]}]
    with pytest.raises(UserError, match=r"interventions.encoders names 'clip', which is not in"):
        parse_config(with_interventions({**content, "sweep": only}, encoders=["clip"]))
    with pytest.raises(UserError, match=r"interventions.llms names 'llama', which is not in"):
        parse_config(with_interventions({**content, "sweep": only}, llms=["llama"]))
    files = {"instances": "i.json", "captions": "c.json"}
    content["data"] = {"kind": "coco", "images": "photos", "files": files}
    content["data"]["fractions"] = {"train": 0.5, "validation": 0, "test": 0.5}
    content["pretraining"] = {"kind": "drawn"}
    with pytest.raises(
        UserError, match=r"interventions\.development reads split 'validation', but"
    ):
        del content["metrics"]["spliced_loss"]  # it reads that split, too
        parse_config(with_interventions(content))
    with_interventions(content, development="train")
    with pytest.raises(UserError, match=r"latent\.directions\.split reads split 'validation'"):
        parse_config(content)


def test_the_preset_of_a_method_comes_before_what_all_share(content: dict[str, Any]) -> None:
    common = {"blocks": [[0]], "coefficients": [3], "max_images": 7}
    own = {"preset": "published_removal_llama", "coefficients": [5]}
    with_interventions(content, removal=common, methods={"x": {"removal": own}})
    settings = parse_config(content).interventions
    assert settings is not None
    edit = settings.edit("x", "removal")
    assert edit is not None
    assert (edit.blocks, edit.coefficients, edit.max_images) == (((0, 1),), (5,), 7)
    assert edit.max_new_tokens == 100


def test_what_a_method_is_measured_on_and_reads(content: dict[str, Any]) -> None:
    repo = {"kind": "checkpoint", "repo": "who/reader", "revision": "0" * 40}
    judge = {"kind": "vlm", "source": repo}
    content["interventions"] = {
        "encoders": ["dinov2", "clip"],
        "llms": ["gemma2"],
        "removal": None,
        "methods": {
            "latent": {"directions": {"judge": judge}},
            "fitted": {"directions": {"method": "mean_difference"}, "encoders": ["clip"]},
        },
        "scores": {"judge": judge},
    }
    found = list(load_plan(content).nodes.values())
    metrics = [node for node in found if node.stage == "intervention"]
    assert {node.settings["task"] for node in metrics} == {"replacement"}
    assert Counter(node.name for node in metrics) == Counter(
        [
            *(f"{e}-gemma2-w{w}-s0-latent-replacement" for e in ("dinov2", "clip") for w in (0, 1)),
            *(f"clip-gemma2-w{w}-s0-fitted-replacement" for w in (0, 1)),
        ]
    )
    (model,) = (node for node in found if node.stage == "fetch_model")
    for node in found:
        asks = node.stage == "intervention" or (
            node.stage == "directions" and node.name.endswith("latent")
        )
        assert (model.id in [parent.id for parent in node.parents()]) == asks
    roles = {"records", "features", "latents", "labels", "saes", "checks", "judge"}
    for node in found:
        if node.stage == "directions":
            reads_latents = node.name.endswith("latent")
            assert ("latents" in node.inputs) == reads_latents
            assert ("projector" in node.inputs) == (not reads_latents)
            assert not reads_latents or set(node.inputs) <= roles
        if node.stage == "intervention":
            assert {"development", "test", "records", "judge"} == set(node.inputs)
            splits = {
                role: node.inputs[role].order["edit"]["split"] for role in ("development", "test")
            }  # type: ignore[union-attr]
            assert splits == {"development": "validation", "test": "test"}


def test_controls_add_captions_and_metrics_alone(content: dict[str, Any]) -> None:
    def planned(**changes: Any) -> dict[str, Node]:
        nodes = load_plan(with_interventions(content, encoders=["dinov2"], **changes)).nodes
        return {node.path: node for node in nodes.values() if node.stage != "report"}

    plain = {"tokens": ["all", "object"]}
    before = planned(methods={"latent": {"removal": plain}, "random": NO_LATENT})
    after = planned(
        methods={
            "latent": {"removal": {**plain, "controls": ["wrong_concept"]}},
            "random": {**NO_LATENT, "replacement": {"controls": []}},
        },
        replacement={
            "task": "replace",
            "how": "remove_add",
            "controls": ["target_only", "random_source"],
        },
    )
    assert set(before) <= set(after)
    added = [node for path, node in after.items() if path not in before]
    metrics = [node for node in added if node.stage == "intervention"]
    n_points = len({node.name for node in before.values() if node.name.endswith("latent-removal")})
    assert n_points > 1 and len(metrics) == 3 * n_points
    assert Counter(node.stage for node in added) == {
        "intervention": len(metrics),
        "edit_captions": 2 * len(metrics),
    }
    for node in metrics:
        method = node.inputs["method"]
        assert isinstance(method, Node) and method.path in before
        assert node.settings == method.settings
        captions, uncontrolled = node.inputs["test"], method.inputs["test"]
        assert isinstance(captions, Node) and isinstance(uncontrolled, Node)
        # The same directions and models, and the same edit but at the first of its places alone.
        assert captions.input_paths == uncontrolled.input_paths
        assert captions.settings["control"] in node.name
        place = "all" if node.settings["task"] == "removal" else "object"
        assert captions.settings["edit"] == {
            **uncontrolled.settings["edit"],
            "tokens": [place],
            "outside": False,
        }
        assert "control" not in uncontrolled.settings


def test_a_judge_that_looks_is_given_the_images(content: dict[str, Any]) -> None:
    def matching() -> set[str]:
        plan = load_plan(content)
        return next(set(n.inputs) for n in plan.nodes.values() if n.stage == "matching_rate")

    before = matching()
    judge = {"kind": "api", "base_url": "http://localhost:1/v1", "model": "m"}
    content["metrics"]["matching_rate"] |= {"evidence": "image", "judge": judge}
    assert matching() - before == {"world"}


def test_judges_that_are_measured_have_a_role_each(content: dict[str, Any]) -> None:
    repo = {"kind": "checkpoint", "repo": "who/reader", "revision": "0" * 40}
    judges = {"words": "lexical", "seer": {"kind": "vlm", "source": repo}}
    content["metrics"]["judge_agreement"] = {"judges": judges, "show_images": True}
    (node,) = (n for n in load_plan(content).nodes.values() if n.stage == "judge_agreement")
    assert {"records", "labels", "world", "judge_seer"} == set(node.inputs)
    assert node.inputs["judge_seer"].stage == "fetch_model"  # type: ignore[union-attr]
    assert node.modules == ("vista.judges.kinds.lexical", "vista.judges.kinds.vlm")


def test_a_template_concerns_the_stages_that_show_images_to_the_model(
    content: dict[str, Any], tmp_path: Path
) -> None:
    before = copy.deepcopy(content)
    file = str(tmp_path / "own.jinja")
    name = next(iter(content["llms"]))
    content["llms"][name]["model"] |= {"template": file, "system": "be brief"}
    text_alone = {"train_sae", "import_sae", "check_sae", "label_latents", "train_llm"}
    changed = new(before, content)
    assert not text_alone & set(changed)
    assert {"train_projector", "latents", "caption", "edit_captions"} <= set(changed)
    for node in load_plan(content).nodes.values():
        assert (file in node.files) == ("template" in node.settings.get("llm", {})), node.path
