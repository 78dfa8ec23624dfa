"""Judges: words, not letters; both numbers; the longest phrase; nothing said by empty labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vista.errors import UserError
from vista.judges import load_judge
from vista.judges.kinds.lexical import LexicalJudge
from vista.judges.kinds.lexical import Settings as LexicalJudgeSettings
from vista.judges.kinds.whole_word import WholeWordJudge
from vista.judges.synonyms import COCO
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
    with pytest.raises(UserError, match=r"nobody.*embedding, lexical"):
        load_judge("nobody")
    with pytest.raises(UserError, match=r"'api' needs settings \(base_url, model\)"):
        load_judge("api")


# In WordNet's format: an index by lemma, and entries at the byte offsets that it names.
LICENCE = "  1 This stands at the top of both files.\n"
COUCH = "{:08d} 06 n 03 sofa 0 couch 0 lounge 1 001 @ 00000000 n 0000 | a seat\n"
DAY_BED = "{:08d} 06 n 02 couch 1 day_bed 0 001 @ 00000000 n 0000 | a bed\n"


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    first = len(LICENCE)
    second = first + len(COUCH.format(0))
    data = LICENCE + COUCH.format(first) + DAY_BED.format(second)
    index = LICENCE + f"couch n 2 2 @ ~ 2 1 {first:08d} {second:08d}  \n"
    index += f"hot_seat n 1 1 @ 1 0 {first:08d}  \n"
    (tmp_path / "index.noun").write_text(index)
    (tmp_path / "data.noun").write_text(data)
    return tmp_path


def test_wordnet_adds_synonyms_where_the_settings_say_so(wordnet: Path) -> None:
    said = ["a lounge", "day beds", "a sofa", "settee"]
    assert load_judge("lexical").judge(said, ["couch"])[:, 0].tolist() == [False, False, True, True]
    one = load_judge(LexicalJudgeSettings(wordnet=str(wordnet)))
    assert one.judge(said, ["couch"])[:, 0].tolist() == [True, False, True, True]
    two = load_judge(LexicalJudgeSettings(wordnet=str(wordnet), senses=2))
    assert two.judge(said, ["couch"])[:, 0].tolist() == [True] * 4
    assert one.judge(["lounges"], ["Hot seat", "unheard of"]).tolist() == [[True, False]]


def test_wordnet_that_is_not_there_or_damaged_is_told(wordnet: Path) -> None:
    with pytest.raises(UserError, match=r"judge\.wordnet: /nowhere holds no usable"):
        load_judge(LexicalJudgeSettings(wordnet="/nowhere"))
    (wordnet / "data.noun").write_text("other " + (wordnet / "data.noun").read_text())
    with pytest.raises(UserError, match="no usable"):
        load_judge(LexicalJudgeSettings(wordnet=str(wordnet))).judge(["x"], ["couch"])
