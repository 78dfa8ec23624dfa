"""Archives from elsewhere: only plain files and folders, and only below the folder given."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path
from typing import IO

from vista.errors import UserError
from vista.fetch.download import inside
from vista.progress import progress

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# Name, bytes when unpacked, content.
_Members = Generator[tuple[str, int, IO[bytes]], None, None]
# What the readers raise on broken bytes.
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, LZMAError, EOFError)


def unpack(archive: Path, folder: Path) -> int:
    """Unpack an archive below `folder` and return the number of its files.

    Permissions and owners are not taken over. Raises UserError where the archive is damaged,
    encrypted, or has a member that leads out of the folder or is a link or a device.
    """
    folder.mkdir(parents=True, exist_ok=True)
    members = _zip if archive.name.endswith(".zip") else _tar
    count = 0
    try:
        with closing(members(archive)) as contents:
            for name, size, content in progress(
                contents, desc=f"unpacking {archive.name}", unit="file"
            ):
                target = inside(folder, name)
                if size > shutil.disk_usage(folder).free:
                    raise UserError(
                        f"{archive.name}: {name!r} unpacks to {size / 1e9:.2f} GB, more than the "
                        f"disk of {folder} has free; free some space and run again"
                    )
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)
                count += 1
    except _BROKEN as error:
        raise UserError(
            f"{archive.name} is a damaged archive ({error}); correct its `url`, or set "
            "`unpack: false`"
        ) from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(
            f"{archive.name} puts a file and a folder at the same place ({error.filename}); give "
            "its archive a `folder` of its own"
        ) from error
    return count


def _zip(archive: Path) -> _Members:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
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


def _no_file(archive: Path, name: str) -> UserError:
    return UserError(
        f"{archive.name}: {name!r} is a link or a device, which is not unpacked; do it yourself"
    )
