"""Judges: words, not letters; both numbers; the longest phrase; nothing said by empty labels."""

from __future__ import annotations

import numpy as np
import pytest

from vista.errors import UserError
from vista.judges import judge_names, load_judge, register_judge
from vista.judges.lexical import LexicalJudge
from vista.judges.synonyms import COCO
from vista.judges.whole_word import WholeWordJudge
from vista.judges.words import words


def says(judge: str, text: str | None, name: str) -> bool:
    return bool(load_judge(judge).judge([text], [name])[0, 0])


@pytest.mark.parametrize("judge", ["lexical", "whole_word"])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cat", "cat"),
        ("Cats sleeping", "cat"),
        ("the cat's tail", "cat"),
        ("references to CATS, in general", "cat"),
        ("two mice", "mouse"),
        ("several snowmen", "snowman"),
        ("knives and forks", "knife"),
        ("butterflies", "butterfly"),
        ("boxes", "box"),
        ("buses", "bus"),
        ("a flock of sheep", "sheep"),
        ("people", "person"),
        ("a pair of scissors", "scissors"),
        ("ski", "skis"),
        ("traffic-lights", "traffic light"),
        ("fire hydrants", "fire hydrant"),
        ("ｃａｔ", "cat"),
    ],
)
def test_names_the_object(judge: str, text: str, name: str) -> None:
    assert says(judge, text, name)


@pytest.mark.parametrize("judge", ["lexical", "whole_word"])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("category", "cat"),
        ("concatenate", "cat"),
        ("catsuit", "cat"),
        ("bu", "bus"),
        ("ten", "tennis"),
        ("traffic", "traffic light"),
        ("light traffic", "traffic light"),
        ("grass", "cat"),
        ("", "cat"),
        ("   ", "cat"),
        (None, "cat"),
        ("$%^", "cat"),
        ("cat", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_does_not_name_the_object(judge: str, text: str | None, name: str) -> None:
    assert not says(judge, text, name)


def test_synonyms_belong_to_lexical_only() -> None:
    assert says("lexical", "a puppy", "dog")
    assert says("lexical", "sofas", "couch")
    assert not says("whole_word", "a puppy", "dog")


def test_the_longest_phrase_wins_even_if_nobody_asked_for_it() -> None:
    assert not says("lexical", "a hot dog on a plate", "dog")
    assert says("lexical", "a hot dog on a plate", "hot dog")
    assert says("lexical", "a hot dog and a dog", "dog")
    assert not says("lexical", "a teddy bear", "bear")
    # The strict rule of the pointing game asks for the word and nothing else.
    assert says("whole_word", "a hot dog on a plate", "dog")


def test_an_own_table_replaces_the_shipped_one() -> None:
    judge = LexicalJudge({"Cow": ["bovine animal"]})
    assert judge.judge(["bovine animals", "puppy"], ["cow", "dog"]).tolist() == [
        [True, False],
        [False, False],
    ]


def test_shape_order_and_repeated_names() -> None:
    for judge in (LexicalJudge(), WholeWordJudge()):
        named = judge.judge(["red cat", "a dog and a cat"], ["dog", "cat", "cat"])
        assert named.dtype == np.bool_
        assert named.tolist() == [[False, True, True], [True, True, True]]
        assert judge.judge([], ["cat"]).shape == (0, 1)
        assert judge.judge(["cat"], []).shape == (1, 0)


def test_synonyms_cover_coco_and_are_words() -> None:
    assert len(COCO) == 80
    for name, others in COCO.items():
        assert all(words(other) for other in (name, *others))


def test_unknown_judge_is_a_user_error_that_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"nobody.*lexical, whole_word"):
        load_judge("nobody")
    assert judge_names() == ["lexical", "whole_word"]


def test_a_name_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        register_judge("lexical")
