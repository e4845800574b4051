"""Progress on the terminal while a stage runs: a status line, or log lines where there is no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from glm_data.cli.output import Output
from glm_data.progress import Meter, duration, in_lines, repeated

LIVE_SECONDS = 0.2


@contextlib.contextmanager
def follow(output: Output, folder: Path, stage: str) -> Iterator[None]:
    """Show how far ``stage`` is while the block runs."""
    if output.quiet:
        yield
        return
    with _live(folder, stage) if output.is_live else in_lines(folder, lambda now: output.log(f"{stage}: {now}")):
        yield


@contextlib.contextmanager
def _live(folder: Path, stage: str) -> Iterator[None]:
    from rich.console import Console

    started, meter = time.monotonic(), Meter(folder)
    with Console(stderr=True).status(f"{stage} …") as status:

        def look() -> None:
            now = time.monotonic()
            status.update(f"{stage}: {meter.look(now) or 'starting'} [{duration(now - started)}]")

        with repeated(look, LIVE_SECONDS):
            yield
