"""COCO files as other programs write them: other types, nesting, sizes and places."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vista.config.data import DATA_SETTINGS
from vista.data.images import ImageSource
from vista.data.records import Box, Record, Turn, decode_mask
from vista.data.skipped import Skipped
from vista.data.source import iterate_records
from vista.errors import UserError


def instances() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 6, "height": 4}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 4, 2], "iscrowd": 0}
        ],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    return tmp_path


def read(
    root: Path, skipped: Skipped | None = None, more: Any = None, **files: Any
) -> list[Record]:
    for name, content in files.items():
        (root / f"{name}.json").write_text(json.dumps(content))
    settings = {
        "kind": "coco",
        "images": str(root),
        "splits": {"test": {name: str(root / f"{name}.json") for name in files}},
        **(more or {}),
    }
    found = DATA_SETTINGS.validate_python(settings)
    return list(iterate_records(found, None, None, skipped or Skipped()))


def change(**parts: dict[str, Any]) -> dict[str, Any]:
    """The file with keys of its first image, annotation or category replaced."""
    content = instances()
    for name, keys in parts.items():
        content[name][0].update(keys)
    return content


@pytest.mark.parametrize(
    "content",
    [
        change(images={"id": 1.0}),
        change(images={"id": "1"}),
        change(annotations={"image_id": "1"}),
        change(annotations={"image_id": 1.0, "category_id": 3.0}),
        change(annotations={"category_id": "3"}),
        change(categories={"id": "3"}),
        change(images={"width": "6", "height": 4.0}),
        change(images={"width": None, "height": None}),
        change(annotations={"bbox": ["1", "1.0", 4.0, "2"]}),
        change(annotations={"iscrowd": "0"}),
        change(annotations={"iscrowd": None}),
        change(annotations={"iscrowd": False}),
        change(annotations={"segmentation": None}),
        change(annotations={"segmentation": [[]]}),
        change(annotations={"segmentation": {}}),
        instances() | {"categories": instances()["categories"] * 2},
    ],
)
def test_values_of_other_types_mean_the_same(root: Path, content: Any) -> None:
    assert read(root, instances=content) == read(root, instances=instances())


@pytest.mark.parametrize(
    "drawn",
    [
        [1, 1, 5, 1, 5, 3, 1, 3],
        [[1, 1, 5, 1, 5, 3, 1, 3]],
        [["1", 1.0, "5.0", 1, 5, 3, 1, 3]],
        [[[1, 1, 5, 1, 5, 3, 1, 3]]],
        [[1, 1], [5, 1], [5, 3], [1, 3]],
        [[[1, 1], [5, 1], [5, 3], [1, 3]]],
        [[1, 1, 5, 1, 5, 3, 1, 3], []],
        {"size": ["4", 6.0], "counts": [5, 2, 2, 2, 2, 2, 2, 2, 5]},
    ],
)
def test_outlines_however_they_are_nested(root: Path, drawn: Any) -> None:
    (record,) = read(root, instances=change(annotations={"segmentation": drawn}))
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 1:5] = True
    rle = record.objects[0].rle
    assert rle is not None and (decode_mask(rle) == mask).all()


def test_two_outlines_of_points_stay_two(root: Path) -> None:
    drawn = [[[0, 0], [2, 0], [2, 2], [0, 2]], [[4, 2], [6, 2], [6, 4], [4, 4]]]
    (record,) = read(root, instances=change(annotations={"segmentation": drawn}))
    rle = record.objects[0].rle
    assert rle is not None
    assert np.argwhere(decode_mask(rle)).tolist() == [
        [0, 0], [0, 1], [1, 0], [1, 1], [2, 4], [2, 5], [3, 4], [3, 5]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (change(images={"width": "six"}), r"width and height of image id 1 must be whole numbers"),
        (change(images={"width": None}), r"width and height of image id 1 must be whole numbers"),
        (change(images={"vista_group": 3}), "key `vista_group` of entry 1"),
        (change(images={"width": 6.5}), r"width and height of image id 1 must be whole numbers"),
        (change(annotations={"bbox": [1, 1, "wide", 2]}), "annotation 1 needs a bbox"),
        (change(annotations={"bbox": None}), "annotation 1 needs a bbox .* got None"),
        (change(annotations={"iscrowd": "some"}), "annotation 1 has iscrowd 'some', not 0 or 1"),
        (change(annotations={"iscrowd": 2}), "annotation 1 has iscrowd 2, not 0 or 1"),
        (change(annotations={"category_id": [3]}), "key `category_id` of entry 1"),
        (change(annotations={"segmentation": "a.png"}), "neither polygons nor runs"),
        (change(annotations={"segmentation": [None]}), "no finite number of pixels"),
        (
            change(annotations={"segmentation": {"size": None, "counts": ""}}),
            "neither polygons nor",
        ),
        (change(annotations={"segments_info": []}), "is a panoptic file of COCO: name an inst"),
        (change(categories={"name": " "}), "category id 3 has no name"),
        (change(categories={"name": None}), "key `name` of entry 3"),
        (
            instances() | {"categories": [{"id": 3, "name": "cat"}, {"id": "3", "name": "dog"}]},
            "category id 3 comes twice, as 'cat' and 'dog'",
        ),
        (
            instances() | {"images": instances()["images"] + [{"id": "1", "file_name": "b.png"}]},
            "image id 1 comes twice",
        ),
        (change(annotations={"id": "a\nb\nc\nd", "bbox": 0}), "annotation a b c d needs a bbox"),
    ],
)
def test_what_has_no_meaning_is_told(root: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"instances\.json.*{message}") as raised:
        read(root, instances=content)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("value", "group"), [("new", "new"), ("", None), (None, None)])
def test_images_may_name_the_group_that_they_are_reported_in(
    root: Path, value: Any, group: str | None
) -> None:
    (record,) = read(root, instances=change(images={"vista_group": value}))
    assert record.group == group


def add(content: dict[str, Any], *bounds: list[float]) -> dict[str, Any]:
    first = content["annotations"][0]
    rows = [{**first, "id": 10 + i, "bbox": box} for i, box in enumerate(bounds)]
    return {**content, "annotations": [first, *rows]}


def test_boxes_beyond_the_edge_stay_and_boxes_outside_are_counted(root: Path) -> None:
    content = add(instances(), [5, 3, 9, 9], [6, 0, 2, 2], [-3, 1, 3, 1], [0, 900, 5, 5])
    with pytest.raises(UserError, match=r"annotation 11 lies wholly outside its image a\.png"):
        read(root, instances=content)
    with pytest.raises(UserError, match=r"annotation 13 .* set `max_unreadable: 3`"):
        read(root, instances=content, more={"max_unreadable": 2})
    skipped = Skipped()
    (record,) = read(root, skipped, {"max_unreadable": 3}, instances=content)
    assert [each.box for each in record.objects] == [Box(1, 1, 4, 2), Box(5, 3, 9, 9)]
    assert skipped.rows == [
        (number, "a.png", "annotation outside its image") for number in ("11", "12", "13")
    ]


def test_boxes_without_area_are_counted_as_coco_2017_has_some(root: Path) -> None:
    skipped = Skipped()
    content = add(instances(), [2, 2, 1.03, 0], [2, 2, 0, 3])
    (record,) = read(root, skipped, instances=content)
    assert len(record.objects) == 1
    assert skipped.counts() == {"annotation without area": 2}


def test_annotations_that_come_twice_count_once(root: Path) -> None:
    first = instances()["annotations"][0]
    other = {**first, "bbox": [0, 0, 1, 1]}  # an id that comes again with another box is another
    unnamed = {key: value for key, value in first.items() if key != "id"}
    skipped = Skipped()
    content = instances() | {"annotations": [first, other, first, unnamed, unnamed]}
    (record,) = read(root, skipped, instances=content)
    assert [each.box.x for each in record.objects] == [1, 0, 1, 1]
    assert skipped.rows == [("1", "a.png", "annotation comes twice")]


def test_null_and_blank_captions_are_counted(root: Path) -> None:
    rows = [("10", None), ("11", " \n"), ("12", "A cat.\r\n"), ("13", "A pet.")]
    told = [{"id": number, "image_id": "1", "caption": text} for number, text in rows]
    content = {"images": instances()["images"], "annotations": [*told, told[3]]}
    skipped = Skipped()
    (record,) = read(root, skipped, captions=content)
    assert record.captions == ("A cat.", "A pet.")
    assert record.turns == (Turn("Describe the image.", "A cat."),)
    assert skipped.rows == [
        ("10", "a.png", "caption without text"),
        ("11", "a.png", "caption without text"),
        ("13", "a.png", "annotation comes twice"),
    ]
    content["annotations"][0]["caption"] = 7
    with pytest.raises(UserError, match=r"captions\.json: key `caption` of entry 10"):
        read(root, captions=content)


def test_conversation_rows_that_give_no_turn_are_counted(root: Path) -> None:
    talk = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": " "}]
    rows: list[Any] = [
        {"id": "t", "conversations": talk},
        {"id": "e", "image": "a.png", "conversations": talk},
    ]
    skipped = Skipped()
    read(root, skipped, instances=instances(), conversations=rows)
    assert skipped.rows == [
        ("t", None, "text only"),
        ("e", "a.png", "no question with an answer"),
    ]
    with pytest.raises(UserError, match=r"conversations\.json: row 2 must be an object"):
        read(root, instances=instances(), conversations=[*rows, "text"])


def turned(root: Path, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", size, (9, 9, 9)).save(root / "phone.jpg", exif=exif)


Annotated = Callable[[int, int], dict[str, Any]]


@pytest.fixture
def phone() -> Annotated:
    def content(width: int, height: int) -> dict[str, Any]:
        image = {"file_name": "phone.jpg", "width": width, "height": height}
        bounds = {"bbox": [0, 50, 40, 14]}
        return change(images=image, annotations=bounds)

    return content


def test_a_photograph_annotated_upright_is_read_upright(root: Path, phone: Annotated) -> None:
    turned(root, (64, 48))
    skipped = Skipped()
    (record,) = read(root, skipped, instances=phone(48, 64))
    assert (record.width, record.height) == (48, 64)
    assert ImageSource(root).open(record).size == (48, 64)
    assert not skipped.notes
    with pytest.raises(UserError, match=r"is 64x48, image id 1 of .* is 50x64: use the images"):
        read(root, instances=phone(50, 64))
    with pytest.raises(UserError, match="wholly outside its image"):
        read(root, instances=phone(64, 48))  # as stored, 48 px high


def test_a_square_photograph_is_read_as_stored_and_told(root: Path, phone: Annotated) -> None:
    turned(root, (64, 64))
    skipped = Skipped()
    read(root, skipped, instances=phone(64, 64))
    assert skipped.notes == {"rows whose image EXIF turns, read as its pixels are stored": 1}


def test_utf_16_is_named(root: Path) -> None:
    (root / "i.json").write_bytes(json.dumps(instances()).encode("utf-16"))
    files = {"splits": {"test": {"instances": str(root / "i.json")}}}
    with pytest.raises(UserError, match=r"i\.json is UTF-16 text: save it as UTF-8"):
        read(root, more=files)
