"""The process that workers are forked from: kept from stage to stage, replaced when it died, gone with the driver."""

import errno
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from pipelines_shards import make_inputs, run_stage

from glm_data.errors import GlmDataError
from pipelines import call_worker, marks, nursery
from pipelines.runner import RunnerOptions

TWO = RunnerOptions(workers=2)


@pytest.fixture
def inputs(tmp_path):
    return make_inputs(tmp_path / "in")


def test_one_nursery_serves_all_stages_is_replaced_when_it_died_and_leaves_nothing(inputs, tmp_path, monkeypatch):
    nursery.close()
    digests = {run_stage(inputs, tmp_path / "first", {}, TWO).digest}
    first = nursery._nursery
    monkeypatch.chdir(tmp_path)  # since: workers are where the driver is now
    digests.add(run_stage(Path(inputs.name), Path("second"), {}, TWO).digest)
    assert nursery._nursery is first
    without_settings = first.command(tmp_path / "gone.json")
    assert subprocess.run(without_settings, shell=True, timeout=30, check=False).returncode == 1
    assert first.is_alive()
    os.kill(first._process.pid, signal.SIGKILL)
    first._process.wait()
    digests.add(run_stage(inputs, tmp_path / "third", {}, TWO).digest)
    second = nursery._nursery
    assert second is not first
    assert not first._folder.exists()
    monkeypatch.setattr(nursery, "_SECONDS_TO_END", 0.1)
    os.kill(second._process.pid, signal.SIGSTOP)  # as when it compiles: it does not see that it is to end
    nursery.close()
    assert len(digests) == 1
    assert not second._folder.exists()
    assert not marks.is_alive(second._process.pid)


def test_a_caller_without_a_nursery_ends_with_an_error(tmp_path):
    assert call_worker.main(str(tmp_path / "nothing"), "settings.json") == 1


def test_a_long_temporary_folder_is_no_place_for_a_socket(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    Path(tempfile.tempdir).mkdir()
    folder = nursery._make_folder()
    folder.rmdir()
    assert len(os.fsencode(folder / "nursery")) <= 103
    assert not list(Path(tempfile.tempdir).iterdir())


def test_no_place_for_a_socket_is_a_sentence(inputs, tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    nursery.close()
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(GlmDataError, match=r"no place for .*\(Read-only file system\); set TMPDIR .* --workers 1"):
        run_stage(inputs, tmp_path / "out", {}, TWO)
