"""Pixel modes and orientations of image files, as records' images are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vista.data.images import ImageSource, UnusableImage
from vista.data.records import Record

ORIENTATION = 0x0112


def opened(root: Path, name: str, size: tuple[int, int] | None = None) -> Image.Image:
    source = ImageSource(root)
    width, height = size or source.header(name).size
    return source.open(Record("1", "test", name, width, height))


def exif(orientation: Any) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_is_scaled_to_8_bits(tmp_path: Path, name: str) -> None:
    ramp = (np.arange(65536).reshape(256, 256)).astype(np.uint16)
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5 256 256 65535\n" + ramp.astype(">u2").tobytes())
    else:
        Image.fromarray(ramp).save(tmp_path / name)
    pixels = np.asarray(opened(tmp_path, name))
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert len(np.unique(pixels)) == 256 and pixels.mean() == 127.5
    assert (pixels[..., 0] == np.rint(ramp / 257)).all()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(np.float32, "floating-point numbers"), (np.int32, "32-bit integers")],
)
def test_pixels_without_a_stated_range_are_refused(tmp_path: Path, kind: type, reason: str) -> None:
    Image.fromarray(np.linspace(0, 1, 16).reshape(4, 4).astype(kind)).save(tmp_path / "f.tif")
    message = rf"f\.tif cannot be read as an image \(its pixels are {reason} without a stated"
    with pytest.raises(UnusableImage, match=message):
        ImageSource(tmp_path).header("f.tif")
    with pytest.raises(UnusableImage, match=message):
        opened(tmp_path, "f.tif", (4, 4))


@pytest.mark.filterwarnings("error::UserWarning")
def test_alpha_is_dropped(tmp_path: Path) -> None:
    colours = np.full((3, 2, 4), (200, 100, 50, 0), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "rgba.png")
    Image.new("LA", (2, 3), (77, 0)).save(tmp_path / "la.png")
    palette = Image.new("P", (2, 3), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(tmp_path / "p.png", transparency=b"\x00\x80")
    Image.new("1", (2, 3), 1).save(tmp_path / "bits.png")
    expected = {"rgba": (200, 100, 50), "la": (77,) * 3, "p": (200, 100, 50), "bits": (255,) * 3}
    for name, colour in expected.items():
        assert opened(tmp_path, f"{name}.png").getpixel((1, 2)) == colour


def photograph(path: Path, orientation: Any, size: tuple[int, int] = (64, 48)) -> None:
    """A picture whose left half is white as stored."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[:, : size[0] // 2] = 255
    Image.fromarray(pixels).save(path, exif=exif(orientation), quality=95)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_photograph_is_turned_only_where_it_was_annotated_so(
    tmp_path: Path, orientation: int
) -> None:
    photograph(tmp_path / "a.jpg", orientation)
    source = ImageSource(tmp_path)
    assert source.header("a.jpg", (64, 48)) == ((64, 48), False)
    assert source.header("a.jpg", (48, 64)) == ((48, 64), False)
    assert source.header("a.jpg", (48, 48)) == ((64, 48), False)
    assert source.header("a.jpg") == ((64, 48), True)
    stored = np.asarray(opened(tmp_path, "a.jpg", (64, 48)))
    assert stored[:, :30].min() > 200 and stored[:, 34:].max() < 55
    upright = np.asarray(opened(tmp_path, "a.jpg", (48, 64)))
    bright = upright[:30] if orientation in (5, 6) else upright[34:]
    assert upright.shape == (64, 48, 3) and bright.min() > 200


@pytest.mark.parametrize(
    ("orientation", "size", "ambiguous"),
    [(1, (6, 6), False), (3, (6, 4), True), (6, (6, 6), True), (9, (6, 6), False),
     (0, (6, 4), False)],
)  # fmt: skip
def test_where_the_size_does_not_tell_pixels_stay_as_stored(
    tmp_path: Path, orientation: Any, size: tuple[int, int], ambiguous: bool
) -> None:
    photograph(tmp_path / "a.jpg", orientation, size)
    assert ImageSource(tmp_path).header("a.jpg", size) == (size, ambiguous)
    assert np.asarray(opened(tmp_path, "a.jpg", size))[0, 0, 0] > 200


def test_damaged_exif_of_a_good_photograph_is_no_orientation(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert ImageSource(tmp_path).header("a.jpg", (4, 6)) == ((6, 4), False)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_turned_tiff_has_one_size(tmp_path: Path, compression: str | None) -> None:
    grey = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "a.tif", exif=exif(6), compression=compression)
    # Pillow turns it, whatever is asked for.
    assert ImageSource(tmp_path).header("a.tif") == ((3, 4), False)
    assert (np.asarray(opened(tmp_path, "a.tif"))[..., 0] == np.rot90(grey, -1)).all()


@pytest.mark.parametrize(
    "error", [IndexError("x"), MemoryError(), OverflowError("x"), RuntimeError("a\nb"), KeyError(1)]
)
def test_whatever_a_decoder_raises_is_told(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(UnusableImage, match=r"a\.png cannot be read as an image \("):
        opened(tmp_path, "a.png", (4, 4))


def test_a_damaged_dds_or_avif_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"DDS " + bytes(20))
    (tmp_path / "b.png").write_bytes(bytes(4) + b"ftypavif" + bytes(60))
    for name in ("a.png", "b.png"):
        with pytest.raises(UnusableImage, match="cannot be read as an image"):
            ImageSource(tmp_path).header(name)
