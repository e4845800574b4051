"""The guard, the bundled files and the server that every page and API of ours stands behind."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from web_servers import browser_page, running

from glm_data import web
from glm_data.errors import UsageError


async def size(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


async def refuse(request: Request) -> JSONResponse:
    raise UsageError("no such blank.") if request.method == "GET" else web.RequestError("too many wait.", 429)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page")
    page = "<!doctype html><title>页</title><link rel=icon href=data:,><script src=page.js></script>"
    (path / "index.html").write_text(page, encoding="utf-8")
    script = """
        document.title += "!";
        try { document.body.innerHTML = "<b>x</b>"; document.title += "open"; } catch { document.title += "shut"; }
    """
    (path / "page.js").write_text(script, encoding="utf-8")
    (path / "page.py").write_text("secret", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    routes = [
        *web.bundled(folder),
        Route("/size", size, methods=["POST"]),
        Route("/refuse", refuse, methods=["GET", "PUT"]),
    ]
    with running(web.application(routes, names=["Box.lan"], most_bytes=1000)) as found:
        yield found


def test_bundled_files_are_served_with_the_security_headers(address: str) -> None:
    answer = httpx.get(f"{address}/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "页" in answer.text
    assert answer.text == httpx.get(f"{address}/index.html").text
    assert httpx.get(f"{address}/page.js").headers["content-type"] == "text/javascript; charset=utf-8"
    for name, value in web.SECURITY_HEADERS.items():
        assert answer.headers[name] == value
        assert httpx.get(f"{address}/nothing").headers[name] == value
    assert "server" not in answer.headers
    for path in ("/page.py", "/../page.py", "/%2e%2e/page.py"):
        assert httpx.get(address + path).status_code == 404


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "LOCALHOST:80", "[::1]:8000", "127.9.9.9", "box.LAN:1"])
def test_hosts_that_are_ours_are_answered(address: str, host: str) -> None:
    assert httpx.get(f"{address}/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:80", "10.0.0.1", "", "[::1", "127.0.0.1.evil"]
)
def test_a_name_that_was_made_to_point_here_is_refused(address: str, host: str) -> None:
    answer = httpx.get(f"{address}/", headers={"host": host})
    assert answer.status_code == 403
    assert f"'{host}'" in answer.json()["error"]["message"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_pages_of_other_origins_are_refused(address: str) -> None:
    own = address.removeprefix("http://")
    for origin, status in ((address, 200), (f"https://{own}", 200), ("http://evil.example", 403), ("null", 403)):
        assert httpx.post(f"{address}/size", headers={"origin": origin}, content=b"x").status_code == status, origin


def test_with_remote_any_ip_address_is_ours_and_names_still_are_not() -> None:
    with running(web.application([Route("/size", size, methods=["POST"])], remote=True)) as address:
        for host, status in (("10.1.2.3:80", 200), ("evil.example", 403)):
            assert httpx.post(f"{address}/size", headers={"host": host}).status_code == status


def test_large_bodies_are_refused_however_they_come(address: str) -> None:
    assert httpx.post(f"{address}/size", content=b"x" * 1000).json() == {"bytes": 1000}
    assert httpx.post(f"{address}/size", content=iter([b"x" * 500] * 2)).json() == {"bytes": 1000}
    for content in (b"x" * 1001, iter([b"x" * 500] * 3)):
        answer = httpx.post(f"{address}/size", content=content)
        assert (answer.status_code, answer.json()["error"]["message"]) == (
            413,
            "the request is larger than 1,000 bytes; send less.",
        )


def test_errors_are_sentences_in_json(address: str) -> None:
    asked = [("GET", "/refuse"), ("PUT", "/refuse"), ("GET", "/x"), ("DELETE", "/")]
    found = [httpx.request(method, address + path) for method, path in asked]
    assert [answer.status_code for answer in found] == [400, 429, 404, 405]
    assert [answer.json()["error"]["message"] for answer in found] == [
        "no such blank.",
        "too many wait.",
        "there is nothing at '/x'.",
        "'/' takes no DELETE.",
    ]


def test_a_request_that_breaks_off_is_no_bug(address: str, caplog: pytest.LogCaptureFixture) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"POST /size HTTP/1.1\r\nhost: {host}\r\ncontent-length: 50\r\n\r\nabc".encode())
    assert httpx.get(f"{address}/").status_code == 200
    assert not caplog.records


def test_addresses_that_cannot_be_had_are_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"other machines.*--remote"):
        web.listen("0.0.0.0", 0)
    with pytest.raises(UsageError, match="no IP address"):
        web.listen("example", 0)
    with pytest.raises(UsageError, match="no port 70000"):
        web.listen("localhost", 70000)
    with pytest.raises(UsageError, match=r"cannot listen on port 0 of 192\.0\.2\.1 .*--host"):
        web.listen("192.0.2.1", 0, remote=True)
    with web.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is taken"):
            web.listen("127.0.0.1", port)
    web.listen("0.0.0.0", 0, remote=True).close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_once_answers_under_way_are_out(number: signal.Signals) -> None:
    asked, released, answers = threading.Event(), threading.Event(), []

    def slow(request: Request) -> JSONResponse:
        asked.set()
        released.wait(10)
        return JSONResponse({"done": True})

    server = web.Server(web.application([Route("/slow", slow)]), web.listen("localhost", 0))
    client = threading.Thread(target=lambda: answers.append(httpx.get(f"{server.url}slow").json()))

    def stop() -> None:
        client.start()
        asked.wait(10)
        os.kill(os.getpid(), number)
        released.set()

    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # as the shell does
    try:
        stopper = threading.Thread(target=stop)
        stopper.start()
        server.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    stopper.join()
    client.join()
    assert answers == [{"done": True}]
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_a_real_browser_keeps_the_policy(address: str) -> None:
    with browser_page() as page:
        page.goto(address)
        assert page.title() == "页!shut"
