"""Shard records, their sums, and resuming after a kill or damage to the same bytes."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_helpers import OPTIONS, contents, do_shard, finished_stage, run_stage, write_shards

from glm_data import files
from glm_data.stage import (
    SHARDS,
    SUCCESS,
    Check,
    OutputFile,
    ShardRecord,
    Stage,
    Success,
    find_inputs,
    make_plan,
    open_stage,
    output_file,
    peak_memory_bytes,
    read_success,
    write_shard_record,
)

SLOW_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import stage_helpers
from glm_data import files
from glm_data.stage import find_inputs
write = files.write_bytes
def slowly(path, data):
    with files.atomic_path(path) as temporary, temporary.open("wb") as handle:
        for byte in data:
            handle.write(bytes([byte]))
            handle.flush()
            time.sleep(0.0003)
files.write_bytes = slowly
print("ready", flush=True)
stage_helpers.run_stage(Path(sys.argv[1]), find_inputs([sys.argv[2]]))
"""

COUNTS = st.dictionaries(st.sampled_from(["a", "b/中", "c"]), st.integers(0, 10**12), max_size=3)


@st.composite
def shard_records(draw: st.DrawFn, shard: int) -> ShardRecord:
    dropped, unreadable, kept = draw(COUNTS), draw(COUNTS), draw(st.integers(0, 10**12))
    return ShardRecord(
        shard=shard,
        input=f"in/{shard}",
        records=kept + sum(dropped.values()) + sum(unreadable.values()),
        kept=kept,
        dropped=dropped,
        unreadable=unreadable,
        counts=draw(COUNTS),
    )


def commit(folder: Path, records: list[ShardRecord]) -> Success:
    for record in records:
        write_shard_record(folder, record, time.perf_counter())
    return Stage(folder, make_plan("s", {}, ())).succeed(len(records))


@settings(deadline=None, max_examples=25)
@given(st.data(), st.integers(1, 4), st.randoms())
def test_sums_add_up_and_know_no_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, shuffler: random.Random
) -> None:
    records = [data.draw(shard_records(shard)) for shard in range(count)]
    success = commit(tmp_path_factory.mktemp("one"), records)
    shuffled = records.copy()
    shuffler.shuffle(shuffled)
    assert commit(tmp_path_factory.mktemp("two"), shuffled) == success
    assert success.records == success.kept + sum(success.dropped.values()) + sum(success.unreadable.values())
    for field in ("dropped", "unreadable", "counts"):
        expected: Counter[str] = Counter()
        for record in records:
            expected.update(getattr(record, field))
        assert getattr(success, field) == dict(expected)
    assert success.shards == count


@pytest.mark.parametrize(
    "wrong",
    [{"records": 3}, {"kept": 1}, {"dropped": {"x": 2}}, {"unreadable": {"x": 1}}, {"records": 1}],
)
def test_a_shard_that_does_not_add_up_is_our_bug(tmp_path: Path, wrong: dict[str, object]) -> None:
    record = ShardRecord(shard=0, input="x", records=2, kept=2 - 1, dropped={"x": 1})
    write_shard_record(tmp_path / "good", record, 0.0)
    changed = msgspec.structs.replace(record, **({"kept": 2} if wrong == {"kept": 1} else wrong))
    with pytest.raises(AssertionError, match="records read but"):
        write_shard_record(tmp_path / "bad", changed, 0.0)
    assert not (tmp_path / "bad" / SHARDS).exists()


def test_a_shard_whose_file_is_not_there_is_our_bug(tmp_path: Path) -> None:
    promised = OutputFile(name="data/x", bytes=1, digest="d")
    with pytest.raises(AssertionError, match="data/x is not in place"):
        write_shard_record(tmp_path, ShardRecord(shard=0, input="x", files=(promised,)), 0.0)


def test_two_shards_may_not_write_one_file(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "x", b"x")
    records = [ShardRecord(shard=shard, input="i", files=(output_file(tmp_path, "x"),)) for shard in range(2)]
    with pytest.raises(AssertionError, match="a file of one name"):
        commit(tmp_path, records)


def test_a_stage_cannot_succeed_with_a_shard_missing(tmp_path: Path) -> None:
    write_shard_record(tmp_path, ShardRecord(shard=0, input="x"), 0.0)
    with pytest.raises(AssertionError, match=r"shards without a record: \[1, 2\]"):
        Stage(tmp_path, make_plan("s", {}, ())).succeed(3)
    assert not (tmp_path / SUCCESS).exists()


def test_success_tells_what_happened(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    success = read_success(folder)
    assert (success.stage, success.shards, success.records, success.kept) == ("upper", 3, 12, 9)
    assert success.dropped == {"empty": 3}
    assert success.counts == {"kept/text": 9}
    assert success.facts == {"pair": [1, 2]}
    assert success.key == make_plan("upper", OPTIONS, inputs)["key"]
    assert [item.name for item in success.files] == [f"data/0000{shard}.txt" for shard in range(3)]
    assert [item.rows for item in success.files] == [2, 3, 4]
    assert all(item == output_file(folder, item.name, item.rows) for item in success.files)
    assert success.digest == files.digest_value([[item.name, item.digest] for item in success.files])


def test_what_succeed_returns_is_what_is_read_back(tmp_path: Path) -> None:
    inputs = find_inputs([write_shards(tmp_path / "in")])
    assert run_stage(tmp_path / "out", inputs) == read_success(tmp_path / "out")


def test_a_tripped_guard_rail_shows(tmp_path: Path) -> None:
    checks = [Check(name="a", ok=True, sentence="Fine."), Check(name="b", ok=False, sentence="Lost too much.")]
    write_shard_record(tmp_path, ShardRecord(shard=0, input="x"), 0.0)
    stage = Stage(tmp_path, make_plan("s", {}, ()))
    assert not stage.succeed(1, checks).ok
    assert stage.succeed(1, checks[:1]).ok
    assert read_success(tmp_path).checks == (checks[0],)


def test_the_digest_knows_names_and_bytes_alone(tmp_path: Path) -> None:
    digests = []
    for place, name, data in [("a", "x", b"1"), ("b", "x", b"1"), ("c", "y", b"1"), ("d", "x", b"2")]:
        files.write_bytes(tmp_path / place / name, data)
        record = ShardRecord(shard=0, input=place, files=(output_file(tmp_path / place, name),))
        digests.append(commit(tmp_path / place, [record]).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_resume_does_only_what_is_missing(tmp_path: Path) -> None:
    expected, inputs = finished_stage(tmp_path)
    folder = tmp_path / "resumed"
    with open_stage(folder, "upper", OPTIONS, inputs) as stage:
        do_shard(stage, 1, inputs[1])
    done = (folder / SHARDS / "00001.json").stat().st_mtime_ns
    with open_stage(folder, "upper", OPTIONS, inputs) as stage:
        assert stage.pending(3) == [0, 2]
        assert stage.records()[1].input == "shards/01.txt"
    run_stage(folder, inputs)
    assert (folder / SHARDS / "00001.json").stat().st_mtime_ns == done
    assert contents(folder) == contents(expected)
    assert files.read_json(folder / "_run" / "stage.json")["resumed_shards"] == 1


def damage_record(folder: Path) -> None:
    path = folder / SHARDS / "00001.json"
    path.write_bytes(path.read_bytes()[:-20])


def damage_record_to_nothing(folder: Path) -> None:
    (folder / SHARDS / "00001.json").write_bytes(b"")


def damage_record_type(folder: Path) -> None:
    (folder / SHARDS / "00001.json").write_bytes(b'{"shard": "one", "input": 3}')


def lose_record(folder: Path) -> None:
    (folder / SHARDS / "00001.json").unlink()


def shorten_output(folder: Path) -> None:
    path = folder / "data/00001.txt"
    path.write_bytes(path.read_bytes()[:-1])


def lose_output(folder: Path) -> None:
    (folder / "data/00001.txt").unlink()


@pytest.mark.parametrize(
    "damage",
    [damage_record, damage_record_to_nothing, damage_record_type, lose_record, shorten_output, lose_output],
)
def test_a_damaged_shard_is_done_again_to_the_same_bytes(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder, inputs = finished_stage(tmp_path)
    expected = contents(folder)
    damage(folder)
    with open_stage(folder, "upper", OPTIONS, inputs) as stage:
        assert stage.pending(3) == [1]
    run_stage(folder, inputs)
    assert contents(folder) == expected


def test_while_a_lost_output_is_missing_the_stage_is_not_finished(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    lose_output(folder)
    with open_stage(folder, "upper", OPTIONS, inputs):
        assert not (folder / SUCCESS).exists()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"stage": 1}', b"\xff"])
def test_a_damaged_manifest_is_written_anew(tmp_path: Path, damage: bytes) -> None:
    folder, inputs = finished_stage(tmp_path)
    expected = contents(folder)
    (folder / SUCCESS).write_bytes(damage)
    run_stage(folder, inputs)
    assert contents(folder) == expected


def test_left_over_temporaries_go_when_the_stage_is_opened(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    expected = contents(folder)
    for place in (".tmp-1-_plan.json", "data/.tmp-2-00000.txt", "_shards/.tmp-3-00000.json"):
        (folder / place).write_text("half")
    with open_stage(folder, "upper", OPTIONS, inputs):
        assert contents(folder) == expected


def test_kill_minus_nine_again_and_again_ends_in_the_same_bytes(tmp_path: Path) -> None:
    expected, inputs = finished_stage(tmp_path)
    folder = tmp_path / "killed"
    moments = random.Random(7)
    command = [sys.executable, "-c", SLOW_RUN, str(folder), str(tmp_path / "shards"), str(Path(__file__).parent)]
    states = []
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0.005, 0.12))
            process.send_signal(signal.SIGKILL)
        states.append(sorted(contents(folder)) if folder.exists() else [])
    assert any(SUCCESS not in state for state in states)
    run_stage(folder, inputs)
    assert contents(folder) == contents(expected)


def test_peak_memory_is_in_bytes() -> None:
    before = peak_memory_bytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert 10 << 20 < before <= peak_memory_bytes() < 1 << 40
    assert peak_memory_bytes() >= 64 << 20
