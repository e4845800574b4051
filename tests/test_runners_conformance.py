"""The same bytes on every kind of runner, and after the loss of a worker or of the driver.

The runners are real: processes on this machine that speak the protocols of a cluster. Flink, Spark and Dataflow run the
same graph through the protocol of the job server that stands here for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from dedupe_texts import PERTURBATIONS, write_documents
from pipelines_shards import make_inputs, run_stage
from runner_services import LOOPBACK, dask_cluster, job_server, wait_until, watching_ports, worker_pool

from glm_data.dedupe import DedupeOptions
from glm_data.errors import GlmDataError
from glm_data.filters import FilterOptions
from pipelines import dedupe, filter, launcher, marks
from pipelines.engines import ENGINES
from pipelines.preflight import preflight
from pipelines.runner import RunnerOptions

IN_MEMORY = RunnerOptions(workers=1)
NO_DASK = "the Dask runner is an extra that is not installed: pip install 'glm-data[dask]'"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three raw files with copies of several kinds within and between them."""
    folder = tmp_path_factory.mktemp("corpus")
    zh, en = write_documents("zh", 6), write_documents("en", 6)
    changed = [change(text) for change in PERTURBATIONS.values() for text in (zh[0], en[0])]
    for number, texts in enumerate([[*zh, *en], [*changed, zh[1], "?"], [*write_documents("en", 4, seed=1), en[1]]]):
        lines = [json.dumps({"text": text, "meta": {"pile_set_name": f"source {number}"}}) for text in texts]
        (folder / f"{number}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


class Digests(NamedTuple):
    filter: str
    dedupe: str


def run_both(corpus: Path, out: Path, runner: RunnerOptions) -> Digests:
    first = run_filter(corpus, out, runner)
    done = dedupe.run([out / "filter"], out / "dedupe", DedupeOptions(), runner)
    assert done.dropped.keys() == {"exact", "near"}
    return Digests(first, done.digest)


def run_filter(corpus: Path, out: Path, runner: RunnerOptions) -> str:
    filtered = filter.run([corpus], out / "filter", FilterOptions(), runner)
    assert filtered.dropped
    return filtered.digest


@pytest.fixture(scope="module")
def in_memory(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Digests:
    return run_both(corpus, tmp_path_factory.mktemp("memory"), IN_MEMORY)


def test_worker_processes(corpus: Path, in_memory: Digests, tmp_path: Path) -> None:
    with watching_ports() as addresses:
        assert run_filter(corpus, tmp_path, RunnerOptions(workers=2)) == in_memory.filter
    assert addresses
    assert addresses <= LOOPBACK


def test_job_server_with_workers_in_the_driver(corpus: Path, in_memory: Digests, tmp_path: Path, capfd) -> None:
    with job_server(tmp_path / "staging") as jobs, watching_ports() as addresses:
        arguments = (f"--job_endpoint={jobs}", "--environment_type=LOOPBACK")
        assert run_both(corpus, tmp_path, RunnerOptions(runner="portable", beam_args=arguments)) == in_memory
    assert addresses <= LOOPBACK
    assert capfd.readouterr() == ("", "")


@contextlib.contextmanager
def on_pool(folder: Path) -> Iterator[RunnerOptions]:
    with job_server(folder / "staging") as jobs, worker_pool() as pool:
        arguments = (f"--job_endpoint={jobs}", "--environment_type=EXTERNAL", f"--environment_config={pool}")
        yield RunnerOptions(runner="portable", beam_args=arguments)


@contextlib.contextmanager
def on_dask(folder: Path) -> Iterator[RunnerOptions]:
    with dask_cluster(folder) as scheduler:
        yield RunnerOptions(runner="dask", beam_args=(f"--dask_client_address={scheduler}",))


def test_job_server_with_a_pool_of_workers(corpus: Path, in_memory: Digests, tmp_path: Path) -> None:
    with on_pool(tmp_path) as runner:
        assert all(check.ok for check in preflight(ENGINES["portable"], runner.beam_args, tmp_path))
        assert run_filter(corpus, tmp_path, runner) == in_memory.filter
        accidents = Accidents(tmp_path)
        with pytest.raises(GlmDataError, match="the portable runner"):
            accidents.kill_a_worker(runner)
        assert accidents.run_again(runner) == accidents.undisturbed


def test_dask_cluster(corpus: Path, in_memory: Digests, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason=NO_DASK)
    with on_dask(tmp_path) as runner:
        wait_until(lambda: "2 workers on " in told_of_dask(runner, tmp_path))  # they join one by one
        assert run_both(corpus, tmp_path, runner) == in_memory
        accidents = Accidents(tmp_path)
        accidents.kill_the_driver(runner)
        assert accidents.run_again(runner) == accidents.undisturbed
        accidents.kill_a_worker(runner)  # the cluster gives its shard to the other one
        assert accidents.run_again(runner) == accidents.undisturbed


def told_of_dask(runner: RunnerOptions, folder: Path) -> str:
    """What the preflight says of the workers, once all is well."""
    told = {check.name: check for check in preflight(ENGINES["dask"], runner.beam_args, folder)}
    return told["workers"].sentence if all(check.ok for check in told.values()) else ""


TWO_LEAVES = """
import sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
with beam.Pipeline(options=PipelineOptions(sys.argv[1:])) as pipeline:
    numbers = pipeline | beam.Create([1, 2, 3])
    numbers | "Left" >> beam.Map(print)
    numbers | "Right" >> beam.Map(print)
"""


@pytest.mark.parametrize("name", ["dask", "apache_beam.runners.dask.dask_runner.DaskRunner"])
def test_pipelines_of_users_that_dask_gets_wrong_are_refused(name: str, tmp_path: Path, capsys) -> None:
    pytest.importorskip("distributed", reason=NO_DASK)
    (tmp_path / "two_leaves.py").write_text(TWO_LEAVES)
    assert launcher.main(["run", str(tmp_path / "two_leaves.py"), f"--runner={name}"]) == 2
    assert "2 leaves ('Left', 'Right'), of which only one would run" in capsys.readouterr().err


class Accidents:
    """A stage of six small shards to which something happens."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.inputs = folder, make_inputs(folder / "in")
        self.undisturbed = run_stage(self.inputs, folder / "undisturbed", {}, IN_MEMORY).digest
        self.out = folder / "none yet"

    def kill_a_worker(self, runner: RunnerOptions) -> None:
        """Run; the worker that has shard 3 in hand is killed, the first time."""
        self.out = self.folder / "killed worker"
        accidents = {"kill_at": 3, "sentinel": str(self.folder / "killed"), "calls": str(self.folder / "calls")}
        run_stage(self.inputs, self.out, accidents, runner)

    def kill_the_driver(self, runner: RunnerOptions) -> None:
        """Run in a process that is killed while shards are being worked on."""
        self.out, sleepy = self.folder / "killed driver", self.folder / "sleepy"
        sleepy.touch()
        arguments = [str(self.inputs), str(self.out), str(sleepy), msgspec.json.encode(runner).decode()]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], env=environment)
        wait_until(lambda: marks.read_working(self.out / "_run"))
        driver.kill()
        assert driver.wait() == -signal.SIGKILL
        assert not (self.out / "_SUCCESS.json").exists()
        sleepy.unlink()

    def run_again(self, runner: RunnerOptions) -> str:
        return run_stage(self.inputs, self.out, {}, runner).digest


DRIVER = """
import sys
from pathlib import Path
import msgspec
from pipelines_shards import run_stage
from pipelines.runner import RunnerOptions
inputs, out, sleepy, runner = sys.argv[1:]
run_stage(Path(inputs), Path(out), {"sleepy": sleepy}, msgspec.json.decode(runner, type=RunnerOptions))
"""


# --- what every runner is given ---------------------------------------------------------------------------------------

EVERYWHERE = {
    "beam:transform:impulse:v1",
    "beam:transform:pardo:v1",
    "beam:transform:group_by_key:v1",
    "beam:transform:reshuffle:v1",
}
"""Of Beam's transforms, those that every runner has."""


def test_a_stage_asks_for_what_every_runner_has(tmp_path: Path) -> None:
    from keeping_runner import KeepingRunner

    KeepingRunner.protos.clear()
    run_stage(make_inputs(tmp_path / "in"), tmp_path / "out", {}, RunnerOptions(runner="keeping_runner.KeepingRunner"))
    (proto,) = KeepingRunner.protos
    transforms = proto.components.transforms.values()
    assert {transform.spec.urn for transform in transforms if not transform.subtransforms} <= EVERYWHERE
    assert not any("state" in urn or "timer" in urn or "splittable" in urn for urn in proto.requirements)
    assert {environment.urn for environment in proto.components.environments.values()}.isdisjoint({"", "external"})
    leaves = [transform for transform in transforms if transform.unique_name == "RunShard"]
    assert len(leaves) == 1
    assert len(proto.SerializeToString()) < 100_000, "text travels through files, never through Beam"
