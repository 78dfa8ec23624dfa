"""Captions under edits, and how likely the untouched part of the reference caption stays.

Shape legend: b row of the batch, p patch, d width of the stream, n learnt token of the batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vista.data.records import Turn
from vista.interventions.edits import Concept
from vista.language.loss import token_cross_entropy
from vista.language.model import LanguageModel
from vista.language.reading import Reading


@dataclass(frozen=True)
class TokenSum:
    """A sum over some tokens of one row, in nats, and the number of the tokens."""

    nats: float
    tokens: int


def untouched_losses(
    llm: LanguageModel,
    reading: Reading,
    n_visual: int,
    references: Sequence[Turn],
    touched: Sequence[re.Pattern[str]],
    max_length: int,
) -> list[TokenSum]:
    """Nats over the reference answer's tokens that an edit should leave alone.

    Args:
        llm: The language model.
        reading: The prompt of each row as the model read it, with any edits of its visual tokens.
        n_visual: Visual tokens of each row.
        references: Question and reference answer of each row.
        touched: Words of each row that the edit is about: tokens with a character of one are left
            out.
        max_length: Tokens a sample, visual tokens included.

    Returns:
        The sum of negative log likelihoods of each row.
    """
    batch = llm.batch([(turn,) for turn in references], n_visual, max_length).to(llm.device)
    logits_nv = reading.answer_logits(batch)
    loss_n = token_cross_entropy(logits_nv, batch).double().cpu().numpy()
    sample_n = batch.target_sample.cpu().numpy()
    ids_n = batch.targets.cpu().numpy()
    known: dict[tuple[tuple[int, ...], str], list[bool]] = {}
    keep_n = np.zeros(len(ids_n), dtype=bool)
    for b, pattern in enumerate(touched):
        at = np.flatnonzero(sample_n == b)
        ids = tuple(ids_n[at].tolist())
        if (ids, pattern.pattern) not in known:
            known[ids, pattern.pattern] = untouched_tokens(llm.tokenizer, ids, pattern)
        keep_n[at] = known[ids, pattern.pattern]
    size = len(touched)
    sums_b = np.bincount(sample_n, weights=loss_n * keep_n, minlength=size)
    counts_b = np.bincount(sample_n, weights=keep_n, minlength=size)
    return [TokenSum(float(nats), int(n)) for nats, n in zip(sums_b, counts_b, strict=True)]


def untouched_tokens(tokenizer: Any, ids: Sequence[int], pattern: re.Pattern[str]) -> list[bool]:
    """Which tokens of a text have no character within a match of `pattern`.

    A token that holds a part of a character (bytes of an accent) counts as the whole of it.
    """
    text = _decoded(tokenizer, ids)
    spans = [match.span() for match in pattern.finditer(text)]
    untouched, start = [], 0
    for i in range(len(ids)):
        # Where the text of the first tokens parts from the whole one, a character is unfinished.
        end = max(start, _shared(text, _decoded(tokenizer, ids[: i + 1])))
        last = max(end, start + 1)
        untouched.append(not any(low < last and start < high for low, high in spans))
        start = end
    return untouched


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    return text


def _shared(text: str, other: str) -> int:
    """Length of what two texts begin with alike."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(text), len(other)))


def firing_patches(
    llm: LanguageModel,
    visual_bpd: Tensor,
    references: Sequence[Turn],
    concepts: Sequence[Concept | None],
    max_length: int,
) -> list[Tensor]:
    """At which visual tokens of each image its concept's latents fire, [p] bool a row.

    Each latent reads the unedited stream after the block that its SAE was trained on. No concept:
    nowhere.
    """
    layers = {
        latent.sae.config.layer for concept in concepts if concept for latent in concept.latents
    }
    fires_bp = torch.zeros(visual_bpd.shape[:2], dtype=torch.bool)
    if not layers:
        return list(fires_bp)
    n_visual = visual_bpd.shape[1]
    batch = llm.batch([(turn,) for turn in references], n_visual, max_length).to(llm.device)
    taps = llm.forward(
        batch.input_ids,
        batch.attention_mask,
        visual=visual_bpd,
        visual_start=batch.visual_start,
        taps=layers,
        stop_after=max(layers),
    ).taps
    here = slice(batch.visual_start, batch.visual_start + n_visual)
    for b, concept in enumerate(concepts):
        for latent in concept.latents if concept else ():
            x_pd = taps[latent.sae.config.layer][b, here]
            fires_bp[b] |= (latent.activation(x_pd) > 0).cpu()
    return list(fires_bp)
