"""Text tokens a sample: counted in records, else told by settings and annotation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vista.config.composed import WORDINGS
from vista.data.records import Record, Turn, write_records
from vista.engine.forecast import texts
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import decoding_steps, text_tokens
from vista.engine.forecast.texts import COCO_CAPTION, DRAWN, Conversation, count_words
from vista.engine.node import Node

STANDIN = {"source": {"kind": "standin"}}
PRETRAINED = {"source": {"kind": "checkpoint"}}


def coco(**files: Any) -> Node:
    entry = {"captions": None, "instances": None, "conversations": None, **files}
    settings = {"kind": "coco", "splits": {"train": entry}, "question": "Describe the image."}
    return Node("records", "coco", settings)


def llava(path: Path) -> Node:
    return Node("records", "llava", {"kind": "llava", "splits": None, "file": str(path)})


def one_turn(question: float, answer: float) -> Conversation:
    return Conversation(1, question + answer, question + answer, answer)


def test_marks_count_as_words_do() -> None:
    assert count_words("There's a cat, on the-left.") == 11
    assert count_words("") == 0


def test_a_models_settings_say_what_stands_beside_the_words() -> None:
    talk = Conversation(2, 30, 20, 12)
    assert talk.tokens(STANDIN) == 30 + 2
    assert talk.tokens(PRETRAINED) == pytest.approx(33 + 20)
    assert talk.tokens(PRETRAINED | {"template": "none"}) == pytest.approx(33 + 4)
    assert talk.tokens(PRETRAINED | {"system": "be brief ."}) == pytest.approx(33 + 2 * 13.3)
    assert talk.first_tokens(PRETRAINED) == pytest.approx(22 + 10)
    assert talk.answer_tokens(STANDIN) == 13


def test_records_that_are_there_are_counted(tmp_path: Path) -> None:
    turns = (Turn("what ?", "a red cat"), Turn("why", "so"))
    rows = [
        Record("0", "train", "0.png", 8, 8, turns=turns),
        Record("1", "train", "1.png", 8, 8),
        Record("2", "test", "2.png", 8, 8, turns=(Turn("", "a dog ."),)),
    ]
    write_records(tmp_path / "records.parquet", rows)
    expected = Conversation(1.5, (7 + 3) / 2, (5 + 3) / 2, (3 + 3) / 2)
    assert texts.counted(tmp_path / "records.parquet") == expected
    write_records(tmp_path / "silent.parquet", rows[1:2])
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    for name in ("silent", "damaged", "lost"):
        assert texts.counted(tmp_path / f"{name}.parquet") is None


def test_scenes_tell_by_their_wordings() -> None:
    drawn, records = Node("draw_world", "glyphs", {}), Node("records", "r", {"kind": "drawn"})
    assert texts.expected(records, drawn) == DRAWN
    settings = {"pair_share": 0.5, "captions": ["{objects}.", "there {is} {object} on {ground}."]}
    composed = Node("compose_scenes", "s", settings)
    records = Node("records", "r", {"kind": "composed", "question": "What is it?"})
    assert texts.expected(records, composed) == one_turn(4, (3 + 7) / 2 + 1.5)
    assert all(5 <= count_words(texts._filled(wording)) <= 9 for wording in WORDINGS)


def test_folders_tell_by_their_answer_or_not_at_all() -> None:
    settings = {"kind": "folder", "question": "What?", "answer": "a photo of a {class}"}
    assert texts.expected(Node("records", "r", settings), None) == one_turn(2, 5)
    assert texts.expected(Node("records", "r", settings | {"answer": None}), None) is None
    assert texts.expected(Node("records", "r", {"kind": "list"}), None) is None


def test_captions_are_counted_where_their_file_is(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    assert texts.expected(coco(captions=str(path)), None) == one_turn(4, COCO_CAPTION)
    entries = [{"caption": 'a "red" cat.'}, {"caption": "dogs"}]
    path.write_text(json.dumps({"images": [], "annotations": entries}))
    assert texts.expected(coco(captions=str(path)), None) == one_turn(4, (6 + 1) / 2)
    # Images that fill the beginning of a large file do not hide the captions at its end.
    images = [{"file_name": "x" * 100}] * 30_000
    path.write_text(json.dumps({"images": images, "annotations": entries}))
    assert path.stat().st_size > 3 << 20
    assert texts.expected(coco(captions=str(path)), None) == one_turn(4, (6 + 1) / 2)
    assert texts.expected(coco(instances="i.json"), None) is None


def test_conversations_are_counted_where_their_file_is(tmp_path: Path) -> None:
    path = tmp_path / "llava.json"
    assert texts.expected(llava(path), None) is None
    talk = [
        {"from": "human", "value": "<image>\nwhat is it ?"},
        {"from": "gpt", "value": "a cat ."},
        {"from": "human", "value": "why ?"},
        {"from": "gpt", "value": "so it is"},
    ]
    path.write_text(json.dumps([{"image": "0.png", "conversations": talk}] * 3))
    assert texts.expected(llava(path), None) == Conversation(2, 12, 6, 3)
    both = coco(conversations=str(path), captions="c.json")
    assert texts.expected(both, None) == Conversation(2, 12, 6, 3)
    path.write_text("[")
    assert texts.expected(llava(path), None) is None


def test_a_sample_is_no_longer_than_its_limit(tmp_path: Path) -> None:
    records = coco(captions="lost.json")
    node = Node("train_projector", "p", {"llm": PRETRAINED}, {"records": records})
    shapes = Shapes(tmp_path, [records, node])
    tokens = round(1.1 * (4 + COCO_CAPTION) + 10)
    assert text_tokens(node, shapes, 200, 16) == text_tokens(node, shapes, 200, 16, first=True)
    assert text_tokens(node, shapes, 200, 16) == tokens == 27
    assert text_tokens(node, shapes, 30, 16) == 13
    assert decoding_steps(node, shapes, 64) == round(2 * (1.1 * COCO_CAPTION + 1))
    assert decoding_steps(node, shapes, 20) == 20
    unknown = Node("train_projector", "p", {"llm": PRETRAINED}, {"records": coco()})
    assert text_tokens(unknown, shapes, 1000, 16) == 128
    assert decoding_steps(unknown, shapes, 64) == 64
