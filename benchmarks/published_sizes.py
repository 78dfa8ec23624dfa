"""The published setting's sizes with random weights: does it fit, and how fast is it?

    python benchmarks/published_sizes.py [--device cuda] [--steps 50] [--images 64]

DINOv2-large, Gemma-2-2B in bfloat16, SAEs of 16k latents on 5 layers in float32: features of some
images, some training steps with the SAE term, and the latents of the images. No weights are needed,
only memory: about 12 GB and what a micro-batch takes. Writes benchmarks/published_sizes.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SIZES: dict[str, dict[str, Any]] = {
    "published": {
        "vision": {
            "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
            "image_size": 224, "patch_size": 14,
        },
        "language": {
            "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216,
            "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 256, "sliding_window": 4096, "query_pre_attn_scalar": 256,
        },
        "d_sae": 16_384,
    },
    # The same path in seconds on any machine: says nothing about speed.
    "tiny": {
        "vision": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        "language": {
            "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16,
        },
        "d_sae": 128,
    },
}  # fmt: skip
LAYERS = (0, 1, 2, 3, 4)
WORDS = "describe the image . a photo of a cat on a sofa beside a window with two plants in it"


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", choices=SIZES, default="published")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--steps", type=int, default=50, help="training steps")
    parser.add_argument("--images", type=int, default=64, help="images to encode")
    parser.add_argument("--batch-size", type=int, default=64, help="images a training step")
    parser.add_argument("--micro-batch", type=int, default=16, help="images a forward pass")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    figures = measure(arguments)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the three parts; seconds, memory and counts of each."""
    import torch

    from vista.config.projector import TrainingStage
    from vista.data.records import Turn
    from vista.projector.module import make_projector
    from vista.projector.train import TrainingData, train_projector

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    sizes = SIZES[arguments.sizes]
    device, n_images = torch.device(arguments.device), arguments.images
    found: dict[str, Any] = {
        "sizes": arguments.sizes,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "dtype": arguments.dtype,
        "torch": torch.__version__,
    }
    encoder = make_encoder(sizes["vision"], device, arguments.dtype)
    llm = make_llm(sizes["language"], device, arguments.dtype)
    saes = make_saes(sizes["d_sae"], llm)
    side = sizes["vision"]["image_size"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)
    with timed(found, "features", device, images=n_images):
        parts = [encoder.encode(pixels[i : i + 16]).cpu() for i in range(0, n_images, 16)]
    features = torch.cat(parts).half().numpy()
    turns = [[Turn("describe the image .", WORDS)] for _ in range(n_images)]
    data = TrainingData(turns, features.shape[1], lambda rows: features[rows])
    projector = make_projector("linear", features.shape[-1], llm.d_model, seed=0).to(device)
    stage = TrainingStage(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        micro_batch=arguments.micro_batch,
        checkpoint_every=10**6,
    )
    for weight in (0.0, 1.0):
        images = arguments.steps * min(arguments.batch_size, n_images)
        with (
            tempfile.TemporaryDirectory() as folder,
            timed(found, f"train_w{weight:g}", device, images=images, steps=arguments.steps),
        ):
            used = saes if weight else {}
            train_projector(
                projector, llm, used, data, stage, sae_weight=weight, seed=0,
                checkpoints=Path(folder),
            )  # fmt: skip
    with timed(found, "latents", device, images=n_images), torch.no_grad():
        encode(llm, saes, projector, turns, features, arguments.micro_batch)
    return found


def encode(
    llm: Any, saes: dict[int, Any], projector: Any, turns: Any, features: Any, batch_size: int
) -> None:
    """The latents of the visual tokens at every layer, as the latents stage makes them."""
    import torch

    for start in range(0, len(turns), batch_size):
        part = torch.from_numpy(features[start : start + batch_size]).float()
        visual = projector(part.to(llm.device))
        batch = llm.batch(turns[start : start + batch_size], visual.shape[1], 512).to(llm.device)
        taps = llm.forward(
            batch.input_ids, batch.attention_mask, visual=visual, visual_start=batch.visual_start,
            taps=tuple(saes), stop_after=max(saes),
        ).taps  # fmt: skip
        seen = slice(batch.visual_start, batch.visual_start + batch.n_visual)
        for layer, sae in saes.items():
            x_nd = taps[layer][:, seen].float().flatten(0, 1)
            sae.encode_sparse(x_nd, sae.config.d_sae)


def make_encoder(shape: dict[str, Any], device: Any, dtype: str) -> Any:
    """A Dinov2 of some shape with random weights, behind the project's contract."""
    import torch
    import transformers

    from vista.encoders.contract import VisionEncoder

    model = transformers.Dinov2Model(transformers.Dinov2Config(**shape))
    preprocessor = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "size": {"height": shape["image_size"], "width": shape["image_size"]},
    }
    model = model.to(device, getattr(torch, dtype))
    return VisionEncoder("dinov2", model, preprocessor, layer=-1, final_norm=True)


def make_llm(shape: dict[str, Any], device: Any, dtype: str) -> Any:
    """A Gemma 2 of some shape with random weights and a tokenizer of few words."""
    import torch
    import transformers

    from vista.language.model import LanguageModel
    from vista.standins.llm import build_tokenizer

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        # Made in its own dtype: in float32 first, it would take twice the memory.
        with torch.device(device):
            model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**shape))
    finally:
        torch.set_default_dtype(before)
    return LanguageModel(model, build_tokenizer([WORDS]))


def make_saes(d_sae: int, llm: Any) -> dict[int, Any]:
    """Random jumprelu SAEs, with a threshold that some latents exceed."""
    import torch

    from vista.sae.neutral import SaeConfig, SparseAutoencoder

    saes = {}
    for layer in LAYERS:
        config = SaeConfig("jumprelu", llm.d_model, d_sae, layer, f"random-l{layer}")
        weights = {
            name: torch.randn(shape, device=llm.device) * 0.02
            for name, shape in config.weight_shapes().items()
        }
        weights["threshold"] = torch.full((d_sae,), 1.0, device=llm.device)
        saes[layer] = SparseAutoencoder(config, weights).eval()
    return saes


@contextmanager
def timed(found: dict[str, Any], name: str, device: Any, **counts: int) -> Iterator[None]:
    """Note seconds, rate and peak memory of a part under `name`."""
    import torch

    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    wait()
    start = time.perf_counter()
    yield
    wait()
    seconds = time.perf_counter() - start
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found[name] = {
        **counts,
        "seconds": round(seconds, 2),
        "images_per_second": round(counts["images"] / seconds, 3),
        "peak_GiB": round(peak, 2),
    }


if __name__ == "__main__":
    main()
