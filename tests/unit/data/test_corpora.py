"""Corpora: documents out of JSON and WordNet, divided by their text, and mixed."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vista.data.corpora import (
    divide,
    gloss_documents,
    json_documents,
    mix,
    one_document,
    refuse_empty_splits,
    size_of,
)
from vista.data.jsonfile import stream_values
from vista.errors import UserError

RECORDS = [{"extract": "A cat\n sits.", "title": "Cat"}, {"extract": "A dog."}]


def as_lines(records: list[Any]) -> str:
    return "".join(f"{json.dumps(record)}\n\n" for record in records)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", lambda records: json.dumps(records)),
        ("a.json", lambda records: json.dumps({str(i): r for i, r in enumerate(records)})),
        ("a.json", lambda records: "\ufeff" + json.dumps(records)),
        ("a.jsonl", as_lines),
        ("a.jsonl", lambda records: "\ufeff" + as_lines(records)),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_records_of_any_form_become_documents(
    name: str, text: Callable[[list[Any]], str], packed: bool, tmp_path: Path
) -> None:
    content = text(RECORDS).encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert list(json_documents(path, "extract")) == ["A cat sits.", "A dog."]


def test_texts_without_a_key(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["one", "two"]')
    assert list(json_documents(path, None)) == ["one", "two"]


def test_records_without_text_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    odd = [{"title": "x"}, {"extract": None}, {"extract": " "}, {"extract": 3}, "text", None]
    path.write_text(json.dumps([*RECORDS, *odd]))
    assert len(list(json_documents(path, "extract"))) == 2
    assert "a.json: 6 of 8 records have no text, left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"extract": "a"}]', "no record has a text under 'text': records have extract"),
        ("[]", "no record has a text under 'text'; set `key`"),
        ("", "no record has a text|is not JSON"),
        ("3", "must hold a list or an object"),
        ('[{"text": "a"}, {"text": "b"', "is not JSON after 1 entries"),
        ("\ufeff[" * 200, "nests values more than"),
    ],
)
def test_a_file_without_texts_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        list(json_documents(path, "text"))
    assert str(path) in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json cannot be read: No such file"):
        list(stream_values(tmp_path / "a.json"))
    cut = gzip.compress(json.dumps([random.Random(0).random() for _ in range(999)]).encode())[:-30]
    (tmp_path / "a.json.gz").write_bytes(cut)
    with pytest.raises(UserError, match=r"a\.json\.gz cannot be read"):
        list(stream_values(tmp_path / "a.json.gz"))
    (tmp_path / "a.jsonl").write_text("{}\n{")
    with pytest.raises(UserError, match=r"a\.jsonl is not JSON after 1 entries"):
        list(stream_values(tmp_path / "a.jsonl"))


def test_a_line_too_long_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vista.data.jsonfile._LONGEST_LINE", 20)
    (tmp_path / "a.jsonl").write_text('"' + "a" * 18 + '"\n')
    with pytest.raises(UserError, match="more than 20 bytes"):
        list(stream_values(tmp_path / "a.jsonl"))


GLOSSES = """\
  1 This software and database is being provided to you, the LICENSEE
02121620 05 n 02 cat 0 true_cat 0 001 @ 02120997 n 0000 | feline mammal; "the cat | sat"
00013887 00 s 02 galore(ip) 0 abounding_in(p) 0 001 & 00013662 a 0000 | existing in abundance
"""


def test_glosses_are_documents_with_their_words(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(GLOSSES)
    assert list(gloss_documents([tmp_path / "data.noun"])) == [
        'cat, true cat: feline mammal; "the cat | sat"',
        "galore, abounding in: existing in abundance",
    ]


@pytest.mark.parametrize(
    "line", ["02121620 05 n 02 cat 0 true_cat 0 001", "02121620 05 n 01 cat 0 000 | ", "x | y"]
)
def test_a_line_without_words_or_gloss_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(f"{GLOSSES}{line}\n")
    with pytest.raises(UserError, match=r"data\.noun, line 4 is not as WordNet's database has it"):
        list(gloss_documents([tmp_path / "data.noun"]))


def test_documents_are_one_line_of_unicode() -> None:
    assert one_document(" a\n\tb\ud800 ") == "a b?"


DOCUMENTS = [f"document {i}" for i in range(2000)]


def test_documents_are_divided_by_their_text() -> None:
    texts = divide(DOCUMENTS, 0.1)
    assert set(texts["train"]).isdisjoint(texts["heldout"])
    assert sum(map(len, texts.values())) == 2000 and 150 < len(texts["heldout"]) < 250
    assert texts["train"] == [d for d in DOCUMENTS if d in set(texts["train"])]
    # Of two equal documents none is held out while the other is learnt from.
    twice = divide([*DOCUMENTS, *DOCUMENTS[::-1]], 0.1)
    assert set(twice["heldout"]) == set(texts["heldout"]) and len(twice["heldout"]) == 2 * len(
        texts["heldout"]
    )
    # A larger share holds out what a smaller one does, and more.
    assert set(texts["heldout"]) < set(divide(DOCUMENTS, 0.2)["heldout"])


def test_a_limit_takes_documents_from_all_of_a_corpus() -> None:
    texts = divide(DOCUMENTS, 0.1, 50)
    assert {split: len(documents) for split, documents in texts.items()} == {
        "train": 50,
        "heldout": 50,
    }
    places = [DOCUMENTS.index(document) for document in texts["train"]]
    assert places == sorted(places) and places[-1] > 1500 and 600 < sum(places) / 50 < 1400
    assert set(texts["train"]) <= set(divide(DOCUMENTS, 0.1, 100)["train"])
    assert divide(DOCUMENTS, 0.1, 5000) == divide(DOCUMENTS, 0.1)


def test_mixed_corpora_are_shuffled_within_their_splits() -> None:
    one = {"train": [f"a{i}" for i in range(50)], "heldout": ["a"]}
    two = {"train": [f"b{i}" for i in range(50)], "heldout": ["b", "c"]}
    mixed = mix([one, two], seed=0)
    assert sorted(mixed["train"]) == sorted(one["train"] + two["train"])
    assert sorted(mixed["heldout"]) == ["a", "b", "c"]
    assert 10 < sum(document.startswith("a") for document in mixed["train"][:50]) < 40
    assert mix([one, two], seed=0) == mixed != mix([one, two], seed=1)
    assert mix([one, two], seed=0, limit=7)["train"] == mixed["train"][:7]
    # The parts stay as they are.
    assert one["train"][:2] == ["a0", "a1"]


def test_a_split_without_documents_is_refused() -> None:
    refuse_empty_splits({"train": ["a"], "heldout": ["b"]})
    with pytest.raises(UserError, match="no documents of split 'heldout' \\(1 in all\\)"):
        refuse_empty_splits({"train": ["a"], "heldout": []})


def test_sizes_are_documents_and_words() -> None:
    texts = {"train": ["a b", "c"] * 600, "heldout": []}
    assert size_of(texts) == "train 1,200 documents of 1,800 words, heldout 0 documents of 0 words"


def test_documents_with_wanted_words_come_first() -> None:
    texts = {"train": ["a carpet", "two Foxes ran", "a car.", "none", "CARS"], "heldout": ["x"]}
    mixed = mix([texts], seed=0, limit=3, words=["car", "fox"])
    assert sorted(mixed["train"]) == ["CARS", "a car.", "two Foxes ran"]
    assert sorted(mix([texts], seed=0, words=["car"])["train"]) == sorted(texts["train"])
