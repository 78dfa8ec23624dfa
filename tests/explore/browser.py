"""Headless Chromium over its debugging pipe: enough of it to test a page, without a package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
_KEYS = {"/": 191, "[": 219, "]": 221, "?": 191, "Enter": 13, "Escape": 27, "Tab": 9, " ": 32}
_KEYS |= {"PageUp": 33, "PageDown": 34, "End": 35, "Home": 36}
_KEYS |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}

# Roles of what takes input, and of pictures.
CONTROLS = frozenset(
    ("application", "button", "checkbox", "combobox", "dialog", "image", "link", "listbox")
) | frozenset(("searchbox", "slider", "spinbutton", "table", "textbox"))


class Browser:
    """A browser with one page.

    Attributes:
        requests: Addresses of all requests since the list was last cleared.
        errors: Errors that scripts raised, and that the console says.
    """

    def __init__(self, profile: Path, width: int = 1400, height: int = 900) -> None:
        assert CHROMIUM is not None
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._number = 0
        self._pending: deque[dict[str, Any]] = deque()
        self._buffer = b""
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4.
        shell = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *command, "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._session: str | None = None
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self.resize(width, height)

    def close(self) -> None:
        """End the browser."""
        try:
            self._session = None
            self._call("Browser.close")
        except (OSError, EOFError):
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for descriptor in (self._read, self._write):
            os.close(descriptor)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page in px."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def dark(self, on: bool) -> None:
        """Prefer dark colours, or light ones."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self._call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, address: str) -> None:
        """Load an address anew."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=address)

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        result = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 90) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        # What is not there yet may be asked for.
        guarded = (
            f"(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"
        )
        while not self.run(guarded):
            if time.monotonic() > end:
                text = self.text()
                raise AssertionError(
                    f"{expression} is not true; errors {self.errors}; page: {text[-600:]!r}"
                )
            time.sleep(0.05)

    def text(self, selector: str = "body") -> str:
        """Return the text that a person sees in an element; "" where there is none."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def names(self, roles: Collection[str]) -> list[tuple[str, str]]:
        """Return role and name of what a screen reader finds on the page, of some roles."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        return [
            (role, str(node.get("name", {}).get("value", "")).strip())
            for node in nodes
            if not node["ignored"] and (role := str(node["role"]["value"])) in roles
        ]

    def hover(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Move the pointer to a place in an element, in shares of its size."""
        self._mouse("mouseMoved", selector, x, y)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click at a place in an element, in shares of its size."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._mouse(kind, selector, x, y)

    def _mouse(self, kind: str, selector: str, x: float, y: float) -> None:
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoViewIfNeeded(); const b = e.getBoundingClientRect();"
            " return [b.left, b.top, b.width, b.height]; })()"
        )
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self._call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=box[0] + x * box[2],
            y=box[1] + y * box[3],
            **button,
        )

    def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        for key in keys:
            code = _KEYS.get(key) or ord(key.upper())
            common = {"key": key, "windowsVirtualKeyCode": code}
            text = (
                {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
            )
            self._call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
            self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self._call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """Write what is seen as a PNG file."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 16)
            if not part:
                raise EOFError("the browser ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.errors.append(
                f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}"
            )
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.errors.append(" ".join(str(a.get("value")) for a in parameters["args"]))
