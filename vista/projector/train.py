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
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vista.config.projector import SAE_TERM, TrainingStage
from vista.data.records import Turn
from vista.engine.disk import force_to_disk
from vista.language.loss import token_cross_entropy
from vista.language.model import LanguageModel
from vista.language.prompt import Batch
from vista.progress import progress
from vista.projector.module import Projector
from vista.projector.ranks import join_ranks, share, total
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
    ranks: Accelerator | None = None,
    stop_at: int | None = None,
) -> dict[str, list[float]]:
    """Train `projector` in place and return its curve, one value a step for each of CURVE.

    The loss is the mean cross-entropy over the batch's answer tokens + `sae_weight` * SAE term;
    `saes` may be empty where `sae_weight` is 0, and the curve then has NaN for the SAE error.
    AdamW, linear warm-up, cosine to 0 (VISTA paper, training). Resumes from the newest checkpoint
    in `checkpoints`; `stop_at` ends after that step, as a kill would.

    Memory follows `micro_batch`, not `batch_size`: gradients of parts add up to that of the whole.
    With `ranks` all of them call this, with equal arguments; each returns the whole curve.
    """
    assert saes or sae_weight == 0, "a positive SAE weight needs SAEs"
    ranks = ranks or join_ranks(llm.device)
    optimizer = torch.optim.AdamW(
        projector.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    curve: dict[str, list[float]] = {name: [] for name in CURVE}
    first = _restore(checkpoints, projector, optimizer, curve)
    if total(ranks, first) != [first * ranks.num_processes]:
        # A network file system may still hide a checkpoint from one of the machines.
        raise RuntimeError(f"the ranks found different checkpoints; this one starts at {first}")
    shared: nn.Module = ranks.prepare_model(projector)
    steps = settings.total_steps(len(data.turns))
    last = steps if stop_at is None else stop_at
    todo = range(first, last)
    for step in progress(todo, desc="projector", unit="step") if ranks.is_main_process else todo:
        rate = learning_rate(step, steps, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = batch_indices(len(data.turns), settings.batch_size, step, seed)
        optimizer.zero_grad(set_to_none=True)
        entropy, error = _accumulate(shared, llm, saes, data, chosen, settings, sae_weight, ranks)
        loss = entropy if sae_weight == 0 else entropy + sae_weight * error
        norm = torch.nn.utils.clip_grad_norm_(projector.parameters(), settings.clip)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}")
        optimizer.step()
        values = (step, entropy, error, loss, rate, norm.item())
        for name, value in zip(CURVE, values, strict=True):
            curve[name].append(float(value))
        due = (step + 1) % settings.checkpoint_every == 0 and step + 1 < steps
        if due and ranks.is_main_process:
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
    projector: nn.Module,
    llm: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    data: TrainingData,
    chosen: NDArray[np.int64],
    settings: TrainingStage,
    sae_weight: float,
    ranks: Accelerator,
) -> tuple[float, float]:
    """Add the gradient of the whole batch's loss; return its cross-entropy and SAE error.

    Both are means over the whole batch, so a part counts by its share of the answer tokens in the
    one and by its share of the images in the other, whichever rank has it.
    """
    rows = share(chosen, ranks)
    size = settings.micro_batch or len(rows)
    if size < len(rows):
        # Samples of one length share a part: all of a part are padded to its longest.
        rows = rows[np.argsort([_letters(data.turns[i]) for i in rows], kind="stable")]
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    batches = [
        llm.batch([data.turns[i] for i in part], data.n_visual, settings.max_length)
        for part in parts
    ]
    n_answer = max(1.0, total(ranks, sum(len(batch.targets) for batch in batches))[0])
    entropy = error = 0.0
    for part, batch in zip(parts, batches, strict=True):
        features_bpv = torch.from_numpy(np.asarray(data.read(part), dtype=np.float32))
        # Gradients are exchanged once a step, with those of the last part.
        with nullcontext() if part is parts[-1] else ranks.no_sync(projector):
            visual_bpd = projector(features_bpv.to(next(projector.parameters()).device))
            entropy_part, error_part = _losses(llm, saes, visual_bpd, batch.to(llm.device))
            entropy_part = entropy_part / n_answer
            error_part = error_part * (len(part) / len(chosen))
            loss = entropy_part if sae_weight == 0 else entropy_part + sae_weight * error_part
            # The exchange takes the mean over ranks, and the loss here is a part of a sum.
            (loss * ranks.num_processes).backward()
        entropy += entropy_part.item()
        error += error_part.item()
    entropy, error = total(ranks, entropy, error)
    return entropy, error


def _letters(turns: Sequence[Turn]) -> int:
    return sum(len(turn.question) + len(turn.answer) for turn in turns)


def _losses(
    llm: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    visual_bpd: Tensor,
    batch: Batch,
) -> tuple[Tensor, Tensor]:
    """The sum of the cross-entropy over the answer tokens, and the SAE term (NaN without SAEs)."""
    visual = slice(batch.visual_start, batch.visual_start + batch.n_visual)
    # The last token is learnt, never read: nothing before it depends on it.
    read = slice(max(visual.stop, batch.input_ids.shape[1] - 1))
    out = llm.forward(
        batch.input_ids[:, read],
        batch.attention_mask[:, read],
        visual=visual_bpd,
        visual_start=batch.visual_start,
        taps=tuple(saes),
        logits_at=batch.predict_mask[:, read],
    )
    assert out.logits is not None
    entropy = token_cross_entropy(out.logits, batch).sum()
    if not saes:
        return entropy, torch.tensor(float("nan"))
    # Imported by name, so that a projector without the term does not depend on its code. The node
    # of a projector with the term names the module.
    sae_term = importlib.import_module(SAE_TERM).sae_term
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
    projector: Projector,
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
