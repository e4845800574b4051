"""What every page and API of ours stands behind: a loopback address, a guard, bundled files, a quiet server.

A server on loopback is reached by every program of the machine, browsers among them, and so by every web page that a
browser shows. The guard lets a page of another origin neither read nor ask: a request must name a host that is ours
(a page that has its own DNS name point at 127.0.0.1 does not), and one that says which origin it comes from must come
from that host. A page of ours runs its own script and style files and nothing else; text is put into it as text.

Needs the extra ``web``; starlette and uvicorn are imported only when an application or a server is made.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glm_data.errors import GlmDataError, UsageError

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI application."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Own files only. The last line has browsers that know it refuse ``innerHTML`` and its like altogether."""

SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""Kinds of bundled files; a file of another kind is not served."""

MOST_BYTES = 1 << 20
"""Default limit of a request's body."""

GRACE_SECONDS = 10
"""How long answers under way may take once the server has been told to stop."""


def listen(host: str, port: int, *, remote: bool = False) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Connections wait in it until a :class:`Server` runs.

    Raises :class:`UsageError` for a ``host`` that is no IP address nor ``localhost``, for an address that other
    machines reach unless ``remote`` says that this is meant, and for a port that cannot be had.
    """
    address = _address(host)
    if not address.is_loopback and not remote:
        raise UsageError(
            f"'{host}' can be reached from other machines, and the server asks nobody for a password; listen on "
            "127.0.0.1, or add --remote if everyone who reaches this machine may use it."
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(_why_not(host, port, error)) from None
    return listener


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        raise UsageError(f"'{host}' is no IP address; give one, such as 127.0.0.1, or localhost.") from None


def _why_not(host: str, port: int, error: OSError | OverflowError) -> str:
    if isinstance(error, OverflowError):
        return f"there is no port {port}; give one from 1 to 65535, or 0 for a free one."
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; give another with --port, or 0 for a free one."
    return f"cannot listen on port {port} of {host} ({error.strerror}); give another --host or --port."


class RequestError(GlmDataError):
    """A request that cannot be served, with the HTTP status that says so."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """Stands before an ASGI ``app``: refuses strangers and bodies over ``most_bytes``, adds the security headers.

    A host is ours if it is ``localhost``, an IP address (of loopback; with ``remote``, any: only a *name* can be made
    to point elsewhere) or one of ``names``.
    """

    def __init__(self, app: App, *, remote: bool = False, names: Collection[str] = (), most_bytes: int = MOST_BYTES):
        self._app, self._remote, self._most_bytes = app, remote, most_bytes
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or have the app do it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _secured(message.get("headers", ()))}
            await send(message)

        refusal = self._refusal({name.lower(): value.decode("latin-1") for name, value in scope["headers"]})
        if refusal:
            await _refuse(guarded, refusal)
        else:
            await self._app(scope, self._limited(receive), guarded)

    def _refusal(self, headers: dict[bytes, str]) -> RequestError | None:
        """Why a request with ``headers`` is not to be heard."""
        host = headers.get(b"host", "")
        if not self._is_ours(host):
            return RequestError(
                f"this server does not answer for the host '{host}'; open it under the address it printed.", 403
            )
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return RequestError(f"a page of '{origin}' asked for this; only this server's own pages may.", 403)
        length = headers.get(b"content-length", "0")
        if length.isdigit() and int(length) > self._most_bytes:
            return self._too_large()
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or self._remote
        except ValueError:
            return False

    def _limited(self, receive: Receive) -> Receive:
        left = self._most_bytes

        async def limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> RequestError:
        return RequestError(f"the request is larger than {self._most_bytes:,} bytes; send less.", 413)


def _secured(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """``headers`` with the security headers that are not among them."""
    given = list(headers)
    names = {name.lower() for name, _ in given}
    wanted = ((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
    return given + [(name, value) for name, value in wanted if name not in names]


async def _refuse(send: Send, error: RequestError) -> None:
    body = error_body(str(error))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(sentence: str, kind: str = "invalid_request_error") -> bytes:
    """An error as JSON, in the form that clients of OpenAI-style servers read."""
    return json.dumps({"error": {"message": sentence, "type": kind}}, ensure_ascii=False).encode()


def application(
    routes: Sequence[BaseRoute], *, remote: bool = False, names: Collection[str] = (), most_bytes: int = MOST_BYTES
) -> App:
    """``routes`` behind a :class:`Guard`; every error answers with its sentence as JSON.

    Raised in a route, a :class:`RequestError` answers with its status and any other :class:`GlmDataError` with 400.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    handlers: dict[Any, Any] = {
        HTTPException: _http_error,
        GlmDataError: _user_error,
        ClientDisconnect: _gone,
        Exception: _bug,
    }
    app: Any = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, remote=remote, names=names, most_bytes=most_bytes)


async def _http_error(request: Request, error: HTTPException) -> Response:
    said = {404: f"there is nothing at '{request.url.path}'.", 405: f"'{request.url.path}' takes no {request.method}."}
    return _error(said.get(error.status_code, error.detail), error.status_code, headers=error.headers)


async def _user_error(request: Request, error: GlmDataError) -> Response:
    status = error.status if isinstance(error, RequestError) else 400
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _error(str(error), status, kind, {"retry-after": "1"} if status in (429, 503) else None)


async def _gone(request: Request, error: Exception) -> Response:
    return _error("the request broke off.", 400)


async def _bug(request: Request, error: Exception) -> Response:
    # The server prints the traceback; whoever asked is told nothing of our insides.
    return _error("this is a bug of glm-data; its traceback stands where the server runs.", 500, "server_error")


def _error(sentence: str, status: int, kind: str = "invalid_request_error", headers: Any = None) -> Response:
    from starlette.responses import Response

    return Response(error_body(sentence, kind), status, headers, "application/json")


def bundled(folder: Path) -> list[BaseRoute]:
    """A route for each file in ``folder`` by its name, read now; ``index.html`` is also ``/``."""
    routes: list[BaseRoute] = []
    for path in sorted(folder.iterdir()):
        if path.suffix in CONTENT_TYPES:
            names = ["/", "/index.html"] if path.name == "index.html" else [f"/{path.name}"]
            routes += [_file(name, path.read_bytes(), CONTENT_TYPES[path.suffix]) for name in names]
    return routes


def _file(name: str, content: bytes, kind: str) -> BaseRoute:
    from starlette.responses import Response
    from starlette.routing import Route

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return Route(name, answer, methods=["GET"])


class Server:
    """``app`` on a ``listener`` of :func:`listen`; says nothing but what goes wrong."""

    def __init__(self, app: App, listener: socket.socket, *, most_connections: int = 512) -> None:
        import uvicorn

        config = uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=most_connections,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._server, self._listener = uvicorn.Server(config), listener
        host, port = listener.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        """Where a browser finds it."""

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or :meth:`stop`; answers under way are finished first, a second SIGINT aside.

        Being told to stop is how a server ends, so this returns then rather than raise :class:`KeyboardInterrupt`.
        """
        with contextlib.suppress(KeyboardInterrupt), self._listener:
            self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """Have :meth:`run` end; from any thread."""
        self._server.should_exit = True
