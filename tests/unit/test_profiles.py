"""The clusters' profiles ask for what the forecast computes, and for little more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.metric import declared_metrics
from vista.engine.code import is_fetch
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.plan import load_plan

ROOT = Path(__file__).parents[2]
LIBRARIES = 4e9
STEP = 4e9
HOUR, DAY = 3600, 24 * 3600
# What a job that has them among its inputs loads whole.
LOADED = (
    *("fetch_model", "fetch_sae", "import_sae", "train_vision_sae", "train_guided_sae"),
    *("train_cross_attention", "train_diffusion"),
)
CONFIGS = ROOT / "config"
PUBLISHED = (*CONFIGS.glob("paper*.yaml"), CONFIGS / "probing-imagenet.yaml")


def of_language_model() -> dict[str, Any]:
    """Llama 3.1 8B on COCO, with what no published config asks of a language model."""
    content = read("paper-llama8b")
    metrics = ("direction_detection", "grounding_attention", "cross_attention")
    content["metrics"] = {name: {} for name in metrics}
    content["projector"]["visual_words"] = {"weight": 1}
    train = {"architecture": "topk", "expansion": 16, "k": 32, "device": "cuda"}
    content["vision_saes"] = {"topk": {"train": train}}
    readouts = ("logit_lens", "embedding_lens", "latent_lens", "visual_words", "pseudo_images")
    content["probing"] = {
        "encoders": ["dinov2"],
        "vision_saes": ["topk"],
        "vision_labels": {"steering": {}},
        **{name: {} for name in (*readouts, "steering_score")},
    }
    return content


def of_expressions() -> dict[str, Any]:
    """Llama 3.1 8B on RefCOCO."""
    content = read("paper-llama8b")
    content["data"] = {
        "kind": "refcoco",
        "images": "data/train2014",
        "instances": "data/refcoco/instances.json",
        "references": ["data/refcoco/refs(unc).p"],
    }
    content["metrics"] = {"referring_segmentation": {}}
    return content


def of_dictionaries() -> dict[str, Any]:
    """ImageNet, with what the published config does not ask of vision SAEs: of two seeds, too."""
    content, wordnet = read("probing-imagenet"), {"wordnet": "/usr/share/wordnet"}
    saes = content["vision_saes"]
    saes["seed1"] = {**saes["topk32"], "train": {**saes["topk32"]["train"], "seed": 1}}
    saes["guided"] = {**saes["topk16"], "guide": {"by": "image", **wordnet}}
    content["metrics"]["sae_stability"] = {}
    content["probing"] |= {
        "latent_probes": {"fit_split": "train", "split": "test"},
        "lca_depth": wordnet,
        "guided_latents": {"encoders": ["dinov2"], "vision_saes": ["guided"]},
    }
    return content


def nodes_of(config: Path | Callable[[], dict[str, Any]]) -> Collection[Node]:
    return load_plan(config if isinstance(config, Path) else config()).nodes.values()


ALL = (*PUBLISHED, of_language_model, of_expressions, of_dictionaries)


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return content


@pytest.fixture(scope="module")
def needs() -> dict[str, tuple[float, float]]:
    """Bytes that a job of each rule loads and holds and twice its seconds: the most of any
    published config, and of those made up of what these lack."""
    found: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for config in ALL:
        nodes = nodes_of(config)
        shapes = Shapes(Path("nothing is done yet"), nodes, threads=16)
        for node in nodes:
            sizes = [
                node_need(each, shapes).disk for each in node.parents() if each.stage in LOADED
            ]
            loaded = sum(size for size in sizes if size is not None)
            assert len(sizes) == sum(size is not None for size in sizes), node.path
            before, need = found[node.stage], node_need(node, shapes)
            loaded, seconds = loaded + (need.held or 0.0), need.seconds or 0.0
            found[node.stage] = max(before[0], loaded), max(before[1], 2 * seconds)
    return {stage: each for stage, each in found.items() if not is_fetch(stage)}


@pytest.mark.parametrize("name", ["slurm", "cluster-generic"])
def test_memory_and_time_are_those_of_the_published_configs(
    name: str, needs: dict[str, tuple[float, float]]
) -> None:
    path = ROOT / "workflow" / "profiles" / name / "config.yaml"
    profile: dict[str, Any] = yaml.safe_load(path.read_text())
    own = profile["set-resources"]
    for rule, (loaded, seconds) in needs.items():
        asked = profile["default-resources"] | own.get(rule, {})
        memory, raised = str(asked["mem_mb"]).split(" * ")
        assert raised == "attempt"
        least = LIBRARIES + loaded
        assert least <= int(memory) * 1e6 <= least + STEP, (rule, loaded)
        assert asked["runtime"] * 60 >= min(max(seconds, HOUR), DAY), (rule, seconds)
    assert own["features"] == own["features_part"]
    assert profile["retries"] == 2


@pytest.mark.parametrize("config", ALL, ids=lambda config: getattr(config, "stem", None))
def test_what_may_run_on_a_gpu_asks_for_one(
    config: Path | Callable[[], dict[str, Any]],
) -> None:
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    # `lca_depth` reads how its SAE was trained, and does not run it.
    asking = {node.stage for node in nodes_of(config) if node.gpus} - {"lca_depth"}
    assert asking
    metrics = declared_metrics()
    assert all(metrics[stage].gpu for stage in asking & set(metrics))
    for stage in asking - set(metrics):
        rule = text.split(f"use rule stage as {stage} with:")[1].split("use rule")[0]
        assert "gpu=GPUS" in rule
