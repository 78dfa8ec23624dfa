"""Opens the images of records: files below one root folder, or byte ranges of tar shards there."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, NamedTuple

from PIL import Image, UnidentifiedImageError

from vista.errors import UserError, reason_of
from vista.foreign.pixels import is_ambiguous, is_turned, refuse_unscaled, to_rgb, turned
from vista.foreign.text import one_line

if TYPE_CHECKING:
    from vista.data.records import Record

# A member of a shard: "train-000.tar#offset:size", both bytes. Never a name from within the tar.
_MEMBER = re.compile(r"(?P<shard>.+\.tar)#(?P<offset>[0-9]{1,18}):(?P<size>[0-9]{1,18})")
# What macOS' archives and Synology's disks keep beside the files.
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir"})

MISSING: Final = "image missing"
UNREADABLE: Final = "image unreadable"


class UnusableImage(UserError):
    """One image is missing or unreadable; others may be good."""

    def __init__(self, message: str, reason: Literal["image missing", "image unreadable"]) -> None:
        super().__init__(message)
        self.reason = reason


class ImageHeader(NamedTuple):
    """Width and height in px; `ambiguous`: EXIF turns the image, and its annotations do not say
    which orientation they are for."""

    size: tuple[int, int]
    ambiguous: bool


def is_hidden(path: str) -> bool:
    """Whether a relative path is that of a hidden file or a system's own, which are no data."""
    return any(
        part in _SYSTEM_FOLDERS or (part.startswith(".") and part not in (".", ".."))
        for part in path.split("/")
    )


def member_path(shard: str, offset: int, size: int) -> str:
    """The path of a record whose image is `size` bytes of a shard from byte `offset` on."""
    return f"{shard}#{offset}:{size}"


class ImageSource:
    """Opens records' images below one root folder."""

    def __init__(self, root: Path) -> None:
        if not os.path.isdir(root):
            raise UserError(f"{root} is no folder: `images` must name the images' root folder")
        self.root = root
        self._real_root = root.resolve()

    def holds(self, relative: str) -> bool:
        """Whether a path below the root, its links followed, leads to a place below the root.

        Raises ValueError for a path that no file can have.
        """
        # Not Path's own methods: they raise for links in a circle and for names that are too long.
        return Path(os.path.realpath(self.root / relative)).is_relative_to(self._real_root)

    def locate(self, relative: str) -> Path:
        """The file of a path relative to the root.

        Raises UserError if the path leads out of the root (also by a link), and UnusableImage if
        it leads to no file.
        """
        path = self.root / relative
        try:
            inside = self.holds(relative)
        except ValueError as error:  # a NUL in it
            raise self._unreadable(relative, error) from error
        if not inside:
            raise UserError(
                f"image path {one_line(repr(relative))} leads out of {self.root}: it is refused"
            )
        if not os.path.isfile(path):
            raise UnusableImage(f"{self._shown(relative)} is missing", MISSING)
        return path

    def header(self, relative: str, annotated: tuple[int, int] | None = None) -> ImageHeader:
        """The size of an image in px, from its header: as stored, or as EXIF turns it if that is
        the `annotated` size.

        Raises UnusableImage if it has no header, or pixels without a stated range.
        """
        with self._decoding(relative) as image:
            refuse_unscaled(image)
            size = image.size[::-1] if is_turned(image, annotated) else image.size
            return ImageHeader(size, is_ambiguous(image, annotated))

    def open(self, record: Record) -> Image.Image:
        """The image of a record in RGB, its pixels as stored: boxes refer to those.

        EXIF's orientation is applied only if the record has the turned image's width and height.

        Raises UnusableImage if the file is missing, is not an image or is cut off, and UserError
        if it is not of the size that the record says (its boxes would then lie elsewhere).
        """
        with self._decoding(record.path) as image:
            as_annotated = turned if is_turned(image, (record.width, record.height)) else None
            image.load()
            rgb = to_rgb(as_annotated(image) if as_annotated else image)
        if rgb.size != (record.width, record.height):
            raise UserError(
                f"{self._shown(record.path)} is {rgb.width}x{rgb.height}, its annotations are for "
                f"{record.width}x{record.height}: use the images that were annotated"
            )
        return rgb

    def read(self, record: Record) -> bytes:
        """The file of a record's image as it is stored, for callers that pass it on undecoded.

        Encoders see the image as a square of their own size (`vista.data.geometry`), padded or
        cropped; this is neither.

        Raises UnusableImage if the file is missing or cannot be read.
        """
        try:
            with self._stream(record.path) as file:
                return file.read()
        except OSError as error:
            raise self._unreadable(record.path, error) from error

    @contextmanager
    def _decoding(self, relative: str) -> Iterator[Image.Image]:
        """Open an image; any error while it is decoded inside becomes UnusableImage, since Pillow's
        decoders raise errors of many types on damaged files."""
        try:
            # Not by its path: Pillow maps the file then, and reads a turned TIFF as noise.
            with self._stream(relative) as file, Image.open(file) as image:
                yield image
        except UserError:
            raise
        except Exception as error:
            raise self._unreadable(relative, error) from error

    def _stream(self, relative: str) -> BinaryIO:
        member = _MEMBER.fullmatch(relative)
        if member is None:
            return self.locate(relative).open("rb")
        offset, size = int(member["offset"]), int(member["size"])
        with self.locate(member["shard"]).open("rb") as shard:
            if offset + size > os.fstat(shard.fileno()).st_size:
                raise OSError("the shard ends before it")
            shard.seek(offset)
            return io.BytesIO(shard.read(size))

    def _unreadable(self, relative: str, error: Exception) -> UnusableImage:
        if isinstance(error, UnidentifiedImageError):
            reason = "no known image format"  # Pillow's own text names an object of Python
        else:
            reason = reason_of(error)
        return UnusableImage(
            f"{self._shown(relative)} cannot be read as an image ({reason})", UNREADABLE
        )

    def _shown(self, relative: str) -> str:
        return one_line(self.root / relative)
