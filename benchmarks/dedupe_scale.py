"""How de-duplication grows: generated corpora of several sizes, each de-duplicated by the command in its own processes.

    python -m benchmarks.dedupe_scale FOLDER 200000 1000000 4000000

Half the documents are words of an invented vocabulary, half Chinese characters, both by Zipf's law, about 2 kB each; a
tenth are changed copies of earlier ones, a twentieth exact ones. Prints seconds, CPU, peak memory of the largest
process and disk of each size, and the slope from one to the next.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from benchmarks.harness import markdown

SHARD_DOCUMENTS, WORDS, HAN = 25_000, 330, 680
"""Documents of a shard; tokens of a document of each kind."""
WORKERS = 2


def main(folder: Path, sizes: list[int]) -> None:
    """Measure every size and print a table."""
    rows: list[tuple[str, ...]] = [
        ("documents", "GB", "wall s", "CPU s", "MB/s of CPU", "peak MB a process", "removed", "slope")
    ]
    before: tuple[int, float] | None = None
    for size in sizes:
        data, out = folder / f"in-{size}", folder / f"out-{size}"
        generate(data, size)
        shutil.rmtree(out, ignore_errors=True)
        measured = _measure(data, out)
        rows.append(_row(size, out, measured, before))
        before = size, measured[1]
        shutil.rmtree(out)
        print(markdown(rows), flush=True)


def _measure(data: Path, out: Path) -> tuple[float, float, int]:
    command = [sys.executable, "-m", "glm_data.cli", "dedupe", str(data), "--out", str(out), "--json"]
    started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--workers", str(WORKERS)], check=True, stdout=subprocess.DEVNULL)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return time.perf_counter() - started, cpu, now.ru_maxrss * 1024


def _row(size: int, out: Path, measured: tuple[float, float, int], before: tuple[int, float] | None) -> tuple[str, ...]:
    from glm_data.stage import read_success

    wall, cpu, peak = measured
    success = read_success(out)
    text = success.counts["text_bytes_in"]
    slope = f"{math.log(cpu / before[1]) / math.log(size / before[0]):.3f}" if before else ""
    numbers = (f"{text / 1e9:.2f}", f"{wall:.0f}", f"{cpu:.0f}", f"{text / 1e6 / cpu:.1f}", f"{peak / 1e6:.0f}")
    return (f"{size:,}", *numbers, f"{success.records - success.kept:,}", slope)


def generate(folder: Path, size: int) -> None:
    """Write ``size`` documents as compressed JSON lines; the same at every call, and left alone if they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(-(-size // SHARD_DOCUMENTS)):
        path = folder / f"{shard:05d}.jsonl.zst"
        if not path.exists():
            count = min(SHARD_DOCUMENTS, size - shard * SHARD_DOCUMENTS)
            lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in _texts(shard, count))
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(zstandard.compress(lines.encode(), 3))
            temporary.rename(path)


def _texts(shard: int, count: int) -> Iterator[str]:
    random = np.random.default_rng([7, shard])
    letters = np.random.default_rng(3).integers(97, 123, (40_000, 9)).astype(np.uint8)
    lengths = np.random.default_rng(4).integers(2, 10, 40_000)
    words = np.array([bytes(row[:length]).decode() for row, length in zip(letters, lengths, strict=True)], object)
    earlier: list[str] = []
    for kind in random.random((count, 2)):
        if kind[0] < 0.15 and earlier:
            text = earlier[int(random.integers(len(earlier)))]
            place = int(random.integers(len(text)))
            yield text if kind[0] < 0.05 else f"{text[:place]} {text[place + 9 :]}"
            continue
        if kind[1] < 0.5:
            text = " ".join(words[_zipf(random, WORDS, words.size)])
        else:
            text = (_zipf(random, HAN, 6000) + 0x4E00).astype("<u4").tobytes().decode("utf-32-le")
        earlier.append(text)
        yield text


def _zipf(random: np.random.Generator, count: int, kinds: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Numbers below ``kinds``, the low ones often."""
    return (kinds ** random.random(count)).astype(np.int64) - 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
