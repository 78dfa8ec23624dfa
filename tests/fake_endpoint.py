"""An OpenAI-compatible endpoint on the loopback, and small images."""

from __future__ import annotations

import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

KEY = "sk-a-key-that-nobody-may-write"


class Endpoint:
    """Answers yes to the labels in `true`; `script` says what to do with the first requests.

    An entry of the script is a status, (status, headers), bytes or text (the body as it is), a
    number of seconds to wait for, or a function of the labels that gives the message's content.
    """

    def __init__(self) -> None:
        self.true: set[str] = set()
        self.script: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.pause_s = 0.0
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                endpoint.handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            step = self.script.pop(0) if self.script else None
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        time.sleep(self.pause_s)
        status, headers, content = self._reply(body, step)
        with self._lock:
            self.under_way -= 1
        try:
            handler.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _reply(self, body: dict[str, Any], step: Any) -> tuple[int, dict[str, str], bytes]:
        # An unkind server tells the key back in everything that is no answer.
        told = json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()
        labels = labels_of(body)
        text = json.dumps({"answers": [label in self.true for label in labels]})
        if isinstance(step, int) and not isinstance(step, bool):
            return step, {}, told
        if isinstance(step, tuple):
            return step[0], step[1], told
        if isinstance(step, float):
            time.sleep(step)
        if isinstance(step, bytes):
            return 200, {}, step
        if isinstance(step, str):
            text = step
        if callable(step):
            text = step(labels)
        content = {
            "choices": [{"message": {"role": "assistant", "content": text}}],
            "usage": {"total_tokens": 100},
        }
        return 200, {}, json.dumps(content).encode()


def labels_of(body: dict[str, Any]) -> list[str]:
    data = json.loads(body["messages"][1]["content"][-1].get("text", "[]"))
    return list(data["names"] if isinstance(data, dict) else data)


def png(colour: str, size: tuple[int, int] = (20, 16)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()
