"""WordNet's files: what is read out of them, how words are found, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vista.data.digits import NOUNS as DIGITS
from vista.data.glyphs import NOUNS
from vista.data.wordnet import SHIPPED, load_wordnet
from vista.errors import UserError

LICENCE = "  1 This software and database is being provided to you | 2 \n"
DATA = (
    "00000001 03 n 01 entity 0 002 ~ 00000002 n 0000 ~ 00000003 n 0000 | all | there is\n",
    "00000002 03 n 02 animal 0 beast 1 001 @ 00000001 n 0000 | lives\n",
    "00000003 03 n 01 light 0 002 @ 00000001 n 0000 + 00000009 v 0101 | shines\n",
    "00000004 03 n 0a lamp 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 001 @ 00000003 n 0000 | ten\n",
    "00000005 03 n 01 Lucy 0 002 @i 00000002 n 0000 @ 00000003 n 0000 | two hypernyms\n",
)
INDEX = (
    "animal n 1 1 @ 1 1 00000002\n",
    "lucy n 1 2 @ @i 1 0 00000005\n",
    "traffic_light n 2 1 @ 2 1 00000004 00000003\n",
    "box n 1 0 1 0 00000001\n",
)


def write(folder: Path, data: tuple[str, ...] = DATA, index: tuple[str, ...] = INDEX) -> str:
    (folder / "data.noun").write_text(LICENCE + "".join(data))
    (folder / "index.noun").write_text(LICENCE + "".join(index))
    return str(folder)


def test_synsets_words_and_what_lies_above(tmp_path: Path) -> None:
    wordnet = load_wordnet(write(tmp_path))
    assert wordnet.hypernyms["n00000005"] == ("n00000002", "n00000003")
    assert wordnet.hypernyms["n00000001"] == ()
    assert wordnet.names["n00000004"] == "lamp"
    known = {
        "Traffic lights": "n00000004",
        "traffic-light": "n00000004",
        "boxes": "n00000001",
        "LUCY": "n00000005",
        "n00000003": "n00000003",
        "n00000007": None,
        "anima": None,
    }
    assert {name: wordnet.synset(name) for name in known} == known
    order = list(wordnet.above(["n00000005"]))
    assert order[0] == "n00000001" and order[-1] == "n00000005" and len(order) == 4


@pytest.mark.parametrize(
    ("data", "index", "message"),
    [
        (("00000001 03 n 02 entity 0 000 | one word lacks\n",), INDEX, r"data.noun, line 2 is not"),
        (("0000001 03 n 01 entity 0 000 | short\n",), INDEX, r"data.noun, line 2 is not"),
        (DATA, ("box n 2 0 1 0 00000001\n",), r"index.noun, line 2 is not"),
        (DATA[:1], INDEX, "names n00000002, which .*data.noun lacks; take files of one version"),
    ],
)
def test_malformed_files(
    data: tuple[str, ...], index: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_wordnet(write(tmp_path, data, index))


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"probing.ontology.wordnet: .*nowhere/data.noun cannot"):
        load_wordnet(str(tmp_path / "nowhere"))
    circle = (*DATA, "00000006 03 n 01 x 0 001 @ 00000007 n 0000 | x\n")
    wordnet = load_wordnet(write(tmp_path, circle))
    with pytest.raises(UserError, match="has no synset n00000007"):
        wordnet.above(["n00000006"])
    circle = (*circle, "00000007 03 n 01 y 0 001 @ 00000006 n 0000 | y\n")
    with pytest.raises(UserError, match="lies above itself"):
        load_wordnet(write(tmp_path, circle)).above(["n00000006"])


def test_the_shipped_table_knows_the_drawn_world() -> None:
    wordnet = load_wordnet(None)
    nouns = [*NOUNS, *DIGITS]
    assert [each for each in nouns if wordnet.synset(each) is None] == ["ankh"]
    above = wordnet.above(filter(None, map(wordnet.synset, nouns)))
    assert set(above) == set(wordnet.names)
    assert [wordnet.names[each] for each, up in above.items() if not up] == ["entity"]
    cat, mouse = (set(wordnet.above([wordnet.senses[each]])) for each in ("cat", "mouse"))
    assert "placental" in {wordnet.names[each] for each in cat & mouse}
    assert "Princeton University" in json.loads(SHIPPED.read_text())["licence"]


def test_blank_lines_marks_and_other_line_ends_are_no_synsets(tmp_path: Path) -> None:
    plain = load_wordnet(write(tmp_path))
    for name in ("data.noun", "index.noun"):
        content = (tmp_path / name).read_text().replace("\n", "\r\n") + "\r\n"
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert load_wordnet(str(tmp_path)) == plain
