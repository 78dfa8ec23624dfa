"""A hub on disk: a loopback server that answers like the places that a run fetches from.

It serves a folder:

- `OWNER/NAME/...`     repositories of the Hugging Face hub, one commit each, made of its content;
- `neuronpedia/v1/...` Neuronpedia's bucket, listed as S3 does it;
- `files/...`          plain files by URL.

    with FakeHub(folder) as hub:
        subprocess.run(command, env={**os.environ, **hub.env})

Large files (LFS) come by a redirect to another host name, as the hub's do. Faults are ordered by
`fail`, `cut` and `stall`; `requests` tells what was asked for and how much was sent.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

LFS = (".safetensors", ".bin", ".npz", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".msgpack")


@dataclass
class Request:
    """One request: what was asked with which token, and how many bytes of the body were sent."""

    method: str
    path: str
    host: str
    token: str | None
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class _Fault:
    part: str
    times: int
    status: int | None = None
    after: int = 0
    stall: bool = False
    wait: int | None = None


@dataclass
class FakeHub:
    """Serves `root` on a port of 127.0.0.1 from entering to leaving the `with` block.

    gated: repositories that need an accepted licence; tokens: known tokens, each with the gated
    repositories that its account has access to; page: keys on one page of the bucket's listing;
    ranges: whether parts of a file are given.
    """

    root: Path
    gated: set[str] = field(default_factory=set)
    tokens: dict[str, set[str]] = field(default_factory=dict)
    page: int = 1000
    ranges: bool = True
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> FakeHub:
        self._faults: list[_Fault] = []
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment that sends a stage here."""
        bucket = f"{self.url}/neuronpedia"
        direct = "127.0.0.1,localhost"
        return {"HF_ENDPOINT": self.url, "VISTA_NEURONPEDIA_URL": bucket, "NO_PROXY": direct}

    def commit(self, repo: str) -> str:
        """The one commit of a repository."""
        whole = hashlib.sha1()
        for path in self.files(repo):
            whole.update(f"{path.relative_to(self.root)} {_hash(path, 'sha256')}\n".encode())
        return whole.hexdigest()

    def files(self, repo: str) -> list[Path]:
        return sorted(path for path in (self.root / repo).rglob("*") if path.is_file())

    def fail(self, part: str, status: int, times: int = 1, wait: int | None = None) -> None:
        """Answer the next requests whose path contains `part` with `status`; ask to wait so many
        seconds."""
        self._faults.append(_Fault(part, times, status=status, wait=wait))

    def cut(self, part: str, after: int, times: int = 1) -> None:
        """Close the connection after so many bytes of the body."""
        self._faults.append(_Fault(part, times, after=after))

    def stall(self, part: str, after: int) -> None:
        """Send so many bytes of the body of the next such request, and then nothing."""
        self._faults.append(_Fault(part, 1, after=after, stall=True))

    def sent(self, part: str) -> int:
        """Bytes of bodies that were sent for paths that contain `part`."""
        return sum(request.sent for request in self.requests if part in request.path)

    def asked(self, part: str) -> int:
        """The number of requests for paths that contain `part`."""
        return sum(part in request.path for request in self.requests)

    def _fault(self, path: str, *, of_status: bool) -> _Fault | None:
        for fault in self._faults:
            if fault.times and fault.part in path and (fault.status is not None) == of_status:
                fault.times -= 1
                return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    hub: FakeHub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, address = self.server.hub, urlsplit(self.path)
        path = unquote(address.path)
        authorization = self.headers.get("Authorization")
        self.request_ = Request(
            self.command,
            path,
            str(self.headers.get("Host", "")).partition(":")[0],
            authorization.removeprefix("Bearer ") if authorization else None,
            self.headers.get("Range"),
        )
        hub.requests.append(self.request_)
        fault = hub._fault(path, of_status=True)
        if fault is not None:
            wait = {"Retry-After": str(fault.wait)} if fault.wait is not None else None
            self._answer(fault.status or 500, b"the server is not well", wait)
            return
        parts = [part for part in path.split("/") if part]
        match parts:
            case ["neuronpedia"]:
                self._list({key: values[0] for key, values in parse_qs(address.query).items()})
            case ["neuronpedia" | "files", *_]:
                self._send(hub.root.joinpath(*parts), "md5")
            case ["cdn", *rest]:
                self._send(hub.root.joinpath(*rest), "sha256")
            case ["api", "models", owner, name, *rest]:
                self._describe(f"{owner}/{name}", rest)
            case [owner, name, "resolve", revision, *rest]:
                self._resolve(f"{owner}/{name}", revision, "/".join(rest))
            case _:
                self._answer(404, b"not found")

    def _allowed(self, repo: str, revision: str) -> bool:
        """Answer as the hub does where repository, revision or token are none."""
        hub, token = self.server.hub, self.request_.token
        if token is not None and token not in hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif not (hub.root / repo).is_dir():
            self._refuse(401 if token is None else 404, "RepoNotFound", "Repository not found")
        elif revision not in ("main", hub.commit(repo)):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return True
        return False

    def _describe(self, repo: str, rest: list[str]) -> None:
        hub = self.server.hub
        kind, revision = (rest[0], rest[1]) if len(rest) > 1 else ("revision", "main")
        if not self._allowed(repo, revision):
            return
        files = [_described(path, hub.root / repo) for path in hub.files(repo)]
        if kind == "tree":
            self._json([{"type": "file", **each} for each in files])
            return
        siblings = [
            {
                "rfilename": each["path"],
                "size": each["size"],
                "blobId": each["oid"],
                **({"lfs": {**each["lfs"], "sha256": each["lfs"]["oid"]}} if "lfs" in each else {}),
            }
            for each in files
        ]
        gated = "manual" if repo in hub.gated else False
        info = {"id": repo, "sha": hub.commit(repo), "private": False, "gated": gated}
        self._json({**info, "siblings": siblings})

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        hub = self.server.hub
        if not self._allowed(repo, revision):
            return
        token = self.request_.token
        if repo in hub.gated and repo not in hub.tokens.get(token or "", set()):
            message = f"Access to model {repo} is restricted."
            self._refuse(401 if token is None else 403, "GatedRepo", message)
            return
        path = hub.root / repo / name
        if not path.is_file():
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        commit = {"X-Repo-Commit": hub.commit(repo)}
        if not path.name.endswith(LFS):
            self._send(path, "git", commit)
            return
        linked = {
            "X-Linked-Etag": f'"{_hash(path, "sha256")}"',
            "X-Linked-Size": str(path.stat().st_size),
            "Location": f"http://localhost:{hub.port}/cdn/{repo}/{quote(name)}",
        }
        self._answer(302, b"", {**commit, **linked})

    def _list(self, query: dict[str, str]) -> None:
        """S3's ListObjectsV2."""
        root, prefix = self.server.hub.root / "neuronpedia", query.get("prefix", "")
        names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        keys = sorted(name for name in names if name.startswith(prefix))
        start = int(query.get("continuation-token", "0"))
        end = start + self.server.hub.page
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key>"
            f"<ETag>&quot;{_hash(root / key, 'md5')}&quot;</ETag>"
            f"<Size>{(root / key).stat().st_size}</Size></Contents>"
            for key in keys[start:end]
        )
        more = end < len(keys)
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
        self._answer(
            200,
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}"
            "</ListBucketResult>".encode(),
            {"Content-Type": "application/xml"},
        )

    def _send(self, path: Path, etag: str, headers: dict[str, str] | None = None) -> None:
        """Send a file, or the part of it that was asked for."""
        if not path.is_file():
            self._answer(404, b"not found")
            return
        content = path.read_bytes()
        version = f'"{_hash(path, etag)}"'
        headers = {**(headers or {}), "ETag": version, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range") if self.server.hub.ranges else None
        if asked is None or self.headers.get("If-Range", version) != version:
            self._answer(200, content, headers)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self._answer(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206, content[start:], headers)

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self._answer(status, body, {"X-Error-Code": code, "X-Error-Message": message})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.request_.status = status
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        hub = self.server.hub
        fault = hub._fault(self.request_.path, of_status=False) if body else None
        for piece in _pieces(body[: fault.after] if fault else body):
            self.wfile.write(piece)
            self.request_.sent += len(piece)
        if fault is not None:
            self.wfile.flush()
            if fault.stall:
                hub._stopping.wait()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[start : start + 65536] for start in range(0, len(body), 65536))


def _described(path: Path, root: Path) -> dict[str, Any]:
    size = path.stat().st_size
    found = {"path": path.relative_to(root).as_posix(), "size": size}
    if not path.name.endswith(LFS):
        return {**found, "oid": _hash(path, "git")}
    sha256 = _hash(path, "sha256")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    oid = hashlib.sha1(f"blob {len(pointer)}\0{pointer}".encode()).hexdigest()
    return {**found, "oid": oid, "lfs": {"oid": sha256, "size": size, "pointerSize": len(pointer)}}


def _hash(path: Path, algorithm: str) -> str:
    return _hashed(path, algorithm, path.stat().st_mtime_ns)


@cache
def _hashed(path: Path, algorithm: str, _: int) -> str:
    content = path.read_bytes()
    if algorithm == "git":
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return hashlib.new(algorithm, content).hexdigest()


def upload(hub: Path, repo: str, folder: Path) -> None:
    """Put a folder on the hub as the repository `repo` ("owner/name")."""
    shutil.copytree(folder, hub / repo, dirs_exist_ok=True)
