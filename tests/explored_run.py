"""A small run to explore, with secrets around it; its server on a real socket; a client that sends
addresses as they are."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.published import publish
from vista.data.record import Record
from vista.data.records import write_records
from vista.explore.finished import Finished
from vista.explore.guard import Guard
from vista.explore.serve import uvicorn_server
from vista.explore.server import guarded_app, listen
from vista.sae.label_table import LatentLabels, write_labels
from vista.store.latents import LatentWriter

IDS = ("cat 1", "dog 2", "3")
NAME = "dinov2-gemma2-w1-s0"
LATENTS = f"latents/{NAME}-0123456789"
RECORDS = "records/glyphs-0123456789"
SECRET = b"nobody-may-read-this-7f3a9c"
# A photograph is large enough to become JPEG.
SIZES = ((32, 16), (400, 300), (5, 300))


def image(row: int) -> Image.Image:
    """The image of a row: its own colour, with all that a file may tell about its owner."""
    pixels = np.random.default_rng(row).integers(0, 255, (*SIZES[row][::-1], 3), np.uint8)
    return Image.fromarray(pixels)


def write_store(work: Path) -> None:
    index = np.array([[[1, 2], [2, 0]], [[3, 0], [0, 0]], [[1, 0], [1, 0]]], np.uint16)
    value = np.array([[[2, 0.5], [1.5, 0]], [[1, 0], [0, 0]], [[3, 0], [4, 0]]], np.float16)
    nnz = np.array([[2, 1], [1, 0], [1, 1]], np.uint16)
    writer = LatentWriter(work / "latents.zarr", list(IDS), (1, 2), {4: 5}, {"image": 2}, k=2)
    writer.set_valid("image", 0, np.ones((3, 2), bool))
    ones = np.ones((3, 2), np.float32)
    writer.write("image", 0, 4, index, value, nnz, ones, ones)
    writer.finish(4, "image", np.full(4, 1.0))
    writer.close()


def write_label_table(work: Path) -> None:
    names = ("grass", "<img src=x onerror=alert(1)>", "dog", None, "the")
    ones = np.ones(5, np.float32)
    table = LatentLabels(4, "s", 10, names, ones, ones, ((),) * 5)
    write_labels(work / "labels.parquet", table)


def run_to_explore(folder: Path) -> Path:
    """Make a run in folder/results and secrets around it; return the results."""
    root, images = folder / "results", folder / "images"
    images.mkdir(parents=True)
    records = [
        Record(name, "test", f"{row}.{'jpg' if row == 1 else 'png'}", *SIZES[row], (f"a {name}",))
        for row, name in enumerate(IDS)
    ]
    for row, record in enumerate(records):
        exif = Image.Exif()
        exif[0x9286] = exif[0x010E] = SECRET.decode()
        told = {"exif": exif, "comment": SECRET, "icc_profile": SECRET}
        image(row).save(images / record.path, quality=90, **told)
    of_data = {"kind": "folder", "images": str(images), "fetch": []}

    def write_table(work: Path) -> None:
        write_records(work / "records.parquet", records)

    table = publish(root, RECORDS, write_table, of_data)
    geometry = json.dumps({"size": 32, "patch": 16, "fit": "pad", "note": "x" * 600})
    features = publish(
        root,
        "features/dinov2-0123456789",
        lambda work: (work / "geometry.json").write_text(geometry),
        {"encoder": {"tokens": "patches"}},
        records=table,
    )
    sae = publish(
        root,
        "import_sae/gemma2-l4-0123456789",
        lambda work: (work / "sae.safetensors").write_bytes(bytes(range(256)) * 4000),
        {"layer": 4, "name": "gemma2-l4"},
    )
    publish(root, "label_latents/gemma2-l4-0123456789", write_label_table, sae=sae)
    publish(root, LATENTS, write_store, records=table, features=features, saes=[sae])
    publish(
        root,
        f"matching_rate/{NAME}-0123456789",
        lambda work: (work / "items.parquet").write_bytes(b"PAR1"),
    )
    plant_secrets(folder, root)
    return root


def plant_secrets(folder: Path, root: Path) -> None:
    for path in (
        folder / "secret.txt",
        root / "secret.txt",
        root / ".secret",
        root / "logs" / "latents" / f"{NAME}.log",
        root / "benchmarks" / "latents" / "b.txt",
        root / "judgements" / "judge.jsonl",
        root / ".work" / "latents" / NAME / "half.txt",
        root / LATENTS / "unlisted.txt",
        root / LATENTS / ".hidden",
        root / "latents" / "unfinished-0123456789" / "content.txt",
        folder / "images" / "notes.txt",
        folder / "images" / ".hidden.png",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SECRET)
    (root / LATENTS / "link.txt").symlink_to(folder / "secret.txt")
    (root / LATENTS / "up").symlink_to(folder)
    (root / "latents" / "linked-0123456789").symlink_to(root / LATENTS)
    (root / "linked").symlink_to(folder)


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Client:
    """Sends one request a connection, its path as it is, with the server's Host."""

    def __init__(self, guard: Guard) -> None:
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]+)", guard.address)
        assert match is not None
        self.guard, self.port, self.token = guard, int(match[1]), match[2]
        self.cookie: str | None = None

    def enter(self) -> Client:
        """Take the cookie as a browser does."""
        answer = self.ask(f"/?token={self.token}")
        assert answer.status == 303
        self.cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
        return self

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """`headers` are named with "_" for "-"; one that is empty is not sent."""
        sent = {"Host": f"127.0.0.1:{self.port}"}
        if self.cookie is not None:
            sent["Cookie"] = self.cookie
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value:
                    connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


@contextlib.contextmanager
def explored(results: Path) -> Iterator[Client]:
    """Serve results on a free port of the loopback; yield a client without the cookie."""
    with listen(0) as listening:
        guard = guarded_app(Finished(results), listening.getsockname()[1])
        server = uvicorn_server(guard)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            until = time.monotonic() + 20
            while not server.started:
                assert thread.is_alive() and time.monotonic() < until, "no server"
                time.sleep(0.01)
            yield Client(guard)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
