"""Lists of images in OpenOOD's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vista.config.data import DATA_SETTINGS, annotation_files
from vista.data.records import Box, Record
from vista.data.skipped import Skipped
from vista.data.source import iterate_records, resolve
from vista.errors import UserError

IN = "imagenet_1k/val/b.JPEG 1\nimagenet_1k/val/a c.JPEG\t0\n\nimagenet_v2/0/d.jpeg 0\n"
OUT = "texture/dotted/e.jpg -1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for listed in (IN + OUT).split("\n"):
        if listed:
            path = tmp_path / "images" / listed.replace("\t", " ").rpartition(" ")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 4)).save(path)
    (tmp_path / "in.txt").write_text(IN)
    (tmp_path / "out.txt").write_text(OUT)
    (tmp_path / "names.txt").write_text("n01440764\nsea_lion\n")
    return tmp_path


def read(root: Path, skipped: Skipped | None = None, **more: Any) -> list[Record]:
    more.setdefault("splits", {"test": str(root / "out.txt"), "train": str(root / "in.txt")})
    own = {"kind": "list", "images": str(root / "images"), **more}
    settings = DATA_SETTINGS.validate_python(own)
    return list(iterate_records(settings, None, None, skipped or Skipped()))


def test_paths_and_labels_of_each_line(root: Path) -> None:
    records = read(root, classes=str(root / "names.txt"))
    # In the lists' order, splits in theirs; a name may hold a blank.
    assert [record.path for record in records] == [
        "imagenet_1k/val/b.JPEG",
        "imagenet_1k/val/a c.JPEG",
        "imagenet_v2/0/d.jpeg",
        "texture/dotted/e.jpg",
    ]
    assert [record.split for record in records] == ["train"] * 3 + ["test"]
    # By the label, not by the folder: 0 is what the file of names calls it.
    assert [record.categories for record in records] == [
        ("sea lion",),
        ("n01440764",),
        ("n01440764",),
        (),
    ]
    assert records[0].objects[0].box == Box(0, 0, 6, 4)
    assert [record.categories for record in read(root)][:3] == [("1",), ("0",), ("0",)]
    assert [record.path[-6:] for record in read(root, every=2)] == ["b.JPEG", "d.jpeg", "/e.jpg"]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (None, r"in\.txt cannot be read: No such file"),
        ("\n \n", r"in\.txt holds no text: one `path label` a line is expected"),
        ("texture/dotted/e.jpg\n", r"in\.txt: 'texture/dotted/e\.jpg' is not `path label`"),
        (
            "../names.txt 0",
            r"'\.\./names\.txt' leads out of .*images: it is refused \(in .*in\.txt",
        ),
        ("/etc/passwd 0", r"'/etc/passwd' leads out of"),
        ("texture/f.jpg 0", r"f\.jpg is missing \(in .*in\.txt\): restore it, or set `missing_im"),
        (
            "texture/dotted/e.jpg 2",
            "label of texture/dotted/e.jpg is '2', not a number below the 2",
        ),
        ("texture/dotted/e.jpg dotted", "is 'dotted', not a number below the 2 names of `classes`"),
    ],
)
def test_mistakes_are_named(root: Path, listed: str | None, message: str) -> None:
    (root / "in.txt").unlink()
    if listed is not None:
        (root / "in.txt").write_text(listed)
    with pytest.raises(UserError, match=message):
        read(root, classes=str(root / "names.txt"), splits={"train": str(root / "in.txt")})


def test_missing_images_may_be_left_out(root: Path) -> None:
    (root / "images/texture/dotted/e.jpg").unlink()
    skipped = Skipped()
    assert len(read(root, skipped, missing_images="skip")) == 3
    assert skipped.rows == [("texture/dotted/e.jpg", "texture/dotted/e.jpg", "image missing")]


def test_lists_are_watched_or_lie_among_fetched_files() -> None:
    own = {"kind": "list", "images": "i", "splits": {"test": "b.txt"}, "classes": "a.txt"}
    assert annotation_files(DATA_SETTINGS.validate_python(own)) == ["a.txt", "b.txt"]
    fetched = DATA_SETTINGS.validate_python({**own, "fetch": [{"url": "https://x/y.zip"}]})
    whole = resolve(fetched, Path("/f"))  # type: ignore[arg-type]
    assert (whole.images, whole.splits, whole.classes) == (  # type: ignore[union-attr]
        "/f/i",
        {"test": "/f/b.txt"},
        "/f/a.txt",
    )


def test_a_byte_order_mark_is_no_part_of_a_name(root: Path) -> None:
    plain = read(root, classes=str(root / "names.txt"))
    for name in ("in.txt", "out.txt", "names.txt"):
        content = (root / name).read_text().replace("\n", "\r\n")
        (root / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read(root, classes=str(root / "names.txt")) == plain
    assert plain[1].categories == ("n01440764",)


def test_a_blank_line_between_names_would_shift_those_after_it(root: Path) -> None:
    names = root / "names.txt"
    names.write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=r"names\.txt: line 2 is blank, and the line is the number"):
        read(root, classes=str(names))
    names.write_text("cat\ndog\n\n \n")
    assert read(root, classes=str(names))[0].categories == ("dog",)


def test_tabs_part_path_and_label_that_hold_blanks(root: Path) -> None:
    (root / "in.txt").write_text("imagenet_1k/val/a c.JPEG\tsea  lion\n")
    (record, *_) = read(root)
    assert (record.path, record.categories) == ("imagenet_1k/val/a c.JPEG", ("sea  lion",))


@pytest.mark.parametrize(
    ("label", "name"), [("1.0", "sea lion"), ("+1", "sea lion"), ("-1.0", None)]
)
def test_labels_as_other_programs_write_them(root: Path, label: str, name: str | None) -> None:
    (root / "in.txt").write_text(f"imagenet_1k/val/b.JPEG {label}\n")
    (record, *_) = read(root, classes=str(root / "names.txt"))
    assert record.categories == ((name,) if name else ())


def test_a_label_of_endless_digits_is_told(root: Path) -> None:
    (root / "in.txt").write_text("imagenet_1k/val/b.JPEG " + "9" * 5000)
    with pytest.raises(UserError, match="not a number below the 2 names"):
        read(root, classes=str(root / "names.txt"))
