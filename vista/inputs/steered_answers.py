"""What a language model says of a blank image that is steered along a latent.

Legend of shape suffixes: b row of a batch, l latent, p patch, v encoder width, n token of an
answer, t token of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor

from vista.config.steering_labels import SteeringLabelSettings
from vista.inputs.edit_plan import words_for
from vista.interventions.damage import answer_logits
from vista.interventions.generation import untouched_tokens
from vista.judges.words import Phrase, phrase_table, words
from vista.language.model import LanguageModel
from vista.language.nearest import nearest_words
from vista.language.reading import Reading
from vista.progress import progress
from vista.projector.module import Projector

Item = TypeVar("Item")


@dataclass(frozen=True)
class Answer:
    """An answer to a steered blank image.

    Attributes:
        coefficient: How far the image was steered.
        text: The answer.
        name: The first of the names that it holds; None: it holds none.
        gain: How much likelier the tokens of that name are than without steering, after the same
            words, in nats a token; 0 without a name.
    """

    coefficient: float
    text: str
    name: str | None
    gain: float


@dataclass(frozen=True)
class _Row:
    """A steered row: its answer, the name in it, and the log-probability of each of its tokens."""

    ids: tuple[int, ...]
    text: str
    name: str | None
    log_p_n: Tensor


class BlankImage:
    """A blank image before a language model, unsteered and steered.

    Args:
        llm: The language model.
        projector: From features to visual tokens, on the language model's device.
        blank_pv: Features of the blank image.
        question: What the language model is asked.
        names: Names that answers are searched for.
        settings: Coefficients, length of answers, rows of a batch.
    """

    def __init__(
        self,
        llm: LanguageModel,
        projector: Projector,
        blank_pv: Tensor,
        question: str,
        names: Sequence[str],
        settings: SteeringLabelSettings,
    ) -> None:
        self._llm, self._projector, self._settings = llm, projector, settings
        self._blank_pv = blank_pv.to(llm.device)
        self._ids_t = llm.prompts([question], len(blank_pv))[0]
        self._phrases = phrase_table({name: [name] for name in names})

    @torch.no_grad()
    def answer(self) -> str:
        """Return the answer to the blank image itself."""
        reading = self._read(self._blank_pv[None])
        return self._llm.answers(reading, self._settings.max_new_tokens)[0]

    @torch.no_grad()
    def steered(self, step_lpv: Tensor) -> list[list[Answer]]:
        """Return the answers of each latent, one for each coefficient, in their order.

        Args:
            step_lpv: What a coefficient of 1 adds to each patch (or to all: p = 1).
        """
        coefficients = self._settings.coefficients
        places = list(product(range(len(step_lpv)), coefficients))
        rows: list[_Row] = []
        for part in progress(list(self._parts(places)), desc="steering", unit="batch"):
            steps_bpv = torch.stack([step_lpv[latent] * by for latent, by in part])
            rows += self._rows(self._blank_pv + steps_bpv.to(self._blank_pv))
        unsteered = self._unsteered({row.ids for row in rows if row.name is not None})
        answers = [
            Answer(by, row.text, row.name, self._gain(row, unsteered))
            for (_, by), row in zip(places, rows, strict=True)
        ]
        size = len(coefficients)
        return [answers[start : start + size] for start in range(0, len(answers), size)]

    def _parts(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        size = self._settings.batch_size
        for start in range(0, len(items), size):
            yield items[start : start + size]

    def _read(self, features_bpv: Tensor) -> Reading:
        ids_bt = torch.tensor([self._ids_t] * len(features_bpv), device=self._llm.device)
        return self._llm.read(ids_bt, self._projector(features_bpv))

    def _rows(self, features_bpv: Tensor) -> list[_Row]:
        reading = self._read(features_bpv)
        answers = self._llm.answer_ids(reading, self._settings.max_new_tokens)
        log_p = _log_probabilities(reading, answers)
        return [
            _Row(tuple(ids), text, first_name(text, self._phrases), log_p_n)
            for ids, text, log_p_n in zip(answers, self._llm.decode(answers), log_p, strict=True)
        ]

    def _unsteered(self, answers: set[tuple[int, ...]]) -> dict[tuple[int, ...], Tensor]:
        """Return how likely the tokens of some answers are without steering, in nats [n]."""
        log_p: dict[tuple[int, ...], Tensor] = {}
        for part in self._parts(sorted(answers)):
            reading = self._read(self._blank_pv.expand(len(part), -1, -1))
            log_p |= dict(zip(part, _log_probabilities(reading, part), strict=True))
        return log_p

    def _gain(self, row: _Row, unsteered: dict[tuple[int, ...], Tensor]) -> float:
        if row.name is None:
            return 0.0
        pattern = words_for([row.name])
        others = untouched_tokens(self._llm.tokenizer, row.ids, pattern)
        of_name_n = ~torch.tensor(others, dtype=torch.bool)
        gain_n = (row.log_p_n - unsteered[row.ids])[of_name_n]
        return float(gain_n.mean()) if len(gain_n) else 0.0


def chosen_answer(answers: Sequence[Answer]) -> Answer:
    """Return the answer that counts: of those that hold a name the one with the largest gain, the
    first of equals; the first answer where none does."""
    return max(answers, key=lambda answer: (answer.name is not None, answer.gain))


def label_of(answer: Answer) -> str | None:
    """Return the label that an answer gives: its name, if steering made that likelier."""
    return answer.name if answer.gain > 0 else None


def first_name(text: str, phrases: dict[Phrase, set[str]]) -> str | None:
    """Return the first name that a text holds as whole words, in singular or plural; of names that
    begin at the same word the longest.

    Args:
        text: The text.
        phrases: The names by the words that stand for them, as `phrase_table` gives them.
    """
    text_words = words(text)
    longest = max(map(len, phrases), default=0)
    for start, size in product(range(len(text_words)), range(longest, 0, -1)):
        if names := phrases.get(tuple(text_words[start : start + size])):
            return min(names)
    return None


@torch.no_grad()
def nearest_names(
    llm: LanguageModel, projector: Projector, step_lv: Tensor, names: Sequence[str]
) -> list[str]:
    """Return for each latent the name whose input embedding is nearest, by cosine, to the visual
    token that its direction is projected to; of a projector with a bias, less the projected zero.

    A name of several tokens has the mean of their embeddings.
    """
    embedding = llm.model.get_input_embeddings().weight
    vectors = torch.stack([embedding[ids].float().mean(dim=0) for ids in _name_ids(llm, names)])
    token_ld = projector(step_lv.to(llm.device)) - projector(torch.zeros_like(step_lv[:1]))
    return [names[place] for place in nearest_words(token_ld, vectors).tolist()]


def _name_ids(llm: LanguageModel, names: Sequence[str]) -> Iterator[list[int]]:
    """Yield the tokens of each name, with a space before it or without: the fewer."""
    for name in names:
        spelled = [name, f" {name}"]
        yield min(llm.tokenizer(spelled, add_special_tokens=False)["input_ids"], key=len)


def _log_probabilities(reading: Reading, answers: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the log-probability of each token of an answer, [n] float64 on the CPU, by row."""
    return [
        logits_nv.double()
        .log_softmax(-1)
        .gather(-1, torch.tensor(ids, dtype=torch.int64, device=logits_nv.device)[:, None])[:, 0]
        .cpu()
        for ids, logits_nv in zip(answers, answer_logits(reading, answers), strict=True)
    ]
