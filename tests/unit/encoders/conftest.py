"""Checkpoints of every family: the real classes in small sizes, in the layout of the hub.

Their preprocessor_config.json has the keys, processor names and values of the real repository,
but for the size of the input.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SIZE, PATCH, WIDTH = 24, 4, 32
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
SQUARE = {"size": {"height": SIZE, "width": SIZE}}
CROPPED = {
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_center_crop": True,
    "do_convert_rgb": True,
}
SHARED: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": PATCH,
}
VISION = {**SHARED, "intermediate_size": 64, "image_size": SIZE, "initializer_range": 0.2}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 9,
    "max_position_embeddings": 8,
}
DINOV2 = {
    **STEPS,
    **IMAGENET,
    **CROPPED,
    "image_processor_type": "BitImageProcessor",
    "resample": 3,
    "size": {"shortest_edge": 28},
}
CLIP = {
    # As openai/clip-vit-large-patch14 has it: plain numbers, and no factor.
    **OPENAI,
    "crop_size": SIZE,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "resample": 3,
    "size": SIZE,
}
SIGLIP = {**STEPS, **HALF, **SQUARE, "image_processor_type": "SiglipImageProcessor"}
NAFLEX = {
    **STEPS,
    **HALF,
    "do_convert_rgb": None,
    "image_processor_type": "Siglip2ImageProcessor",
    "max_num_patches": (SIZE // PATCH) ** 2,
    "patch_size": PATCH,
    "resample": 2,
}
VIT = {**STEPS, **HALF, **SQUARE, "image_processor_type": "ViTImageProcessor", "resample": 2}
DINOV3 = {
    **STEPS,
    **IMAGENET,
    **SQUARE,
    "crop_size": None,
    "data_format": "channels_first",
    "default_to_square": True,
    "do_center_crop": None,
    "image_processor_type": "DINOv3ViTImageProcessorFast",
    "resample": 2,
}


@dataclass(frozen=True)
class Case:
    """A checkpoint to test with: its family, prefix tokens and own class."""

    family: str
    prefix: int
    preprocessor: dict[str, Any]
    build: Callable[[Any], Any]


def _pair(name: str, vision: dict[str, Any]) -> Callable[[Any], Any]:
    """A model with two towers, whose configs and classes begin with `name`."""

    def build(transformers: Any) -> Any:
        text = {**TEXT, "projection_size": 32} if name.startswith("Siglip") else TEXT
        config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision)
        return getattr(transformers, f"{name}Model")(config)

    return build


def _one(name: str, settings: dict[str, Any], kind: str = "") -> Callable[[Any], Any]:
    def build(transformers: Any) -> Any:
        config = getattr(transformers, f"{name}{kind}Config")(**settings)
        return getattr(transformers, f"{name}{kind}Model")(config)

    return build


NAFLEX_VISION = {**SHARED, "intermediate_size": 64, "num_patches": 36}
PLAIN = {key: value for key, value in VISION.items() if key != "intermediate_size"}
CASES = {
    "dinov2": Case("dinov2", 1, DINOV2, _one("Dinov2", PLAIN)),
    "dinov2_registers": Case(
        "dinov2", 5, DINOV2, _one("Dinov2WithRegisters", {**PLAIN, "num_register_tokens": 4})
    ),
    "clip": Case("clip", 1, CLIP, _pair("CLIP", VISION)),
    "clip_vision": Case("clip", 1, CLIP, _one("CLIP", VISION, "Vision")),
    "siglip": Case(
        "siglip",
        0,
        {**SIGLIP, "processor_class": "SiglipProcessor", "resample": 3},
        _pair("Siglip", VISION),
    ),
    "siglip2_fixed": Case("siglip", 0, {**SIGLIP, "resample": 2}, _pair("Siglip", VISION)),
    "siglip2_naflex": Case("siglip2", 0, NAFLEX, _pair("Siglip2", NAFLEX_VISION)),
    "siglip2_vision": Case("siglip2", 0, NAFLEX, _one("Siglip2", NAFLEX_VISION, "Vision")),
    "ijepa": Case("ijepa", 0, VIT, _one("IJepa", VISION)),
    "dinov3": Case("dinov3", 5, DINOV3, _one("DINOv3ViT", {**VISION, "num_register_tokens": 4})),
    "vit": Case("vit", 1, VIT, _one("ViT", VISION)),
    "deit": Case("vit", 2, VIT, _one("DeiT", VISION)),
    "beit": Case(
        "vit",
        1,
        {**VIT, "image_processor_type": "BeitImageProcessor"},
        _one(
            "Beit", {**VISION, "use_mean_pooling": False, "use_absolute_position_embeddings": True}
        ),
    ),
}


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk."""

    folder: Path
    case: Case


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """Return a function that builds a case once and says where it lies."""
    done: dict[str, Saved] = {}

    def saved(name: str) -> Saved:
        if name not in done:
            import torch
            import transformers

            case = CASES[name]
            folder = tmp_path_factory.mktemp(name)
            torch.manual_seed(0)
            case.build(transformers).save_pretrained(folder)
            content = json.dumps(case.preprocessor)
            (folder / "preprocessor_config.json").write_text(content)
            done[name] = Saved(folder, case)
        return done[name]

    return saved


@pytest.fixture(scope="module", params=list(CASES))
def saved(request: pytest.FixtureRequest, save: Callable[[str], Saved]) -> Saved:
    """Every checkpoint in turn."""
    return save(request.param)
