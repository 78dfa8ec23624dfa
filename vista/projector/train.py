"""Training a projector from cached features, with checkpoints that lose nothing.

Everything random is a function of the seed and the step: the first weights and the order of the
images. So a checkpoint is the weights, the optimizer's moments and the curve so far, and a killed
run that starts again ends with the same bytes as one that was left alone.

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width, t token.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from vista.config.projector import TrainingStage
from vista.data.records import Turn
from vista.language.loss import token_cross_entropy
from vista.language.model import LanguageModel
from vista.language.prompt import Batch
from vista.progress import progress
from vista.projector.loss import sae_term
from vista.projector.module import Projector
from vista.sae.neutral import SparseAutoencoder

CURVE = ("step", "cross_entropy", "sae_error", "loss", "lr", "gradient_norm")


@dataclass(frozen=True)
class TrainingData:
    """What is trained on: conversations, and a reader of their images' patch features.

    `read(indices)` returns float [n, p, d_vision] for positions into `turns`, with p = `n_visual`.
    """

    turns: Sequence[Sequence[Turn]]
    n_visual: int
    read: Callable[[NDArray[np.int64]], NDArray[Any]]


def train_projector(
    projector: Projector,
    llm: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    data: TrainingData,
    settings: TrainingStage,
    *,
    sae_weight: float,
    seed: int,
    checkpoints: Path,
    stop_at: int | None = None,
) -> dict[str, list[float]]:
    """Train `projector` in place and return its curve, one value a step for each of CURVE.

    The loss is the mean cross-entropy over the batch's answer tokens + `sae_weight` * SAE term;
    `saes` may be empty where `sae_weight` is 0, and the curve then has NaN for the SAE error.
    AdamW, linear warm-up, cosine to 0 (VISTA paper, training). Resumes from the newest checkpoint
    in `checkpoints`; `stop_at` ends after that step, as a kill would.

    Memory follows `micro_batch`, not `batch_size`: gradients of parts add up to that of the whole.
    """
    assert saes or sae_weight == 0, "a positive SAE weight needs SAEs"
    optimizer = torch.optim.AdamW(
        projector.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    curve: dict[str, list[float]] = {name: [] for name in CURVE}
    first = _restore(checkpoints, projector, optimizer, curve)
    steps = settings.total_steps(len(data.turns))
    last = steps if stop_at is None else stop_at
    for step in progress(range(first, last), desc="projector", unit="step"):
        rate = learning_rate(step, steps, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = batch_indices(len(data.turns), settings.batch_size, step, seed)
        optimizer.zero_grad(set_to_none=True)
        entropy, error = _accumulate(projector, llm, saes, data, chosen, settings, sae_weight)
        loss = entropy if sae_weight == 0 else entropy + sae_weight * error
        norm = torch.nn.utils.clip_grad_norm_(projector.parameters(), settings.clip)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}")
        optimizer.step()
        values = (step, entropy, error, loss, rate, norm.item())
        for name, value in zip(CURVE, values, strict=True):
            curve[name].append(float(value))
        if (step + 1) % settings.checkpoint_every == 0 and step + 1 < steps:
            _save(checkpoints, step + 1, projector, optimizer, curve)
    return curve


def learning_rate(step: int, steps: int, settings: TrainingStage) -> float:
    """Return the rate of one of `steps` steps: linear warm-up to `lr`, then a cosine to 0."""
    warm = math.ceil(settings.warmup * steps)
    if step < warm:
        return settings.lr * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * share))


def batch_indices(n: int, batch_size: int, step: int, seed: int) -> NDArray[np.int64]:
    """Return the images of one step: each epoch is a permutation made from (seed, epoch)."""
    batch_size = min(batch_size, n)
    per_epoch = n // batch_size
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return order[place * batch_size : (place + 1) * batch_size]


def _accumulate(
    projector: Projector,
    llm: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    data: TrainingData,
    chosen: NDArray[np.int64],
    settings: TrainingStage,
    sae_weight: float,
) -> tuple[float, float]:
    """Add the gradient of the whole batch's loss; return its cross-entropy and SAE error.

    Both are means over the whole batch, so a part counts by its share of the answer tokens in the
    one and by its share of the images in the other.
    """
    size = settings.micro_batch or len(chosen)
    parts = [chosen[i : i + size] for i in range(0, len(chosen), size)]
    batches = [
        llm.batch([data.turns[i] for i in part], data.n_visual, settings.max_length)
        for part in parts
    ]
    n_answer = max(1, sum(len(batch.targets) for batch in batches))
    entropy = error = 0.0
    for part, batch in zip(parts, batches, strict=True):
        features_bpv = torch.from_numpy(np.asarray(data.read(part), dtype=np.float32))
        visual_bpd = projector(features_bpv.to(next(projector.parameters()).device))
        entropy_part, error_part = _losses(llm, saes, visual_bpd, batch.to(llm.device))
        entropy_part = entropy_part / n_answer
        error_part = error_part * (len(part) / len(chosen))
        loss = entropy_part if sae_weight == 0 else entropy_part + sae_weight * error_part
        loss.backward()  # type: ignore[no-untyped-call]
        entropy += entropy_part.item()
        error += error_part.item()
    return entropy, error


def _losses(
    llm: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    visual_bpd: Tensor,
    batch: Batch,
) -> tuple[Tensor, Tensor]:
    """The sum of the cross-entropy over the answer tokens, and the SAE term (NaN without SAEs)."""
    out = llm.forward(
        batch.input_ids,
        batch.attention_mask,
        visual=visual_bpd,
        visual_start=batch.visual_start,
        taps=tuple(saes),
        logits_at=batch.predict_mask,
    )
    assert out.logits is not None
    entropy = token_cross_entropy(out.logits, batch).sum()
    if not saes:
        return entropy, torch.tensor(float("nan"))
    visual = slice(batch.visual_start, batch.visual_start + batch.n_visual)
    return entropy, sae_term(out.taps, saes, visual).to(entropy.device)


def _save(
    folder: Path,
    step: int,
    projector: Projector,
    optimizer: torch.optim.Optimizer,
    curve: Mapping[str, list[float]],
) -> None:
    """Write checkpoint `step` beside its place, sync it, rename it, and drop older ones."""
    temporary, place = folder / "unfinished", folder / f"step-{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {f"weight/{name}": value for name, value in projector.state_dict().items()}
    for name, parameter in projector.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    save_file(
        {name: value.detach().contiguous() for name, value in tensors.items()},
        temporary / "state.safetensors",
    )
    (temporary / "curve.json").write_text(json.dumps(curve))
    for path in (*temporary.iterdir(), temporary):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    os.replace(temporary, place)
    for old in folder.glob("step-*"):
        if old != place:
            shutil.rmtree(old)


def _restore(
    folder: Path,
    projector: Projector,
    optimizer: torch.optim.Optimizer,
    curve: dict[str, list[float]],
) -> int:
    """Load the newest checkpoint, if any, and return the next step."""
    found = sorted(folder.glob("step-*"))
    if not found:
        return 0
    step = int(found[-1].name.removeprefix("step-"))
    tensors = load_file(found[-1] / "state.safetensors")
    projector.load_state_dict(
        {n.removeprefix("weight/"): v for n, v in tensors.items() if n.startswith("weight/")}
    )
    for name, parameter in projector.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg/{name}"].to(parameter.device),
            "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(parameter.device),
        }
    curve.update(json.loads((found[-1] / "curve.json").read_text()))
    return step
