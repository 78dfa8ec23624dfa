"""LLaVA conversation files made by hand, good and bad."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vista.config.data import LlavaData
from vista.data.llava import llava_records
from vista.data.records import Record, Turn
from vista.errors import UserError


def row(number: str, image: str | None, *said: str) -> dict[str, Any]:
    messages = [
        {"from": "gpt" if i % 2 else "human", "value": value} for i, value in enumerate(said)
    ]
    return {"id": number, "conversations": messages, **({"image": image} if image else {})}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "coco").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(root / "coco" / "a.png")
    Image.new("RGB", (3, 9)).save(root / "b.png")
    return root


def read(images: Path, rows: Any, skipped: Counter[str] | None = None, **more: Any) -> list[Record]:
    path = images.parent / "rows.json"
    path.write_text(json.dumps(rows))
    settings = LlavaData(kind="llava", images=str(images), splits={"train": str(path)}, **more)
    return list(llava_records(settings, Counter() if skipped is None else skipped))


def test_turns_without_the_placeholder(images: Path) -> None:
    first, second = read(
        images,
        [
            row("1", "coco/a.png", "<image>\nWhat is it?", "A cat.", "Which colour?", "Grey. "),
            row("2", "b.png", "Describe it.\n<image>", "Tall <image> tag stays."),
        ],
    )
    assert first.turns == (Turn("What is it?", "A cat."), Turn("Which colour?", "Grey."))
    assert (first.image_id, first.path, first.width, first.height) == ("1", "coco/a.png", 6, 4)
    assert second.turns == (Turn("Describe it.", "Tall <image> tag stays."),)
    assert (second.width, second.height) == (3, 9)


def test_rows_of_text_only_are_left_out_and_counted(images: Path) -> None:
    skipped: Counter[str] = Counter()
    rows = [row("1", None, "Hi", "Hello"), row("2", "b.png", "What?", "It."), row("3", None)]
    assert [record.image_id for record in read(images, rows, skipped)] == ["2"]
    assert skipped == {"text only": 2}


def test_an_id_that_comes_twice_gets_a_number(images: Path) -> None:
    rows = [row("9", "b.png", "What?", "It."), row("9", "b.png", "Why?", "So.")]
    assert [record.image_id for record in read(images, rows)] == ["9", "9#2"]


def test_conversations_of_one_image_share_a_split(images: Path) -> None:
    path = images.parent / "rows.json"
    path.write_text(json.dumps([row(str(i), "b.png", "What?", "It.") for i in range(50)]))
    settings = LlavaData(kind="llava", images=str(images), file=str(path))
    assert len({record.split for record in llava_records(settings, Counter())}) == 1


def test_limit(images: Path) -> None:
    rows = [row(str(i), "b.png", "What?", "It.") for i in range(9)]
    assert len(read(images, rows, limit=4)) == 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("7", "gone.png", "What?", "It."), r"row '7': .*gone\.png is missing"),
        (row("7", "../rows.json", "What?", "It."), r"row '7': .*leads out of"),
        (row("7", "b.png", "What?"), r"row '7' needs `conversations`"),
        (row("7", "b.png"), r"row '7' needs `conversations`"),
        ({"id": "7", "image": "b.png"}, r"row '7' needs `conversations`"),
        ({"id": "7", "image": ["b.png"]}, r"`image` of row '7' must be one file name"),
        ("text", r"row 0 must be an object"),
        (
            {
                "id": "7",
                "image": "b.png",
                "conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}],
            },
            r"message 0 of row '7' must be a text from 'human'",
        ),
    ],
)
def test_bad_rows_are_told_in_a_sentence(images: Path, bad: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"rows\.json: {message}"):
        read(images, [bad])


def test_a_file_with_an_object_is_refused(images: Path) -> None:
    with pytest.raises(UserError, match="must hold a list"):
        read(images, {"rows": []})
