"""One contract for every family: token count, grid order, prefix tokens, batches, clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from vista.encoders.contract import VisionEncoder, load_encoder
from vista.encoders.registry import load_family
from vista.errors import UserError

SIZE, PATCH, SIDE = 24, 4, 6
SHARED: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": PATCH,
    "initializer_range": 0.2,
}
VISION = {**SHARED, "intermediate_size": 64}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 9,
    "max_position_embeddings": 8,
}


def _dinov2() -> Any:
    return transformers.Dinov2Model(transformers.Dinov2Config(**SHARED))


def _registers() -> Any:
    config = transformers.Dinov2WithRegistersConfig(**SHARED, num_register_tokens=4)
    return transformers.Dinov2WithRegistersModel(config)


def _clip() -> Any:
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8)
    return transformers.CLIPModel(config)


def _clip_vision_only() -> Any:
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION))


def _siglip() -> Any:
    config = transformers.SiglipConfig(
        text_config={**TEXT, "projection_size": 32}, vision_config=VISION
    )
    return transformers.SiglipModel(config)


CASES = {
    "dinov2": ("dinov2", _dinov2, 1),
    "dinov2_registers": ("dinov2", _registers, 5),
    "clip": ("clip", _clip, 1),
    "clip_vision": ("clip", _clip_vision_only, 1),
    "siglip": ("siglip", _siglip, 0),
}


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    family, build, prefix = CASES[request.param]
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    build().save_pretrained(folder)
    preprocessor = {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.25, 0.25, 0.25],
        "rescale_factor": 1 / 255,
        "size": {"height": SIZE, "width": SIZE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder, family, prefix


@pytest.fixture(scope="module")
def encoder(saved: Any) -> VisionEncoder:
    folder, family, _ = saved
    return load_encoder(folder, family)


def images(n: int = 3) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def test_tokens_are_the_patches_and_nothing_else(encoder: VisionEncoder, saved: Any) -> None:
    assert encoder.prefix_tokens == saved[2]
    assert encoder.grid == (SIDE, SIDE)
    tokens = encoder.encode(images())
    assert tokens.shape == (3, SIDE * SIDE, 32)
    assert tokens.dtype == torch.float32
    assert encoder.mean_colour == (128, 102, 76)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 5), (2, 3), (5, 0), (5, 5)])
def test_a_changed_patch_changes_its_own_token_most(
    encoder: VisionEncoder, row: int, column: int
) -> None:
    plain = np.full((1, SIZE, SIZE, 3), 128, dtype=np.uint8)
    lit = plain.copy()
    lit[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 255
    moved = (encoder.encode(lit) - encoder.encode(plain)).norm(dim=-1)[0]
    assert int(moved.argmax()) == row * SIDE + column


def test_an_image_does_not_depend_on_its_batch(encoder: VisionEncoder) -> None:
    batch = images()
    together = encoder.encode(batch)
    alone = torch.cat([encoder.encode(batch[i : i + 1]) for i in range(len(batch))])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(together, encoder.encode(batch))


def test_the_last_layer_is_the_models_own_last_hidden_state(saved: Any) -> None:
    folder, family, prefix = saved
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tower = load_family(family).tower(model)
    mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    pixels = (torch.from_numpy(images()).permute(0, 3, 1, 2).float() / 255 - mean) / 0.25
    with torch.no_grad():
        expected = tower(pixel_values=pixels).last_hidden_state[:, prefix:]
    got = load_encoder(folder, family).encode(images())
    assert torch.allclose(got, expected, atol=1e-5)


def test_layers_count_blocks_and_the_norm_is_optional(saved: Any) -> None:
    folder, family, _ = saved
    last = load_encoder(folder, family, layer=-1).encode(images())
    assert torch.equal(last, load_encoder(folder, family, layer=2).encode(images()))
    assert not torch.allclose(last, load_encoder(folder, family, layer=1).encode(images()))
    raw = load_encoder(folder, family, final_norm=False).encode(images())
    assert torch.equal(last, raw) == (family == "clip")
    with pytest.raises(UserError, match=r"layer 3 does not exist.*blocks 0\.\.2"):
        load_encoder(folder, family, layer=3)


def test_another_input_size_gives_another_grid(saved: Any, tmp_path: Path) -> None:
    import shutil

    folder, family, _ = saved
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "preprocessor_config.json"
    content = {**json.loads(path.read_text()), "do_center_crop": True}
    path.write_text(json.dumps({**content, "crop_size": {"height": 32, "width": 32}}))
    encoder = load_encoder(tmp_path / "copy", family)
    assert encoder.grid == (8, 8)
    tokens = encoder.encode(np.zeros((1, 32, 32, 3), dtype=np.uint8))
    assert tokens.shape == (1, 64, 32)


def test_images_of_another_size_are_refused(encoder: VisionEncoder) -> None:
    with pytest.raises(ValueError, match="expected"):
        encoder.encode(np.zeros((1, SIZE, SIZE + 1, 3), dtype=np.uint8))


def test_nothing_in_it_can_be_trained(encoder: VisionEncoder) -> None:
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not encoder.model.training


def test_mistakes_are_told_clearly(saved: Any, tmp_path: Path) -> None:
    import shutil

    folder, family, _ = saved
    with pytest.raises(UserError, match=r"'vit5' is unknown; known families: clip, dinov2, siglip"):
        load_encoder(folder, "vit5")
    other = "siglip" if family != "siglip" else "clip"
    with pytest.raises(UserError, match=f"not of '{other}'"):
        load_encoder(folder, other)
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"preprocessor_config\.json is missing"):
        load_encoder(tmp_path / "copy", family)
    shutil.rmtree(tmp_path / "copy")
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="could not be loaded"):
        load_encoder(tmp_path / "copy", family)
