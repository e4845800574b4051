"""The process that workers are forked from: kept from stage to stage, replaced when it died, gone with the driver."""

import os
import signal

import pytest
from pipelines_shards import make_inputs, run_stage

from pipelines import call_worker, marks, nursery
from pipelines.runner import RunnerOptions

TWO = RunnerOptions(workers=2)


@pytest.fixture
def inputs(tmp_path):
    return make_inputs(tmp_path / "in")


def test_one_nursery_serves_all_stages_is_replaced_when_it_died_and_leaves_nothing(inputs, tmp_path):
    nursery.close()
    digests = {run_stage(inputs, tmp_path / "first", {}, TWO).digest}
    first = nursery._nursery
    digests.add(run_stage(inputs, tmp_path / "second", {}, TWO).digest)
    assert nursery._nursery is first
    os.kill(first._process.pid, signal.SIGKILL)
    first._process.wait()
    digests.add(run_stage(inputs, tmp_path / "third", {}, TWO).digest)
    second = nursery._nursery
    assert second is not first
    assert not first._folder.exists()
    nursery.close()
    assert len(digests) == 1
    assert not second._folder.exists()
    assert not marks.is_alive(second._process.pid)


def test_a_caller_without_a_nursery_ends_with_an_error(tmp_path):
    assert call_worker.main(str(tmp_path / "nothing"), "settings.json") == 1
