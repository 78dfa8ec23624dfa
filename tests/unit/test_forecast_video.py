"""The forecast of encoders that see an image as a clip, and of images with expressions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.config.published import VIDEO_CONFIGS
from vista.engine.forecast.need import TORCH_START, Need
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.video_shapes import video_shape
from vista.engine.plan import load_plan

ROOT = Path(__file__).parents[2]
IMAGES, RATE = 3700, 70e9


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "config" / "neighbours.yaml").read_text())
    for name in ("svd", "vjepa2"):
        path = str(ROOT / "config" / "architectures" / name)
        content["encoders"][f"{name}_random"]["source"]["path"] = path
    return content | {"results": str(tmp_path)}


def need(content: dict[str, Any], stage: str, name: str) -> Need:
    plan = load_plan(content)
    node = next(n for n in plan.nodes.values() if (n.stage, n.name) == (stage, name))
    return node_need(node, Shapes(Path(plan.results), plan.nodes.values(), plan.config.threads))


def test_a_video_transformer_has_a_token_for_each_patch_and_two_frames(
    content: dict[str, Any],
) -> None:
    one = need(content, "features", "vjepa2_random")
    # 48 px in patches of 8, four frames; three blocks of width 96. Measured: 51.4 MB.
    assert one.disk == 2 * IMAGES * 72 * 96
    flops = 2 * (3 * 12 * 96**2) * 72 * IMAGES
    assert one.seconds == pytest.approx(TORCH_START + flops / RATE)
    content["encoders"]["vjepa2_random"]["source"] |= {"size": 96, "vjepa2": {"frames": 2}}
    assert need(content, "features", "vjepa2_random").disk == 2 * IMAGES * 144 * 96


@pytest.mark.parametrize("tap", ["down", "mid"])
def test_a_denoiser_takes_its_weights_at_each_place_and_frame(
    content: dict[str, Any], tap: str
) -> None:
    content["encoders"]["svd_random"]["source"]["svd"]["tap"] = tap
    one = need(content, "features", "svd_random")
    # 48 px come to 12 x 12 latents and 6 x 6 places, two frames. Measured: 51.4 MB.
    assert one.disk == 2 * IMAGES * 72 * 96
    autoencoder = 2 * 18 * (32**2 * 48**2 + 32**2 * 24**2 + 64**2 * 12**2)
    denoiser = 2 * 2 * (74 * 64**2 * 12**2 + 24 * 96**2 * 6**2)
    middle = 2 * 2 * 98 * 96**2 * 6**2 * (tap == "mid")
    clip = 2 * 2 * (4 * 64**2 + 2 * 64 * 128) * (7**2 + 1)
    flops = (autoencoder + denoiser + middle + clip) * IMAGES
    assert one.seconds == pytest.approx(TORCH_START + flops / RATE)


def test_what_reads_their_features_is_known(content: dict[str, Any]) -> None:
    content["llms"]["gemma2"]["model"]["device"] = "cuda"
    for name in ("svd_random", "vjepa2_random"):
        for stage in ("train_projector", "latents", "caption"):
            one = need(content, stage, f"{name}-gemma2-w1-s0")
            assert None not in (one.disk, one.memory, one.seconds), (stage, name)


def test_on_a_gpu_the_autoencoder_at_full_size_needs_most(content: dict[str, Any]) -> None:
    content["encoders"]["svd_random"] |= {"device": "cuda", "batch_size": 8}
    one = need(content, "features", "svd_random")
    weights = 18 * (2 * 32**2 + 64**2) + 74 * 64**2 + 24 * 96**2
    weights += 2 * (4 * 64**2 + 2 * 64 * 128)
    # Six times in float32, against 14 numbers a channel of the denoiser's first size: 1,032,192.
    assert 24 * 32 * 48**2 == 1_769_472
    assert one.memory == pytest.approx(1e9 + 4 * weights + 8 * 24 * 32 * 48**2)


def test_the_published_ones_have_the_counted_work() -> None:
    source = {"family": "svd", "repo": "stabilityai/stable-video-diffusion-img2vid"}
    shape = video_shape(source, Path("nowhere"))
    assert shape is not None
    # 448 px, eight frames.
    assert (shape.d_vision, shape.patches) == (1280, 8 * 7**2)
    # Counted by torch's FlopCounterMode on the autoencoder and the denoiser of diffusers 0.42.
    assert shape.image_flops == pytest.approx(848.8e9 + 2583.9e9 + 2 * 630.8e6 * 257, rel=0.1)
    source = {"family": "vjepa2", "repo": "facebook/vjepa2-vitl-fpc64-256"}
    shape = video_shape(source, Path("nowhere"))
    assert shape is not None
    assert (shape.d_vision, shape.patches, shape.parameters) == (1024, 256, 24 * 12 * 1024**2)
    assert set(VIDEO_CONFIGS["stabilityai/stable-video-diffusion-img2vid"]) == {
        *("unet", "vae", "image_encoder")
    }


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        *[("svd", "block_out_channels", value) for value in ("320", [320, "640"], [], [0], 7)],
        ("svd", "down_block_types", ["DownBlockSpatioTemporal"] * 3),
        ("svd", "down_block_types", 2),
        *[(family, "hidden_size", "wide") for family in ("svd", "vjepa2")],
        ("vjepa2", "tubelet_size", 0),
    ],
)
def test_a_damaged_config_fails_over_nothing(
    family: str, key: str, value: Any, tmp_path: Path
) -> None:
    source = ROOT / "config" / "architectures" / family
    for path in source.rglob("*.json"):
        copied = tmp_path / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert video_shape({"family": family, "path": str(source)}, None) is not None
    assert video_shape({"family": family, "path": str(tmp_path)}, None) is None


def test_images_of_published_expressions_are_counted(tmp_path: Path) -> None:
    def rows(*references: str) -> Any:
        content = yaml.safe_load((ROOT / "config" / "paper-llama8b.yaml").read_text())
        content["data"] = {
            "kind": "refcoco",
            "images": "data",
            "instances": "instances.json",
            "references": list(references),
            "every": 10,
        }
        plan = load_plan(content | {"results": str(tmp_path), "metrics": {}})
        shapes = Shapes(tmp_path, plan.nodes.values())
        records = next(n for n in plan.nodes.values() if n.settings.get("kind") == "refcoco")
        images = shapes.images(records)
        return images and dict(images.rows)

    assert rows("data/refcoco/refs(unc).p") == {"train": 1700, "validation": 150, "test": 150}
    assert rows("data/refs.json") is None
    assert rows("data/refcoco/refs(unc).p", "data/refcoco+/refs(unc).p") is None
