"""The forecast of fitted directions, of cross-attention, and of what latents' top images are read
for: figures that a reader can compute by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.forecast import fitted
from vista.engine.forecast.formulas import Device
from vista.engine.forecast.need import START, TORCH_START, Need
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.plan import load_plan
from vista.interventions import feature_machine

NEIGHBOURS = Path(__file__).parents[2] / "config" / "neighbours.yaml"
# FLOP/s of a thread: of all, and of the stand-in language model.
CPU, LLM = 40e9, 20e9
# The stand-ins' widths, patches, classes and latents; images of validation and test.
D, PATCHES, CLASSES, LATENTS, VALIDATION, TEST = 96, 36, 64, 1536, 300, 400
POINT = "dinov2-gemma2-w1-s0"


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(NEIGHBOURS.read_text())
    return content


@pytest.fixture
def content(loaded: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return copy.deepcopy(loaded) | {"results": str(tmp_path)}


def found(content: dict[str, Any], stage: str, name: str) -> tuple[Node, Shapes]:
    plan = load_plan(content)
    node = next(n for n in plan.nodes.values() if (n.stage, n.name) == (stage, name))
    return node, Shapes(Path(plan.results), plan.nodes.values(), plan.config.threads)


def need(content: dict[str, Any], stage: str, name: str) -> Need:
    return node_need(*found(content, stage, name))


def llm_flops(content: dict[str, Any]) -> tuple[float, float]:
    """FLOP of a token in all blocks, and in the head."""
    node, shapes = found(content, "caption", POINT)
    shape = shapes.llm(node)
    assert shape is not None
    assert (shape.d_model, shape.blocks) == (D, 4)
    return 2 * shape.block_parameters, 2 * shape.vocabulary * D


def rfm_seconds(tokens: float) -> float:
    """Of a class: three of four of its tokens and as many others, 60 rounds."""
    m = 0.75 * tokens
    a_round = 12 * m * D**2 + 6 * m**2 * D + m**3 / 3 + 1000 * m**2
    return 60 * (5e-4 + a_round / CPU) + 9 * D**3 / CPU


def test_the_grid_is_that_of_feature_machines() -> None:
    machine = feature_machine
    assert fitted._EXAMPLES == machine.EXAMPLES
    assert len(machine.BANDWIDTHS) * 2 == fitted._GRIDS
    assert (fitted._ROUNDS, fitted._HELD_OUT) == (machine.ROUNDS, machine.HELD_OUT)


def test_detection_reads_every_block_and_fits_each_method(content: dict[str, Any]) -> None:
    fit, test, base = VALIDATION * 32, TEST * 32, VALIDATION * 32 * 2 / 3
    once = 4 * base * D * CLASSES / CPU
    fitting = 101 * once + CLASSES * rfm_seconds(base / CLASSES)
    # Blocks 0 to 2 of 4; three methods and a random one, three blocks and their combination.
    stream = (VALIDATION + TEST) * PATCHES * llm_flops(content)[0] * 3 / 4
    ranks = 1e-7 * test * CLASSES * 4 * 4
    one = need(content, "direction_detection", POINT)
    assert one.seconds == pytest.approx(TORCH_START + stream / LLM + 3 * fitting + ranks)
    assert one.held == 4 * D * (3 * (fit + 2 * test) + 4 * fit)
    assert one.disk == 1e5 + 50 * CLASSES * 16
    metric = content["metrics"]["direction_detection"]
    metric |= {"methods": ["mean_difference"], "max_images": 100}
    fewer = need(content, "direction_detection", POINT)
    assert fewer.held == 4 * D * (3 * 3 + 4) * 3200
    seconds = 3 * once / 3 + stream / LLM * 2 / 7 + 1e-7 * 3200 * CLASSES * 8
    assert fewer.seconds == pytest.approx(TORCH_START + seconds)


@pytest.mark.parametrize("method", ["mean_difference", "logistic", "rfm"])
def test_directions_take_a_pass_up_to_the_highest_block_and_the_fits_of_each(
    content: dict[str, Any], method: str
) -> None:
    tokens = VALIDATION * PATCHES  # 32 and 32 of 36 patches, at most
    once = 4 * tokens * D * CLASSES / CPU
    fits = {
        "mean_difference": once,
        "logistic": 100 * once,
        "rfm": CLASSES * rfm_seconds(tokens / CLASSES),
    }
    stream = VALIDATION * PATCHES * llm_flops(content)[0] * 2 / 4
    one = need(content, "directions", f"{POINT}-{method}")
    assert one.seconds == pytest.approx(TORCH_START + stream / LLM + 2 * fits[method])
    assert one.held == 4 * tokens * D * 6 + 2 * CLASSES * VALIDATION * PATCHES
    assert one.memory == 0
    words = {"concepts": {"kind": "words", "words": ["red", "blue"]}, "further_layers": []}
    content["interventions"]["methods"][method]["directions"] |= words
    content["interventions"]["removal"] |= {"sources": "words", "images": "any"}
    content["interventions"]["replacement"] |= {"sources": "words", "images": "any"}
    # Of words one token an image, after one block.
    assert need(content, "directions", f"{POINT}-{method}").held == 4 * VALIDATION * D * 5


def test_feature_machines_read_2000_tokens_at_most() -> None:
    cpu = Device(gpu=False, dtype="float32", threads=1)
    most = fitted.fitting_seconds("rfm", cpu, 64_000, D, 32)
    assert most == pytest.approx(32 * rfm_seconds(2000))
    assert fitted.fitting_seconds("rfm", cpu, 10 * 64_000, D, 32) == most


def test_cross_attention_is_trained_and_read_once_for_each_weight(content: dict[str, Any]) -> None:
    blocks, head = llm_flops(content)
    node, shapes = found(content, "train_cross_attention", "dinov2-gemma2-a1-s0")
    talk = shapes.conversation(node)
    assert talk is not None
    text = round(talk.first_tokens(node.order["llm"]))
    # After 3 of 4 blocks.
    weights = 2 * 3 * D * (D + D)
    trained, steps = node_need(node, shapes), 300 * 32
    assert trained.disk == trained.held == 4 * weights
    read = 4 * 3 * D * (D * text + D * PATCHES)
    flops = steps * (2 * text * (blocks + head) + 3 * read)
    assert trained.seconds == pytest.approx(TORCH_START + flops / LLM)
    # Two weights, the own image and another one, 300 and 400 images; one split without an image.
    passes = 2 * 2 * (VALIDATION + TEST)
    flops = (passes + TEST) * text * (blocks + head) + passes * read
    measured = need(content, "cross_attention", "dinov2-gemma2-w0-s0")
    assert measured.seconds == pytest.approx(TORCH_START + flops / LLM)


def test_on_a_gpu_cross_attention_and_directions_have_a_size(content: dict[str, Any]) -> None:
    content["llms"]["gemma2"]["model"]["device"] = "cuda"
    trained = need(content, "train_cross_attention", "dinov2-gemma2-a1-s0").memory
    measured = need(content, "cross_attention", "dinov2-gemma2-w0-s0").memory
    rest = [
        need(content, "directions", f"{POINT}-rfm").memory,
        need(content, "direction_detection", POINT).memory,
    ]
    assert trained is not None
    assert measured is not None
    assert trained > 1e9 + 16 * 2 * 3 * D * 2 * D
    assert measured > 1e9 + 4 * 2 * 3 * D * 2 * D
    assert all(memory is not None and memory > 1e9 for memory in rest)


def test_common_ancestors_are_sought_once_and_in_each_permutation(content: dict[str, Any]) -> None:
    top, synsets = LATENTS * 16, 2 * CLASSES
    content["vision_saes"]["matryoshka"]["labels"] = {"top_k": 16}
    one = need(content, "lca_depth", "dinov2-matryoshka")
    assert one.seconds == pytest.approx(START + 2e-9 * top * synsets * 21)
    assert (one.memory, one.held) == (0, 4 * top * synsets)
    assert one.disk == 1e5 + 50 * LATENTS


def test_scores_of_steering_read_another_encoders_features(content: dict[str, Any]) -> None:
    content["vision_saes"]["topk"]["labels"] = {"top_k": 2}
    # CLIP is 128 wide; 128 answers of two top images each, and the test images.
    images = TEST + 128 * 2
    one = need(content, "steering_score", f"{POINT}-topk")
    assert one.seconds == pytest.approx(TORCH_START + 2e-9 * images * PATCHES * 128)
    assert one.held == 8 * images * 128
    assert one.disk == 1e5 + 200 * 128
