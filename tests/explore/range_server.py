"""A small server of the page and a results folder, as `vista explore` answers: for tests alone.

It keeps what was asked, and can misbehave: send no ranges, miss a file.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vista.config.metric import declared_metrics
from vista.data.records import read_records
from vista.engine.artifacts import MANIFEST, open_artifact
from vista.engine.lineage import parents_of, read_manifest
from vista.inputs.image_files import image_files

PAGE = Path(__file__).parents[2] / "vista" / "explore" / "page"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
# What the real server sends with the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_POINT = re.compile(
    r"(?P<encoder>\w+)-(?P<llm>\w+)-w(?P<weight>[\d.]+)-s(?P<seed>\d+)(?:-(?P<rest>.+))?"
)


def facts_of(name: str) -> dict[str, Any]:
    """Return the point of the sweep that an artifact's name says."""
    found = _POINT.fullmatch(name)
    if found is None:
        return {}
    rest = found["rest"]
    facts = {
        "encoder": found["encoder"],
        "llm": found["llm"],
        "sae_weight": float(found["weight"]),
        "seed": int(found["seed"]),
    }
    return facts if rest is None or rest == "validation" else {**facts, "control": rest}


def live_catalogue(results: Path) -> dict[str, Any]:
    """Return a catalogue of the finished artifacts of a results folder."""
    artifacts = []
    for path in sorted(results.glob(f"*/*/{MANIFEST}")):
        folder = f"{path.parent.parent.name}/{path.parent.name}"
        name = path.parent.name.rpartition("-")[0]
        parents = parents_of(read_manifest(path.parent) or {})
        stage = path.parent.parent.name
        entry = {"folder": folder, "stage": stage, "name": name, "parents": parents}
        artifacts.append(entry | facts_of(name) | {"metric": stage in declared_metrics()})
    reports = [entry["folder"] for entry in artifacts if entry["stage"] == "report"]
    return {
        "format": "vista catalogue 2",
        "run": results.parent.name,
        "report": reports[-1] if reports else None,
        "artifacts": artifacts,
        "live": False,
        "notes": [],
    }


class Site:
    """What is served, and what was asked.

    Attributes:
        asked: Paths of all requests since the list was last cleared.
        ranges: Whether byte ranges are sent; without them, whole files are.
        gone: Paths that are answered with 404.
    """

    def __init__(self, results: Path, page: Path = PAGE) -> None:
        self.results, self.page = results, page
        self.asked: list[str] = []
        self.ranges = True
        self.gone: set[str] = set()
        self.images = cache(self._images)
        # Arrow's reader of a file is not for several threads at once.
        self._lock = threading.Lock()

    def _images(self, folder: str) -> Any:
        records = open_artifact(self.results / "records" / folder, "records")
        parents = parents_of(records.manifest)

        def parent(role: str) -> Any:
            paths = parents.get(role)
            return open_artifact(self.results / paths[0]) if paths else None

        source = image_files(records, parent("world"), parent("fetched"))
        return read_records(records.file("records.parquet")), source

    def content(self, path: str) -> bytes | None:
        """Return what a path stands for; None: nothing."""
        if path in self.gone:
            return None
        if path == "/catalogue.json":
            return json.dumps(live_catalogue(self.results)).encode()
        if found := re.fullmatch(r"/(images|thumbs)/([^/]+)/(\d+)\.png", path):
            return self._picture(*found.groups())
        file = (
            self.results / path.removeprefix("/results/")
            if path.startswith("/results/")
            else self.page / (path.lstrip("/") or "index.html")
        )
        return file.read_bytes() if file.is_file() and ".." not in path else None

    def _picture(self, kind: str, folder: str, row: str) -> bytes | None:
        with self._lock:
            table, source = self.images(folder)
            image = source.open(table[int(row)]).convert("RGB")
        if kind == "thumbs":
            image.thumbnail((96, 96))
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()


class ExportedSite(Site):
    """A folder that `vista explore --export` wrote, as any web host serves it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "results", folder)

    def content(self, path: str) -> bytes | None:
        file = self.page / (path.lstrip("/") or "index.html")
        return file.read_bytes() if file.is_file() and ".." not in path else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.site.asked.append(path)
        content = self.site.content(path)
        if content is None:
            self._send(404, b"not there", {})
            return
        headers = {
            "Content-Type": TYPES.get(Path(path).suffix or ".html", "application/octet-stream")
        }
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if wanted is None or not self.site.ranges:
            self._send(200, content, headers)
            return
        size = len(content)
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(int(last) + 1, size) if first and last else size
        if start >= size:
            self._send(416, b"", {"Content-Range": f"bytes */{size}"})
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._send(206, content[start:stop], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: `asked` has it."""


@contextmanager
def serving(site: Site) -> Iterator[str]:
    """Serve a site on the loopback and yield its address, which ends in a slash."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
