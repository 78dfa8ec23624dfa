"""Training gated cross-attention on captions: cross-entropy and attention on objects.

Shape suffixes: b caption, p patch, v encoder width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vista.config.cross_attention import CrossAttentionSettings
from vista.language.loss import token_cross_entropy
from vista.language.model import LanguageModel
from vista.language.prompt import Batch
from vista.progress import progress
from vista.projector.cross_attention import CrossAttention, WordTokens, attention_loss

CURVE = ("step", "cross_entropy", "attention_loss", "gate", "lr")


@dataclass(frozen=True)
class Step:
    """What one step learns from, on the language model's device."""

    batch: Batch
    features_bpv: Tensor
    words: WordTokens


def train_cross_attention(
    module: CrossAttention,
    llm: LanguageModel,
    n_captions: int,
    read: Callable[[NDArray[np.int64]], Step],
    settings: CrossAttentionSettings,
    *,
    weight: float,
    seed: int,
) -> Mapping[str, list[float]]:
    """Train `module` in place and return its curve, one value a step for each of CURVE.

    The loss is the mean cross-entropy over the answers' tokens + `weight` * `attention_loss`; with
    weight 0 the latter is measured, not learnt. AdamW, linear warm-up, cosine to 0. The order of
    the captions depends on `seed` alone.

    Args:
        module: The cross-attention.
        llm: The language model.
        n_captions: Captions to learn from.
        read: Reads some of them.
        settings: How it is trained.
        weight: Weight of the attention loss.
        seed: Seed of the order.
    """
    module.train().requires_grad_(True)
    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    warm = max(1, round(settings.warmup * settings.steps))
    curve: dict[str, list[float]] = {name: [] for name in CURVE}
    rng = np.random.default_rng(seed)
    waiting = np.zeros(0, dtype=np.int64)
    for step in progress(range(settings.steps), desc="cross-attention", unit="step"):
        while len(waiting) < settings.batch_size:
            waiting = np.concatenate([waiting, rng.permutation(n_captions)])
        rows, waiting = np.split(waiting, [settings.batch_size])
        lr = settings.lr * min((step + 1) / warm, _cosine(step / settings.steps))
        for group in optimizer.param_groups:
            group["lr"] = lr
        given = read(rows)
        logits_nv, weights_btlhp = module.read(llm, given.batch, given.features_bpv)
        entropy = token_cross_entropy(logits_nv, given.batch).mean()
        attention = attention_loss(weights_btlhp, given.words)
        loss = entropy + weight * attention if weight else entropy
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        gate = float(np.mean(module.gates()))
        values = (step + 1, float(entropy.detach()), float(attention.detach()), gate, lr)
        for name, value in zip(CURVE, values, strict=True):
            curve[name].append(value)
    module.eval().requires_grad_(False)
    return curve


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))
