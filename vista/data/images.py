"""Opens the images of records: files below one root folder, or byte ranges of tar shards there."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

from PIL import Image

from vista.errors import UserError

if TYPE_CHECKING:
    from vista.data.records import Record

# A member of a shard: "train-000.tar#offset:size", both bytes. Never a name from within the tar.
_MEMBER = re.compile(r"(?P<shard>.+\.tar)#(?P<offset>[0-9]{1,18}):(?P<size>[0-9]{1,18})")
# What Pillow raises over files that are no images, or broken ones.
_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


MISSING: Final = "image missing"
UNREADABLE: Final = "image unreadable"


class UnusableImage(UserError):
    """One image is missing or unreadable; others may be good."""

    def __init__(self, message: str, reason: Literal["image missing", "image unreadable"]) -> None:
        super().__init__(message)
        self.reason = reason


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

    def locate(self, relative: str) -> Path:
        """The file of a path relative to the root.

        Raises UserError if the path leads out of the root (also by a link), and UnusableImage if
        it leads to no file.
        """
        path = self.root / relative
        # Not Path's own methods: they raise for links in a circle and for names that are too long.
        try:
            real = Path(os.path.realpath(path))
        except ValueError as error:  # a NUL in it
            raise self._unreadable(relative, error) from error
        if not real.is_relative_to(self._real_root):
            raise UserError(f"image path {relative!r} leads out of {self.root}: it is refused")
        if not os.path.isfile(path):
            raise UnusableImage(f"{path} is missing", MISSING)
        return path

    def size(self, relative: str) -> tuple[int, int]:
        """Width and height in px from the image's header; UnusableImage if it has none."""
        try:
            with Image.open(self._bytes(relative)) as image:
                return image.size
        except _ERRORS as error:
            raise self._unreadable(relative, error) from error

    def open(self, record: Record) -> Image.Image:
        """The image of a record in RGB, its pixels as stored: boxes refer to those.

        Raises UnusableImage if the file is missing, is not an image or is cut off, and UserError
        if it is not of the size that the record says (its boxes would then lie elsewhere).
        """
        try:
            with Image.open(self._bytes(record.path)) as image:
                image.load()
                rgb = image.convert("RGB")
        except _ERRORS as error:
            raise self._unreadable(record.path, error) from error
        if rgb.size != (record.width, record.height):
            raise UserError(
                f"{self.root / record.path} is {rgb.width}x{rgb.height}, its annotations are for "
                f"{record.width}x{record.height}: use the images that were annotated"
            )
        return rgb

    def read(self, record: Record) -> bytes:
        """The file of a record's image as it is stored, for who shows it whole and undecoded.

        Encoders see the image as a square of their own size (`vista.data.geometry`), padded or
        cropped; this is neither.

        Raises UnusableImage if the file is missing or cannot be read.
        """
        source = self._bytes(record.path)
        try:
            return source.read_bytes() if isinstance(source, Path) else source.read()
        except OSError as error:
            raise self._unreadable(record.path, error) from error

    def _bytes(self, relative: str) -> Path | BinaryIO:
        member = _MEMBER.fullmatch(relative)
        if member is None:
            return self.locate(relative)
        offset, size = int(member["offset"]), int(member["size"])
        with self.locate(member["shard"]).open("rb") as shard:
            if offset + size > os.fstat(shard.fileno()).st_size:
                raise OSError("the shard ends before it")
            shard.seek(offset)
            return io.BytesIO(shard.read(size))

    def _unreadable(self, relative: str, error: Exception) -> UnusableImage:
        why = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        return UnusableImage(
            f"{self.root / relative} cannot be read as an image ({why})", UNREADABLE
        )
