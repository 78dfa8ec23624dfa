"""Training a projector from cached features, exactly resumable from checkpoints.

Everything random is a function of the seed and the step: the first weights and the order of the
images. So a checkpoint is the weights, the optimizer's moments and the curve so far, and a killed
run that starts again ends with the same bytes as one that was left alone.

Several ranks (vista.projector.ranks) share each batch: the order of the images and the loss are
those of one process, and the first rank alone writes.

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width, t token.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

from vista.config.projector import WORDS_TERM, Normalise, Penalised, TrainingStage
from vista.engine.disk import force_to_disk
from vista.language.model import LanguageModel
from vista.progress import progress
from vista.projector.measure import MEASURED, measure
from vista.projector.module import Projector
from vista.projector.passes import Losses, TrainingData
from vista.projector.ranks import join_ranks, total
from vista.sae.neutral import SparseAutoencoder

CURVE = ("step", "cross_entropy", "sae_error", "loss", "lr", "gradient_norm")


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
    normalise: Normalise = "none",
    penalises: Penalised = "error",
    head: nn.Linear | None = None,
    words_weight: float = 0.0,
    ranks: Accelerator | None = None,
    stop_at: int | None = None,
) -> dict[str, list[float]]:
    """Train `projector` in place and return its curve, one value a step for each of CURVE, and of
    MEASURED under `measure_every`, which has NaN between two measurements.

    The loss is the mean cross-entropy over the batch's answer tokens + `sae_weight` * SAE term,
    which `normalise` may divide and in whose place `penalises` may put the squared stream
    (vista.projector.loss); the curve has the term as the SAE error. `saes` may be empty where
    `sae_weight` is 0, and the curve then has NaN for the SAE error. A `head` is trained beside the
    projector: the loss has `words_weight` * its term, too (vista.projector.visual_words), which the
    curve has as `visual_words`.
    AdamW, linear warm-up, cosine to 0 (VISTA paper, training). Resumes from the newest checkpoint
    in `checkpoints`; `stop_at` ends after that step, as a kill would.

    Memory follows `micro_batch`, not `batch_size`: gradients of parts add up to that of the whole.
    With `ranks` all of them call this, with equal arguments; each returns the whole curve.
    """
    assert saes or sae_weight == 0, "a positive SAE weight needs SAEs"
    ranks = ranks or join_ranks(llm.device)
    trained: nn.Module = projector
    if head is not None:
        # By name, so that a projector without a head does not depend on its code.
        trained = importlib.import_module(WORDS_TERM).WithHead(projector, head)
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    measured = MEASURED if settings.measure_every else ()
    curve: dict[str, list[float]] = {name: [] for name in (*CURVE, *measured)}
    if head is not None:
        curve["visual_words"] = []
    first = _restore(checkpoints, trained, optimizer, curve)
    if total(ranks, first) != [first * ranks.num_processes]:
        # A network file system may still hide a checkpoint from one of the machines.
        raise RuntimeError(f"the ranks found different checkpoints; this one starts at {first}")
    shared: nn.Module = ranks.prepare_model(trained)
    watched = Losses(llm, saes, data, settings, normalise, ranks, penalises)
    # What is measured at times is not computed at every step.
    at_times = bool(measured) and not sae_weight
    losses = replace(watched, saes={} if at_times else saes, head=head)
    steps = settings.total_steps(len(data.turns))
    last = steps if stop_at is None else stop_at
    todo = range(first, last)
    for step in progress(todo, desc="projector", unit="step") if ranks.is_main_process else todo:
        rate = learning_rate(step, steps, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = batch_indices(len(data.turns), settings.batch_size, step, seed)
        optimizer.zero_grad(set_to_none=True)
        weight = term_weight(step, steps, sae_weight, settings)
        due = settings.measure_every and (step % settings.measure_every == 0 or step + 1 == steps)
        seen = measure(projector, watched, chosen) if due else dict.fromkeys(measured, math.nan)
        entropy, error, words = _accumulate(shared, losses, chosen, weight, words_weight)
        loss = entropy if weight == 0 else entropy + weight * error
        if head is not None:
            loss += words_weight * words
            seen["visual_words"] = words
        norm = torch.nn.utils.clip_grad_norm_(trained.parameters(), settings.clip)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}")
        optimizer.step()
        if at_times:
            error = seen.get("term", math.nan)
        values = (step, entropy, error, loss, rate, norm.item())
        seen |= dict(zip(CURVE, values, strict=True))
        for name in curve:
            curve[name].append(float(seen[name]))
        kept = (step + 1) % settings.checkpoint_every == 0 and step + 1 < steps
        if kept and ranks.is_main_process:
            _save(checkpoints, step + 1, trained, optimizer, curve)
    return curve


def learning_rate(step: int, steps: int, settings: TrainingStage) -> float:
    """Return the rate of one of `steps` steps: linear warm-up to `lr`, then a cosine to 0."""
    warm = math.ceil(settings.warmup * steps)
    if step < warm:
        return settings.lr * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * share))


def term_weight(step: int, steps: int, sae_weight: float, settings: TrainingStage) -> float:
    """Return the weight of the SAE term in one of `steps` steps: from 0 to `sae_weight`."""
    warm = math.ceil(settings.sae_warmup * steps)
    return sae_weight * step / warm if step < warm else sae_weight


def batch_indices(n: int, batch_size: int, step: int, seed: int) -> NDArray[np.int64]:
    """Return the images of one step: each epoch is a permutation made from (seed, epoch)."""
    batch_size = min(batch_size, n)
    per_epoch = n // batch_size
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return order[place * batch_size : (place + 1) * batch_size]


def _accumulate(
    projector: nn.Module,
    losses: Losses,
    chosen: NDArray[np.int64],
    sae_weight: float,
    words_weight: float,
) -> list[float]:
    """Add the gradient of the whole batch's loss; return its cross-entropy, its SAE term and its
    term of visual words."""
    ranks = losses.ranks
    parts, n_answer = losses.parts(chosen)
    whole = losses.whole(projector, parts)
    entropy = error = said = 0.0
    for part in parts:
        # Gradients are exchanged once a step, with those of the last part.
        with nullcontext() if part is parts[-1] else ranks.no_sync(projector):
            visual_bpd = losses.visual(projector, part)
            found = losses.of_part(visual_bpd, part.batch.to(losses.llm.device), whole)
            entropy_part, error_part = found.entropy / n_answer, found.term * part.share
            loss = entropy_part if sae_weight == 0 else entropy_part + sae_weight * error_part
            if losses.head is not None:
                loss = loss + words_weight * part.share * found.words
            # The exchange takes the mean over ranks, and the loss here is a part of a sum.
            (loss * ranks.num_processes).backward()
        entropy += entropy_part.item()
        error += error_part.item()
        said += found.words.item() * part.share
    return total(ranks, entropy, error, said)


def _save(
    folder: Path,
    step: int,
    projector: nn.Module,
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
    # Not save_file: on a full disk it raises an error of its own, which names no file.
    whole = save({name: value.detach().contiguous() for name, value in tensors.items()})
    (temporary / "state.safetensors").write_bytes(whole)
    (temporary / "curve.json").write_text(json.dumps(curve))
    for path in (*temporary.iterdir(), temporary):
        force_to_disk(path)
    os.replace(temporary, place)
    force_to_disk(folder)
    for old in folder.glob("step-*"):
        if old != place:
            shutil.rmtree(old)


def _restore(
    folder: Path,
    projector: nn.Module,
    optimizer: torch.optim.Optimizer,
    curve: dict[str, list[float]],
) -> int:
    """Load the newest checkpoint, if any, and return the next step."""
    checkpoints = sorted(folder.glob("step-*"))
    if not checkpoints:
        return 0
    step = int(checkpoints[-1].name.removeprefix("step-"))
    tensors = load_file(checkpoints[-1] / "state.safetensors")
    projector.load_state_dict(
        {n.removeprefix("weight/"): v for n, v in tensors.items() if n.startswith("weight/")}
    )
    for name, parameter in projector.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg/{name}"].to(parameter.device),
            "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(parameter.device),
        }
    curve.update(json.loads((checkpoints[-1] / "curve.json").read_text()))
    return step
