"""A file over HTTP: continued after a cut or a kill, checked, and only then given its name.

What has been received lies in `NAME.partial` beside the target, so that a later try, also one of
another process, asks for the rest only. Bytes are taken as the server stores them: a compressed
file is not unpacked on the way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import httpx2

from vista.errors import UserError
from vista.progress import progress

MEGABYTE = 1_000_000
_LONGEST_NAME = 255  # bytes, on the file systems of Linux and macOS
TIMEOUT = 30.0  # seconds without a byte
# Tries in a row that bring nothing; the pauses between them double, in seconds.
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_PASSING = frozenset({408, 425, 429})  # and every 5xx: the server may answer later


class Refused(Exception):
    """The server will not give what was asked for, now or later.

    status: of the HTTP answer; headers: its header fields.
    """

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status
        self.headers = headers


class Busy(Exception):
    """The server cannot answer now. `pause_s`: how long it asks to wait, in seconds."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


# What a try may fail with and the next one may not.
PASSING = (httpx2.RequestError, Busy)
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)


@dataclass(frozen=True)
class Checksum:
    """What a file's bytes must hash to, in hex. `git`: the id that git gives its blob."""

    algorithm: Literal["sha256", "md5", "git"]
    value: str


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: its address, where it goes, and what is known of it (size in bytes)."""

    url: str
    target: Path
    size: int | None = None
    checksum: Checksum | None = None


class Patience:
    """Counts failures in a row of asking one host, and waits longer after each.

    `instead`: what a user can do where the host cannot be reached at all, as the end of a sentence.
    """

    def __init__(self, url: str, instead: str) -> None:
        self._host = httpx2.URL(url).host
        self._instead = instead
        self._failures = 0

    def renew(self) -> None:
        """Start to count again: something was received."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Wait, or raise UserError where there were too many failures."""
        self._failures += 1
        reason = str(error) or type(error).__name__
        if self._failures >= TRIES:
            if isinstance(error, _UNREACHABLE):
                raise UserError(
                    f"{self._host} cannot be reached ({reason}); run this stage on a machine with "
                    f"network access, or {self._instead}"
                ) from error
            raise UserError(
                f"{self._host} gave no usable answer in {TRIES} tries ({reason}); run again later: "
                "what was received is kept"
            ) from error
        pause = min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)
        pause = min(max(pause, getattr(error, "pause_s", 0.0)), LONGEST_PAUSE)
        print(f"{self._host}: {reason}; trying again in {pause:.0f} s", file=sys.stderr, flush=True)
        time.sleep(pause)


def client() -> httpx2.Client:
    """Return an HTTP client. It sends credentials to the host they are meant for, not to one that
    this host redirects to, and follows no redirect from https to http."""
    hooks = {"response": [_refuse_plain_http]}
    return httpx2.Client(follow_redirects=True, timeout=TIMEOUT, event_hooks=hooks)


def get(client: httpx2.Client, url: str, params: Mapping[str, str], instead: str) -> bytes:
    """Return a short document.

    Raises UserError where the host cannot be reached, Refused where it refuses.
    """
    patience = Patience(url, instead)
    while True:
        try:
            response = client.get(url, params=params)
            _require_success(response)
            return response.content
        except PASSING as error:
            patience.failed(error)


def fetch_files(
    client: httpx2.Client,
    files: Sequence[RemoteFile],
    what: str,
    instead: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Fetch `files`, those that are there already excepted, and show how far it is.

    `headers` go to the files' own host only. Raises UserError where a host cannot be reached, the
    disk is full or a file differs from its checksum; Refused where a server refuses.
    """
    missing = [file for file in files if not _is_complete(file.target, file)]
    if not missing:
        return
    sizes = [file.size for file in missing if file.size is not None]
    total = None
    if len(sizes) == len(missing):
        received = sum(_size(_partial(file.target)) for file in missing)
        require_space(files[0].target, sum(sizes) - received)
        total = -(-(sum(sizes) - received) // MEGABYTE)

    def pieces() -> Iterator[None]:
        count = 0
        for file in missing:
            for length in _download(client, file, instead, headers or {}):
                count += length
                while count >= MEGABYTE:
                    count -= MEGABYTE
                    yield
        if count:
            yield

    for _ in progress(pieces(), total=total, desc=what, unit="megabyte"):
        pass


def digest(path: Path, algorithm: str) -> str:
    """Return the hash of a file in hex."""
    with path.open("rb") as file:
        if algorithm == "git":
            whole = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
            return hashlib.file_digest(file, lambda: whole).hexdigest()
        return hashlib.file_digest(file, algorithm).hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Return the place of `name`, which a stranger gave, below `folder`.

    Raises UserError where the name leads out of the folder, or is longer than any file's.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or {"\\", "\0"} & set(name):
        raise UserError(f"the file name {name!r} leads out of its folder; do not use this source")
    if max(len(part.encode("utf-8", "replace")) for part in path.parts) > _LONGEST_NAME:
        raise UserError(f"the file name {name[:40]!r}... is too long; do not use this source")
    return folder / path


def _download(
    client: httpx2.Client, file: RemoteFile, instead: str, headers: Mapping[str, str]
) -> Iterator[int]:
    """Fetch one file; yield the length of each piece that arrives."""
    partial = _partial(file.target)
    partial.parent.mkdir(parents=True, exist_ok=True)
    # A second time from the beginning where the first result is wrong: what an earlier process
    # left behind may belong to other bytes.
    for last in (False, True):
        patience, best = Patience(file.url, instead), _size(partial)
        while file.size is None or _size(partial) != file.size:
            try:
                yield from _receive(client, file, headers)
                break
            except PASSING as error:
                # A server that can't go on from the middle begins anew: that alone is no progress.
                if _size(partial) > best:
                    best = _size(partial)
                    patience.renew()
                patience.failed(error)
        if _is_complete(partial, file):
            break
        got = _size(partial)
        partial.unlink()
        if last:
            raise UserError(
                f"{_shown(file.url)} differs from its checksum ({_expected(file)}; {got} bytes "
                "received): the source has changed or the connection is tampered with; correct the "
                "checksum or revision if the change is known"
            )
        print(f"{file.target.name}: wrong checksum, fetching it anew", file=sys.stderr, flush=True)
    os.replace(partial, file.target)
    _validator(file.target).unlink(missing_ok=True)


def _receive(client: httpx2.Client, file: RemoteFile, headers: Mapping[str, str]) -> Iterator[int]:
    """Ask once for what is missing and append it to the partial file."""
    partial, validator = _partial(file.target), _validator(file.target)
    there = _size(partial)
    request = {**headers, "Accept-Encoding": "identity"}
    if there and (file.checksum is not None or validator.is_file()):
        request["Range"] = f"bytes={there}-"
        # Without a checksum only the server can tell that both halves are of the same file.
        if file.checksum is None:
            request["If-Range"] = validator.read_text(encoding="utf-8")
    with client.stream("GET", file.url, headers=request) as response:
        if response.status_code == 416:
            if response.headers.get("content-range", "") == f"bytes */{there}":
                return
            partial.unlink()
            raise Busy("what was received before is of another file")
        _require_success(response)
        more = response.status_code == 206
        if more and not response.headers.get("content-range", "").startswith(f"bytes {there}-"):
            partial.unlink()
            raise Busy("the answer is another part of the file than was asked for")
        length = response.headers.get("content-length", "")
        if length.isdigit():
            require_space(partial, int(length))
        if not more and file.checksum is None:
            _remember(validator, response)
        with partial.open("ab" if more else "wb") as out:
            for piece in response.iter_raw():
                out.write(piece)
                yield len(piece)
            out.flush()
            os.fsync(out.fileno())


def _refuse_plain_http(response: httpx2.Response) -> None:
    if not response.has_redirect_location or response.url.scheme != "https":
        return
    target = response.url.join(response.headers["location"])
    if target.scheme != "https":
        raise UserError(
            f"{response.url.host} redirects to {target.scheme}://{target.host}, which is not "
            "encrypted; do not use this source"
        )


def _require_success(response: httpx2.Response) -> None:
    status = response.status_code
    if status in _PASSING or status >= 500:
        wait = response.headers.get("retry-after", "")
        raise Busy(f"HTTP status {status}", float(wait) if wait.isdigit() else 0.0)
    if status not in (200, 206):
        raise Refused(status, response.headers)


def _remember(validator: Path, response: httpx2.Response) -> None:
    """Keep the server's name for this version of the file; a weak one does not vouch for bytes."""
    version = response.headers.get("etag", "")
    if not version or version.startswith("W/"):
        version = response.headers.get("last-modified", "")
    if version:
        validator.write_text(version, encoding="utf-8")
    else:
        validator.unlink(missing_ok=True)


def require_space(target: Path, needed: int) -> None:
    """Raise UserError where the disk of `target` has fewer bytes free than are needed."""
    folder = next(parent for parent in target.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the disk of {folder} is full: {needed / 1e9:.2f} GB are still to be fetched, "
            f"{free / 1e9:.2f} GB are free; free some space and run again"
        )


def _is_complete(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or (file.size is not None and _size(path) != file.size):
        return False
    return file.checksum is None or digest(path, file.checksum.algorithm) == file.checksum.value


def _expected(file: RemoteFile) -> str:
    size = "" if file.size is None else f", {file.size} bytes"
    return f"{file.checksum.algorithm} {file.checksum.value}{size}" if file.checksum else size[2:]


def _shown(url: str) -> str:
    """An address without what may be secret in it."""
    parts = httpx2.URL(url)
    return f"{parts.scheme}://{parts.netloc.decode()}{parts.path}"


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _validator(target: Path) -> Path:
    return target.with_name(f"{target.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
