"""Attention weights of a frozen language model, from chosen tokens to the visual tokens.

The fused kernels that models use by default never form the weights. For such a pass the model's own
eager attention takes their place: transformers then returns the weights of each block as it
computes them, so soft caps, sliding windows and scalings are the model's.

Shape suffixes: b sample, t token, n chosen token (row-major in [b, t]), l layer, h head,
p visual token, d width of the stream, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.language.prompt import Batch
from vista.language.reading import removed


@torch.no_grad()
def visual_attention(
    llm: LanguageModel, batch: Batch, visual_bpd: Tensor, at_bt: Tensor
) -> tuple[Tensor, Tensor]:
    """Read samples with their visual tokens once.

    Args:
        llm: The language model.
        batch: The samples, on its device.
        visual_bpd: Their visual tokens.
        at_bt: Bool mask: tokens whose attention is returned.

    Returns:
        The share of each chosen token's attention that goes to each visual token, [n, l, h, p]
        float32 on the CPU, and the logits [n', v] at `batch.predict_mask`.

    Raises:
        UserError: The model's blocks do not return attention weights.
    """
    visual = slice(batch.visual_start, batch.visual_start + batch.n_visual)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        weights_bhtt = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights_bhtt is None:
            raise UserError(_no_weights(llm))
        rows_nht = weights_bhtt.transpose(1, 2)[at_bt.to(weights_bhtt.device)]
        kept.append(rows_nht[..., visual].float().cpu())

    handles = [_attention(llm, block).register_forward_hook(keep) for block in llm.blocks]
    with eager_attention(llm), removed(handles):
        logits_nv = llm.forward(
            batch.input_ids,
            batch.attention_mask,
            visual=visual_bpd,
            visual_start=batch.visual_start,
            logits_at=batch.predict_mask,
        ).logits
    assert logits_nv is not None
    return torch.stack(kept, dim=1), logits_nv


@contextmanager
def eager_attention(llm: LanguageModel) -> Iterator[None]:
    """Let the model compute attention by its eager implementation, then as before."""
    before = llm.model.config.get_text_config()._attn_implementation
    llm.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        llm.model.set_attn_implementation(before)


def _attention(llm: LanguageModel, block: nn.Module) -> nn.Module:
    """Return the self-attention of a block: a child whose class has the word in its name."""
    for child in block.children():
        if "Attention" in type(child).__name__:
            return child
    raise UserError(_no_weights(llm))


def _no_weights(llm: LanguageModel) -> str:
    return (
        f"language model {type(llm.model).__name__}: its blocks give no attention weights; leave "
        "metrics.grounding_attention out for it"
    )
