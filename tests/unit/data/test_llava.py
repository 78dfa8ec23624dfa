"""LLaVA conversation files made by hand, good and bad."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from vista.config.data import LlavaData
from vista.data.readers.llava import llava_records
from vista.data.records import Record, Turn
from vista.data.skipped import Skipped
from vista.data.splits import hash_split
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


def read(images: Path, rows: Any, skipped: Skipped | None = None, **more: Any) -> list[Record]:
    path = images.parent / "rows.json"
    path.write_text(json.dumps(rows))
    settings = LlavaData(kind="llava", images=str(images), splits={"train": str(path)}, **more)
    return list(llava_records(settings, skipped or Skipped()))


def test_turns_without_the_placeholder(images: Path) -> None:
    first, second, third = read(
        images,
        [
            row("1", "coco/a.png", "<image>\nWhat is it?", "A cat.", "Which colour?", "Grey. "),
            row("2", "b.png", "Describe it.\n<image>", "Tall <image> tag stays."),
            row("3", "b.png", "What is in <image> here?", "A tag."),
        ],
    )
    assert first.turns == (Turn("What is it?", "A cat."), Turn("Which colour?", "Grey."))
    assert (first.image_id, first.path, first.width, first.height) == ("1", "coco/a.png", 6, 4)
    assert second.turns == (Turn("Describe it.", "Tall <image> tag stays."),)
    assert (second.width, second.height) == (3, 9)
    assert third.turns == (Turn("What is in   here?", "A tag."),)


def test_rows_of_text_only_are_left_out_and_counted(images: Path) -> None:
    skipped = Skipped()
    rows = [row("1", None, "Hi", "Hello"), row("2", "b.png", "What?", "It."), row("3", None)]
    assert [record.image_id for record in read(images, rows, skipped)] == ["2"]
    assert skipped.counts() == {"text only": 2}
    assert skipped.rows[1] == ("3", None, "text only")


def test_an_id_that_comes_twice_gets_a_number(images: Path) -> None:
    rows = [row("9", "b.png", "What?", "It."), row("9", "b.png", "Why?", "So.")]
    assert [record.image_id for record in read(images, rows)] == ["9", "9#2"]


def test_conversations_of_one_image_share_a_split(images: Path) -> None:
    path = images.parent / "rows.json"
    path.write_text(json.dumps([row(str(i), "b.png", "What?", "It.") for i in range(50)]))
    settings = LlavaData(kind="llava", images=str(images), file=str(path))
    assert len({record.split for record in llava_records(settings, Skipped())}) == 1


def test_limit(images: Path) -> None:
    rows = [row(str(i), "b.png", "What?", "It.") for i in range(9)]
    assert [each.image_id for each in read(images, rows, limit=4)] == ["0", "1", "2", "3"]
    assert [each.image_id for each in read(images, rows, every=4)] == ["0", "4", "8"]
    assert [each.image_id for each in read(images, rows, every=3, limit=2)] == ["0", "3"]


def test_a_message_without_its_pair_is_dropped(images: Path) -> None:
    said = [("gpt", "Hi."), ("human", "What?"), ("gpt", "It."), ("human", "Why?")]
    messages = [{"from": who, "value": value} for who, value in said]
    skipped = Skipped()
    rows = [
        {"id": "1", "image": "b.png", "conversations": messages},
        {"id": "2", "image": "b.png", "conversations": messages[:1]},
        {"id": "3", "image": "b.png", "conversations": messages[3:]},
    ]
    (found,) = read(images, rows, skipped)
    assert found.turns == (Turn("What?", "It."),)
    assert skipped.rows == [
        ("2", "b.png", "no question with an answer"),
        ("3", "b.png", "no question with an answer"),
    ]


def test_bad_images_are_left_out_if_the_settings_say_so(images: Path) -> None:
    (images / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    rows = [row(f"r{i}", name, "What?", "It.") for i, name in enumerate(("gone.png", "cut.jpg"))]
    rows.append(row("r2", "b.png", "What?", "It."))
    with pytest.raises(UserError, match=r"gone\.png is missing \(row 'r0' .*images: skip`"):
        read(images, rows)
    with pytest.raises(UserError, match=r"cut\.jpg cannot be read .*row 'r1'"):
        read(images, rows[1:])
    skipped = Skipped()
    allowed = {"missing_images": "skip", "max_unreadable": 1}
    assert [each.image_id for each in read(images, rows, skipped, **allowed)] == ["r2"]
    skipped.write(images / "skipped.parquet")
    assert pq.read_table(images / "skipped.parquet").to_pylist() == [
        {"id": "r0", "path": "gone.png", "reason": "image missing"},
        {"id": "r1", "path": "cut.jpg", "reason": "image unreadable"},
    ]


def test_splits_by_hash_keep_the_file_order_within_a_split(images: Path) -> None:
    rows = []
    for i in range(60):
        Image.new("RGB", (2, 2)).save(images / f"{i}.png")
        rows += [row("a", f"{i}.png", "What?", "It."), row(f"{i}", f"{i}.png", "Ää\u2028?", "It.")]
    path = images.parent / "rows.json"
    path.write_text(json.dumps(rows))
    settings = LlavaData(kind="llava", images=str(images), file=str(path))
    found = list(llava_records(settings, Skipped()))
    order = ["train", "validation", "test"]
    straight = read(images, rows)
    rule = {each.image_id: hash_split(each.path, settings.fractions) for each in straight}
    expected = [replace(each, split=rule[each.image_id]) for each in straight]
    assert found == sorted(expected, key=lambda record: order.index(record.split))
    assert {each.split for each in found} == set(order)


def test_ids_of_other_types_and_images_without_a_name(images: Path) -> None:
    rows = [row("", name, "What?", "It.") for name in ("b.png", "b.png", "coco/a.png")]
    rows += [row("7", "", "What?", "It."), row("8", None, "What?", "It.")]
    for each, number in zip(rows, (None, 5.0, "5", 7, None), strict=True):
        each["id"] = number
    rows[3]["image"] = ""
    skipped = Skipped()
    assert [each.image_id for each in read(images, rows, skipped)] == ["b.png", "5", "5#2"]
    assert skipped.rows == [("7", None, "text only"), ("4", None, "text only")]
    rows[0]["id"] = [1]
    with pytest.raises(UserError, match=r"`id` of a row is \[1\]: a text or whole number"):
        read(images, rows)


def test_a_blank_answer_is_none(images: Path) -> None:
    skipped = Skipped()
    rows = [row("1", "b.png", "What?", " ", "Why?", "So."), row("2", "b.png", "What?", "")]
    (found,) = read(images, rows, skipped)
    assert found.turns == (Turn("Why?", "So."),)
    assert skipped.rows == [("2", "b.png", "no question with an answer")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("7", "gone.png", "What?", "It."), r"gone\.png is missing \(row '7' of .*rows\.json\)"),
        (row("7", "../rows.json", "What?", "It."), r"leads out of .* \(row '7' of .*rows\.json\)"),
        (row("7", "b.png"), r"row '7' needs `conversations`"),
        ({"id": "7", "image": "b.png"}, r"row '7' needs `conversations`"),
        (
            {"id": "7", "image": "b.png", "conversations": [{"from": "human"}]},
            r"message 0 of row '7' must be a text from 'human'",
        ),
        ({"id": "7", "image": ["b.png"]}, r"`image` of row '7' must be one file name"),
        ("text", r"row 0 must be an object"),
        (
            {
                "id": "7",
                "image": "b.png",
                "conversations": [{"from": "human", "value": "a"}, {"from": "bot", "value": "b"}],
            },
            r"message 1 of row '7' must be a text from 'gpt'",
        ),
    ],
)
def test_bad_rows_are_told_in_a_sentence(images: Path, bad: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(images, [bad])


def test_a_file_with_an_object_is_refused(images: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.json must hold a list"):
        read(images, {"rows": []})


def test_a_file_that_is_cut_off_is_told_with_the_place(images: Path) -> None:
    path = images.parent / "rows.json"
    path.write_text(json.dumps([row(str(i), "b.png", "What?", "It.") for i in range(5)])[:-30])
    settings = LlavaData(kind="llava", images=str(images), file=str(path))
    with pytest.raises(UserError, match=r"rows\.json is not JSON after 4 entries"):
        list(llava_records(settings, Skipped()))


_MEASURE = """
import json, re, sys
from pathlib import Path
from vista.config.data import LlavaData
from vista.data.readers.llava import llava_records
from vista.data.records import read_records, write_records
from vista.data.skipped import Skipped

def peak():
    return int(re.search("VmHWM:\\\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1])

def stream(images, rows, table):
    settings = LlavaData(kind="llava", images=images, file=rows)
    write_records(Path(table), llava_records(settings, Skipped()))
    return sum(len(record.turns) for record in read_records(Path(table)))

images, few, many, table = sys.argv[1:]
stream(images, few, table)
start = peak()
turns = stream(images, many, table)
streamed = peak() - start
whole = json.loads(Path(many).read_bytes())
print(turns, streamed, peak() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_many_rows_are_streamed(images: Path) -> None:
    said = [text for i in range(6) for text in (f"And what is at place {i}?", "It is a grey cat.")]
    rows = [row(str(i), "b.png", *said) for i in range(20_000)]
    few, many = images.parent / "few.json", images.parent / "many.json"
    few.write_text(json.dumps(rows[:20]))
    many.write_text(json.dumps(rows))
    command = [sys.executable, "-c", _MEASURE, str(images), str(few), str(many)]
    told = subprocess.run(
        [*command, str(images / "r.parquet")], check=True, capture_output=True, text=True
    )
    turns, streamed, whole = map(int, told.stdout.split())
    assert turns == 6 * 20_000
    # KiB. Loaded at once the rows took 136 MiB when this was written; streamed, 41 MiB, which is
    # one row group, the ids and the table's columns as Arrow holds them.
    assert whole > 100 * 1024
    assert streamed < whole / 3, (streamed, whole)
