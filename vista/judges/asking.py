"""Judges that ask a model: their questions, answers and counts.

A question is asked once in a call and once in a cache. A question that the model failed to answer
is counted and stays unanswered; it is never a no.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from vista.errors import UserError
from vista.judges import NO, UNANSWERED, YES, Resources, Shown
from vista.judges.backends.judgements import Judgements, Verdicts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Question:
    """Labels to be judged against an image or a text.

    Attributes:
        labels: One or more, none of them blank.
        subject: The text, or the SHA-256 of the image's file.
        image: Reads the bytes of the image's file; None where the subject is a text.
    """

    labels: tuple[str, ...]
    subject: str
    image: Callable[[], bytes] | None = field(default=None, compare=False)

    @property
    def seen(self) -> bool:
        """Whether there is an image to look at."""
        return self.image is not None


@dataclass(frozen=True)
class Answer:
    """A model's answer: a verdict for each label, or None and the reason."""

    verdicts: Verdicts | None
    reason: str | None = None


class Asker(Protocol):
    """A model behind a judge."""

    def __call__(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield the number of a question and its answer, as they come, each question once."""
        ...


@dataclass
class Tally:
    """Counts of a judge's questions and verdicts so far.

    Attributes:
        verdicts: Requested verdicts; a repeated question counts once a call.
        unanswered: How many of these the model failed to give.
        sent: Questions put to the model by this run.
        kept: Questions that were answered before, by this run or an earlier one.
        reasons: Why questions went unanswered, and how often.
    """

    verdicts: int
    unanswered: int
    sent: int
    kept: int
    reasons: dict[str, int]


class AskingJudge:
    """A judge that puts questions to a model that can be shown images.

    Args:
        kind: Name of the judge.
        model: Name of the model that it asks.
        prompt: Identity of the prompt.
        asker: The model.
        resources: Folder of the kept judgements, and progress.
        max_labels: Most labels in one question.
        max_unanswered: Largest share of verdicts on texts that may stay unanswered.
        served: Further values that an answer depends on; judgements are kept apart by them.
    """

    looks = True

    def __init__(
        self,
        kind: str,
        model: str,
        prompt: str,
        asker: Asker,
        resources: Resources,
        *,
        max_labels: int,
        max_unanswered: float,
        served: Mapping[str, str | float | None] | None = None,
    ) -> None:
        self.name = f"{kind}:{model}"
        self.tally = Tally(0, 0, 0, 0, {})
        self._asker = asker
        self._progress = resources.progress
        self._max_labels = max_labels
        self._max_unanswered = max_unanswered
        self._kept: Judgements[bool] = Judgements(
            resources.cache, judge=kind, model=model, prompt=prompt, **(served or {})
        )

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where the model says that the text names the object.

        Unanswered verdicts count as not named; `tally` has their number. Raises UserError as
        `verdicts`.
        """
        named: NDArray[np.bool_] = self.verdicts(texts, objects) == YES
        return named

    def verdicts(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.int8]:
        """Return [texts, objects]: YES, NO or UNANSWERED on whether the text names the object.

        Raises:
            UserError: More verdicts are unanswered than the settings allow, or the model cannot be
                asked. Earlier judgements are kept.
        """
        import numpy as np

        names = _spoken(objects)
        questions = [Question(part, text) for text in _spoken(texts) for part in self._parts(names)]
        verdicts = {
            (question.subject, label): verdict
            for question, verdict_of in self._ask(questions).items()
            for label, verdict in verdict_of.items()
        }
        open_ = sum(verdict == UNANSWERED for verdict in verdicts.values())
        if open_ > self._max_unanswered * len(verdicts):
            reasons = "; ".join(f"{n} questions: {why}" for why, n in self.tally.reasons.items())
            raise UserError(
                f"judge.max_unanswered: {self.name} left {open_} of {len(verdicts)} verdicts "
                f"unanswered ({reasons}); take another model, or allow more"
            )
        pairs = ((text or "", name) for text in texts for name in objects)
        flat = [verdicts.get(pair, NO) for pair in pairs]
        return np.array(flat, dtype=np.int8).reshape(len(texts), len(objects))

    def judge_images(self, items: Sequence[Shown]) -> NDArray[np.int8]:
        """Return [items, labels]: YES, NO or UNANSWERED for each label of each image.

        A question holds the labels of one item only: an item's verdicts do not depend on other
        items with the same image.

        Raises:
            ValueError: The items differ in their number of labels.
            UserError: The model cannot be asked. Earlier judgements are kept.
        """
        import numpy as np

        width = len(items[0].labels) if items else 0
        if any(len(item.labels) != width for item in items):
            raise ValueError("every image needs the same number of labels: pad with None")
        questions_of = []
        for item in items:
            labels = _spoken(item.labels)
            digest = hashlib.sha256(item.image()).hexdigest() if labels else ""
            questions_of.append(
                [Question(part, digest, item.image) for part in self._parts(labels)]
            )
        verdicts = self._ask([question for questions in questions_of for question in questions])
        rows = []
        for item, questions in zip(items, questions_of, strict=True):
            verdict_of = {label: v for q in questions for label, v in verdicts[q].items()}
            rows.append([verdict_of.get(label or "", NO) for label in item.labels])
        return np.array(rows, dtype=np.int8).reshape(len(items), width)

    def _parts(self, labels: Sequence[str]) -> list[tuple[str, ...]]:
        size = self._max_labels
        return [tuple(labels[start : start + size]) for start in range(0, len(labels), size)]

    def _ask(self, questions: Sequence[Question]) -> dict[Question, dict[str, int]]:
        """Return each question's verdicts by label, asking only what is not known yet."""
        answers: dict[Question, Answer] = {}
        new = []
        for question in dict.fromkeys(questions):
            known = self._kept.find(question.seen, question.subject, question.labels)
            if known is None:
                new.append(question)
            else:
                answers[question] = Answer(known)
        self.tally.kept += len(answers)
        for number, answer in self._progress(self._asker(new), len(new)):
            question = new[number]
            self._kept.add(
                question.seen, question.subject, question.labels, answer.verdicts, answer.reason
            )
            answers[question] = answer
            self.tally.sent += 1
            if answer.reason is not None:
                self.tally.reasons[answer.reason] = self.tally.reasons.get(answer.reason, 0) + 1
        verdicts = {
            question: {
                label: UNANSWERED if is_named is None else YES if is_named else NO
                for label, is_named in zip(
                    question.labels, answer.verdicts or [None] * len(question.labels), strict=True
                )
            }
            for question, answer in answers.items()
        }
        every = [verdict for by_label in verdicts.values() for verdict in by_label.values()]
        self.tally.verdicts += len(every)
        self.tally.unanswered += every.count(UNANSWERED)
        return verdicts


def _spoken(texts: Sequence[str | None]) -> list[str]:
    """The texts that are not blank, each once, in their order."""
    return list(dict.fromkeys(text for text in texts if text and text.strip()))
