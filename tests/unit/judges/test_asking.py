"""What becomes of each question of a judge that asks a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from fake_endpoint import png

from vista.judges import NO, UNANSWERED, YES, Resources, Shown
from vista.judges.asking import Answer, AskingJudge, Question

RED, BLUE = png("red"), png("blue")


class Model:
    """Sees cats everywhere, fails on questions with the label "fog", and answers in an order."""

    def __init__(self, backwards: bool) -> None:
        self.backwards = backwards
        self.asked: list[tuple[bytes, tuple[str, ...]]] = []

    def __call__(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        order = range(len(questions))
        for number in reversed(order) if self.backwards else order:
            question = questions[number]
            assert question.image is not None
            self.asked.append((question.image(), question.labels))
            if "fog" in question.labels:
                yield number, Answer(None, "no JSON")
            else:
                yield number, Answer(tuple(label == "cat" for label in question.labels))


@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
def test_an_image_with_two_lists_of_labels_gets_the_verdicts_of_each(backwards: bool) -> None:
    model = Model(backwards)
    judge = AskingJudge("api", "model", "1", model, Resources(), max_labels=40, max_unanswered=0.01)
    shown = [
        Shown(lambda: RED, ["cat", "dog", None]),
        Shown(lambda: RED, ["cat", "fog", ""]),
        Shown(lambda: BLUE, ["cat", "dog", None]),
        Shown(lambda: RED, ["cat", "dog", None]),
    ]
    answered, open_ = [YES, NO, NO], [UNANSWERED, UNANSWERED, NO]
    assert judge.judge_images(shown).tolist() == [answered, open_, answered, answered]
    # The same question twice is asked once; the same labels about another image are not the same.
    assert sorted(model.asked) == sorted(
        [(RED, ("cat", "dog")), (RED, ("cat", "fog")), (BLUE, ("cat", "dog"))]
    )
    assert (judge.tally.verdicts, judge.tally.unanswered, judge.tally.sent) == (6, 2, 3)


def test_an_open_text_is_no_for_a_metric_and_open_for_who_asks() -> None:
    class Reader:
        def __call__(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
            for number, question in enumerate(questions):
                answer = Answer(None, "no JSON") if question.subject == "fog" else Answer((True,))
                yield number, answer

    judge = AskingJudge("api", "m", "1", Reader(), Resources(), max_labels=9, max_unanswered=0.5)
    texts = ["fog", "a cat", None]
    assert judge.verdicts(texts, ["cat"]).tolist() == [[UNANSWERED], [YES], [NO]]
    assert judge.judge(texts, ["cat"]).tolist() == [[False], [True], [False]]
