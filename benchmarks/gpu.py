"""The published setting on an accelerator: how fast is it, and what share of the card does it use?

    python -m benchmarks.gpu [--device cuda]                          writes benchmarks/gpu.json

DINOv2-large, Gemma-2-2B, SAEs of 16k latents, with random weights: extraction, training without and
with the SAE term, latents at every layer, captions. Some minutes; on a CPU of 2 cores use
`--images 2 --steps 1 --micro-batch 2`. Shares of the peak count what the model must compute: twice
2 x parameters a token (its frozen weights take no gradient), and 2 d s a visual token and SAE.
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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.models import (
    LAYERS,
    SHAPES,
    WORDS,
    make_encoder,
    make_llm,
    make_pixels,
    make_saes,
)  # fmt: skip

TURNS = 3
"""Questions and answers of a sample: with 256 visual tokens some 320 tokens."""


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--sizes", choices=SHAPES, default="published")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--steps", type=int, default=8, help="training steps that count")
    parser.add_argument("--images", type=int, default=256, help="images to encode and to train on")
    parser.add_argument("--new-tokens", type=int, default=50, help="tokens a caption")
    parser.add_argument("--micro-batch", type=int, help="images a forward pass; else what fits")
    parser.add_argument("--layers", type=int, help="layers of the latents; else all")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    figures = measure(arguments)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all parts and return their figures by name."""
    import torch

    shapes, device = SHAPES[arguments.sizes], torch.device(arguments.device)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    meter = Meter(device)
    found: dict[str, Any] = {
        "sizes": arguments.sizes,
        "device": machine,
        "dtype": arguments.dtype,
        "torch": torch.__version__,
        "peak_tflops": round(peak(device, arguments.dtype) / 1e12, 3),
        "parts": meter.parts,
    }
    n_images = arguments.images
    encoder = make_encoder(shapes, device, arguments.dtype)
    pixels = make_pixels(shapes, min(n_images, 64))
    encoder.encode(pixels)
    parts = []
    with meter.timed("features", images=n_images):
        for start in range(0, n_images, len(pixels)):
            parts.append(encoder.encode(pixels[: n_images - start]).cpu())
    features = torch.cat(parts).half().numpy()
    del encoder
    llm = make_llm(shapes, device, arguments.dtype)
    saes = make_saes(shapes, llm)
    train(arguments, found["peak_tflops"] * 1e12, meter, llm, saes, features)
    every = range(min(arguments.layers or llm.n_blocks, llm.n_blocks))
    encode(meter, llm, {layer: saes[layer % len(LAYERS)] for layer in every}, features)
    caption(meter, llm, features, arguments.new_tokens)
    return found


def train(
    arguments: argparse.Namespace,
    peak_flops: float,
    meter: Meter,
    llm: Any,
    saes: dict[int, Any],
    features: Any,
) -> None:
    """Training steps without the SAE term, and with it in each number format of the SAEs."""
    import torch

    from vista.config.projector import TrainingStage
    from vista.data.records import Turn
    from vista.projector.module import make_projector
    from vista.projector.passes import TrainingData
    from vista.projector.train import train_projector

    turns = [[Turn("describe the image .", WORDS)] * TURNS for _ in range(len(features))]
    n_visual, d_vision = features.shape[1:]
    data = TrainingData(turns, n_visual, lambda rows: features[rows])
    length = int(llm.batch(turns[:1], n_visual, 1024).attention_mask.sum())
    answer = len(llm.batch(turns[:1], n_visual, 1024).targets)

    def steps(weight: float, used: dict[int, Any], n: int, size: int) -> None:
        stage = TrainingStage(
            steps=n, batch_size=size, micro_batch=size, max_length=1024, checkpoint_every=10**6
        )
        projector = make_projector("linear", d_vision, llm.d_model, seed=0).to(llm.device)
        with tempfile.TemporaryDirectory() as folder:
            train_projector(
                projector, llm, used, data, stage,
                sae_weight=weight, seed=0, checkpoints=Path(folder),
            )  # fmt: skip

    coarse = {layer: sae.to(torch.bfloat16) for layer, sae in _copies(saes).items()}
    for name, weight, used in (
        ("train, no SAE term", 0.0, {}),
        ("train, SAE term in bfloat16", 1.0, coarse),
        ("train, SAE term in float32", 1.0, saes),
    ):
        # The first steps choose the size and warm up.
        size = arguments.micro_batch or largest(partial(steps, weight, used, 1), len(features))
        blocks = sum(p.numel() for p in llm.blocks.parameters())
        head = llm.model.get_output_embeddings().weight.numel()
        flops = 2 * 2 * (blocks * length + head * answer)
        flops += sum(2 * sae.W_enc.numel() for sae in used.values()) * n_visual
        with meter.timed(
            name, images=arguments.steps * size, tokens=arguments.steps * size * length
        ):
            steps(weight, used, arguments.steps, size)
        part = meter.parts[name]
        rate = flops * arguments.steps * size / part["seconds"]
        part |= {"batch": size, "share_of_peak": round(rate / peak_flops, 3)}


def _copies(saes: dict[int, Any]) -> dict[int, Any]:
    import copy

    return copy.deepcopy(saes)


def largest(run: Callable[[int], object], most: int) -> int:
    """Return the largest batch, a power of two or `most`, that `run` has memory for."""
    import torch

    size = 1
    while True:
        wanted = min(2 * size, most)
        try:
            run(wanted)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return size
        if wanted == most:
            return most
        size = wanted


def encode(meter: Meter, llm: Any, saes: dict[int, Any], features: Any) -> None:
    """The latents of the visual tokens at every layer, as the latents stage makes them."""
    import torch

    from vista.data.records import Turn
    from vista.projector.module import make_projector

    projector = make_projector("linear", features.shape[-1], llm.d_model, seed=0).to(llm.device)
    rows, n_visual = range(0, len(features), 16), features.shape[1]
    with torch.no_grad(), meter.timed("latents", tokens=len(features) * n_visual, layers=len(saes)):
        for start in rows:
            part = torch.from_numpy(features[start : start + 16]).float().to(llm.device)
            turns = [[Turn("describe the image .", WORDS)]] * len(part)
            batch = llm.batch(turns, n_visual, 1024).to(llm.device)
            taps = llm.forward(
                batch.input_ids, batch.attention_mask, visual=projector(part),
                visual_start=batch.visual_start, taps=tuple(saes), stop_after=max(saes),
            ).taps  # fmt: skip
            seen = slice(batch.visual_start, batch.visual_start + n_visual)
            for layer, sae in saes.items():
                x_nd = taps[layer][:, seen].float().flatten(0, 1)
                codes = sae.encode_sparse(x_nd, sae.config.d_sae)
                (sae.decode_sparse(codes, x_nd) - x_nd).square().mean(-1).cpu()


def caption(meter: Meter, llm: Any, features: Any, new_tokens: int) -> None:
    """Captions in batches of 64, none of which ends early."""
    import torch

    from vista.projector.module import make_projector

    llm.eos_ids = frozenset()
    projector = make_projector("linear", features.shape[-1], llm.d_model, seed=0).to(llm.device)
    with torch.no_grad():
        visual = projector(torch.from_numpy(features[:64]).float().to(llm.device))
        llm.generate(visual, ["describe the image ."] * len(visual), 2)
        with meter.timed("captions", images=len(visual), tokens=len(visual) * new_tokens):
            llm.generate(visual, ["describe the image ."] * len(visual), new_tokens)


def peak(device: Any, dtype: str) -> float:
    """Floating point operations a second of a large matrix product."""
    import torch

    n = 8192 if device.type == "cuda" else 1024
    a = torch.ones(n, n, device=device, dtype=getattr(torch, dtype))
    meter = Meter(device)
    for name in ("warm-up", "product"):
        with meter.timed(name, products=10):
            for _ in range(10):
                torch.mm(a, a)
    return 10 * 2 * n**3 / meter.parts["product"]["seconds"]


@dataclass
class Meter:
    """Seconds, rates and peak memory of named parts."""

    device: Any
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str, **counts: int) -> Iterator[None]:
        """Note a part; each count also as a rate."""
        import torch

        cuda = self.device.type == "cuda"
        wait: Callable[[], None] = torch.cuda.synchronize if cuda else lambda: None
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        wait()
        start = time.perf_counter()
        yield
        wait()
        seconds = time.perf_counter() - start
        if cuda:
            memory = torch.cuda.max_memory_allocated() / 2**30
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rates = {f"{what}_per_second": float(f"{n / seconds:.4g}") for what, n in counts.items()}
        self.parts[name] = {
            **counts, **rates, "seconds": float(f"{seconds:.4g}"), "peak_GiB": round(memory, 2)
        }  # fmt: skip


if __name__ == "__main__":
    main()
