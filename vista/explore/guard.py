"""Who may ask the explorer's server: one person's browser, on this machine.

On a shared machine everyone reaches the loopback, so the address that is printed holds a token. It
becomes a cookie that no script reads and no other site sends. The name that the browser asked for
is checked, too: a foreign page whose name resolves to the loopback (DNS rebinding) is refused.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
NAMES = ("127.0.0.1", "localhost")
METHODS = ("GET", "HEAD")
# Where the page may send something: what it asks the models for.
LIVE = "/live/"
# What the page may do: its own scripts, styles, images and requests, and nothing else.
POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect")),
        # blob: an image that the user dropped, which the page shows.
        "img-src 'self' blob:",
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Lets requests to an application pass that hold the cookie, and puts headers on answers.

    Args:
        app: The application.
        port: The port that it answers at.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._token = secrets.token_urlsafe(32)
        self._codes: set[str] = set()
        self._hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
        # Cookies are shared by all ports of a host.
        self._cookie = f"vista_explore_{port}"
        self._address = f"http://{NAMES[0]}:{port}/"

    @property
    def address(self) -> str:
        """The address of the page with the token."""
        return f"{self._address}?{TOKEN}={self._token}"

    def address_once(self) -> str:
        """Return an address that opens the page once: other users of the machine can see the
        arguments of the program that opens it."""
        code = secrets.token_urlsafe(32)
        self._codes.add(code)
        return f"{self._address}?{TOKEN}={code}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the explorer speaks HTTP, not {scope['type']}")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refused(scope, Headers(scope=scope))
        await (refused or self._app)(scope, receive, guarded)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the answer to a request that does not pass; None for one that does."""
        if headers.getlist("host") == [] or headers["host"].lower() not in self._hosts:
            port = self._cookie.rpartition("_")[2]
            return _refusal(
                f"The explorer answers at {NAMES[0]}:{port} alone. Through a tunnel, use the same "
                f"port at both ends: ssh -L {port}:{NAMES[0]}:{port} HOST"
            )
        posted = scope["method"] == "POST" and scope["path"].startswith(LIVE)
        if posted and headers.get("origin") != f"http://{headers['host'].lower()}":
            # Browsers name the page's origin whenever something is sent.
            return _refusal("Only the explorer's own page may ask the models.")
        if scope["method"] not in METHODS and not posted:
            allowed = {"Allow": ", ".join(METHODS), "Cache-Control": "no-store"}
            return PlainTextResponse("The explorer only shows.\n", 405, allowed)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == TOKEN]
        if tokens:
            if len(tokens) > 1 or not self._is_token(tokens[0]):
                return _refusal(_ASK)
            rest = urlencode([(name, value) for name, value in query if name != TOKEN])
            return self._welcome(scope, headers, rest)
        cookies = cookie_parser(headers.get("cookie", ""))
        if not _equal(cookies.get(self._cookie, ""), self._token):
            return _refusal(_ASK)
        return None

    def _is_token(self, text: str) -> bool:
        if text in self._codes:
            self._codes.discard(text)
            return True
        return _equal(text, self._token)

    def _welcome(self, scope: Scope, headers: Headers, query: str) -> Response:
        """Return the answer that sets the cookie and leads to the address without the token."""
        # One slash: "//name/" would be another host.
        place = "/" + quote(scope["path"].lstrip("/\\")) + (f"?{query}" if query else "")
        if headers.get("sec-fetch-site") == "cross-site":
            # From a link on another site, a browser would not send the cookie after a redirect.
            response: Response = HTMLResponse("<!doctype html><title>VISTA</title>")
            response.headers["Refresh"] = f"0; url={place}"
        else:
            response = RedirectResponse(place, 303)
        response.set_cookie(self._cookie, self._token, path="/", httponly=True, samesite="strict")
        response.headers["Cache-Control"] = "no-store"
        return response


_ASK = "Open the address that `vista explore` printed: it holds the token."


def _refusal(text: str) -> Response:
    return PlainTextResponse(f"{text}\n", 403, {"Cache-Control": "no-store"})


def _equal(text: str, secret: str) -> bool:
    return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), secret.encode())
