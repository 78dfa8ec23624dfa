"""The live part: one request at a time, those whose browser has gone, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the explorer's packages are not installed")

import anyio
import torch
from explore_run import publish_run

from vista.errors import UserError
from vista.explore import live as live_module
from vista.explore.live import Live, refuse_short_memory
from vista.readout import LatentEdit, LayerLatents

NAME = "dinov2-gemma2-w1-s0-1"


class Model(torch.nn.Module):
    def forward(self) -> None:
        return None


class Readout:
    """A readout whose language model takes `passes` passes of 10 ms."""

    def __init__(self, passes: int = 1) -> None:
        self.encoder = SimpleNamespace(grid=(1, 2), size=32, patch=16, pool=None, per_patch=1)
        self.fit, self.passes = "pad", passes
        self.llm = SimpleNamespace(model=Model())
        self.running = self.most = self.done = 0
        self.edits: list[Any] = []

    def visual_tokens(self, images: list[Image.Image]) -> Any:
        return images

    def latents(self, images: list[Image.Image]) -> list[dict[int, LayerLatents]]:
        index = np.array([[3, 1], [1, 0]])
        value = np.array([[2.0, 0.5], [1.5, 0.0]], np.float32)
        ones = np.ones(2, np.float32)
        return [{4: LayerLatents(index, value, np.array([2, 1]), 0.5 * ones, ones)}]

    def captions(self, image: Any, question: str, edits: Any, max_new_tokens: int) -> list[str]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.edits = list(edits)
        try:
            for _ in range(self.passes):
                time.sleep(0.01)
                self.llm.model()
            self.done += 1
        finally:
            self.running -= 1
        return [f"caption {n} of {image.size}" for n, _ in enumerate(edits)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return publish_run(tmp_path)


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(out, "PNG")
    return out.getvalue()


class Client:
    """Sends one request to the application, and may go away."""

    def __init__(self, app: Live) -> None:
        self.app = app

    async def post(
        self,
        path: str,
        body: bytes,
        query: str = "",
        leave_after: float | None = None,
        method: str = "POST",
    ) -> tuple[int, dict[str, Any]] | None:
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [],
        }
        sent: list[Any] = []
        first = [True]

        async def receive() -> dict[str, Any]:
            if first.pop() if first else False:
                return {"type": "http.request", "body": body}
            await anyio.sleep(60 if leave_after is None else leave_after)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return None
        content = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], json.loads(content)


def ask(app: Live, path: str, body: bytes, query: str = "") -> tuple[int, dict[str, Any]]:
    answer = anyio.run(Client(app).post, path, body, query)
    assert answer is not None
    return answer


def order(**fields: Any) -> bytes:
    return json.dumps({"latents": NAME, "image": "cat 1", **fields}).encode()


def live(results: Path, readout: Readout) -> Live:
    load: Callable[[Path], Any] = lambda folder: readout  # noqa: E731
    return Live(results, load)


def test_latents_of_an_image_that_is_sent(results: Path) -> None:
    status, answer = ask(live(results, Readout()), "/live/latents", png(), f"latents={NAME}")
    assert status == 200
    assert (answer["grid"], answer["width"], answer["height"]) == ([1, 2], 20, 10)
    layer = answer["layers"]["4"]
    # Strongest first, and slots that are not used left out.
    assert layer["tokens"] == [[[3, 2.0], [1, 0.5]], [[1, 1.5]]]
    assert layer["l0"] == [2, 1]
    assert layer["labels"]["3"] is None and "cat" in layer["labels"]["1"]


def test_captions_with_an_edit_and_its_control(results: Path) -> None:
    readout = Readout()
    edit = {"layer": 4, "latent": 1, "change": "subtract", "strength": 3, "patches": [0, 1]}
    status, answer = ask(live(results, readout), "/live/captions", order(edits=[edit]))
    assert status == 200
    assert [answer["unedited"], *answer["edited"], *answer["random"]] == [
        f"caption {n} of (32, 16)" for n in range(3)
    ]
    plain = LatentEdit(4, 1, "subtract", 3, (0, 1))
    assert readout.edits == [None, plain, LatentEdit(**{**vars(plain), "random": True})]
    sent = order(image=None, data=base64.b64encode(png()).decode(), question="what ?")
    assert ask(live(results, readout), "/live/captions", sent)[1]["unedited"].endswith("(20, 10)")


def test_two_at_once_queue(results: Path) -> None:
    readout = Readout(passes=5)
    client = Client(live(results, readout))

    async def both() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(client.post, "/live/captions", order())

    anyio.run(both)
    assert (readout.most, readout.done) == (1, 3)


def test_a_request_whose_browser_has_gone_frees_the_models(results: Path) -> None:
    readout = Readout(passes=5000)
    client = Client(live(results, readout))

    async def leave_then_ask() -> tuple[Any, Any, float]:
        gone = await client.post("/live/captions", order(), leave_after=0.1)
        readout.passes = 1
        start = time.monotonic()
        return gone, await client.post("/live/captions", order()), time.monotonic() - start

    gone, answer, waited = anyio.run(leave_then_ask)
    assert gone is None
    assert answer[0] == 200 and waited < 20
    assert readout.done == 1


def test_a_request_that_leaves_the_queue_never_runs(results: Path) -> None:
    readout = Readout(passes=30)
    client = Client(live(results, readout))

    async def one_waits() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.post, "/live/captions", order())
            await anyio.sleep(0.05)
            group.start_soon(client.post, "/live/captions", order(), "", 0.05)

    anyio.run(one_waits)
    assert readout.done == 1


def test_a_request_knows_how_many_are_before_it(results: Path) -> None:
    readout = Readout(passes=150)
    client = Client(live(results, readout))
    places: list[Any] = []

    async def place(ticket: str) -> Any:
        answer = await client.post(f"/live/queue/{ticket}", b"", method="GET")
        assert answer is not None and answer[0] == 200
        return answer[1]["before"]

    async def line() -> None:
        async with anyio.create_task_group() as group:
            for ticket, leave in (("a", None), ("b", 0.5), ("c", None)):
                group.start_soon(client.post, "/live/captions", order(), f"ticket={ticket}", leave)
                while list(client.app._queue.values())[-1:] != [ticket] or not readout.running:
                    await anyio.sleep(0.01)
            readout.passes = 1
            places.append([await place(ticket) for ticket in "abcd"])
            while await place("b") is not None:
                await anyio.sleep(0.01)
            places.append([await place(ticket) for ticket in "abc"])
        places.append([await place(ticket) for ticket in "abc"])

    anyio.run(line)
    assert places == [[0, 1, 2, None], [0, None, 1], [None] * 3]
    assert readout.done == 2
    answer = anyio.run(partial(client.post, "/live/latents", b"", method="GET"))
    assert answer == (404, {"problem": "no such request"})


EDIT = {"layer": 4, "latent": 1, "strength": 1, "patches": [0]}


@pytest.mark.parametrize(
    ("path", "body", "query", "says"),
    [
        ("/live/latents", b"no image", f"latents={NAME}", "no image that can be read"),
        ("/live/latents", b"", "latents=../../secret", "no such latents"),
        ("/live/latents", b"", "", "no such latents"),
        ("/live/captions", b"{", "", "request: Invalid JSON"),
        ("/live/captions", order(latents="../x"), "", "latents: String should match pattern"),
        ("/live/captions", order(image="none"), "", "has no image none"),
        ("/live/captions", order(image=None), "", "name an image of the run"),
        ("/live/captions", order(image=None, data="*"), "", "data is no base64"),
        ("/live/captions", order(edits=[{**EDIT, "patches": []}]), "", "edits.0.patches"),
        ("/live/captions", order(edits=[{**EDIT, "change": "x"}]), "", "edits.0.change"),
        ("/live/captions", order(edits=[EDIT] * 5), "", "edits"),
        ("/live/other", b"", "", "no such request"),
    ],
)
def test_what_is_refused(results: Path, path: str, body: bytes, query: str, says: str) -> None:
    status, answer = ask(live(results, Readout()), path, body, query)
    assert status in (404, 422)
    assert says in answer["problem"]


def test_large_bodies_and_images_are_refused(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LARGEST_BODY", 1000)
    assert ask(live(results, Readout()), "/live/latents", b"x" * 1001)[0] == 413
    monkeypatch.setattr(live_module, "LARGEST_IMAGE", 100)
    app = live(results, Readout())
    assert "more than 100 px" in ask(app, "/live/latents", png(), f"latents={NAME}")[1]["problem"]


def test_short_memory_is_said(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = results / "latents" / NAME
    weights = next((results / "import_sae").iterdir()) / "x.safetensors"
    weights.write_bytes(b"x" * 5000)
    monkeypatch.setattr(live_module, "_free_memory", lambda: 10_000)
    refuse_short_memory(latents)
    monkeypatch.setattr(live_module, "_free_memory", lambda: 4000)
    with pytest.raises(UserError, match="close other programs"):
        refuse_short_memory(latents)


def test_a_set_event_stops_the_next_pass() -> None:
    readout, stop = Readout(), threading.Event()
    with live_module.stopping(readout, stop):  # type: ignore[arg-type]
        readout.llm.model()
        stop.set()
        with pytest.raises(live_module._Gone):
            readout.llm.model()
    readout.llm.model()
