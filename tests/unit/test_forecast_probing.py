"""The forecast of probing experiments: figures that a reader can compute by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.forecast.formulas import denoiser_flops, denoiser_parameters
from vista.engine.forecast.missing import missing
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.overview import forecast
from vista.engine.forecast.shapes import Shapes
from vista.engine.plan import Plan, load_plan
from vista.engine.stages import stages

CONFIGS = Path(__file__).parents[2] / "config"
# DINOv2-large on 224 px, 32 times as many latents, on 16 threads.
D, S, PATCHES, CPU, GPU = 1024, 32768, 256, 16 * 40e9, 0.4 * 67e12


@pytest.fixture(scope="module")
def contents() -> dict[str, Any]:
    names = ("probing", "probing-imagenet")
    return {name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in names}


@pytest.fixture
def content(contents: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return copy.deepcopy(contents["probing-imagenet"]) | {"results": str(tmp_path)}


@pytest.fixture
def drawn(contents: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return copy.deepcopy(contents["probing"]) | {"results": str(tmp_path)}


def need(content: dict[str, Any], stage: str, name: str = "dinov2-topk32") -> Need:
    plan = load_plan(content)
    nodes = [n for n in plan.nodes.values() if (n.stage, n.name) == (stage, name)]
    shapes = Shapes(Path(plan.results), plan.nodes.values(), plan.config.threads)
    return node_need(nodes[0], shapes)


@pytest.mark.parametrize("name", ["probing", "probing-imagenet"])
def test_all_of_both_configs_is_known(contents: dict[str, Any], name: str, tmp_path: Path) -> None:
    found = forecast(load_plan(contents[name] | {"results": str(tmp_path)}), stages())
    for each in found.stages:
        amounts = (each.disk, each.held, each.memory, each.seconds)
        assert not any(amount.unknown for amount in amounts), each.stage


def test_a_class_token_takes_the_disk_of_one_patch_and_the_time_of_all(
    drawn: dict[str, Any],
) -> None:
    patches, token = (need(drawn, "features", name) for name in ("dinov2", "dinov2_class"))
    assert patches.disk is not None
    assert token.disk == 3700 * 96 * 2 == patches.disk / 36
    assert token.seconds == patches.seconds


def test_a_vision_sae_is_as_large_as_its_encoder_makes_it(content: dict[str, Any]) -> None:
    found = need(content, "train_vision_sae")
    assert found.disk == 2 * 2 * D * S * 4
    assert found.seconds == pytest.approx(12 * D * S * 8000 * 4096 / GPU + TORCH_START)
    assert found.held == 2 * 1048576 * D * 4
    assert found.memory == pytest.approx(1e9 + 2 * D * S * 16 + 4 * 4096 * S * 4)
    # Each of its four widths decodes on its own.
    nested = need(content, "train_vision_sae", "dinov2-matryoshka16")
    assert nested.seconds == pytest.approx(6 * 2.875 * D * S / 2 * 8000 * 4096 / GPU + TORCH_START)
    content["vision_saes"]["topk32"]["train"]["device"] = "cpu"
    found = need(content, "train_vision_sae")
    assert (found.memory, found.seconds) == (
        0,
        pytest.approx(12 * D * S * 8000 * 4096 / CPU + TORCH_START),
    )


def test_detection_holds_what_it_fits_on_and_no_more(content: dict[str, Any]) -> None:
    found = need(content, "ood_detection")
    assert found.held == 16 * S * (50_000 + 1024)
    own = content["probing"]["ood_detection"]
    own["far"].remove("sun")
    del content["probing"]["data"]["sun"]
    assert need(content, "ood_detection").held == found.held
    own["fit_images"] = None
    # All of every tenth of 1,281,167.
    assert need(content, "ood_detection").held == 16 * S * (128_117 + 1024)


def test_generalization_holds_the_past_of_its_probes(content: dict[str, Any]) -> None:
    before = need(content, "ood_generalization")
    assert before.held == 14 * S * (50_000 + 1024) + 8 * 25 * 1000 * S
    content["probing"]["ood_generalization"]["iterations"] = 200
    after = need(content, "ood_generalization")
    assert before.seconds is not None
    assert after.seconds is not None
    width = 2 * S + D + 3 * (32 + 128 + 512)
    more = 4 * 50_000 * width * 1000 * 100 / CPU
    assert after.seconds - before.seconds == pytest.approx(more)


def test_labels_read_every_patch_of_their_split(content: dict[str, Any]) -> None:
    every_tenth = need(content, "label_vision_latents").seconds
    content["data"]["every"] = 20
    every_twentieth = need(content, "label_vision_latents").seconds
    assert every_tenth is not None
    assert every_twentieth is not None
    ratio = (every_tenth - TORCH_START) / (every_twentieth - TORCH_START)
    assert ratio == pytest.approx(128_117 / 64_059)


def test_images_of_a_folder_of_another_name_are_unknown(content: dict[str, Any]) -> None:
    content["probing"]["data"]["sun"]["splits"]["test"] = "own"
    assert need(content, "features", "dinov2-sun").disk is None
    assert need(content, "ood_detection") == UNKNOWN
    assert need(content, "ood_generalization") != UNKNOWN


def test_images_of_a_list_are_its_lines_once_it_is_there(
    content: dict[str, Any], tmp_path: Path
) -> None:
    lines = tmp_path / "sun.txt"
    sun = {"kind": "list", "images": "data", "splits": {"test": str(lines)}}
    content["probing"]["data"]["sun"] = sun
    assert need(content, "features", "dinov2-sun").disk is None
    lines.write_text("a.jpg -1\nb.jpg -1\n\nc.jpg -1\n")
    assert need(content, "features", "dinov2-sun").disk == 3 * PATCHES * D * 2


def test_steering_makes_an_image_for_each_edit(drawn: dict[str, Any]) -> None:
    parts = need(drawn, "train_diffusion", "one_object")
    assert parts.seconds is not None
    own = {"image_size": 48, "autoencoder_sizes": 4, "channels": [64, 96]}
    # At 6 x 6 and 3 x 3 places.
    levels = (150 * 64**2, 188 * 96**2)
    assert denoiser_parameters(own) == sum(levels)
    assert denoiser_flops(own) == 2 * (36 * levels[0] + 9 * levels[1])
    found = need(drawn, "diffusion_steering", "one_object")
    # Of each of 3 x 8 targets; 20 steps, each with and without the prompt.
    images = 24 * (6 * (3 * 4 + 1) + 4 * (16 + 4)) + 6 + 16
    assert found.seconds == pytest.approx(images * 40 * denoiser_flops(own) / 40e9 + TORCH_START)
    drawn["probing"]["diffusion"]["pipeline"] = {"guidance": 1}
    alone = need(drawn, "diffusion_steering", "one_object").seconds
    assert alone == pytest.approx(images * 20 * denoiser_flops(own) / 40e9 + TORCH_START)


def test_of_a_checkpoint_pipeline_the_text_encoder_is_known_once_it_is_there(
    drawn: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "pipeline"
    source = {"kind": "checkpoint", "path": str(folder)}
    drawn["probing"]["diffusion"] |= {"pipeline": {"source": source, "device": "cuda"}}
    own = {"colour": ["red", "blue"], "ground": ["sand"], "noun": ["cat"]}
    drawn["probing"]["diffusion"]["attributes"] = own
    assert need(drawn, "prompt_features", "one_object") == UNKNOWN
    lines = lacking(load_plan(drawn))
    assert any(line.startswith(f"folder of the pipeline {folder} is not there") for line in lines)
    (folder / "text_encoder").mkdir(parents=True)
    shape = '{"hidden_size": 768, "num_hidden_layers": 12, "max_position_embeddings": 77}'
    (folder / "text_encoder" / "config.json").write_text(shape)
    found = need(drawn, "prompt_features", "one_object")
    assert found.disk == pytest.approx(3700 * 77 * 768 * 2, rel=0.001)
    assert need(drawn, "diffusion_steering", "one_object").seconds is None
    assert not any("folder of the pipeline" in line for line in lacking(load_plan(drawn)))


def test_readouts_of_a_language_model(drawn: dict[str, Any]) -> None:
    lens = need(drawn, "logit_lens", "dinov2-gemma2-w1-s0")
    assert lens.disk == 1e5 + 400 * 36 * 3 * 8
    # The other readouts read one layer more: the stream that enters block 0.
    drawn["probing"] |= {
        "embedding_lens": {},
        "latent_lens": {"index": {"tokens": 1000, "layers": [0, 1]}},
    }
    nearest = [
        need(drawn, name, "dinov2-gemma2-w1-s0") for name in ("embedding_lens", "latent_lens")
    ]
    assert [one.disk for one in nearest] == [1e5 + 400 * 36 * 4 * 8] * 2
    index = need(drawn, "index_text", "gemma2")
    assert index.disk == 2 * 1000 * 2 * 96
    plan = load_plan(drawn)
    indexed = next(node for node in plan.nodes.values() if node.stage == "index_text")
    shape = Shapes(Path(plan.results), plan.nodes.values()).llm(indexed)
    assert shape is not None
    # A product with each vector of the index, where the embedding has one with each token.
    layers, searched = 400 * 36 * 4, 2000 / shape.vocabulary
    difference = 2 * shape.vocabulary * shape.d_model * layers * (1 - searched) / 20e9
    seconds = [one.seconds or 0.0 for one in nearest]
    assert seconds[0] - seconds[1] == pytest.approx(difference)
    k = load_plan(drawn).config.llms["gemma2"].saes.train
    assert k is not None
    shared = need(drawn, "shared_latents", "dinov2-gemma2-w1-s0")
    assert shared.held == 110 * 400 * 26 * k.k


def lacking(plan: Plan) -> list[str]:
    return missing(Shapes(Path(plan.results), plan.nodes.values()))


def test_a_splits_own_folder_is_missing(content: dict[str, Any], tmp_path: Path) -> None:
    content["data"]["images"] = str(tmp_path)
    (tmp_path / "train").mkdir()
    named = [line for line in lacking(load_plan(content)) if f"{tmp_path}/" in line]
    assert [line.split(" is ")[0] for line in named] == [f"folder of images {tmp_path}/val"]
