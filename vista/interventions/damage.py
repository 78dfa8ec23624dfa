"""What an edit changes beside its object: how far the next token's distribution moves.

The answer is the greedy caption of the unedited image, which is what the model says where nothing
is disturbed; the change on the reference answer is measured by its likelihood (`generation`). Both
passes read the same tokens, so a change of one word is not counted again at all later words, as it
would be if the edited caption were compared with the unedited one.

Shape legend: n answer token, v vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vista.interventions.generation import TokenSum, untouched_tokens
from vista.language.prompt import IGNORED, Batch
from vista.language.reading import Reading


@dataclass(frozen=True)
class _Unedited:
    """An image's unedited answer: its tokens, which of them count, and the logits of those."""

    ids: list[int]
    counts_n: Tensor
    logits_nv: Tensor


@dataclass
class UneditedAnswers:
    """Compares edited rows of images with their unedited rows.

    `tokenizer` is the language model's. The rows of an image follow each other, the unedited one
    first, in one call of `damage` or over several: logits over a vocabulary are kept of one image.
    """

    tokenizer: Any
    _by_image: dict[int, _Unedited] = field(default_factory=dict)

    def damage(
        self,
        reading: Reading,
        images: Sequence[int],
        unedited: Sequence[bool],
        answers: Sequence[list[int]],
        touched: Sequence[re.Pattern[str]],
    ) -> list[TokenSum]:
        """Return the divergence of each row from the unedited row of its image.

        Args:
            reading: The prompt of each row as the model read it, with any edits of its visual
                tokens.
            images: The image of each row.
            unedited: Whether each row is the unedited one of its image.
            answers: The tokens of each row's own greedy answer, without one that ends it; those of
                unedited rows are read.
            touched: Words of each row that name its source or target: tokens with a character of
                one are left out.

        Raises:
            KeyError: The unedited row of an image has not come yet, or rows of another image came
                between.
        """
        known = {image: answer.ids for image, answer in self._by_image.items()}
        for image, is_unedited, ids in zip(images, unedited, answers, strict=True):
            if is_unedited:
                known[image] = ids
        logits = answer_logits(reading, [known[image] for image in images])
        damages = []
        for image, is_unedited, logits_nv, pattern in zip(
            images, unedited, logits, touched, strict=True
        ):
            if is_unedited:
                ids = known[image]
                kept = untouched_tokens(self.tokenizer, ids, pattern)
                counts_n = torch.tensor(kept, dtype=torch.bool, device=logits_nv.device)
                self._by_image = {image: _Unedited(ids, counts_n, logits_nv[counts_n])}
            plain = self._by_image[image]
            kl_n = divergence(plain.logits_nv, logits_nv[plain.counts_n])
            damages.append(TokenSum(float(kl_n.sum()), len(kl_n)))
        return damages


def divergence(p_nv: Tensor, q_nv: Tensor) -> Tensor:
    """KL(p || q) of each token in nats, [n] float64, of the softmax of two tables of logits."""
    log_p_nv, log_q_nv = (logits_nv.double().log_softmax(-1) for logits_nv in (p_nv, q_nv))
    # A token that p gives no chance at all (a logit of -inf) adds nothing.
    term_nv = torch.where(log_p_nv > -torch.inf, log_p_nv.exp() * (log_p_nv - log_q_nv), 0.0)
    return term_nv.sum(-1)


def answer_logits(reading: Reading, answers: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return for each row the logits [n, v] that predict each token of an answer.

    Args:
        reading: The prompts, as they were read.
        answers: The answer's tokens of each row.
    """
    before_bt = reading.ids_bt
    b, start = before_bt.shape
    longest = max(map(len, answers), default=0)
    shape = (b, start + longest)
    input_ids = torch.zeros(shape, dtype=before_bt.dtype)
    input_ids[:, :start] = before_bt.cpu()
    labels = torch.full(shape, IGNORED)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    attention_mask[:, :start] = 1
    for row, ids in enumerate(answers):
        here = slice(start, start + len(ids))
        input_ids[row, here] = torch.tensor(ids, dtype=input_ids.dtype)
        labels[row, here] = torch.tensor(ids, dtype=labels.dtype)
        attention_mask[row, here] = 1
    # Only text follows what was read, so the batch has no visual token to place.
    batch = Batch(input_ids, attention_mask, labels, labels != IGNORED, start, 0)
    logits_nv = reading.answer_logits(batch.to(before_bt.device))
    return list(torch.split(logits_nv, [len(ids) for ids in answers]))
