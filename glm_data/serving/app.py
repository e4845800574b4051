"""The application: what each address answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from glm_data import web
from glm_data.config import from_mapping
from glm_data.errors import GlmDataError
from glm_data.serving.completions import CompletionRequest, Completions
from glm_data.serving.engine import Engine
from glm_data.serving.infill import Infill
from glm_data.web import RequestError

PAGE = Path(__file__).parent / "page"
T = TypeVar("T")


def make_app(engine: Engine, name: str, *, remote: bool = False, names: Collection[str] = ()) -> web.App:
    """Completions, infilling, health, and the page, for the model called ``name``."""

    async def completions(request: Request) -> Response:
        body = from_mapping(await _object(request), CompletionRequest, "the request")
        asked = Completions(engine, body, name)
        if not body.stream:
            return _json(await _unless_gone(request, asked.whole))
        return _stream(await _begun(asked.parts()), "[DONE]")

    async def infill(request: Request) -> Response:
        asked = Infill(engine, await _object(request))
        if not asked.request.stream:
            return _json(await _unless_gone(request, asked.whole))
        return _stream(await _begun(asked.parts()))

    async def health(request: Request) -> Response:
        waiting, running = engine.load()
        return _json({"status": "ok", "model": name, "waiting": waiting, "running": running})

    async def models(request: Request) -> Response:
        return _json({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "glm-data"}]})

    routes = [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/infill", infill, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
        *web.bundled(PAGE),
    ]
    return web.application(routes, remote=remote, names=names)


async def _object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; raises :class:`RequestError` if it is none."""
    try:
        value = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is no JSON ({error}); send one JSON object.") from None
    except RecursionError:
        raise RequestError("the request is nested too deeply; send one JSON object.") from None
    if not isinstance(value, dict):
        raise RequestError('the request is no JSON object; send one, such as {"prompt": "…"}.')
    return value


async def _unless_gone(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """What ``work`` returns; given up if whoever asked leaves, so that nothing is written for nobody."""
    task = asyncio.ensure_future(work())
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _begun(parts: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """``parts`` with the first already there: what is refused is refused by status, before a stream begins."""
    first = await anext(parts)

    async def both() -> AsyncIterator[dict[str, Any]]:
        yield first
        async for part in parts:
            yield part

    return both()


def _stream(parts: AsyncIterator[dict[str, Any]], last: str | None = None) -> Response:
    """Server-sent events; an error that comes too late for a status is an event of its own."""

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for part in parts:
                yield b"data: " + msgspec.json.encode(part) + b"\n\n"
        except GlmDataError as error:
            yield b"data: " + web.error_body(str(error)) + b"\n\n"
            return
        if last is not None:
            yield f"data: {last}\n\n".encode()

    return StreamingResponse(lines(), media_type="text/event-stream")


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
