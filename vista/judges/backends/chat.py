"""Requests to an OpenAI-compatible endpoint: several at a time, repeated where that may help.

Text of the endpoint is used only as an answer to be parsed. Its error messages are never shown or
stored: they could repeat the key.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx2

from vista.config.judge_base import EndpointSettings
from vista.errors import UserError
from vista.judges.backends.answers import Malformed, loads

A = TypeVar("A")

_PASSING = frozenset({408, 409, 425, 429})  # and every 5xx: the server may answer later
_LARGEST_ANSWER = 1 << 20  # bytes
# A single question may be refused (by a filter, for its image's size). So many refusals without one
# answer mean that the request itself is wrong.
_MOST_REFUSED = 10


class _GivenUp(Exception):
    """Another request failed in a way that makes further tries useless."""


class _Refused(Exception):
    """The endpoint will not answer this one question."""


class _Busy(Exception):
    """The endpoint cannot answer now. pause_s: how long it asks to wait, in seconds."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


@dataclass(frozen=True)
class _Arrival(Generic[A]):
    """An answer that came in. taken: set once the caller has kept it and asks for the next."""

    number: int
    answer: A | None
    reason: str | None
    taken: asyncio.Event = field(default_factory=asyncio.Event)


class ChatEndpoint(Generic[A]):
    """Asks one model and parses its answers.

    Args:
        settings: Of the judge.
        parse: (number of the request, text of the answer) -> what it means. Raises Malformed.

    Raises:
        UserError: The environment variable that should hold the key is not set.
    """

    def __init__(self, settings: EndpointSettings, parse: Callable[[int, str], A]) -> None:
        self._settings = settings
        self._parse = parse
        self._host = httpx2.URL(settings.base_url).host
        self._headers = _headers(settings)
        self.requests = 0
        self.tokens = 0
        self._answered = self._refused = 0

    def ask(
        self, messages: Sequence[Callable[[], list[dict[str, Any]]]]
    ) -> Iterator[tuple[int, A | None, str | None]]:
        """Yield (number of the request, its parsed answer, None) as answers come.

        A malformed answer is asked for once more; the second time (number, None, reason) is
        yielded. Requests under way are waited for before an error is raised, so that nothing that
        was paid for is lost.

        Args:
            messages: Each gives the chat messages of one request, when it is sent.

        Raises:
            UserError: the endpoint refuses, cannot be reached, stays busy, or the budget is spent.
        """
        if not messages:
            return
        with asyncio.Runner() as runner:
            arrived: asyncio.Queue[_Arrival[A] | None] = asyncio.Queue()
            work = runner.get_loop().create_task(self._work(messages, arrived))
            while (arrival := runner.run(arrived.get())) is not None:
                yield arrival.number, arrival.answer, arrival.reason
                arrival.taken.set()
            error = runner.run(_result(work))
        if error is not None:
            raise UserError(
                f"{error}; the {len(messages)} questions of this call go on from there when it is "
                "run again: what was answered is kept"
            )

    async def _work(
        self,
        messages: Sequence[Callable[[], list[dict[str, Any]]]],
        arrived: asyncio.Queue[_Arrival[A] | None],
    ) -> UserError | None:
        """Send all requests; return the error that stopped them, if any."""
        todo = iter(range(len(messages)))
        stopped: list[UserError] = []

        async def worker(client: httpx2.AsyncClient) -> None:
            for number in todo:
                try:
                    answer, reason = await self._answer(client, number, messages[number](), stopped)
                except _GivenUp:
                    return
                except UserError as error:
                    stopped.append(error)
                    return
                arrival = _Arrival(number, answer, reason)
                arrived.put_nowait(arrival)
                # The next request waits until this answer is kept, so that a kill costs no more
                # than the requests under way.
                await arrival.taken.wait()
                if stopped:
                    return

        size = min(self._settings.concurrency, len(messages))
        limits = httpx2.Limits(max_connections=size, max_keepalive_connections=size)
        try:
            # No redirects: the key goes to the host that the settings name and to no other.
            async with (
                httpx2.AsyncClient(
                    headers=self._headers, timeout=self._settings.timeout_s, limits=limits
                ) as client,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(size):
                    group.create_task(worker(client))
        finally:
            arrived.put_nowait(None)
        return stopped[0] if stopped else None

    async def _answer(
        self,
        client: httpx2.AsyncClient,
        number: int,
        messages: list[dict[str, Any]],
        stopped: list[UserError],
    ) -> tuple[A | None, str | None]:
        reason = ""
        for _ in range(2):
            try:
                answer = self._parse(number, await self._patiently(client, messages, stopped))
            except Malformed as error:
                reason = str(error)
            except _Refused as error:
                self._refused += 1
                if not self._answered and self._refused >= _MOST_REFUSED:
                    raise UserError(
                        f"judge: {self._host} refuses every question ({error}); check what its "
                        "model supports against model, json_mode and temperature"
                    ) from None
                return None, str(error)
            else:
                self._answered += 1
                return answer, None
        return None, reason

    async def _patiently(
        self,
        client: httpx2.AsyncClient,
        messages: list[dict[str, Any]],
        stopped: list[UserError],
    ) -> str:
        """Return the text of an answer, asking again with growing pauses while there is none."""
        settings, pause = self._settings, self._settings.first_pause_s
        for left in range(settings.retries, -1, -1):
            if stopped:
                raise _GivenUp
            self._require_budget()
            self.requests += 1
            try:
                async with asyncio.timeout(settings.timeout_s):
                    return await self._post(client, messages)
            except TimeoutError:
                busy = _Busy(f"no answer within {settings.timeout_s:g} s")
            except httpx2.RequestError as error:
                # Its text is left out: it may quote what was sent.
                busy = _Busy(type(error).__name__)
            except _Busy as error:
                busy = error
            if left:
                await asyncio.sleep(min(max(pause, busy.pause_s), settings.longest_pause_s))
                pause *= 2
        raise UserError(
            f"judge: {self._host} gave no usable answer in {settings.retries + 1} tries ({busy}); "
            "check base_url or wait"
        )

    async def _post(self, client: httpx2.AsyncClient, messages: list[dict[str, Any]]) -> str:
        settings = self._settings
        body: dict[str, Any] = {"model": settings.model, "messages": messages}
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.json_mode:
            body["response_format"] = {"type": "json_object"}
        url = f"{settings.base_url}/chat/completions"
        async with client.stream("POST", url, json=body) as response:
            self._require_success(response)
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > _LARGEST_ANSWER:
                    raise Malformed("an answer of more than 1 MB")
        answer = loads(bytes(content))
        self._count(answer)
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise Malformed("no chat completion")
        return text

    def _count(self, answer: Any) -> None:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        if type(total) is int and total >= 0:
            self.tokens += total
        elif self._settings.max_tokens is not None:
            raise UserError(
                f"judge.max_tokens: {self._host} does not say how many tokens it used; set "
                "max_requests instead"
            )

    def _require_budget(self) -> None:
        settings = self._settings
        for key, spent, most in (
            ("max_requests", self.requests, settings.max_requests),
            ("max_tokens", self.tokens, settings.max_tokens),
        ):
            if most is not None and spent >= most:
                raise UserError(f"judge.{key}: the budget of {most} is spent; raise it")

    def _require_success(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in _PASSING or status >= 500:
            raise _Busy(f"HTTP status {status}", _pause(response.headers.get("retry-after", "")))
        if status in (400, 413, 422):
            raise _Refused(f"HTTP status {status}")
        if status != 200:
            key = self._settings.key_env
            what = "base_url and model"
            if status in (401, 403):
                what = f"the key in {key}" if key else "whether it needs a key (key_env)"
            raise UserError(f"judge: {self._host} refused (HTTP status {status}); check {what}")


def _headers(settings: EndpointSettings) -> dict[str, str]:
    if settings.key_env is None:
        return {}
    key = os.environ.get(settings.key_env, "").strip()
    if not key:
        raise UserError(
            f"judge.key_env: the environment variable {settings.key_env} is not set; export the "
            "key in it, or set key_env to null where the endpoint needs none"
        )
    # A library that refuses a header may quote it.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"judge.key_env: {settings.key_env} holds no key: one word of ASCII characters is "
            "expected"
        )
    return {"Authorization": f"Bearer {key}"}


def _pause(retry_after: str) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    try:
        pause = float(retry_after)
    except ValueError:
        try:
            pause = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(pause, 0.0) if math.isfinite(pause) else 0.0


async def _result(task: asyncio.Task[UserError | None]) -> UserError | None:
    return await task
