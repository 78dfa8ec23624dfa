"""The explorer's server: the page, the catalogue, byte ranges of artifacts' files, images."""

from __future__ import annotations

import gzip
import hashlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from typing import TYPE_CHECKING, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from vista.explore.finished import Finished, NotServed, Opened
from vista.explore.guard import LIVE, NAMES, Guard
from vista.explore.page_files import INDEX, catalogue_bytes, page_files
from vista.explore.ranges import Unsatisfiable, span_of
from vista.report.catalogue import CATALOGUE

if TYPE_CHECKING:
    from vista.explore.decoders import Decoders
    from vista.explore.live import Live
    from vista.explore.thumbnails import Pictures

KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "md": "text/plain; charset=utf-8",
    "csv": "text/plain; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
}
_BYTES = "application/octet-stream"
_ROW = re.compile(r"([0-9]{1,9})\.png", re.ASCII)
_LATENT = re.compile(r"[0-9]{1,9}", re.ASCII)
_PIECE = 256 * 1024  # bytes read at a time
_SMALLEST_GZIP, _LARGEST_GZIP = 500, 16_000_000  # bytes of JSON
# It is asked again whether the file is the same: an artifact that is made anew keeps its folder.
_ASK_AGAIN = "private, no-cache"
_FOR_EVER = "private, max-age=31536000, immutable"
_FOR_A_WHILE = "private, max-age=600"


def guarded_app(finished: Finished, port: int) -> Guard:
    """Return the server's application at a port, which answers to its own page alone."""
    return Guard(_application(finished), port)


def listen(port: int) -> socket.socket:
    """Return a socket on the loopback; port 0 is a free one.

    Raises:
        OSError: The port is in use, or not for this user.
    """
    # Only of a socket that names its protocol does asyncio send small parts of an answer at once;
    # otherwise the body may wait for the headers' receipt, 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port that a server has just left is free.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((NAMES[0], port))
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    return listening


class _Rest(NamedTuple):
    """What answers when the page is there."""

    pictures: Pictures
    decoders: Decoders
    live: Live


def _rest(finished: Finished) -> _Rest:
    from vista.explore.decoders import Decoders
    from vista.explore.live import Live
    from vista.explore.thumbnails import Pictures

    return _Rest(Pictures(finished), Decoders(finished), Live(finished.results))


def _application(finished: Finished) -> ASGIApp:
    # Its imports take half a second, in which the browser loads the page.
    pool = ThreadPoolExecutor(1)
    rest = pool.submit(_rest, finished)
    pool.shutdown(wait=False)
    answers = _Answers(finished, rest)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(LIVE):
            made = await run_in_threadpool(rest.result)
            await made.live(scope, receive, send)
            return
        response = await run_in_threadpool(answers.answer, Request(scope))
        await response(scope, receive, send)

    return application


class _Answers:
    """Answers to requests that may be asked."""

    def __init__(self, finished: Finished, rest: Future[_Rest]) -> None:
        self._finished, self._rest = finished, rest
        self._page = page_files()

    def answer(self, request: Request) -> Response:
        try:
            return self._find(request, request.scope["path"])
        except NotServed as error:
            return PlainTextResponse(f"{error}\n", 404, {"Cache-Control": "no-store"})

    def _find(self, request: Request, path: str) -> Response:
        match path.split("/"):
            case ["", name] if (name or INDEX) in self._page:
                name = name or INDEX
                return _content(request, self._page[name], _kind(name), _ASK_AGAIN)
            case ["", name] if name == CATALOGUE:
                content = catalogue_bytes(self._finished.catalogue(live=True))
                return _content(request, content, KINDS["json"], _ASK_AGAIN)
            case ["", "results", stage, folder, *names] if names:
                opened = self._finished.open(f"{stage}/{folder}", "/".join(names))
                return _file(request, opened, names[-1])
            case ["", ("images" | "thumbs") as size, folder, file] if match := _ROW.fullmatch(file):
                thumb = size == "thumbs"
                pictures = self._rest.result().pictures
                picture = pictures.picture(folder, int(match[1]), thumb=thumb)
                return _content(request, picture.content, picture.kind, _FOR_A_WHILE)
            case ["", "neighbours", stage, folder, latent] if _LATENT.fullmatch(latent):
                content = self._rest.result().decoders.answer(f"{stage}/{folder}", int(latent))
                return _content(request, content, KINDS["json"], _FOR_A_WHILE)
        raise NotServed("no such file")


def _kind(name: str) -> str:
    return KINDS.get(name.rpartition(".")[2], _BYTES)


def _content(request: Request, content: bytes, kind: str, cache: str) -> Response:
    """Return an answer that is in memory."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": cache}
    if _is_known(request, tag):
        return Response(status_code=304, headers=headers)
    if kind == KINDS["json"]:
        content = _packed(request, content, headers)
    return Response(content, 200, headers, kind)


def _file(request: Request, opened: Opened, name: str) -> Response:
    """Return a file of an artifact, or a range of it; closes the file."""
    kind = _kind(name)
    tag = f'"{opened.size:x}-{opened.stamp:x}"'
    headers = {"ETag": tag, "Cache-Control": _ASK_AGAIN, "Accept-Ranges": "bytes"}
    version = request.query_params.get("v")
    if version is not None:
        if version != opened.digest:
            opened.file.close()
            raise NotServed("the artifact was made again; load the page anew")
        headers["Cache-Control"] = _FOR_EVER
    if _is_known(request, tag):
        opened.file.close()
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range")
    if request.headers.get("if-range", tag) != tag:
        asked = None
    if asked is None and kind == KINDS["json"] and opened.size <= _LARGEST_GZIP:
        with opened.file as file:
            content = _packed(request, _read(file, opened.size), headers)
        return Response(content, 200, headers, kind)
    try:
        span = span_of(asked, opened.size)
    except Unsatisfiable:
        opened.file.close()
        headers["Content-Range"] = f"bytes */{opened.size}"
        return PlainTextResponse("The file ends before this range.\n", 416, headers)
    start, stop = span or (0, opened.size)
    headers["Content-Length"] = str(stop - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{opened.size}"
    status = 200 if span is None else 206
    if request.method == "HEAD":
        opened.file.close()
        return Response(None, status, headers, kind)
    return _Slice(opened.file, start, stop, status, headers, kind)


class _Slice(StreamingResponse):
    """Bytes `start` to `stop` - 1 of an open file, which is closed at the end."""

    def __init__(
        self,
        file: FileIO,
        start: int,
        stop: int,
        status: int,
        headers: dict[str, str],
        kind: str,
    ) -> None:
        super().__init__(_pieces(file, start, stop), status, headers, kind)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def _pieces(file: FileIO, start: int, stop: int) -> Iterator[bytes]:
    file.seek(start)
    while start < stop:
        piece = file.read(min(_PIECE, stop - start))
        if not piece:
            return  # cut off meanwhile: the client misses bytes and says so
        start += len(piece)
        yield piece


def _read(file: FileIO, size: int) -> bytes:
    return b"".join(_pieces(file, 0, size))


def _packed(request: Request, content: bytes, headers: dict[str, str]) -> bytes:
    """Return JSON for the body of an answer: gzipped where that is asked for and worth it."""
    headers["Vary"] = "Accept-Encoding"
    accepted = re.split(r"[,\s]+", request.headers.get("accept-encoding", ""))
    if "gzip" not in accepted or not _SMALLEST_GZIP <= len(content) <= _LARGEST_GZIP:
        return content
    headers["Content-Encoding"] = "gzip"
    headers["ETag"] = headers["ETag"][:-1] + '-gzip"'
    return gzip.compress(content, 6, mtime=0)


def _is_known(request: Request, tag: str) -> bool:
    """Return whether the client has this version of a file, packed or not."""
    known = re.split(r"\s*,\s*", request.headers.get("if-none-match", "").strip())
    plain = {text.removeprefix("W/").replace('-gzip"', '"') for text in known}
    return "*" in plain or tag in plain
