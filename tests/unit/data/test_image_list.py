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
