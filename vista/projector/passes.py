"""Passes over the parts of a batch: the loss of each part, and what belongs to the whole batch.

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width, t token.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from vista.config.projector import (
    SAE_TERM,
    WORDS_TERM,
    Normalise,
    Penalised,
    TrainingStage,
)
from vista.data.records import Turn
from vista.language.loss import token_cross_entropy
from vista.language.model import LanguageModel
from vista.language.prompt import Batch
from vista.projector.ranks import share, total
from vista.sae.neutral import SparseAutoencoder

if TYPE_CHECKING:
    from vista.projector.loss import Moments


@dataclass(frozen=True)
class TrainingData:
    """What is trained on: conversations, and a reader of their images' patch features.

    `read(indices)` returns float [n, p, d_vision] for positions into `turns`, with p = `n_visual`.
    """

    turns: Sequence[Sequence[Turn]]
    n_visual: int
    read: Callable[[NDArray[np.int64]], NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """Images of a batch that go through the model together, with this share of the batch."""

    rows: NDArray[np.int64]
    batch: Batch
    share: float


class PartLosses(NamedTuple):
    """The loss of a part: the sum of the cross-entropy over its answer tokens, the SAE term (NaN
    without SAEs) and the term of visual words (NaN without a head)."""

    entropy: Tensor
    term: Tensor
    words: Tensor


@dataclass(frozen=True)
class Losses:
    """The loss of the parts of a batch: models, data and settings of one training.

    All terms are means over the whole batch, so a part counts by its share of the answer tokens in
    the cross-entropy and by its share of the images in the others, whichever rank has it.
    `head` reads visual tokens as words, if there is one.
    """

    llm: LanguageModel
    saes: Mapping[int, SparseAutoencoder]
    data: TrainingData
    settings: TrainingStage
    normalise: Normalise
    ranks: Accelerator
    penalises: Penalised = "error"
    head: nn.Linear | None = None

    def parts(self, chosen: NDArray[np.int64]) -> tuple[list[Part], float]:
        """Return this rank's parts of a batch, and the number of answer tokens of the whole."""
        rows = share(chosen, self.ranks)
        size = self.settings.micro_batch or len(rows)
        turns = self.data.turns
        if size < len(rows):
            # Samples of one length share a part: all of a part are padded to its longest.
            rows = rows[np.argsort([_letters(turns[i]) for i in rows], kind="stable")]
        length = self.settings.max_length
        parts = [
            Part(
                part,
                self.llm.batch([turns[i] for i in part], self.data.n_visual, length),
                len(part) / len(chosen),
            )
            for part in (rows[i : i + size] for i in range(0, len(rows), size))
        ]
        tokens = total(self.ranks, sum(len(part.batch.targets) for part in parts))[0]
        return parts, max(1.0, tokens)

    def visual(self, projector: nn.Module, part: Part) -> Tensor:
        """Return the visual tokens [b, p, d] of a part."""
        features_bpv = torch.from_numpy(np.asarray(self.data.read(part.rows), dtype=np.float32))
        tokens_bpd: Tensor = projector(features_bpv.to(next(projector.parameters()).device))
        return tokens_bpd

    def of_part(
        self, visual_bpd: Tensor, batch: Batch, whole: Mapping[int, Moments] | None
    ) -> PartLosses:
        """Return the losses of a part; `whole` as `moments` gives it."""
        visual = slice(batch.visual_start, batch.visual_start + batch.n_visual)
        # The last token is learnt, never read: nothing before it depends on it.
        read = slice(max(visual.stop, batch.input_ids.shape[1] - 1))
        predict_bt = batch.predict_mask[:, read]
        scored_bt, nan = predict_bt, torch.tensor(float("nan"))
        words: Any = None
        if self.head is not None:
            # Imported by name, as the SAE term below.
            words = importlib.import_module(WORDS_TERM)
            scored_bt = predict_bt.clone()
            scored_bt[:, words.expecting(batch.visual_start, batch.n_visual)] = True
        out = self.llm.forward(
            batch.input_ids[:, read],
            batch.attention_mask[:, read],
            visual=visual_bpd,
            visual_start=batch.visual_start,
            taps=tuple(self.saes),
            logits_at=scored_bt,
        )
        assert out.logits is not None
        logits_nv, said = out.logits, nan
        if self.head is not None:
            # An answer is predicted from the last visual token at the earliest, after those here.
            is_answer_n = predict_bt[scored_bt]
            expected_bpv = logits_nv[~is_answer_n].reshape(len(visual_bpd), -1, logits_nv.shape[1])
            said = words.words_term(self.head, visual_bpd, expected_bpv)
            logits_nv = logits_nv[is_answer_n]
        entropy = token_cross_entropy(logits_nv, batch).sum()
        if not self.saes:
            return PartLosses(entropy, nan, said)
        # Imported by name, so that a projector without the term does not depend on its code. The
        # node of a projector with the term names the module.
        loss = importlib.import_module(SAE_TERM)
        term = loss.sae_term(out.taps, self.saes, visual, self.normalise, whole, self.penalises)
        return PartLosses(entropy, term.to(entropy.device), said)

    def moments(self, projector: nn.Module, parts: Sequence[Part]) -> dict[int, Moments]:
        """Return the moments of the visual tokens of the whole batch by layer: a pass without
        gradients up to the deepest layer."""
        loss = importlib.import_module(SAE_TERM)
        sums: dict[int, Moments] = {}
        for part in parts:
            batch = part.batch.to(self.llm.device)
            with torch.no_grad():
                out = self.llm.forward(
                    batch.input_ids,
                    batch.attention_mask,
                    visual=self.visual(projector, part),
                    visual_start=batch.visual_start,
                    taps=tuple(self.saes),
                    stop_after=max(self.saes),
                )
            visual = slice(batch.visual_start, batch.visual_start + batch.n_visual)
            for layer, found in loss.batch_moments(out.taps, self.saes, visual):
                sums[layer] = sums[layer] + found if layer in sums else found
        return {layer: self._summed(sum_) for layer, sum_ in sums.items()}

    def whole(self, projector: nn.Module, parts: Sequence[Part]) -> dict[int, Moments] | None:
        """Return the moments of the whole batch where the SAE term of a part needs them."""
        if self.normalise == "none" or not self.saes:
            return None
        divided = total(self.ranks, len(parts))[0] > 1
        return self.moments(projector, parts) if divided else None

    def _summed(self, found: Moments) -> Moments:
        """Return the sum of the moments of all ranks."""
        if self.ranks.num_processes == 1:
            return found
        total_d = self.ranks.reduce(found.total_d.to(self.ranks.device), reduction="sum")
        count, square, error, active = total(
            self.ranks, found.count, found.square, found.error, found.active
        )
        return type(found)(count, total_d, square, error, active)


def _letters(turns: Sequence[Turn]) -> int:
    return sum(len(turn.question) + len(turn.answer) for turn in turns)
