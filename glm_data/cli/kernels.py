"""Compiling all kernels before the first run has to."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from glm_data.cli.output import Output

_ALLOCATIONS = 10_000
"""New objects between two looks for garbage, of which compiling makes little: a tenth of the time at Python's 700."""
_CHAINS = (("filter", "dedupe"), ("tokenizer", "tokenize", "mip", "pack"))
"""Stages of the demo that use like kernels; both chains begin with the raw shards."""


def compile_kernels() -> float:
    """Compile every kernel by running the demo's stages up to the packed rows in temporary folders; returns seconds.

    numba keeps what it compiles in ``__pycache__`` beside the source, so that this is done once an installation. Two
    processes share the work where there are two cores; readers, which both need, are then compiled twice.
    """
    started = time.perf_counter()
    processes = min(len(_CHAINS), os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(_run, stages) for stages in _CHAINS]:
            done.result()
    return time.perf_counter() - started


def _run(stages: tuple[str, ...]) -> None:
    """Run some of the demo's stages and, if they end with a pack, read it."""
    import gc

    import numpy as np

    import manifests
    from glm_data import recipe as recipes
    from glm_data.cli.run import run_recipe
    from glm_data.loading import PackedRows, shuffled

    gc.set_threshold(_ALLOCATIONS)
    whole = recipes.load(manifests.path("demo.yaml"))
    loaded = replace(whole, options={stage: whole.options[stage] for stage in stages})
    with tempfile.TemporaryDirectory() as folder:
        run_recipe(loaded, Path(folder), Output(as_json=False, quiet=True), until=stages[-1])
        if stages[-1] == "pack":
            rows = PackedRows.open(Path(folder) / "pack")
            rows.batch(shuffled(np.arange(min(4, len(rows))), len(rows), seed=0))
