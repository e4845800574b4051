"""Runs a stage's shard tasks on a Beam runner: one graph, one leaf, no text in PCollections.

::

    Create(tasks as msgpack) | Map(run one shard)        elements of a few hundred bytes, in; shard numbers, out

A stage may let the runner bring together what its tasks work on (:class:`Feed`), as packed arrays::

    Create(pieces to read) | FlatMap(read) | GroupByKey | Map(run one shard)

Locally this is Beam's FnApiRunner, in memory or with worker processes of our own (:mod:`pipelines.nursery`). Beam's
default runner is never used: it first tries to download another one. apache_beam is imported by the first stage that
has something to do.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from glm_data import files
from glm_data.config import Config, Doc
from glm_data.errors import GlmDataError, InterruptedRunError, UsageError
from glm_data.inputs import check_unchanged
from glm_data.manifest import TASKS
from glm_data.stage import RUN, SHARDS, ShardRecord, ShardTask, Stage, write_shard_record
from pipelines import marks
from pipelines.engines import Engine, check_address, create_beam_runner, find_engine, parse_beam_options
from pipelines.loopback import on_loopback
from pipelines.quiet import NOTHING, import_beam, quiet_beam
from pipelines.watch import ProgressFunction, Watcher

ShardFunction = Callable[[ShardTask], ShardRecord]

SMALL_INPUT_BYTES = 32_000_000
"""Below this, starting worker processes (2 to 3 s of CPU) costs more than they save."""


class RunnerOptions(Config, frozen=True):
    """Where and how wide a stage runs."""

    runner: Annotated[
        str, Doc("Beam runner: local (FnApiRunner), portable, dask, flink, spark, dataflow, or a class")
    ] = "local"
    workers: Annotated[int, Doc("worker processes; 0 means one a core when the input is large enough to pay")] = 0
    beam_args: tuple[str, ...] = ()
    """Further Beam options, each word checked; what stands after a ``--`` goes to the runner as it is."""


class Feed(NamedTuple):
    """What the tasks of a step work on, brought to them by the runner's shuffle."""

    pieces: Sequence[int]
    """Numbers of what is to be read."""
    read: Callable[[int], Iterable[tuple[int, bytes]]]
    """Yields ``(shard, data)`` of one piece for every shard; how ``data`` begins decides their order in a shard."""


def run_and_record(function: ShardFunction, task: ShardTask) -> int:
    """Run one shard and commit its record; returns the shard's number. This is all that a worker executes."""
    started = time.perf_counter()
    with marks.working(task):
        record = function(task)
        if task.input.path and not Path(task.input.path).is_dir():  # a task may stand for many files, or for none
            check_unchanged(task.input)
        write_shard_record(Path(task.folder), record, started)
    return task.shard


def run_tasks(
    stage: Stage,
    function: Callable[..., ShardRecord],
    tasks: Sequence[ShardTask],
    options: RunnerOptions,
    *,
    on_progress: ProgressFunction | None = None,
    feed: Feed | None = None,
) -> None:
    """Run those of ``tasks`` that the stage has not finished yet, on the runner of ``options``.

    ``function`` must be importable by workers and may run twice for a task; task options must be plain JSON values.
    With ``feed`` it takes the data of its shard, sorted, as a second argument ``pieces``.
    ``on_progress(done, total)`` is called from a thread, a few times a second at most. Errors: a user error raised by
    ``function`` arrives as itself; a worker process that died is a :class:`GlmDataError` naming its shard; Ctrl-C is
    :class:`InterruptedRunError`; an unknown runner or Beam option is :class:`UsageError`.
    """
    engine = find_engine(options.runner)
    done = stage.records()
    pending = sorted((task for task in tasks if task.shard not in done), key=lambda task: (-work_of(task), task.shard))
    files.write_json(stage.folder / RUN / TASKS, [task.input.bytes for task in tasks])
    if on_progress:
        on_progress(len(tasks) - len(pending), len(tasks))
    if not pending:
        return
    _clear_old_marks(stage.folder, pending)
    watcher = Watcher(stage.folder, pending, len(tasks), on_progress)
    with _translate_errors(stage.folder, watcher), watcher.watching():
        _run(stage.folder, function, pending, options, watcher, feed)
    _check_records(stage, pending, engine)


def work_of(task: ShardTask) -> int:
    """About how many bytes a task reads, so that the largest comes first: a compressed file holds several times its
    own."""
    return task.input.bytes * (_INFLATION if task.input.name.endswith(_COMPRESSED) else 1)


_COMPRESSED, _INFLATION = (".zst", ".gz", ".parquet"), 4


def count_workers(pending: Sequence[ShardTask], workers: int) -> int:
    """Processes to use for ``pending``; 1 stands for this process. ``workers`` as in :class:`RunnerOptions`."""
    if workers < 0:
        raise UsageError(f"--workers {workers}: give the number of worker processes, or 0 for one a core.")
    if workers == 0:
        small = sum(task.input.bytes for task in pending) < SMALL_INPUT_BYTES
        workers = 1 if small else count_cores()
    return min(workers, len(pending))


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(
    folder: Path,
    function: Callable[..., ShardRecord],
    pending: Sequence[ShardTask],
    options: RunnerOptions,
    watcher: Watcher,
    feed: Feed | None,
) -> None:
    beam, engine = import_beam(), find_engine(options.runner)
    level = NOTHING if engine.is_local else logging.WARNING
    with quiet_beam(level, on_thread_error=watcher.note_thread_error), on_loopback():
        runner, beam_options, workers = _make_runner(folder, function, pending, options, engine)
        pipeline = beam.Pipeline(runner=runner, options=beam_options)
        encoded = {task.shard: msgspec.msgpack.encode(task) for task in pending}
        run = _run_encoded if workers == 1 else _run_unless_stopped
        is_alone = engine.is_local and workers == 1  # a plain pipeline costs half as much, 80 ms of every step
        if feed is None:
            tasks = pipeline | "Tasks" >> beam.Create(list(encoded.values()), reshuffle=not is_alone)
            done = tasks | "RunShard" >> beam.Map(functools.partial(run, function))
        else:
            pieces = pipeline | "Pieces" >> beam.Create(list(feed.pieces))
            grouped = pieces | "Read" >> beam.FlatMap(functools.partial(_read_pending, feed.read, frozenset(encoded)))
            step = functools.partial(_run_fed, run, function, encoded)
            done = grouped | "ByShard" >> beam.GroupByKey() | "RunShard" >> beam.Map(step)
        if not is_alone:  # shard numbers travel back, by which Beam notices that a worker process has died
            _ = done | "Return" >> beam.Reshuffle()
        state = _run_pipeline(pipeline, engine)
    if marks.read_failures(folder / RUN) and workers > 1:
        raise RuntimeError("a shard failed in a worker process")
    if state not in (None, "DONE"):
        raise GlmDataError(f"the {engine.name} runner ended with state {state}; see its log, then run again to go on.")


def _run_pipeline(pipeline: Any, engine: Engine) -> Any:
    """Run to the end; what a runner elsewhere says about itself becomes one sentence."""
    try:
        result = pipeline.run()
        with contextlib.closing(result.client) if engine.name == "dask" else contextlib.nullcontext():
            return result.wait_until_finish()
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        if engine.is_local or isinstance(error, GlmDataError):
            raise
        said = " ".join(str(error).split())[:300]
        raise GlmDataError(
            f"the {engine.name} runner could not run the stage ({said}); it needs {engine.needs}."
        ) from error


def _read_pending(
    read: Callable[[int], Iterable[tuple[int, bytes]]], shards: frozenset[int], piece: int
) -> Iterator[tuple[int, bytes]]:
    return ((shard, data) for shard, data in read(piece) if shard in shards)


def _run_fed(
    run: Callable[[ShardFunction, bytes], int],
    function: Callable[..., ShardRecord],
    encoded: dict[int, bytes],
    group: tuple[int, Iterable[bytes]],
) -> int:
    shard, pieces = group
    return run(functools.partial(function, pieces=sorted(pieces)), encoded[shard])  # runners group in any order


def _run_encoded(function: ShardFunction, encoded: bytes) -> int:
    return run_and_record(function, msgspec.msgpack.decode(encoded, type=ShardTask))


def _run_unless_stopped(function: ShardFunction, encoded: bytes) -> int:
    """As :func:`_run_encoded`, in a worker process of ours: a failure is left as a mark, and -1 returned.

    Raising would make Beam's harness print a traceback of a hundred lines in every worker. Nothing is retried
    locally, so the other workers begin no further shard.
    """
    task = msgspec.msgpack.decode(encoded, type=ShardTask)
    if marks.is_stopped(Path(task.folder) / RUN):
        return -1
    try:
        return run_and_record(function, task)
    except Exception:
        if not marks.has_failed(task):  # the mark could not be written
            raise
        return -1


def _make_runner(
    folder: Path, function: Callable[..., Any], pending: Sequence[ShardTask], options: RunnerOptions, engine: Engine
) -> tuple[Any, Any, int]:
    """The Beam runner, its PipelineOptions, and how many worker processes of ours it starts (1 for none)."""
    if not engine.is_local:
        runner = create_beam_runner(engine)  # first: it declares options of its own
        check_address(engine, options.beam_args)
        return runner, parse_beam_options([*_width(engine, pending, options), *options.beam_args], engine), 1
    beam_options = parse_beam_options(options.beam_args, engine)
    workers = count_workers(pending, _workers_of(beam_options, options))
    return _make_local_runner(folder, function, beam_options, workers), beam_options, workers


def _width(engine: Engine, pending: Sequence[ShardTask], options: RunnerOptions) -> list[str]:
    """How wide to run, in the words of a runner that would otherwise do all shards in one task."""
    given = {word.split("=", 1)[0] for word in options.beam_args}
    if engine.name == "dask" and not given & {"--dask_npartitions", "--dask_partition_size"}:
        return [f"--dask_npartitions={len(pending)}"]
    if engine.name == "flink" and options.workers and "--parallelism" not in given:
        return [f"--parallelism={options.workers}"]
    if engine.name == "dataflow" and options.workers and "--max_num_workers" not in given:
        return [f"--max_num_workers={options.workers}"]
    return []


def _workers_of(beam_options: Any, options: RunnerOptions) -> int:
    """Beam's own options for local width mean the same as ``workers``, which they override."""
    from apache_beam.options.pipeline_options import DirectOptions

    given = {word.split("=", 1)[0] for word in options.beam_args}
    direct = beam_options.view_as(DirectOptions)
    if "--direct_running_mode" in given and direct.direct_running_mode == "in_memory":
        return 1
    if "--direct_num_workers" in given:
        return direct.direct_num_workers or count_cores()
    return count_cores() if "--direct_running_mode" in given else options.workers


def _make_local_runner(folder: Path, function: Callable[..., Any], beam_options: Any, workers: int) -> Any:
    from apache_beam.options.pipeline_options import DirectOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    from pipelines.nursery import worker_command

    direct = beam_options.view_as(DirectOptions)
    direct.direct_running_mode, direct.direct_num_workers = "in_memory", workers
    if workers == 1:
        return FnApiRunner()
    command = worker_command(folder / RUN, function)
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def _clear_old_marks(folder: Path, pending: Sequence[ShardTask]) -> None:
    marks.clear(folder / RUN)
    for task in pending:  # a record whose files are gone would count as progress
        (folder / SHARDS / f"{task.shard:05d}.json").unlink(missing_ok=True)


def _check_records(stage: Stage, pending: Sequence[ShardTask], engine: Engine) -> None:
    done = stage.records()
    missing = [task for task in pending if task.shard not in done]
    if missing:
        raise GlmDataError(
            f"the {engine.name} runner finished, but {len(missing)} of {len(pending)} shards left no record in "
            f"'{stage.folder}'; its workers must see this folder and the inputs under the same paths."
        )
    marks.clear(stage.folder / RUN)


@contextlib.contextmanager
def _translate_errors(folder: Path, watcher: Watcher) -> Iterator[None]:
    """Raise what was meant instead of what Beam makes of it."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        meant = _meant_error(folder / RUN, watcher, error)
        if meant is None:
            raise
        raise meant from None


def _meant_error(run_folder: Path, watcher: Watcher, error: BaseException) -> BaseException | None:
    """The error to raise for ``error``, or None if it is a bug and speaks for itself."""
    watcher.note_lost()
    if watcher.interrupted or (isinstance(error, KeyboardInterrupt) and watcher.lost is None):
        return InterruptedRunError(
            f"interrupted with {watcher.count_done()} more shards finished; they are kept: run again to go on."
        )
    failures = marks.read_failures(run_folder)
    for failure in failures:
        rebuilt = marks.rebuild_error(failure)
        if rebuilt is not None:
            return rebuilt
    if failures:
        return _as_bug(failures[0], error)
    return None if watcher.lost is None else _worker_died(watcher.lost)


def _as_bug(failure: marks.Failure, error: BaseException) -> BaseException | None:
    where = f"shard {failure.shard} ('{failure.input}')"
    if failure.pid != os.getpid():
        return RuntimeError(f"{where} failed in a worker process:\n{failure.traceback}")
    error.add_note(f"while working on {where}")
    return None


def _worker_died(lost: Sequence[marks.Working]) -> GlmDataError:
    shards = ", ".join(f"shard {item.shard} ('{item.input}')" for item in lost)
    when = f"with {shards} in hand" if shards else "between shards"
    return GlmDataError(
        f"a worker process died {when} (killed, or out of memory); finished shards are kept: "
        "run again to go on, with fewer --workers if memory was short."
    )
