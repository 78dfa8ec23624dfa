"""A projector trained the usual way: every image through the encoder again at every step, one image
a forward pass, all hidden states and every SAE's dense reconstruction kept for the backward pass.

Shape suffixes as in `benchmarks.usual.models`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

from benchmarks.usual.models import JumpReluSae, patch_tokens, spliced


def train(
    projector: nn.Module,
    vision: Any,
    language: Any,
    saes: Mapping[int, JumpReluSae],
    images: Sequence[Tensor],
    samples: Sequence[tuple[Tensor, Tensor]],
    batches: Sequence[Sequence[int]],
    sae_weight: float,
    lr: float,
) -> list[tuple[float, float]]:
    """Train in place; return cross-entropy and SAE error of each step.

    `images` are pixels [1, 3, h, w], `samples` ids and labels [1, t], `batches` who is in a step.
    """
    optimizer = torch.optim.AdamW(projector.parameters(), lr=lr, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, len(batches))
    curve = []
    for batch in batches:
        answers = sum(int((samples[i][1] >= 0).sum()) for i in batch)
        entropy = error = 0.0
        optimizer.zero_grad()
        for i in batch:
            ids_bt, labels_bt = samples[i]
            with torch.no_grad():
                features_bpd = patch_tokens(vision, images[i])
            visual_bpd = projector(features_bpd)
            out = language(
                inputs_embeds=spliced(language, ids_bt, visual_bpd),
                labels=labels_bt,
                num_items_in_batch=answers,
                output_hidden_states=True,
                use_cache=False,
            )
            loss = out.loss
            entropy += out.loss.item()
            if sae_weight:
                seen = slice(1, 1 + visual_bpd.shape[1])
                errors = []
                for layer, sae in saes.items():
                    x_bpd = out.hidden_states[layer + 1][:, seen].float()
                    errors.append((sae.decode(sae.encode(x_bpd)) - x_bpd).square().mean())
                term = torch.stack(errors).mean() / len(batch)
                loss = loss + sae_weight * term
                error += term.item()
            loss.backward()
        nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.append((entropy, error))
    return curve
