"""Models with random weights in the sizes that are measured: their speed does not know the weights.

embedded: those of config/default.yaml; published: DINOv2-large, Gemma-2-2B and SAEs of 16k latents;
tiny: the same code in seconds on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Limit
from benchmarks.machine import peak_flops
from vista.data.records import Turn

WORDS = "describe the image . a photo of a cat on a sofa beside a window with two plants in it"
LAYERS = (0, 1, 2, 3, 4)
"""The published layer set of the SAE term."""
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
MAX_LENGTH = 512
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
        "image_mean": MEAN,
        "image_std": STD,
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


def stream_scale(layer: int) -> float:
    """Root mean square of the residual stream after a block of a random Gemma 2: a projector's
    uniform first weights give 1/3, and each normed output of attention and MLP adds 1."""
    return float((1 / 3 + 2 * (layer + 1)) ** 0.5)


def make_saes(shapes: Shapes, llm: Any, layers: Sequence[int] = LAYERS) -> dict[int, Any]:
    """Return jumprelu SAEs of which .6 % of the latents fire: 100 of 16k, as published ones do."""
    import torch

    from vista.sae.neutral import SaeConfig, SparseAutoencoder

    generator = torch.Generator(llm.device).manual_seed(0)
    saes = {}
    for layer in layers:
        config = SaeConfig("jumprelu", llm.d_model, shapes.d_sae, layer, f"random-l{layer}")
        weights = {
            name: torch.randn(shape, device=llm.device, generator=generator) / llm.d_model**0.5
            for name, shape in config.weight_shapes().items()
        }
        # Rows of length 1 give products with the stream's own deviation.
        weights["threshold"] = torch.full(
            (shapes.d_sae,), 2.5 * stream_scale(layer), device=llm.device
        )
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


class Setup:
    """The models, and images with conversations and cached features, as our stages find them.

    `plain_saes` and `pixel_values` are what the usual way takes in their place.
    """

    def __init__(self, shapes: Shapes, folder: Path, images: int) -> None:
        from benchmarks.usual.models import plain_saes
        from vista.store.features import FeatureReader, FeatureWriter

        self.shapes, self.images = shapes, images
        self.encoder, self.llm = make_encoder(shapes), make_llm(shapes)
        # Not the last block: a model's `hidden_states` give its stream normed.
        self.saes = make_saes(shapes, self.llm, LAYERS[: self.llm.n_blocks - 1])
        self.plain_saes = plain_saes(self.saes)
        self.turns = make_turns(images)
        self.names = [f"{i:06d}" for i in range(images)]
        path, grid = folder / "features.zarr", self.encoder.grid
        writer = FeatureWriter(path, self.names, grid, self.encoder.d_vision)
        # The same images in every shard: more of them take no more memory.
        self.pixels = make_pixels(shapes, len(writer.shard_images(0)))
        for shard in range(writer.shards):
            shown = self.pixels[: len(writer.shard_images(shard))]
            writer.write_shard(shard, self.encoder.encode(shown).numpy())
        writer.close()
        self.reader = FeatureReader(path)
        self.n_visual = self.reader.shape[1]

    @cached_property
    def pixel_values(self) -> list[Any]:
        """The pixels [1, 3, h, w] of each image, as the vision model takes them."""
        from benchmarks.usual.models import normalised

        ready = [normalised(image[None], MEAN, STD) for image in self.pixels]
        return [ready[i % len(ready)] for i in range(self.images)]
