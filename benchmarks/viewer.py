"""What the viewer's page waits for: a pack of many rows opened, and any row of it drawn as JSON.

    python -m benchmarks.viewer PACK [JUMPS]

jumps to random rows of any pack in a headless chromium and says what that takes by the clock, from the key to the frame
with the row in it. It wants an idle machine.
"""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import loader
from benchmarks.contest import Contest, Contestant, Work

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROWS, DOCUMENTS = 100, 1_000_000
_REST = 0.4
"""Seconds between jumps, in which neighbours are fetched."""


def write_many(folder: Path) -> None:
    """Prepares ``many``, as for the loaders, with a million documents in its table."""
    import pyarrow.parquet as pq

    loader.write_many(folder)
    path = folder / "run" / "pack" / "documents.parquet"
    table, group = pq.read_table(path), pq.ParquetFile(path).metadata.row_group(0).num_rows
    with pq.ParquetWriter(folder / "many" / "documents.parquet", table.schema, compression="zstd") as writer:
        for _ in range(-(-DOCUMENTS // len(table))):
            writer.write_table(table, row_group_size=group)


def opened(folder: Path) -> tuple[Work, float]:
    """The pack opened, and its first row drawn."""

    def work() -> None:
        _pack(folder).row(0, 0)

    return work, 1


def drawn(folder: Path) -> tuple[Work, float]:
    """Random rows of the opened pack as the JSON that the page gets."""
    import msgspec
    import numpy as np

    pack = _pack(folder)
    wanted = np.random.default_rng(0).integers(0, loader.MANY_ROWS, ROWS).tolist()
    return lambda: [msgspec.json.encode(pack.row(row, 0)) for row in wanted], ROWS


def _pack(folder: Path) -> Any:
    from glm_data.viewer.desk import PackDesk

    return PackDesk(folder / "many")


CONTESTS = (
    Contest(
        name="Rows for the viewer",
        unit="rows/s",
        contestants=(
            Contestant("a random row as JSON", drawn),
            Contestant("a pack opened and its first row", opened),
        ),
        time=("ms a row", 1e3),
        note=f"A pack of {loader.MANY_ROWS:,} rows, one shard listed again and again, and of a million documents.",
        prepare=write_many,
    ),
)


# --- in a browser -----------------------------------------------------------------------------------------------------

_JUMP = """(hash) => new Promise((done) => {
  const [start, main] = [performance.now(), document.getElementById("main")];
  const watch = new MutationObserver(() => {
    if (main.dataset.drawn !== hash) return;
    watch.disconnect();
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => done(performance.now() - start);
      channel.port2.postMessage(0);
    });
  });
  watch.observe(main, { attributes: true });
  location.hash = hash;
})"""
"""Milliseconds until the frame after the one that a row is drawn in."""


def browse(pack: Path, jumps: int) -> str:
    """The clock of a page opened, of random rows and of next rows; median and 90th percentile."""
    from playwright.sync_api import sync_playwright

    from glm_data import web
    from glm_data.viewer.app import make_app
    from glm_data.viewer.desk import Desk
    from glm_data.viewer.opened import open_path

    desk = Desk(open_path(pack))
    desk.warm()
    (rows,) = (thing for thing in desk.opened.things if thing.view == "rows")
    server = web.Server(make_app(desk), web.listen("127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            started = time.perf_counter()
            page.goto(f"{server.url}#/rows/{rows.name}/0")
            page.wait_for_selector("main[data-drawn]")
            opened = 1e3 * (time.perf_counter() - started)
            draw = random.Random(5)
            wanted = [draw.randrange(rows.size) for _ in range(jumps + 5)]
            anywhere = _jump(page, rows.name, wanted)[5:]
            after = _jump(page, rows.name, range(wanted[-1] + 1, min(wanted[-1] + 12, rows.size)))
            browser.close()
    finally:
        server.stop()
        thread.join()
    return f"opened {opened:.0f} ms; a random row {_said(anywhere)}; the next row {_said(after)}"


def _jump(page: Page, name: str, rows: Any) -> list[float]:
    times = []
    for row in rows:
        times.append(page.evaluate(_JUMP, f"#/rows/{name}/{row}"))
        time.sleep(_REST)
    return times


def _said(times: list[float]) -> str:
    ordered = sorted(times)
    return f"{statistics.median(ordered):.0f} ms (of {len(ordered)}; 90 % below {ordered[int(0.9 * len(ordered))]:.0f})"


if __name__ == "__main__":
    print(browse(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 60))
