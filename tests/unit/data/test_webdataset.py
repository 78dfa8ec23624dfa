"""Tar shards in WebDataset's form, good and damaged."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vista.config.data import WebDatasetData
from vista.data.images import ImageSource
from vista.data.readers.webdataset import webdataset_records
from vista.data.records import Box, Record, Turn, write_records
from vista.data.skipped import Skipped
from vista.errors import UserError


def picture(width: int, height: int, kind: str = "PNG", grey: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (grey, grey, grey)).save(file, kind)
    return file.getvalue()


def pack(path: Path, members: list[tuple[str, bytes | tarfile.TarInfo]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.addfile(content)
    return path


def read(root: Path, skipped: Skipped | None = None, **more: Any) -> list[Record]:
    settings = WebDatasetData(kind="webdataset", images=str(root), **more)
    return list(webdataset_records(settings, skipped or Skipped()))


TEST = {"train": 0, "validation": 0, "test": 1}


def test_samples_of_several_shards(tmp_path: Path) -> None:
    pack(
        tmp_path / "train-001.tar",
        [("c.d.png", picture(2, 2)), ("e/f.JPG", picture(3, 2, "JPEG")), ("e/f.txt", b"An e. ")],
    )
    pack(
        tmp_path / "train-000.tar",
        [
            ("000000010.webp", picture(6, 4, "WEBP", 9)),
            ("000000010.txt", "A cät.\n".encode()),
            ("000000010.cls", b"1"),
            ("000000010.json", json.dumps({"alt": ["One.", "Two. "], "n": 3}).encode()),
            ("000000011.txt", b"no image"),
            ("000000012.jpg", picture(5, 5, "JPEG", 200)),
        ],
    )
    skipped = Skipped()
    first, last, second = read(tmp_path, skipped, fractions=TEST, classes=["dog", "cat"])
    assert [each.image_id for each in (first, last, second)] == [
        "train-000/000000010",
        "train-000/000000012",
        "train-001/e/f",
    ]
    assert skipped.rows == [
        ("train-000/000000011", None, "sample without an image"),
        ("train-001/c", None, "sample without an image"),
    ]
    assert first.captions == ("A cät.",)
    assert first.turns == (Turn("Describe the image.", "A cät."),)
    assert first.categories == ("cat",)
    assert first.objects[0].box == Box(0, 0, 6, 4)
    assert (last.captions, last.turns, last.objects) == ((), (), ())
    assert second.captions == ("An e.",)
    source = ImageSource(tmp_path)
    assert [source.open(each).size for each in (first, last, second)] == [(6, 4), (5, 5), (3, 2)]
    assert source.open(last).getpixel((2, 2)) == (200, 200, 200)
    (named, *_) = read(tmp_path, fractions=TEST, caption_key="alt")
    assert named.captions == ("One.", "Two.")
    assert named.categories == ("1",)


def test_splits_name_shards(tmp_path: Path) -> None:
    for name in ("a-0", "a-1", "b-0"):
        members = [(f"{i}.png", picture(2, 2)) for i in range(5)]
        pack(tmp_path / f"{name}.tar", members)
    found = read(tmp_path, splits={"test": ["b-0.tar"], "train": "a-*.tar"}, every=4, limit=2)
    assert [(each.image_id, each.split) for each in found] == [
        ("a-0/0", "train"),
        ("a-0/4", "train"),
        ("b-0/0", "test"),
        ("b-0/4", "test"),
    ]
    whole = read(tmp_path)
    order = ["train", "validation", "test"]
    assert len(whole) == 15
    assert whole == sorted(whole, key=lambda each: order.index(each.split))


def test_only_plain_members_count(tmp_path: Path) -> None:
    members: list[tuple[str, bytes | tarfile.TarInfo]] = []
    for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE)):
        link = tarfile.TarInfo(name)
        link.type, link.linkname = kind, "/etc/passwd"
        members.append((name, link))
    device = tarfile.TarInfo("c.png")
    device.type = tarfile.CHRTYPE
    members += [("c.png", device), ("._d.png", b"mac"), ("folder/.e.png", b"x"), ("README", b"x")]
    members += [("../../f.png", picture(2, 3))]
    pack(tmp_path / "a.tar", members)
    (found,) = read(tmp_path, fractions=TEST)
    # A member's name is its id, never a path: what is opened is a range of the shard.
    assert found.image_id == "a/../../f"
    assert found.path.startswith("a.tar#")
    assert ImageSource(tmp_path).open(found).size == (2, 3)


def test_an_image_outside_the_root_is_refused(tmp_path: Path) -> None:
    pack(tmp_path / "out.tar", [("a.png", picture(2, 2))])
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.tar").symlink_to(tmp_path / "out.tar")
    for shards in ("link.tar", ["../out.tar"], "../*.tar"):
        with pytest.raises(UserError, match="leads out of"):
            read(tmp_path / "root", shards=shards)


def test_damaged_shards_are_named_with_their_last_member(tmp_path: Path) -> None:
    members = [(f"{i}.png", picture(40, 40, grey=i)) for i in range(3)]
    whole = pack(tmp_path / "a.tar", members).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        starts = [member.offset for member in tar]
    bad = tmp_path / "a.tar"
    for content, message in (
        (whole[: starts[2] + 520], r"a\.tar cannot be read after member '2\.png'"),
        (whole[: starts[2] + 100], r"a\.tar is cut off after member '1\.png'"),
        (whole[: starts[2]], r"a\.tar is cut off after member '1\.png'"),
        (
            whole[: starts[1]] + b"x" * 512 + whole[starts[1] + 512 :],
            r"a\.tar is damaged after member '0\.png'",
        ),
        (b"no tar at all" * 100, r"a\.tar cannot be read: it must be a tar"),
        (b"", r"a\.tar cannot be read: it must be a tar"),
    ):
        bad.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read(tmp_path)


def test_compressed_or_missing_shards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no shard that matches '\*\.tar'"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"a\.tar is missing"):
        read(tmp_path, shards=["a.tar"])
    with pytest.raises(UserError, match=r"a\.tar\.gz must be a \.tar"):
        read(tmp_path, shards=["a.tar.gz"])


def test_images_that_are_none(tmp_path: Path) -> None:
    whole = picture(40, 40)
    pack(tmp_path / "a.tar", [("a.png", b"text"), ("b.png", whole[:-30]), ("c.png", whole)])
    with pytest.raises(UserError, match=r"cannot be read as an image .*member a\.png of .*a\.tar"):
        read(tmp_path)
    skipped = Skipped()
    cut, good = read(tmp_path, skipped, max_unreadable=1, fractions=TEST)
    assert [(row, why) for row, _, why in skipped.rows] == [("a/a", "image unreadable")]
    # Its header is whole, so it is only found to be cut off when its pixels are read.
    with pytest.raises(UserError, match=r"a\.tar#[0-9]+:[0-9]+ cannot be read as an image"):
        ImageSource(tmp_path).open(cut)
    assert ImageSource(tmp_path).open(good).size == (40, 40)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff\xfe", r"member a\.txt is UTF-16 text: save it as UTF-8"),
        ("a.txt", b"caf\xe9", r"member a\.txt is not UTF-8 text"),
        ("a.cls", b"-1", r"member a\.cls is '-1', not a number below the 2 names"),
        pytest.param(
            "a.cls", b"9" * 5000, r"member a\.cls is '9{40}', not a number below", id="endless"
        ),
        ("a.cls", b"7", r"member a\.cls is '7', not a number below the 2 names"),
        ("a.cls", b"cat", r"member a\.cls is 'cat', not a number"),
        ("a.json", b"{", r"member a\.json is not JSON"),
        ("a.json", b'{"alt": 3}', r"`alt` of member a\.json must be text"),
        ("a.png", b"twice", r"member 'a\.png' comes twice"),
    ],
)
def test_bad_members(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    pack(tmp_path / "s.tar", [("a.png", picture(2, 2)), (name, content)])
    key = "alt" if name.endswith("json") else None
    with pytest.raises(UserError, match=rf"s\.tar: .*{message}"):
        read(tmp_path, classes=["dog", "cat"], caption_key=key)


def test_a_sample_that_comes_again_is_told_with_the_remedy(tmp_path: Path) -> None:
    names = ["1.png", "2.png", "1.txt", "2.txt"]
    pack(tmp_path / "s.tar", [(n, picture(2, 2) if "png" in n else b"A cat") for n in names])
    with pytest.raises(UserError, match=r"s\.tar: sample '1' comes again with member '1\.txt'.*"
                       r"`tar --sort=name`"):  # fmt: skip
        read(tmp_path)


def test_text_members_of_windows(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfA cat.\r\nOn a mat.\r\n"
    members = [("a.png", picture(2, 2)), ("a.txt", text), ("a.cls", b"\xef\xbb\xbf1\r\n")]
    pack(tmp_path / "s.tar", members)
    (found,) = read(tmp_path, classes=["dog", "cat"])
    assert (found.captions, found.categories) == (("A cat.\nOn a mat.",), ("cat",))
    (found,) = read(tmp_path)
    assert found.categories == ("1",)


def test_null_captions_are_none_and_a_key_without_any_is_told(tmp_path: Path) -> None:
    content = {"alt": [None, "A cat.", ""], "none": None}
    members = [("a.png", picture(2, 2)), ("a.json", b"\xef\xbb\xbf" + json.dumps(content).encode())]
    pack(tmp_path / "s.tar", members)
    skipped = Skipped()
    assert read(tmp_path, skipped, caption_key="alt")[0].captions == ("A cat.",)
    assert not skipped.notes
    assert read(tmp_path, skipped, caption_key="none")[0].captions == ()
    assert skipped.notes == {"samples without caption 'none'": 1}


def test_two_shards_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for name in ("a/0.tar", "b/0.tar", "b/1.tar"):
        pack(tmp_path / name, [("x.png", picture(2, 2))])
    expected = ["a/0/x", "b/0/x", "1/x"]
    assert sorted(each.image_id for each in read(tmp_path, shards="*/*.tar")) == sorted(expected)
    splits = {"train": ["a/0.tar"], "test": "b/*.tar"}
    assert [each.image_id for each in read(tmp_path, splits=splits)] == expected


def test_what_a_shard_holds_beside_its_samples_is_counted(tmp_path: Path) -> None:
    link = tarfile.TarInfo("l.png")
    link.type, link.linkname = tarfile.LNKTYPE, "a.png"
    folder = tarfile.TarInfo("./.cache")
    folder.type = tarfile.DIRTYPE
    members: list[tuple[str, bytes | tarfile.TarInfo]] = [
        ("./a.png", picture(2, 2)),
        ("./._a.png", b"mac"),
        ("__MACOSX/a.png", b"mac"),
        (".cache/a.png", picture(2, 2)),
        ("l.png", link),
        (".cache", folder),
    ]
    pack(tmp_path / "s.tar", members)
    skipped = Skipped()
    assert [each.image_id for each in read(tmp_path, skipped)] == ["s/./a"]
    assert skipped.rows == [
        ("s/./._a.png", None, "hidden, no data"),
        ("s/__MACOSX/a.png", None, "hidden, no data"),
        ("s/.cache/a.png", None, "hidden, no data"),
        ("s/l.png", None, "member of a shard that is no plain file"),
    ]


def test_a_member_whose_name_is_no_utf_8_is_read(tmp_path: Path) -> None:
    with tarfile.open(
        tmp_path / "s.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT
    ) as tar:
        info = tarfile.TarInfo("café.png")
        info.size = len(picture(2, 2))
        tar.addfile(info, io.BytesIO(picture(2, 2)))
    (found,) = read(tmp_path)
    assert found.image_id == r"s/caf\udce9"
    assert write_records(tmp_path / "records.parquet", [found]) == 1


def test_a_member_of_negative_size_ends_the_walk(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    header = bytearray(info.tobuf())
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "s.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(UserError, match=r"s\.tar (cannot be read|is damaged)"):
        read(tmp_path)


def test_two_tars_in_one_file_are_told(tmp_path: Path) -> None:
    first = pack(tmp_path / "s.tar", [("a.png", picture(2, 2))]).read_bytes()
    (tmp_path / "s.tar").write_bytes(first + first)
    with pytest.raises(UserError, match=r"s\.tar goes on after its end, at member 'a\.png'"):
        read(tmp_path)


def test_a_hidden_shard_of_a_pattern_is_none(tmp_path: Path) -> None:
    pack(tmp_path / "s.tar", [("a.png", picture(2, 2))])
    (tmp_path / "._s.tar").write_bytes(b"mac")
    skipped = Skipped()
    assert len(read(tmp_path, skipped)) == 1
    assert skipped.rows == [("._s.tar", "._s.tar", "hidden, no data")]
