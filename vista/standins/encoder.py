"""Small vision encoders, trained on the drawn images: what all three families share.

They are plain Hugging Face classes, saved with `save_pretrained` and their preprocessor file, so
that all that follows takes the code path of real checkpoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vista.config.encoders import StandinEncoder
from vista.errors import UserError
from vista.progress import progress

MEAN, STD = 0.5, 0.25
# The colour that padding is filled with: the one that normalises to zero.
FILL = (round(255 * MEAN),) * 3


class Objective(Protocol):
    """A family's training objective: a model to save, all parameters to train, and a loss."""

    model: Any
    parameters: list[tuple[str, torch.nn.Parameter]]

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss on some training images, given by their indices [b]."""
        ...


def train_standin_encoder(
    settings: StandinEncoder,
    images_nhwc: NDArray[np.uint8],
    captions: Sequence[str],
    out: Path,
) -> dict[str, list[float]]:
    """Train a stand-in and save it to `out` with `save_pretrained`.

    Args:
        settings: family, sizes, and how long.
        images_nhwc: square images [n, size, size, 3], uint8.
        captions: one for each image; Dinov2 does not read them.

    Returns:
        The learning curve: step and loss (mean since the last row).

    Raises:
        UserError: fewer images than a batch, or no captions where the objective needs them.
    """
    from transformers.utils.logging import disable_progress_bar

    if len(images_nhwc) < settings.batch_size:
        raise UserError(
            f"encoder {settings.family}: {len(images_nhwc)} training images are fewer than "
            f"batch_size {settings.batch_size}; draw more or lower it"
        )
    pixels = torch.from_numpy(images_nhwc).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - MEAN) / STD
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        objective = _objective(settings, pixels, captions)
    curve = _fit(objective, settings, len(pixels), generator)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    objective.model.eval().save_pretrained(out)
    (out / "preprocessor_config.json").write_text(
        json.dumps(_preprocessor(settings), sort_keys=True, indent=2) + "\n"
    )
    return curve


def _objective(settings: StandinEncoder, pixels: Tensor, captions: Sequence[str]) -> Objective:
    if settings.family == "dinov2":
        from vista.standins.masked import VisualWords

        return VisualWords(settings, pixels)
    from vista.standins.contrastive import CaptionMatching

    return CaptionMatching(settings, pixels, captions)


def _fit(
    objective: Objective, settings: StandinEncoder, n: int, generator: torch.Generator
) -> dict[str, list[float]]:
    named = objective.parameters
    decayed = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    plain = [p for name, p in named if p.ndim <= 1 or "embedding" in name]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    rate = _schedule(settings)
    curve: dict[str, list[float]] = {"step": [], "loss": []}
    since: list[float] = []
    every = max(1, settings.steps // 20)
    rows = batches(n, settings.batch_size, settings.steps, generator)
    what = f"encoder {settings.family}"
    for step, batch in enumerate(progress(rows, total=settings.steps, desc=what, unit="step")):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = objective.loss(batch, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step()
        since.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            curve["step"].append(step + 1)
            curve["loss"].append(float(np.mean(since)))
            since = []
    return curve


def batches(
    n: int, size: int, steps: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Yield the indices [size] of `steps` batches out of `n` images, in a new order each epoch.

    An epoch leaves out its last, smaller batch. Without `generator` torch's own is used.
    """
    step = 0
    while True:
        order = torch.randperm(n, generator=generator)
        for start in range(0, n - size + 1, size):
            if step == steps:
                return
            step += 1
            yield order[start : start + size]


def _schedule(settings: StandinEncoder) -> Callable[[int], float]:
    warm = max(1, round(settings.warmup * settings.steps))

    def rate(step: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        return settings.lr * min(1.0, (step + 1) / warm) * fall

    return rate


def _preprocessor(settings: StandinEncoder) -> dict[str, Any]:
    side = settings.image_size
    processors = {
        "dinov2": "BitImageProcessor",
        "clip": "CLIPImageProcessor",
        "siglip": "SiglipImageProcessor",
    }
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [MEAN] * 3,
        "image_processor_type": processors[settings.family],
        "image_std": [STD] * 3,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
