"""A server of ours running beside a test, and the browser that looks at it."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from glm_data import web

if TYPE_CHECKING:
    from playwright.sync_api import Page


@contextlib.contextmanager
def running(app: web.App) -> Iterator[str]:
    """``app`` on a free port of loopback for the time of the block; yields its address, without the last slash."""
    server = web.Server(app, web.listen("127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.url.removesuffix("/")
    finally:
        server.stop()
        thread.join()


@contextlib.contextmanager
def browser_page(lang: str = "en-GB", expected: tuple[str, ...] = ()) -> Iterator[Page]:
    """A page of a headless chromium that prefers ``lang``; an error in its scripts or breach of policy fails.

    ``expected`` are parts of console errors that belong to the test, such as the status of a refusal.
    """
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no chromium on this machine: pages are not opened in a real browser")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # a busy machine is no failure
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(locale=lang)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        yield page
        browser.close()
    assert not [said for said in wrong if not any(part in said for part in expected)], wrong
