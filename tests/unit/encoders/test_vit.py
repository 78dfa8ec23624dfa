"""Any ViT: what it finds by itself, what it is told, and what it refuses by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from vista.encoders.contract import load_encoder
from vista.errors import UserError

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 24,
    "patch_size": 4,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3), dtype=np.uint8)


def write(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    content = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 24, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


def test_prefix_tokens_can_be_told_and_are_checked(save: Any) -> None:
    folder = save("deit").folder
    own, told = load_encoder(folder, "vit"), load_encoder(folder, "vit", prefix_tokens=2)
    assert torch.equal(own.encode(IMAGES), told.encode(IMAGES))
    wrong = load_encoder(folder, "vit", prefix_tokens=1)
    with pytest.raises(UserError, match=r"the deit model gives tokens \[1, 38, 32\].*1 prefix"):
        wrong.encode(IMAGES)


@pytest.mark.parametrize("name", ["dinov2_registers", "clip", "siglip", "ijepa", "dinov3"])
def test_it_finds_what_the_other_families_know(save: Any, name: str) -> None:
    saved = save(name)
    known = load_encoder(saved.folder, saved.case.family)
    found = load_encoder(saved.folder, "vit")
    assert found.prefix_tokens == known.prefix_tokens == saved.case.prefix
    assert torch.equal(found.encode(IMAGES), known.encode(IMAGES))


def test_a_masked_autoencoder_is_refused(tmp_path: Path) -> None:
    config = transformers.ViTMAEConfig(**SHAPE, mask_ratio=0.0)
    folder = write(transformers.ViTMAEModel(config), tmp_path)
    with pytest.raises(UserError, match="the vit_mae model answers one image in two ways"):
        load_encoder(folder, "vit")


def test_tokens_at_the_end_are_refused(tmp_path: Path) -> None:
    config = transformers.YolosConfig(**{**SHAPE, "image_size": [24, 24]}, num_detection_tokens=3)
    encoder = load_encoder(write(transformers.YolosModel(config), tmp_path), "vit")
    with pytest.raises(UserError, match=r"the yolos model gives tokens \[1, 40, 32\]"):
        encoder.encode(IMAGES)


def test_a_pyramid_is_refused(tmp_path: Path) -> None:
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2
    )
    with pytest.raises(UserError, match="swin"):
        load_encoder(write(transformers.SwinModel(config), tmp_path), "vit").encode(IMAGES)


def test_a_model_without_patches_is_refused(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    with pytest.raises(UserError, match=r"config\.json has patch_size None"):
        load_encoder(write(transformers.ResNetModel(config), tmp_path), "vit")


def test_a_classifier_is_read_without_its_head(tmp_path: Path) -> None:
    # As google/vit-base-patch16-224 is published: names begin with "vit.", and there is no pooler.
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**SHAPE)).eval()
    encoder = load_encoder(write(model, tmp_path), "vit")
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.no_grad():
        expected = model.vit(pixel_values=pixels).last_hidden_state[:, 1:]
    assert torch.allclose(encoder.encode(IMAGES), expected, atol=1e-5)
