"""Cross-entropy on answer tokens, computed at those positions only.

Shape suffixes: b sample, n answer tokens of the batch, v vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vista.language.prompt import Batch


def token_cross_entropy(logits_nv: Tensor, batch: Batch) -> Tensor:
    """Nats for each answer token, [n] float32.

    Args:
        logits_nv: logits at `batch.predict_mask`, as `LanguageModel.forward(...,
            logits_at=batch.predict_mask)` gives them.
    """
    targets = batch.targets
    if len(logits_nv) != len(targets):
        raise ValueError(f"{len(logits_nv)} logits for {len(targets)} answer tokens")
    return functional.cross_entropy(logits_nv.float(), targets, reduction="none")


def sample_cross_entropy(logits_nv: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed nats over the answer tokens of each sample, [b] float32, and their number, [b]."""
    loss_n = token_cross_entropy(logits_nv, batch)
    sums_b = loss_n.new_zeros(len(batch.input_ids)).index_add(0, batch.target_sample, loss_n)
    return sums_b, torch.bincount(batch.target_sample, minlength=len(sums_b))
