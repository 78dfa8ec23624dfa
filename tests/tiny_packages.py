"""Small packages of registries, and clients that fetch them from a folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import shlex
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

METADATA = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nLicense: MIT\n"
COPYRIGHT = "Format: 1.0\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: x\nLicense: CC0\n"
_COMPRESS = {"": bytes, "gz": gzip.compress, "xz": lzma.compress}


def wheel(files: Mapping[str, bytes], name: str = "tiny", version: str = "1.0") -> bytes:
    """The bytes of a wheel that pip accepts, with a licence."""
    info = f"{name}-{version}.dist-info"
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    metadata = METADATA.replace("tiny", name).replace("1.0\nLic", f"{version}\nLic")
    members = {
        **files,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": tag.encode(),
        f"{info}/licenses/LICENSE": b"Permission is granted\n",
        f"{info}/RECORD": b"",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in members.items():
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def deb(
    files: Mapping[str, bytes | tarfile.TarInfo], name: str = "tiny", packed: str = "xz"
) -> bytes:
    """The bytes of a Debian package, its data compressed by `packed`, with a licence."""
    doc = {f"usr/share/doc/{name}/copyright": COPYRIGHT.encode()}
    data, suffix = _tar({**files, **doc}), f".{packed}" if packed else ""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(_tar({"control": b"Package: tiny\n"}), mtime=0),
        f"data.tar{suffix}": pa.compress(data, "zstd", asbytes=True)
        if packed == "zst"
        else _COMPRESS[packed](data),
    }
    out = b"!<arch>\n"
    for member, content in members.items():
        header = f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        out += header.encode() + content + b"\n" * (len(content) % 2)
    return out


def _tar(files: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as archive:
        for name, content in files.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo()
            member.name = f"./{name}"
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                archive.addfile(member)
    return out.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fake_client(path: Path, files: Mapping[str, Path], error: str = "", status: int = 1) -> Path:
    """Write a program that is called as `apt-get download NAME=VERSION`, or pip alike; return its
    Python file.

    It copies the file of `files` that its last argument names into the folder where it runs; where
    there is none, it prints `error` and ends with `status`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {request: str(file) for request, file in files.items()}
    program = path.with_suffix(".py")
    # A shell starts it, since the first line of a script cannot hold a path with a space.
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "{program}" "$@"\n')
    program.write_text(
        "import shutil, sys\n"
        f"files = {table!r}\n"
        "assert 'download' in sys.argv\n"
        "if sys.argv[-1] not in files:\n"
        f"    print({error!r}, file=sys.stderr)\n"
        f"    sys.exit({status})\n"
        "shutil.copy(files[sys.argv[-1]], '.')\n"
    )
    path.chmod(0o755)
    return program
