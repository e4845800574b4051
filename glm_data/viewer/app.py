"""The viewer as a web application: the bundled page, its JSON, and the run report. Needs the extra ``web``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from glm_data import web
from glm_data.report.collect import collect
from glm_data.report.render import render
from glm_data.viewer.desk import GIVEN, READ, Answer, Desk

PAGE = Path(__file__).with_name("page")
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""The report is one file with its styles in it; it runs nothing and asks for nothing."""


def make_app(desk: Desk) -> web.App:
    """The application for what lies on ``desk``."""

    async def about(_: Request) -> Response:
        return _json(desk.about())

    async def answer(request: Request, asked: Any, give: Callable[[Any, Any], Any]) -> Response:
        return _json(await run_in_threadpool(desk.answer, request.path_params["view"], asked, give))

    async def read(request: Request) -> Response:
        kind, give = _wanted(READ, request)
        return await answer(request, _parse(dict(request.query_params), kind, strict=False), give)

    async def given(request: Request) -> Response:
        kind, give = _wanted(GIVEN, request)
        try:
            values = msgspec.json.decode(await request.body())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise web.RequestError(f"the request is not JSON ({error}).") from None
        return await answer(request, _parse(values, kind, strict=True), give)

    async def report(_: Request) -> Response:
        page = await run_in_threadpool(lambda: render(collect(desk.opened.path)))
        return Response(page, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})

    routes: list[BaseRoute] = [
        Route("/api/about", about),
        Route("/api/{view}/{action}", read, methods=["GET"]),
        Route("/api/{view}/{action}", given, methods=["POST"]),
        *([Route("/report", report)] if desk.opened.stages else []),
        *web.bundled(PAGE),
    ]
    return web.application(routes)


def _wanted(answers: dict[str, Answer], request: Request) -> Answer:
    name = f"{request.path_params['view']}/{request.path_params['action']}"
    if name not in answers:
        raise web.RequestError(f"there is nothing at '{request.url.path}'.", 404)
    return answers[name]


def _parse(values: Any, kind: type[Any], *, strict: bool) -> Any:
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise web.RequestError(f"the request cannot be meant ({error}).") from None


def _json(value: Any) -> Response:
    """NaN and infinity become null."""
    return Response(msgspec.json.encode(value), media_type="application/json")
