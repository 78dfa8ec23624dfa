"""The files behind records: as stored, from folders and from tar shards."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from vista.data.images import ImageSource, UnusableImage, member_path
from vista.data.records import Record
from vista.errors import UserError


def jpeg(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (7, 5), (grey, grey, grey)).save(file, "JPEG")
    return file.getvalue()


def record(path: str) -> Record:
    return Record("1", "test", path, 7, 5)


def test_a_file_is_read_as_it_is_stored(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_bytes(jpeg(9))
    assert ImageSource(tmp_path).read(record("sub/a.jpg")) == jpeg(9)


def test_a_member_of_a_shard_is_read_without_its_neighbours(tmp_path: Path) -> None:
    contents = [jpeg(10), jpeg(200), jpeg(90)]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for i, content in enumerate(contents):
            info = tarfile.TarInfo(f"{i}.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tarfile.open(tmp_path / "s.tar") as tar:
        places = [(info.offset_data, info.size) for info in tar]
    source = ImageSource(tmp_path)
    paths = [member_path("s.tar", *place) for place in places]
    assert [source.read(record(path)) for path in paths] == contents


def test_what_is_not_there_or_elsewhere_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    with pytest.raises(UnusableImage, match=r"none\.jpg is missing"):
        ImageSource(root).read(record("none.jpg"))
    with pytest.raises(UnusableImage, match=r"s\.tar is missing"):
        ImageSource(root).read(record("s.tar#0:5"))
    with pytest.raises(UserError, match="leads out of"):
        ImageSource(root).read(record("../secret.jpg"))
