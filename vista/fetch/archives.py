"""Archives from elsewhere: only plain files and folders, and only below the folder given."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any, Literal

from vista.errors import UserError, reason_of
from vista.fetch.download import inside
from vista.progress import progress

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# Name, bytes when unpacked, content.
_Members = Generator[tuple[str, int, IO[bytes]], None, None]
# What the readers raise on broken bytes.
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, LZMAError, EOFError),
    # Numbers and names in headers; NotImplementedError: a version of the format that is none.
    *(struct.error, ValueError, OverflowError, NotImplementedError),
)
_REMEDY = "correct its `url`, or set `unpack: false`"
_ZIPS = (".zip", ".whl")
# Debian's packages are archives of `ar`: this line, and before each member a header of 60 bytes.
_AR, _AR_HEADER, _AR_END = b"!<arch>\n", 60, b"`\n"
_STREAMS: Mapping[str, Literal["r|", "r|gz", "r|xz", "r|bz2"]] = {
    "data.tar": "r|",
    "data.tar.gz": "r|gz",
    "data.tar.xz": "r|xz",
    "data.tar.bz2": "r|bz2",
}


def unpack(
    archive: Path,
    folder: Path,
    keep: Callable[[str], bool] | None = None,
    remedy: str = _REMEDY,
) -> int:
    """Unpack an archive below `folder` and return the number of the files written.

    Permissions and owners are not taken over. A .deb is unpacked as Debian's tools would, but for
    links, which are left out.

    Args:
        archive: A .zip, a wheel, a .tar, compressed or not, or a .deb.
        folder: Where the files go.
        keep: Says by its path in the archive whether a file is written; None: all are.
        remedy: What a user can do about a damaged archive, as the end of a sentence.

    Raises UserError where the archive is damaged, encrypted, or has a member that leads out of the
    folder or is a link or a device.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with _reading(archive, remedy), closing(_members(archive)(archive)) as contents:
        for name, size, content in progress(
            contents, desc=f"unpacking {archive.name}", unit="file"
        ):
            target = inside(folder, name)
            if keep is not None and not keep(target.relative_to(folder).as_posix()):
                continue
            if size > shutil.disk_usage(folder).free:
                raise UserError(
                    f"{archive.name}: {name!r} unpacks to {size / 1e9:.2f} GB, more than the "
                    f"disk of {folder} has free; free some space and run again"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
            count += 1
    return count


@contextmanager
def _reading(archive: Path, remedy: str) -> Iterator[None]:
    """Raise UserError for what readers of archives raise on broken ones."""
    try:
        yield
    except _BROKEN as error:
        raise UserError(
            f"{archive.name} is a damaged archive ({reason_of(error)}); {remedy}"
        ) from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(
            f"{archive.name} puts a file and a folder at the same place ({error.filename}); give "
            "its archive a `folder` of its own"
        ) from error
    except OSError as error:
        # No number: of bz2. EINVAL: an offset in a header leads to before the file's beginning.
        if error.errno not in (None, errno.EINVAL) or error.filename is not None:
            raise
        raise UserError(
            f"{archive.name} is a damaged archive ({reason_of(error)}); {remedy}"
        ) from error


def _members(archive: Path) -> Callable[[Path], _Members]:
    if archive.name.endswith(_ZIPS):
        return _zip
    return _deb if archive.name.endswith(".deb") else _tar


def _zip(archive: Path) -> _Members:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if not member.filename:  # `is_dir` of Python 3.11 looks at its last character
                raise zipfile.BadZipFile("a file in it has no name")
            if member.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise _no_file(archive, member.filename)
            if member.flag_bits & 1:
                raise UserError(f"{archive.name} is encrypted; unpack it yourself")
            try:
                content = file.open(member)
            except NotImplementedError as error:
                raise UserError(
                    f"{archive.name} is packed by a method that Python does not know; unpack it "
                    "yourself"
                ) from error
            yield member.filename, member.file_size, content


def _tar(archive: Path) -> _Members:
    with tarfile.open(archive, "r:*") as file:
        for member in file:
            if member.isdir():
                continue
            content = file.extractfile(member) if member.isreg() else None
            if content is None:
                raise _no_file(archive, member.name)
            yield member.name, member.size, content


def _deb(archive: Path) -> _Members:
    with archive.open("rb") as file:
        name, size = _debian_data(file)
        with _tar_stream(name, _Part(file, size)) as tar:
            for member in tar:
                if member.isdir() or member.issym() or member.islnk():
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise _no_file(archive, member.name)
                yield member.name, member.size, content


def _debian_data(file: IO[bytes]) -> tuple[str, int]:
    """Go to the content of a Debian package; return the name and the size of its archive.

    A header of `ar`: name (16 bytes), time (12), user (6), group (6), mode (8), size (10), end (2).
    """
    length = os.fstat(file.fileno()).st_size
    if file.read(len(_AR)) != _AR:
        raise tarfile.ReadError("it is no Debian package")
    while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
        name, digits = header[:16].decode("latin-1").rstrip(" /"), header[48:58].strip()
        left = length - file.tell()
        if header[58:] != _AR_END or not digits.isdigit() or int(digits) > left:
            raise tarfile.ReadError(f"the header of {name!r} does not fit the file")
        size = int(digits)
        if name.startswith("data.tar"):
            return name, size
        file.seek(size + size % 2, os.SEEK_CUR)
    raise tarfile.ReadError("it has no data.tar")


class _Part(io.RawIOBase):
    """The next `size` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(len(buffer), self._left))
        self._left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


@contextmanager
def _tar_stream(name: str, content: io.RawIOBase) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, compressed as its name says, that can only be read from its start."""
    if name.endswith(".zst"):
        import pyarrow as pa

        try:
            with (
                pa.CompressedInputStream(pa.PythonFile(content, "r"), "zstd") as plain,
                tarfile.open(fileobj=plain, mode="r|") as tar,
            ):
                yield tar
        except (pa.ArrowException, OSError) as error:
            # Arrow's own errors are of bytes; those with a number are of the disk.
            if getattr(error, "errno", None) is not None:
                raise
            raise tarfile.ReadError(reason_of(error)) from error
    elif name in _STREAMS:
        with tarfile.open(fileobj=io.BufferedReader(content), mode=_STREAMS[name]) as tar:
            yield tar
    else:
        raise tarfile.ReadError(f"it holds {name!r}, which is packed in an unknown way")


def _no_file(archive: Path, name: str) -> UserError:
    return UserError(
        f"{archive.name}: {name!r} is a link or a device, which is not unpacked; do it yourself"
    )
