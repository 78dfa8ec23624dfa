"""What the explorer computes on request: latents of an image that is not in the run, and captions
with and without an edit.

One request at a time has the models; others wait in their order. A request whose browser has gone
leaves the queue, or stops before the next pass of the language model.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio.abc import TaskGroup
from PIL import Image
from pydantic import Field, ValidationError
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from vista.config.base import Settings
from vista.errors import UserError
from vista.explore.guard import LIVE
from vista.explore.latents import LatentView
from vista.readout import LatentEdit, LayerLatents, Readout

LARGEST_BODY = 20_000_000  # bytes
LARGEST_IMAGE = 50_000_000  # px
_TOP = 24  # latents of a token that are sent
_MOST_EDITS = 4
_QUEUE = f"{LIVE}queue/"
_FOLDER = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,240}"

# What is done with the models of one request; the event says that nobody waits for it any more.
_Job = Callable[[threading.Event], dict[str, Any]]


class _Gone(Exception):
    """Nobody waits for the answer."""


class EditRequest(Settings):
    """An edit that is asked for; see `vista.readout.LatentEdit`."""

    layer: int
    latent: int
    change: Literal["add", "subtract", "ablate", "clamp"] = "add"
    strength: float = Field(allow_inf_nan=False)
    patches: tuple[int, ...] = Field(min_length=1, max_length=100_000)
    blocks: tuple[int, ...] = Field((), max_length=1000)


class CaptionRequest(Settings):
    """Captions that are asked for: of an image of the run, unedited and under each edit.

    Attributes:
        latents: Folder of the latents whose models caption.
        image: Id of the image; None: `data` holds one.
        question: What is asked; None: the question of the image's record.
        edits: At most 4.
        max_new_tokens: Length of an answer.
    """

    latents: str = Field(pattern=rf"^{_FOLDER}$")
    image: str | None = None
    data: str | None = Field(None, max_length=LARGEST_BODY)
    question: str | None = Field(None, max_length=2000)
    edits: tuple[EditRequest, ...] = Field((), max_length=_MOST_EDITS)
    max_new_tokens: int = Field(32, ge=1, le=200)


class Live:
    """The live part of the server, as an ASGI application for requests below /live/.

    POST /live/latents?latents=FOLDER, an image file as body: the latents of its visual tokens.
    POST /live/captions, JSON of a `CaptionRequest`: the captions, and beside each edit that along a
    random direction, as far at each token.
    GET /live/queue/TICKET: `before`, how many requests are answered before the one that was posted
    with ?ticket=TICKET; null where none is waiting or being answered.

    Args:
        results: The results folder.
        load: Loads the models behind an artifact of latents.
    """

    def __init__(self, results: Path, load: Callable[[Path], Readout] = Readout.of_latents) -> None:
        self._results, self._load = results, load
        self._turn: anyio.Lock | None = None
        # The tickets of requests, in the order in which they get the models.
        self._queue: dict[threading.Event, str] = {}
        self._models: tuple[Path, Readout, LatentView] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, query = scope["path"], QueryParams(scope["query_string"])
        if scope["method"] != "POST":
            await self._place(path)(scope, receive, send)
            return
        body = await _body(receive)
        job: _Job | None = None
        if body is None:
            response: Response = _problem(f"more than {LARGEST_BODY} bytes", 413)
        elif path == f"{LIVE}latents":
            content = body
            job = lambda stop: self.latents(query.get("latents", ""), content, stop)  # noqa: E731
        elif path == f"{LIVE}captions":
            try:
                request = CaptionRequest.model_validate_json(body)
                job = lambda stop: self.captions(request, stop)  # noqa: E731
            except ValidationError as error:
                response = _problem(_first(error), 422)
        else:
            response = _problem("no such request", 404)
        if job is not None:
            answer = await self._in_turn(job, receive, query.get("ticket", ""))
            if answer is None:
                return  # nobody is there to read it
            response = answer
        await response(scope, receive, send)

    def _place(self, path: str) -> Response:
        """Return the answer of a request's place in the queue."""
        if not path.startswith(_QUEUE):
            return _problem("no such request", 404)
        tickets, ticket = list(self._queue.values()), path.removeprefix(_QUEUE)
        before = tickets.index(ticket) if ticket in tickets else None
        return JSONResponse({"before": before}, headers={"Cache-Control": "no-store"})

    async def _in_turn(self, job: _Job, receive: Receive, ticket: str) -> Response | None:
        """Return the answer of a job once it is its turn; None if the browser has gone."""
        if self._turn is None:
            self._turn = anyio.Lock()
        stop = threading.Event()
        answer: Response | None = None
        self._queue[stop] = ticket
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_watch, receive, stop, group)
                async with self._turn:
                    answer = await anyio.to_thread.run_sync(_answer, job, stop)
                group.cancel_scope.cancel()
        finally:
            del self._queue[stop]
        return None if stop.is_set() else answer

    def latents(self, folder: str, content: bytes, stop: threading.Event) -> dict[str, Any]:
        """Return the latents of an image file by layer and visual token, strongest first."""
        readout, view = self._of(folder)
        image = _image(content)
        with stopping(readout, stop):
            (layers,) = readout.latents(readout.visual_tokens([image]))
        encoder = readout.encoder
        placing = {"size": encoder.size, "patch": encoder.patch, "fit": readout.fit}
        placing["per_patch"] = encoder.per_patch
        return {
            "grid": list(encoder.grid),
            "geometry": placing | ({} if encoder.pool is None else {"pool": encoder.pool}),
            "width": image.width,
            "height": image.height,
            "layers": {str(layer): _shown(view, layer, found) for layer, found in layers.items()},
        }

    def captions(self, request: CaptionRequest, stop: threading.Event) -> dict[str, Any]:
        """Return the caption of an image without an edit, and with each one and its control."""
        readout, view = self._of(request.latents)
        question = request.question
        if request.image is not None:
            record = view.record(view.place(request.image))
            source = view.images
            assert record is not None  # without records there is no source either
            image = source.open(record)
            if question is None and record.turns:
                question = record.turns[0].question
        elif request.data is not None:
            image = _image(_decoded(request.data))
        else:
            raise UserError("name an image of the run, or send one as data")
        edits: list[LatentEdit | None] = [None]
        for edit in request.edits:
            asked = LatentEdit(**edit.model_dump())
            edits += [asked, replace(asked, random=True)]
        with stopping(readout, stop):
            texts = readout.captions(image, question or "", edits, request.max_new_tokens)
        return {
            "question": question or "",
            "unedited": texts[0],
            "edited": texts[1::2],
            "random": texts[2::2],
        }

    def _of(self, folder: str) -> tuple[Readout, LatentView]:
        """Return the models behind an artifact of latents; those of the last request are kept."""
        path = self._results / "latents" / folder
        if "/" in folder or not folder or folder.startswith(".") or not path.is_dir():
            raise UserError("no such latents")
        if self._models is None or self._models[0] != path:
            self._models = None  # frees the memory before the next models are loaded
            refuse_short_memory(path)
            self._models = (path, self._load(path), LatentView(path))
        return self._models[1], self._models[2]


def refuse_short_memory(latents: Path) -> None:
    """Refuse to load models whose weights are larger than the memory that is free.

    Raises:
        UserError: They are.
    """
    weights = sum(
        path.stat().st_size
        for parent in _model_folders(latents)
        for path in parent.rglob("*.safetensors")
    )
    free = _free_memory()
    if free is not None and weights > free:
        raise UserError(
            f"the models need {weights / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
            "close other programs, or explore on a larger machine"
        )


def _model_folders(latents: Path) -> Iterator[Path]:
    from vista.engine.lineage import lineage

    results = latents.absolute().parents[1]
    for parent in lineage(latents):
        if parent.role in ("llm", "encoder", "projector", "saes"):
            yield results / parent.path


def _free_memory() -> int | None:
    """Return the bytes of memory that programs can get; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(sizes[0]) * 1024 if sizes else None


@contextmanager
def stopping(readout: Readout, stop: threading.Event) -> Iterator[None]:
    """Let the language model refuse its next pass once `stop` is set."""

    def check(*_: Any) -> None:
        if stop.is_set():
            raise _Gone

    handle = readout.llm.model.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


async def _watch(receive: Receive, stop: threading.Event, group: TaskGroup) -> None:
    """Stop a job when its browser has gone."""
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            stop.set()
            group.cancel_scope.cancel()
            return


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _answer(job: _Job, stop: threading.Event) -> Response:
    try:
        if stop.is_set():
            raise _Gone
        return JSONResponse(job(stop), headers={"Cache-Control": "no-store"})
    except _Gone:
        return _problem("nobody waits for this", 499)
    except UserError as error:
        return _problem(str(error), 422)
    except MemoryError:
        return _problem("the memory is used up; close other programs", 503)


def _problem(text: str, status: int) -> Response:
    return JSONResponse({"problem": text}, status, {"Cache-Control": "no-store"})


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'request'}: {problem['msg']}"


def _image(content: bytes) -> Image.Image:
    """Open an image file. Raises UserError if it is none, or too large."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise UserError(f"the image has more than {LARGEST_IMAGE} px; make it smaller")
            return image.convert("RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow raises anything on foreign bytes
        raise UserError("this file is no image that can be read") from error


def _decoded(data: str) -> bytes:
    import base64
    import binascii

    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error) as error:
        raise UserError("data is no base64") from error


def _shown(view: LatentView, layer: int, found: LayerLatents) -> Mapping[str, Any]:
    """Return the latents of a layer as JSON: by token, the strongest ones with their labels."""
    tokens: list[Sequence[tuple[int, float]]] = [
        [
            (int(latent), round(float(value), 4))
            for latent, value in zip(index_k[:n], value_k[:n], strict=True)
        ]
        for index_k, value_k, n in zip(
            found.index_pk, found.value_pk, found.nnz_p.clip(max=_TOP).tolist(), strict=True
        )
    ]
    labels = {str(latent): view.label(layer, latent) for token in tokens for latent, _ in token}
    return {
        "tokens": tokens,
        "labels": labels,
        "l0": found.nnz_p.tolist(),
        "error": [round(float(x), 6) for x in found.error_p],
        "norm2": [round(float(x), 6) for x in found.norm2_p],
    }
