from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pipelines_shards import ERRORS, SHARDS, OddError, make_inputs, run_stage

from glm_data.errors import GlmDataError, InterruptedRunError, MissingExtraError, UsageError
from glm_data.stage import InputFile, ShardTask
from pipelines import engines, marks, runner, watch
from pipelines.runner import RunnerOptions, count_workers

IN_MEMORY = RunnerOptions(workers=1)
TWO = RunnerOptions(workers=2)


@pytest.fixture
def inputs(tmp_path):
    return make_inputs(tmp_path / "in")


@pytest.fixture
def undisturbed(inputs, tmp_path):
    return run_stage(inputs, tmp_path / "undisturbed", {}, IN_MEMORY)


def read_outputs(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "data").iterdir())}


def test_import_is_lazy():
    code = "import sys, pipelines.runner, pipelines.launcher, pipelines.portable; print('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_two_processes_give_the_bytes_of_one_without_noise(inputs, undisturbed, tmp_path, capfd):
    seen = []
    calls = tmp_path / "calls"
    out = tmp_path / "two"
    success = run_stage(inputs, out, {"calls": str(calls)}, TWO, on_progress=lambda *done: seen.append(done))
    assert success.digest == undisturbed.digest
    assert read_outputs(out) == read_outputs(tmp_path / "undisturbed")
    by_pid: dict[str, list[str]] = {}
    for line in calls.read_text().splitlines():
        by_pid.setdefault(line.split()[1], []).append(line.split()[0])
    assert sorted(by_pid.values()) == [["4", "2", "0"], ["5", "3", "1"]]  # dealt out in turn, biggest first
    assert str(os.getpid()) not in by_pid
    assert seen[0] == (0, SHARDS)
    assert seen[-1] == (SHARDS, SHARDS)
    assert seen == sorted(set(seen))
    assert capfd.readouterr() == ("", "")
    assert not [
        path for path in (out / "_run").iterdir() if path.name.startswith(("working", "failed", "worker-", "stop"))
    ]


def test_killed_worker_is_named_and_resume_gives_the_same_bytes(inputs, undisturbed, tmp_path, capfd):
    out, calls = tmp_path / "out", tmp_path / "calls"
    accidents = {"kill_at": 3, "sentinel": str(tmp_path / "sentinel"), "calls": str(calls)}
    with pytest.raises(GlmDataError) as caught:
        run_stage(inputs, out, accidents, TWO)
    assert type(caught.value) is GlmDataError
    assert "died with shard 3 ('in/3.txt') in hand" in str(caught.value)
    assert "run again to go on" in str(caught.value)
    assert capfd.readouterr() == ("", "")
    done = {int(path.stem) for path in (out / "_shards").iterdir()}
    assert 5 in done
    assert 3 not in done
    calls.unlink()
    assert run_stage(inputs, out, accidents, IN_MEMORY).digest == undisturbed.digest
    assert {int(line.split()[0]) for line in calls.read_text().splitlines()} == set(range(SHARDS)) - done


def test_worker_that_cannot_start_is_an_error_and_no_hang(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(watch, "_GRACE_SECONDS", 0.5)
    with pytest.raises(GlmDataError, match="a worker process died between shards"):
        run_stage(inputs, tmp_path / "out", {}, TWO)


@pytest.fixture
def ignored_interrupts():
    """As in a background job of a script, which a shell starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    still = signal.signal(signal.SIGINT, before)
    assert still is signal.SIG_IGN


@pytest.mark.usefixtures("ignored_interrupts")
def test_lost_worker_ends_the_run_where_interrupts_are_ignored(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(watch, "_GRACE_SECONDS", 0.5)
    with pytest.raises(GlmDataError, match="a worker process died between shards"):
        run_stage(inputs, tmp_path / "out", {}, TWO)


@pytest.mark.usefixtures("ignored_interrupts")
def test_ignored_interrupts_stay_ignored_during_a_run(tmp_path):
    watcher = watch.Watcher(tmp_path, [], 0, None)
    with watcher.watching():
        signal.raise_signal(signal.SIGINT)
    assert not watcher.interrupted


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_user_errors_arrive_as_themselves(inputs, tmp_path, name):
    with pytest.raises(GlmDataError) as caught:
        run_stage(inputs, tmp_path / "out", {"raise_at": 4, "error": name}, IN_MEMORY)
    assert type(caught.value) is ERRORS[name]
    assert str(caught.value) == "bad in/4.txt: no [while running] here."


def test_user_error_of_a_worker_process_arrives_as_itself(inputs, tmp_path, capfd):
    with pytest.raises(OddError, match=r"^odd at 5$"):
        run_stage(inputs, tmp_path / "out", {"odd_at": 5}, TWO)
    assert capfd.readouterr() == ("", "")


def test_bug_in_a_shard_keeps_its_type_and_names_the_shard(inputs, tmp_path):
    with pytest.raises(KeyError, match="a bug of ours") as caught:
        run_stage(inputs, tmp_path / "out", {"bug_at": 2}, IN_MEMORY)
    assert caught.value.__notes__ == ["while working on shard 2 ('in/2.txt')"]


def test_bug_in_a_worker_process_brings_its_traceback(tmp_path):
    failure = marks.Failure(2, "in/2.txt", os.getpid() + 1, (), "'oops'", "Traceback ... KeyError: 'oops'")
    bug = runner._as_bug(failure, RuntimeError("a shard failed"))
    assert str(bug) == "shard 2 ('in/2.txt') failed in a worker process:\nTraceback ... KeyError: 'oops'"


def test_failure_stops_the_worker_process(inputs, tmp_path):
    task = make_task(tmp_path / "out", inputs)
    marks.stop(tmp_path / "out" / "_run")
    assert runner._run_unless_stopped(lambda task: pytest.fail("ran"), runner.msgspec.msgpack.encode(task)) == -1


def make_task(out, inputs):
    (out / "_run").mkdir(parents=True)
    item = InputFile(name="in/0.txt", path=str(inputs / "0.txt"), bytes=1, digest="")
    return ShardTask(shard=0, folder=str(out), input=item)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), "shard 0 ('in/0.txt'): No space left on device; make room"),
        (MemoryError(), "shard 0 ('in/0.txt'): out of memory; use fewer --workers"),
    ],
)
def test_conditions_of_the_machine_are_sentences(inputs, tmp_path, error, expected):
    task = make_task(tmp_path / "out", inputs)
    with pytest.raises(GlmDataError) as caught, marks.working(task):
        raise error
    assert str(caught.value).startswith(expected)
    (failure,) = marks.read_failures(tmp_path / "out" / "_run")
    rebuilt = marks.rebuild_error(failure)
    assert (type(rebuilt), str(rebuilt)) == (type(caught.value), str(caught.value))


def test_input_that_vanished_is_a_sentence(inputs, tmp_path):
    task = make_task(tmp_path / "out", inputs)
    (inputs / "0.txt").unlink()
    with pytest.raises(GlmDataError, match=r"0\.txt' cannot be read \(No such file"), marks.working(task):
        Path(task.input.path).read_bytes()


def test_error_class_unknown_here_becomes_its_nearest_base():
    failure = marks.Failure(0, "a", 1, ("elsewhere.RareError", "glm_data.errors.UsageError"), "no", "")
    assert type(marks.rebuild_error(failure)) is UsageError


def test_ctrl_c_in_memory_is_interrupted_run(inputs, undisturbed, tmp_path):
    accidents = {"interrupt_at": 2, "sentinel": str(tmp_path / "sentinel")}
    with pytest.raises(InterruptedRunError, match="interrupted with 3 more shards finished"):
        run_stage(inputs, tmp_path / "out", accidents, IN_MEMORY)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run_stage(inputs, tmp_path / "out", accidents, IN_MEMORY).digest == undisturbed.digest


def test_ctrl_c_ends_worker_processes_in_the_middle_of_a_shard(inputs, tmp_path, capfd):
    out, sleepy = tmp_path / "out", tmp_path / "sleepy"
    sleepy.touch()
    pids, sent = [], []

    def interrupt():
        wait_until(lambda: len(marks.read_working(out / "_run")) == 2)
        sent.append(time.monotonic())
        pids.extend(marks.worker_pids(out / "_run"))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(InterruptedRunError, match="interrupted with 0 more shards finished; they are kept: run again"):
        run_stage(inputs, out, {"sleepy": str(sleepy)}, TWO)
    thread.join()
    assert time.monotonic() - sent[0] < 30  # the shards would sleep for 60 s
    assert len(pids) == 2
    assert not any(marks.is_alive(pid) for pid in pids)
    assert capfd.readouterr() == ("", "")


DRIVER = """
import json, sys
from pathlib import Path
from pipelines_shards import run_stage
from pipelines.runner import RunnerOptions
run_stage(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), RunnerOptions(workers=2))
"""


def test_worker_processes_end_with_a_killed_driver(inputs, undisturbed, tmp_path):
    out, sleepy = tmp_path / "out", tmp_path / "sleepy"
    sleepy.touch()
    accidents = {"sleepy": str(sleepy)}
    words = [sys.executable, "-c", DRIVER, str(inputs), str(out), json.dumps(accidents)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TMPDIR": str(tmp_path)}
    driver = subprocess.Popen(words, env=environment)
    wait_until(lambda: len(marks.read_working(out / "_run")) == 2)
    pids = marks.worker_pids(out / "_run")
    parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(marks.is_alive(pid) for pid in (*pids, *parents)))
    assert not list(tmp_path.glob("glm-data-*"))
    sleepy.unlink()
    assert run_stage(inputs, out, accidents, IN_MEMORY).digest == undisturbed.digest


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_finished_shards_are_skipped(inputs, undisturbed, tmp_path):
    calls = tmp_path / "calls"
    out = tmp_path / "undisturbed"
    (out / "_SUCCESS.json").unlink()
    (out / "data" / "00002.txt").unlink()  # its record no longer holds
    (out / "_shards" / "00004.json").unlink()
    assert run_stage(inputs, out, {"calls": str(calls)}, IN_MEMORY).digest == undisturbed.digest
    assert [line.split()[0] for line in calls.read_text().splitlines()] == ["4", "2"]


def test_repeated_bundles_change_nothing(inputs, undisturbed, tmp_path):
    calls = tmp_path / "calls"
    options = RunnerOptions(workers=1, beam_args=("--direct_runner_bundle_repeat=1",))
    assert run_stage(inputs, tmp_path / "out", {"calls": str(calls)}, options).digest == undisturbed.digest
    assert len(calls.read_text().splitlines()) == 2 * SHARDS


def test_another_beam_runner_gives_the_same(inputs, undisturbed, tmp_path):
    options = RunnerOptions(runner="apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner")
    assert run_stage(inputs, tmp_path / "out", {}, options).digest == undisturbed.digest


def test_runner_whose_workers_do_not_share_the_folder_is_found_out(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_run", lambda *args: None)
    with pytest.raises(GlmDataError, match=r"6 of 6 shards left no record.*must see this folder"):
        run_stage(inputs, tmp_path / "out", {}, IN_MEMORY)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"beam_args": ("--direct_num_worker=2",)},
            "no Beam option '--direct_num_worker'. Did you mean '--direct_num_workers'?",
        ),
        ({"beam_args": ("stray",)}, "no Beam option 'stray'. Options for the runner alone go after '--'."),
        ({"beam_args": ("--streaming",)}, "--streaming: every stage reads bounded input"),
        ({"beam_args": ("--runner=flink",)}, "--runner is given twice"),
        ({"beam_args": ("--direct_num_workers=two",)}, "invalid int value: 'two'"),
        ({"runner": "flnk"}, "there is no runner 'flnk'. Did you mean 'flink'?"),
        ({"runner": "qqq"}, "there is no runner 'qqq'. Known: local, portable"),
        ({"runner": "no.such.Runner"}, "'no.such.Runner' cannot be imported"),
        ({"runner": "glm_data.errors.Missing"}, "'glm_data.errors.Missing' is not a Beam runner"),
        ({"workers": -1}, "--workers -1: give the number of worker processes"),
    ],
)
def test_options_that_cannot_be_meant(inputs, tmp_path, options, expected):
    with pytest.raises(UsageError) as caught:
        run_stage(inputs, tmp_path / "out", {}, RunnerOptions(**options))
    assert expected in str(caught.value)
    assert not (tmp_path / "out" / "_shards").exists()


def test_options_after_dashes_are_not_checked():
    options = engines.parse_beam_options(["--direct_num_workers=3", "--", "--rare=1"], engines.ENGINES["portable"])
    assert options.get_all_options(retain_unknown_options=True)["rare"] == "1"
    assert options.get_all_options(retain_unknown_options=True)["direct_num_workers"] == 3


@pytest.mark.parametrize("name", ["dask", "dataflow"])
def test_runner_that_is_not_installed_brings_the_pip_line(inputs, tmp_path, monkeypatch, name):
    def refuse(dotted):
        raise ImportError("No module named 'it'")

    monkeypatch.setattr("apache_beam.runners.runner.create_runner", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install '(glm-data|apache-beam)\["):
        run_stage(inputs, tmp_path / "out", {}, RunnerOptions(runner=name))


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("local", "local"),
        ("FnApiRunner", "local"),
        ("DirectRunner", "local"),
        ("direct", "local"),
        ("FLINK", "flink"),
        ("SparkRunner", "spark"),
        ("DaskRunner", "dask"),
        ("apache_beam.runners.dask.dask_runner.DaskRunner", "dask"),
        ("prism", "PrismRunner"),
        ("my.own.Runner", "my.own.Runner"),
    ],
)
def test_runner_names(name, engine):
    assert engines.find_engine(name).name == engine


@pytest.mark.parametrize(
    ("sizes", "workers", "expected"),
    [
        ([1, 1, 1], 0, 1),
        ([runner.SMALL_INPUT_BYTES] * 8, 0, 4),
        ([runner.SMALL_INPUT_BYTES] * 3, 0, 3),
        ([1, 1, 1], 2, 2),
        ([1], 2, 1),
        ([1, 1, 1], 1, 1),
    ],
)
def test_how_many_workers(monkeypatch, sizes, workers, expected):
    monkeypatch.setattr(runner, "count_cores", lambda: 4)
    inputs = [InputFile(name="a", path="a", bytes=size, digest="") for size in sizes]
    tasks = [ShardTask(shard=i, folder="f", input=item) for i, item in enumerate(inputs)]
    assert count_workers(tasks, workers) == expected


@pytest.mark.parametrize(
    ("beam_args", "expected"),
    [
        ((), 7),
        (("--direct_num_workers=3",), 3),
        (("--direct_num_workers=0",), 4),
        (("--direct_running_mode=multi_processing",), 4),
        (("--direct_running_mode=in_memory", "--direct_num_workers=3"), 1),
    ],
)
def test_beams_own_words_for_local_width(monkeypatch, beam_args, expected):
    monkeypatch.setattr(runner, "count_cores", lambda: 4)
    parsed = engines.parse_beam_options(beam_args, engines.ENGINES["local"])
    assert runner._workers_of(parsed, RunnerOptions(workers=7, beam_args=beam_args)) == expected


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dask", {}, ["--dask_npartitions=1"]),
        ("dask", {"beam_args": ("--dask_partition_size=2",)}, []),
        ("flink", {"workers": 8}, ["--parallelism=8"]),
        ("flink", {"workers": 8, "beam_args": ("--parallelism=2",)}, []),
        ("dataflow", {"workers": 8}, ["--max_num_workers=8"]),
        ("spark", {"workers": 8}, []),
    ],
)
def test_width_in_the_words_of_a_cluster(inputs, tmp_path, name, options, expected):
    pending = [make_task(tmp_path / "out", inputs)]
    assert runner._width(engines.ENGINES[name], pending, RunnerOptions(runner=name, **options)) == expected


def test_the_largest_goes_first_by_what_a_file_holds() -> None:
    def task(name: str, size: int) -> ShardTask:
        return ShardTask(shard=0, folder="", input=InputFile(name=name, path="", bytes=size, digest=""), options={})

    assert runner.work_of(task("a.jsonl.zst", 10)) > runner.work_of(task("b.json", 30)) > runner.work_of(task("c", 20))
