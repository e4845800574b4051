"""Crashes, full disks and damaged inputs: the same bytes after running again, or one clear sentence."""

import errno
import os
import random
import shutil
import signal
import time

import pytest
import zstandard
from dedupe_runs import kept_rows, run, run_in_process, write_jsonl
from dedupe_texts import PERTURBATIONS, write_documents

from glm_data.errors import OutputError, StageMismatchError, UsageError
from pipelines import dedupe_steps


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr(dedupe_steps, "run_tasks", run_in_process)


OPTIONS = {"partitions": 2, "export_index": True, "lines": "line", "rehydrate": "fineweb2"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number, language in enumerate(("zh", "en", "zh")):
        texts = write_documents(language, 20, seed=number)
        texts += [change(texts[place]) for place, change in enumerate(PERTURBATIONS.values())]
        write_jsonl(folder / f"{number}.jsonl", texts + texts[:2])
    return folder


def run_killed_after(seconds, shards, out):
    """Run in a forked process, which shares what is compiled, and kill it; whether it was still at work."""
    child = os.fork()
    if child == 0:
        try:
            run([shards], out, **OPTIONS)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(shards, tmp_path):
    whole = run([shards], tmp_path / "whole", **OPTIONS)
    started = time.perf_counter()
    run([shards], tmp_path / "again", **OPTIONS)
    length = time.perf_counter() - started
    moments = random.Random(20)
    killed = 0
    for _ in range(6):
        killed += run_killed_after(moments.random() * length, shards, tmp_path / "out")
        assert run([shards], tmp_path / "out", **OPTIONS).digest == whole.digest
        assert not list((tmp_path / "out").rglob(".tmp-*"))
        shutil.rmtree(tmp_path / "out")
    assert killed > 2


def test_a_disk_that_fills_up_at_any_write_is_one_sentence_and_no_loss(shards, tmp_path, monkeypatch):
    whole = run([shards], tmp_path / "whole", **OPTIONS)
    fsync, writes = os.fsync, [0]

    def fill_up(place):
        def fail(handle):
            writes[0] += 1
            if writes[0] == place:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        return fail

    monkeypatch.setattr(os, "fsync", fill_up(0))
    run([shards], tmp_path / "counted", **OPTIONS)
    total = writes[0]
    assert total > 60
    said = []
    for place in range(2, total, 17):
        writes[0] = 0
        monkeypatch.setattr(os, "fsync", fill_up(place))
        out = tmp_path / f"full-{place}"
        try:
            run([shards], out, **OPTIONS)  # without a mark of what is being worked on, a run can do
        except OutputError as error:
            said.append(str(error))
        assert run([shards], out, **OPTIONS).digest == whole.digest
    assert len(said) > 2
    assert all("No space left on device" in line and "make room" in line and "\n" not in line for line in said)


def test_a_file_larger_than_the_system_allows_is_the_same(shards, tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be written.*make room"):
            run([shards], tmp_path / "out", **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run([shards], tmp_path / "out", **OPTIONS).kept == 60


def test_a_shard_damaged_in_the_middle_costs_what_lies_behind_the_damage(tmp_path):
    texts = write_documents("en", 600, seed=7)
    folder = tmp_path / "in"
    for number in range(3):
        write_jsonl(folder / f"{number}.jsonl", texts[number * 200 : number * 200 + 200])
    data = bytearray(zstandard.compress((folder / "1.jsonl").read_bytes(), 1))
    data[len(data) * 2 // 3 :: 7] = b"\xff" * len(data[len(data) * 2 // 3 :: 7])
    (folder / "1.jsonl").unlink()
    (folder / "1.jsonl.zst").write_bytes(data)
    success = run([folder], tmp_path / "out")
    kept = [row["text"] for row in kept_rows(tmp_path / "out", success)]
    assert success.unreadable.keys() <= {"corrupt", "truncated", "malformed_json"}
    assert sum(success.unreadable.values()) == 1
    assert set(texts[:200] + texts[400:]) <= set(kept) < set(texts)
    assert success.records == len(kept) + 1


def test_two_inputs_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        write_jsonl(tmp_path / folder / "data" / "in.jsonl", ["text"])
    with pytest.raises(UsageError, match=r"two inputs are named 'data/in.jsonl'.*ids would clash"):
        run([tmp_path / "a" / "data", tmp_path / "b" / "data"], tmp_path / "out")


@pytest.mark.parametrize("finished", [True, False])
def test_a_shard_that_is_gone_when_the_run_goes_on_is_named(shards, tmp_path, monkeypatch, finished):
    shutil.copytree(shards, tmp_path / "in")
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(dedupe_steps, "select_shard", None)
        try:
            run([tmp_path / "in"], tmp_path / "out")
        except TypeError:
            assert not finished
    (tmp_path / "in" / "1.jsonl").unlink()
    with pytest.raises(StageMismatchError, match=r"input in/1.jsonl is gone.*--overwrite to start afresh"):
        run([tmp_path / "in"], tmp_path / "out")
