"""Runs the explorer's server until it is stopped, and opens the browser."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import webbrowser

import uvicorn

from vista.errors import UserError, reason_of
from vista.explore.finished import Finished
from vista.explore.guard import Guard
from vista.explore.server import guarded_app, listen

# Seconds for answers under way when the server is stopped.
_GRACE_S = 1


def serve(finished: Finished, port: int, *, browser: bool) -> None:
    """Serve a results folder on the loopback until Ctrl-C; print the address, with the token.

    Args:
        finished: The results.
        port: Port to listen at; 0 is a free one.
        browser: Whether to open the page.

    Raises:
        UserError: The port is in use, or cannot be used.
    """
    try:
        listening = listen(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use; give another --port, or none") from error
        raise UserError(f"port {port} cannot be used: {reason_of(error)}") from error
    with listening:
        port = listening.getsockname()[1]
        app = guarded_app(finished, port)
        print(f"Exploring {finished.results}: {app.address}", flush=True)
        print("Ctrl-C stops it; whoever has this address can look at the run.", flush=True)
        if browser and _has_screen():
            opener = threading.Thread(target=_open, args=(app.address_once(),), daemon=True)
            opener.start()
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn_server(app).run(sockets=[listening])
    print("The explorer has stopped.", flush=True)


def uvicorn_server(app: Guard) -> uvicorn.Server:
    """Return the server of an application: HTTP alone, no log of addresses, no trust in what a
    proxy would add."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return uvicorn.Server(config)


def _open(address: str) -> None:
    # Of many types, by platform; the address stands in the terminal.
    with contextlib.suppress(Exception):
        webbrowser.open(address)


def _has_screen() -> bool:
    """Return whether a browser would show in a window: one of the terminal would take it over."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
