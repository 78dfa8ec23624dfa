"""Models with random weights in the sizes that are measured: their speed does not know the weights.

embedded: those of config/default.yaml; published: DINOv2-large, Gemma-2-2B and SAEs of 16k latents;
tiny: the same code in seconds on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Limit
from benchmarks.machine import peak_flops
from vista.data.records import Turn

WORDS = "describe the image . a photo of a cat on a sofa beside a window with two plants in it"
LAYERS = (0, 1, 2, 3, 4)
"""The published layer set of the SAE term."""
QUESTION = "describe the image ."


@dataclass(frozen=True)
class Shapes:
    """Settings of the vision model and the language model, and the latents of an SAE."""

    vision: dict[str, Any]
    language: dict[str, Any]
    d_sae: int
    batch: int = 16


SHAPES = {
    "published": Shapes(
        {
            "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
            "image_size": 224, "patch_size": 14,
        },
        {
            "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216,
            "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 256, "sliding_window": 4096, "query_pre_attn_scalar": 256,
        },
        d_sae=16_384,
    ),
    "embedded": Shapes(
        {
            "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
            "image_size": 48, "patch_size": 8,
        },
        {
            "vocab_size": 400, "hidden_size": 96, "intermediate_size": 96,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
            "head_dim": 24, "sliding_window": 128, "query_pre_attn_scalar": 24,
        },
        d_sae=384,
    ),
    "tiny": Shapes(
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        {
            "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16,
        },
        d_sae=128,
    ),
}  # fmt: skip


def make_encoder(shapes: Shapes, device: Any = "cpu", dtype: str = "float32") -> Any:
    """Return a Dinov2 behind the project's contract."""
    import torch
    import transformers

    from vista.encoders.contract import VisionEncoder

    torch.manual_seed(0)
    side = shapes.vision["image_size"]
    model = transformers.Dinov2Model(transformers.Dinov2Config(**shapes.vision))
    preprocessor = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "size": {"height": side, "width": side},
    }
    model = model.to(device, getattr(torch, dtype))
    return VisionEncoder("dinov2", model, preprocessor, layer=-1, final_norm=True)


def make_llm(shapes: Shapes, device: Any = "cpu", dtype: str = "float32") -> Any:
    """Return a Gemma 2 with a tokenizer of few words."""
    import torch
    import transformers

    from vista.language.model import LanguageModel
    from vista.standins.llm import build_tokenizer

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        # Made in its own dtype: in float32 first, it would take twice the memory.
        with torch.device(device):
            model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**shapes.language))
    finally:
        torch.set_default_dtype(before)
    return LanguageModel(model, build_tokenizer([WORDS]))


def make_saes(shapes: Shapes, llm: Any, layers: Sequence[int] = LAYERS) -> dict[int, Any]:
    """Return jumprelu SAEs of which some latents fire."""
    import torch

    from vista.sae.neutral import SaeConfig, SparseAutoencoder

    generator = torch.Generator(llm.device).manual_seed(0)
    saes = {}
    for layer in layers:
        config = SaeConfig("jumprelu", llm.d_model, shapes.d_sae, layer, f"random-l{layer}")
        weights = {
            name: torch.randn(shape, device=llm.device, generator=generator) * 0.02
            for name, shape in config.weight_shapes().items()
        }
        weights["threshold"] = torch.full((shapes.d_sae,), 1.0, device=llm.device)
        saes[layer] = SparseAutoencoder(config, weights).eval()
    return saes


def make_pixels(shapes: Shapes, n: int) -> NDArray[np.uint8]:
    """Return random images [n, side, side, 3]."""
    side = shapes.vision["image_size"]
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def make_turns(n: int) -> list[list[Turn]]:
    """Return a conversation for each image; the answers have from 8 words to all."""
    words = WORDS.split()
    return [[Turn(QUESTION, " ".join(words[: 8 + i % (len(words) - 7)]))] for i in range(n)]


def sae_layers(llm: Any) -> tuple[int, ...]:
    """Return the layers with an SAE: the published ones, and not the last block, whose stream a
    model's `hidden_states` give normed."""
    return LAYERS[: llm.n_blocks - 1]


def flops_limit(run: Callable[[], Any], of: str, times: int = 1) -> Limit:
    """Return the seconds that the matrix products of `times` runs need at the machine's peak."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return Limit(times * counter.get_total_flops() / peak_flops(), f"{of} at peak")


def require_same(what: str, ours: Any, usual: Any, tolerance: float) -> None:
    """Raise where two arrays differ by more than `tolerance` of the second one's norm."""
    ours, usual = np.asarray(ours, np.float64), np.asarray(usual, np.float64)
    if ours.shape != usual.shape:
        raise AssertionError(f"{what}: {ours.shape} here, {usual.shape} the usual way")
    error = np.linalg.norm(ours - usual) / max(np.linalg.norm(usual), 1e-30)
    if not error <= tolerance:
        raise AssertionError(f"{what}: ours and the usual way differ by {error:.2g}")
