"""COCO files made by hand, good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vista.config.data import DATA_SETTINGS, CocoData
from vista.data.images import ImageSource
from vista.data.readers.coco import coco_records
from vista.data.records import Box, Record, Turn, decode_mask
from vista.data.skipped import Skipped
from vista.errors import UserError

Write = Callable[[str, Any], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    root = tmp_path / "images" / "val"
    root.mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(root / "one.png")
    Image.new("RGB", (5, 5)).save(root / "two.jpg")

    def write_file(name: str, content: Any) -> str:
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return str(path)

    return write_file


def instances() -> dict[str, Any]:
    return {
        "info": {"description": "made by hand"},
        "images": [
            {"id": 42, "file_name": "one.png", "width": 6, "height": 4},
            {"id": 7, "file_name": "two.jpg", "width": 5, "height": 5},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "dining table"}],
        "annotations": [
            {  # a polygon: the middle 4 x 2 px
                "id": 1,
                "image_id": 42,
                "category_id": 3,
                "bbox": [1, 1, 4, 2],
                "iscrowd": 0,
                "segmentation": [[1, 1, 5, 1, 5, 3, 1, 3]],
            },
            {  # a crowd with uncompressed runs: the first column
                "id": 2,
                "image_id": 42,
                "category_id": 90,
                "bbox": [0, 0, 1, 4],
                "iscrowd": 1,
                "segmentation": {"size": [4, 6], "counts": [0, 4, 20]},
            },
            {  # compressed runs: two px of the fifth row's middle
                "id": 3,
                "image_id": 7,
                "category_id": 3,
                "bbox": [1.5, 4, 2.5, 1],
                "iscrowd": 0,
                "segmentation": {"size": [5, 5], "counts": "91406"},
            },
            {"id": 4, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 0},
        ],
    }


def captions() -> dict[str, Any]:
    return {
        "images": instances()["images"],
        "annotations": [
            {"id": 10, "image_id": 42, "caption": "A cat on a table.\n"},
            {"id": 11, "image_id": 42, "caption": "A table with a cat."},
        ],
    }


def settings(tmp_path: Path, more: dict[str, Any] | None = None, **files: str) -> CocoData:
    found = DATA_SETTINGS.validate_python(
        {
            "kind": "coco",
            "images": str(tmp_path / "images"),
            "splits": {"test": {"folder": "val", **files}},
            **(more or {}),
        }
    )
    assert isinstance(found, CocoData)
    return found


def read(found: CocoData, skipped: Skipped | None = None) -> list[Record]:
    return list(coco_records(found, skipped or Skipped()))


def test_boxes_masks_and_captions(tmp_path: Path, write: Write) -> None:
    files = {
        "instances": write("instances.json", instances()),
        "captions": write("captions.json", captions()),
    }
    one, two = read(settings(tmp_path, **files))
    assert (one.image_id, one.split, one.path) == ("42", "test", "val/one.png")
    assert (one.width, one.height) == (6, 4)
    assert one.captions == ("A cat on a table.", "A table with a cat.")
    assert one.turns == (Turn("Describe the image.", "A cat on a table."),)
    cat, table = one.objects
    assert (cat.category, cat.box, cat.crowd) == ("cat", Box(1, 1, 4, 2), False)
    assert (table.category, table.crowd) == ("dining table", True)
    assert cat.rle is not None
    expected = np.zeros((4, 6), dtype=bool)
    expected[1:3, 1:5] = True
    assert np.array_equal(decode_mask(cat.rle), expected)
    assert table.rle is not None
    assert np.array_equal(np.flatnonzero(decode_mask(table.rle).any(axis=0)), [0])
    small, whole = two.objects
    assert small.box == Box(1.5, 4, 2.5, 1)
    assert small.rle is not None
    # Runs 9, 1, 4 and then 0 + 1 and 6 + 4: columns 1 and 2, last row.
    assert np.argwhere(decode_mask(small.rle)).tolist() == [[4, 1], [4, 2]]
    assert whole.rle is None
    assert two.captions == ()
    assert two.turns == ()


def test_captions_alone_will_do(tmp_path: Path, write: Write) -> None:
    records = read(settings(tmp_path, captions=write("c.json", captions())))
    assert [len(record.captions) for record in records] == [2, 0]
    assert all(record.objects == () for record in records)


def test_conversations_replace_the_turns(tmp_path: Path, write: Write) -> None:
    row = {
        "id": "r",
        "image": "two.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "A cat."},
        ],
    }
    files = {
        "instances": write("i.json", instances()),
        "captions": write("c.json", captions()),
        "conversations": write("l.json", [row]),
    }
    one, two = read(settings(tmp_path, **files))
    assert one.turns == (Turn("Describe the image.", "A cat on a table."),)
    assert two.turns == (Turn("What?", "A cat."),)
    row["image"] = "three.jpg"
    files["conversations"] = write("l.json", [row])
    with pytest.raises(UserError, match=r"l\.json: row 'r' is about image 'three\.jpg'"):
        read(settings(tmp_path, **files))


def test_fractions_follow_a_hash_of_the_id(tmp_path: Path, write: Write) -> None:
    content = instances()
    content["images"] = [
        {"id": i, "file_name": f"{i}.png", "width": 2, "height": 2} for i in range(200)
    ]
    content["annotations"] = []
    for i in range(200):
        Image.new("RGB", (2, 2)).save(tmp_path / "images" / f"{i}.png")
    files = {"instances": write("i.json", content)}
    base = {"kind": "coco", "images": str(tmp_path / "images"), "files": files}

    def splits(**more: Any) -> dict[str, str]:
        found = DATA_SETTINGS.validate_python({**base, **more})
        assert isinstance(found, CocoData)
        return {record.image_id: record.split for record in read(found)}

    given = splits(fractions={"train": 0.5, "validation": 0.25, "test": 0.25})
    counts = [list(given.values()).count(split) for split in ("train", "validation", "test")]
    assert 80 <= counts[0] <= 120
    assert all(35 <= count <= 65 for count in counts[1:])
    # Records come split by split, and an image never moves when others are left out.
    assert list(given.values()) == sorted(given.values(), key=["train", "validation", "test"].index)
    content["images"] = content["images"][50:]
    files["instances"] = write("i.json", content)
    fewer = splits(fractions={"train": 0.5, "validation": 0.25, "test": 0.25})
    assert fewer == {key: value for key, value in given.items() if int(key) >= 50}
    limited = splits(limit=3)
    assert sorted(limited.values()) == ["test"] * 3 + ["train"] * 3 + ["validation"] * 3
    # Every second image of each split, and of those the first three.
    every = splits(every=2, limit=3)
    whole = splits()
    for split in ("train", "validation", "test"):
        names = [key for key, value in whole.items() if value == split]
        assert [key for key, value in every.items() if value == split] == names[::2][:3]


def broken(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = instances()
    change(content)
    return content


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing image": (
        lambda c: c["images"][0].update(file_name="gone.png"),
        r"gone\.png is missing \(image id 42 of .*bad\.json\)",
    ),
    "path out of the root": (
        lambda c: c["images"][0].update(file_name="../../secret.png"),
        r"leads out of .*image id 42",
    ),
    "other size": (
        lambda c: c["images"][1].update(width=50),
        r"two\.jpg is 5x5, image id 7 of .*bad\.json is 50x5",
    ),
    "annotation of no image": (
        lambda c: c["annotations"][2].update(image_id=99),
        r"bad\.json: annotation 3 is about image 99, which `images` does not list",
    ),
    "unknown category": (
        lambda c: c["annotations"][0].update(category_id=5),
        r"bad\.json: annotation 1 has category_id 5",
    ),
    "no category": (
        lambda c: c["annotations"][0].pop("category_id"),
        r"bad\.json: key `category_id` of entry 1 is missing",
    ),
    "no box": (lambda c: c["annotations"][0].pop("bbox"), r"annotation 1 needs a bbox"),
    "box of text": (
        lambda c: c["annotations"][0].update(bbox=["left", 1, 1, 1]),
        r"annotation 1 needs a bbox",
    ),
    "negative box": (
        lambda c: c["annotations"][0].update(bbox=[1, 1, -1, 1]),
        r"annotation 1 needs a bbox",
    ),
    "runs of another image": (
        lambda c: c["annotations"][1]["segmentation"].update(size=[6, 4]),
        r"segmentation of annotation 2 cannot be read: its size is \[6, 4\]",
    ),
    "runs too short": (
        lambda c: c["annotations"][1]["segmentation"].update(counts=[0, 4]),
        r"segmentation of annotation 2 cannot be read: runs sum to 4",
    ),
    "half a polygon": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
        r"segmentation of annotation 1 cannot be read",
    ),
    "image id twice": (
        lambda c: c["images"][1].update(id=42),
        r"image id 42 comes twice in `images`",
    ),
    "no images": (lambda c: c.pop("images"), r"bad\.json: key `images` is missing"),
    "no file name": (
        lambda c: c["images"][0].pop("file_name"),
        r"key `file_name` of entry 42 is missing",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_a_sentence(tmp_path: Path, write: Write, name: str) -> None:
    change, message = BAD[name]
    files = {"instances": write("bad.json", broken(change))}
    with pytest.raises(UserError, match=message):
        read(settings(tmp_path, **files))


def test_a_caption_for_an_image_that_is_not_there(tmp_path: Path, write: Write) -> None:
    content = captions()
    content["annotations"][1]["image_id"] = 8
    with pytest.raises(UserError, match=r"c\.json: annotation 11 is about image 8"):
        read(settings(tmp_path, captions=write("c.json", content)))


def test_an_image_that_is_no_image(tmp_path: Path, write: Write) -> None:
    (tmp_path / "images" / "val" / "two.jpg").write_text("not an image")
    files = {"instances": write("i.json", instances())}
    with pytest.raises(UserError, match=r"two\.jpg cannot be read as an image .*image id 7"):
        read(settings(tmp_path, **files))


def test_files_that_are_no_json(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match=r"x\.json cannot be read: No such file"):
        read(settings(tmp_path, instances=str(path)))
    path.write_text("{")
    with pytest.raises(UserError, match=r"x\.json is not JSON"):
        read(settings(tmp_path, instances=str(path)))
    path.write_text("[]")
    with pytest.raises(UserError, match=r"x\.json must hold an object"):
        read(settings(tmp_path, instances=str(path)))
    path.write_text('{"images": [{"id": 1}, {"id": 2}, {"id')
    with pytest.raises(UserError, match=r"x\.json is not JSON after 2 entries"):
        read(settings(tmp_path, instances=str(path)))
    path.write_text('{"images": {"id": 1}}')
    with pytest.raises(UserError, match=r"x\.json: key `images` is missing or of a wrong type"):
        read(settings(tmp_path, instances=str(path)))


def published(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Files with every key and oddity of COCO 2017's instances and captions, and their images."""
    root = tmp_path / "images" / "val"
    rotated = Image.new("RGB", (8, 6), (200, 10, 10))
    exif = rotated.getexif()
    exif[0x0112] = 6  # a viewer would turn it by a quarter
    rotated.save(root / "000000000285.jpg", exif=exif)
    Image.new("L", (6, 5), 77).save(root / "000000000139.jpg")
    Image.new("CMYK", (4, 4)).save(root / "000000581781.jpg")

    def image(number: int, width: int, height: int) -> dict[str, Any]:
        return {
            "license": 2,
            "file_name": f"{number:012d}.jpg",
            "coco_url": f"http://images.cocodataset.org/val2017/{number:012d}.jpg",
            "height": height,
            "width": width,
            "date_captured": "2013-11-21 01:34:01",
            "flickr_url": "http://farm9.staticflickr.com/8035/8024364858_9c41dc1666_z.jpg",
            "id": number,
        }

    def thing(number: int, image_id: int, category: int, mask: Any, **more: Any) -> dict[str, Any]:
        return {
            "segmentation": mask,
            "area": 7.25,
            "iscrowd": 0,
            "image_id": image_id,
            "bbox": [1.5, 0.0, 2.5, 3],
            "category_id": category,
            "id": number,
            **more,
        }

    info = {"description": "COCO 2017 Dataset", "year": 2017, "version": "1.0"}
    licenses = [{"url": "http://creativecommons.org/", "id": 1, "name": "Attribution"}]
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [5.0, 4.0, 8.0, 4.0, 8.0, 6.0, 5.0, 6.0]]
    crowd = {"counts": [0, 5, 20, 5], "size": [5, 6]}
    annotations = [
        thing(908800474295, 285, 23, parts),
        thing(900100000139, 139, 90, crowd, iscrowd=1),
        thing(17, 285, 1, []),
    ]
    categories = [
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "animal", "id": 23, "name": "bear"},
        {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
    ]
    captioned = [image(139, 6, 5), image(581781, 4, 4)]
    told = [
        {"image_id": 581781, "id": 38, "caption": "Bananas. "},
        {"image_id": 139, "id": 37, "caption": "A room."},
        {"image_id": 139, "id": 39, "caption": "A grey room."},
    ]
    return (
        {
            "info": info,
            "licenses": licenses,
            "images": [image(285, 8, 6), image(139, 6, 5)],
            "annotations": annotations,
            "categories": categories,
        },
        {"info": info, "licenses": licenses, "images": captioned, "annotations": told},
    )


def test_the_published_form_of_coco_2017(tmp_path: Path, write: Write) -> None:
    objects, told = published(tmp_path)
    files = {"instances": write("i.json", objects), "captions": write("c.json", told)}
    bear, room, fruit = read(settings(tmp_path, **files))
    # Instances' images first, then those that the captions alone list: one has no annotation.
    assert [each.image_id for each in (bear, room, fruit)] == ["285", "139", "581781"]
    assert bear.categories == ("bear", "person")  # ids with holes, categories after annotations
    assert (bear.captions, fruit.captions) == ((), ("Bananas.",))
    assert room.captions == ("A room.", "A grey room.")
    assert fruit.objects == ()
    first, second = bear.objects
    assert first.box == Box(1.5, 0, 2.5, 3)
    assert first.rle is not None
    mask = decode_mask(first.rle)
    assert mask.sum() == 4 + 6 and mask[:2, :2].all() and mask[4:, 5:].all()
    assert second.rle is None  # `segmentation: []`
    (crowd,) = room.objects
    assert crowd.crowd and crowd.rle is not None
    assert np.flatnonzero(decode_mask(crowd.rle).any(axis=0)).tolist() == [0, 5]


def test_pixels_are_read_as_they_are_stored(tmp_path: Path, write: Write) -> None:
    objects, told = published(tmp_path)
    files = {"instances": write("i.json", objects), "captions": write("c.json", told)}
    bear, room, fruit = read(settings(tmp_path, **files))
    source = ImageSource(tmp_path / "images")
    # Boxes refer to the stored pixels: the rotation that a viewer would make is not made.
    assert source.open(bear).size == (8, 6) == (bear.width, bear.height)
    assert [source.open(each).mode for each in (room, fruit)] == ["RGB", "RGB"]
    assert source.open(room).getpixel((3, 3)) == (77, 77, 77)
    assert source.open(fruit).getpixel((1, 1)) == (255, 255, 255)


def test_bad_images_are_left_out_if_the_settings_say_so(tmp_path: Path, write: Write) -> None:
    content = instances()
    content["images"].append({"id": 8, "file_name": "three.png", "width": 5, "height": 5})
    (tmp_path / "images" / "val" / "two.jpg").write_bytes(b"\xff\xd8\xff")
    files = {"instances": write("i.json", content)}
    with pytest.raises(UserError, match=r"two\.jpg .*`max_unreadable: 1`"):
        read(settings(tmp_path, {"missing_images": "skip"}, **files))
    with pytest.raises(UserError, match=r"three\.png .*`missing_images: skip`"):
        read(settings(tmp_path, {"max_unreadable": 9}, **files))
    skipped = Skipped()
    both = {"missing_images": "skip", "max_unreadable": 9}
    (kept,) = read(settings(tmp_path, both, **files), skipped)
    assert kept.image_id == "42"
    assert skipped.rows == [
        ("7", "val/two.jpg", "image unreadable"),
        ("8", "val/three.png", "image missing"),
    ]
    content["images"][0]["file_name"] = "../../secret.png"
    files = {"instances": write("i.json", content)}
    with pytest.raises(UserError, match="leads out of"):
        read(settings(tmp_path, {"missing_images": "skip"}, **files))


def test_annotations_before_their_images(tmp_path: Path, write: Write) -> None:
    turned = dict(reversed(instances().items()))
    assert next(iter(turned)) == "annotations"
    straight = read(settings(tmp_path, instances=write("i.json", instances())))
    assert read(settings(tmp_path, instances=write("j.json", turned))) == straight
