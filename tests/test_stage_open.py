"""Opening a stage's folder: fresh, resumed, refused, overwritten, locked, unwritable."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from stage_helpers import OPTIONS, contents, do_shard, finished_stage, run_stage, write_shards

import glm_data
from glm_data import files
from glm_data.errors import OutputError, StageMismatchError, UsageError
from glm_data.stage import (
    PLAN,
    SUCCESS,
    InputFile,
    explain_difference,
    find_inputs,
    finished,
    make_plan,
    open_stage,
    read_success,
)

HOLDER = """
import sys, time
from pathlib import Path
from glm_data.stage import open_stage
with open_stage(Path(sys.argv[1]), "upper", {}, ()):
    print("held", flush=True)
    time.sleep(60)
"""


def item(name: str, digest: str = "d") -> InputFile:
    return InputFile(name=name, path="/" + name, bytes=1, digest=digest)


def refusal(folder: Path, name: str, options: dict[str, object], inputs: tuple[InputFile, ...]) -> str:
    with pytest.raises(StageMismatchError) as caught, open_stage(folder, name, options, inputs):
        pass
    said = str(caught.value)
    assert said.startswith(f"'{folder}' was begun with other settings (")
    assert said.endswith("); give another output folder, or --overwrite to start afresh.")
    return said.split("(", 1)[1].rsplit(")", 1)[0]


def test_a_fresh_stage_writes_its_plan_first(tmp_path: Path) -> None:
    inputs = find_inputs([write_shards(tmp_path / "in")])
    with open_stage(tmp_path / "deep" / "out", "upper", OPTIONS, inputs) as stage:
        assert files.read_json(stage.folder / PLAN) == make_plan("upper", OPTIONS, inputs) == stage.plan
        assert stage.pending(3) == [0, 1, 2]
        assert stage.records() == {}
        assert contents(stage.folder).keys() == {PLAN}


def test_the_plan_knows_names_and_digests_but_no_places(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    assert str(tmp_path).encode() not in b"".join(contents(folder).values())
    plan = files.read_json(folder / PLAN)
    assert plan["inputs"][0] == {"name": "shards/00.txt", "bytes": inputs[0].bytes, "digest": inputs[0].digest}
    assert plan["version"] == glm_data.__version__
    assert plan["options"] == OPTIONS


def test_two_equal_runs_in_two_folders_are_equal(tmp_path: Path) -> None:
    first, inputs = finished_stage(tmp_path)
    shutil.copytree(tmp_path / "shards", tmp_path / "moved" / "shards")
    moved = find_inputs([tmp_path / "moved" / "shards"])
    run_stage(tmp_path / "again", moved)
    assert contents(first) == contents(tmp_path / "again")
    assert moved != inputs  # other paths, same names and bytes


def test_opening_a_finished_stage_again_changes_nothing(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.*")}
    success = read_success(folder)
    assert run_stage(folder, inputs) == success
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.*")} == before


def test_a_finished_stage_is_recognised_by_its_key(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    assert finished(folder, "upper", OPTIONS, inputs) == read_success(folder)
    assert finished(folder, "lower", OPTIONS, inputs) is None
    assert finished(folder, "upper", {**OPTIONS, "upper": False}, inputs) is None
    assert finished(folder, "upper", OPTIONS, inputs[1:]) is None
    assert finished(tmp_path / "nowhere", "upper", OPTIONS, inputs) is None


@pytest.mark.parametrize("lost", [SUCCESS, "data/00001.txt"])
def test_a_stage_that_lost_something_is_not_finished(tmp_path: Path, lost: str) -> None:
    folder, inputs = finished_stage(tmp_path)
    (folder / lost).unlink()
    assert finished(folder, "upper", OPTIONS, inputs) is None


@pytest.mark.parametrize("options", [{"a": (1, 2)}, {"a": [1, 2]}])
def test_tuples_and_lists_are_the_same_option(tmp_path: Path, options: dict[str, object]) -> None:
    with open_stage(tmp_path / "out", "s", {"a": (1, 2)}, ()):
        pass
    with open_stage(tmp_path / "out", "s", options, ()):
        files.write_bytes(tmp_path / "out" / "data" / "part", b"work")
    assert refusal(tmp_path / "out", "s", {**options, "b": 1}, ()) == "b None -> 1"


@pytest.mark.parametrize(
    ("name", "options", "inputs", "said"),
    [
        ("t", {"seed": 1, "in": {"a": 1}}, ("x", "y"), "stage s -> t"),
        ("s", {"seed": 2, "in": {"a": 1}}, ("x", "y"), "seed 1 -> 2"),
        ("s", {"seed": 1, "in": {"a": 5}}, ("x", "y"), "in.a 1 -> 5"),
        ("s", {"seed": 1, "in": {"b": 1}}, ("x", "y"), "in.a 1 -> None; in.b None -> 1"),
        ("s", {"seed": 1, "in": {"a": 1}}, ("x",), "input y is gone"),
        ("s", {"seed": 1, "in": {"a": 1}}, ("x", "y", "z"), "input z is new"),
        ("s", {"seed": 1, "in": {"a": 1}}, ("x", "y!"), "input y has changed"),
        (
            "t",
            {"seed": 2, "in": {}},
            ("w", "y!", "z"),
            "stage s -> t",
        ),
        (
            "s",
            {"seed": 2, "in": {}},
            ("w", "y!", "z"),
            "in.a 1 -> None; seed 1 -> 2; input x is gone; input w is new; and 2 more",
        ),
    ],
)
def test_a_mismatch_names_what_differs(
    tmp_path: Path, name: str, options: dict[str, object], inputs: tuple[str, ...], said: str
) -> None:
    folder = tmp_path / "out"
    with open_stage(folder, "s", {"seed": 1, "in": {"a": 1}}, (item("x"), item("y"))):
        files.write_bytes(folder / "data" / "part", b"work")
    before = contents(folder)
    given = tuple(item(word.rstrip("!"), "other" if "!" in word else "d") for word in inputs)
    assert refusal(folder, name, options, given) == said
    assert contents(folder) == before


def test_a_stage_that_was_refused_before_it_did_anything_is_begun_with_other_settings(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(UsageError, match="mend the list"), open_stage(folder, "s", {"list": 1}, ()):
        raise UsageError("mend the list.")
    with open_stage(folder, "s", {"list": 2}, ()) as stage:
        assert stage.plan == files.read_json(folder / PLAN) == make_plan("s", {"list": 2}, ())


def test_another_version_is_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_stage(tmp_path / "out", "s", {}, ()):
        files.write_bytes(tmp_path / "out" / "data" / "part", b"work")
    before = glm_data.__version__
    monkeypatch.setattr(glm_data, "__version__", "9.9")
    assert refusal(tmp_path / "out", "s", {}, ()) == f"version {before} -> 9.9"


def test_values_too_long_for_a_sentence_are_not_said() -> None:
    old, new = make_plan("s", {"files": ["x" * 99, "y" * 99], "n": 1}, ()), make_plan("s", {"files": [], "n": 2}, ())
    assert explain_difference(old, new) == "files has changed; n 1 -> 2"


def test_only_the_order_of_inputs_differs(tmp_path: Path) -> None:
    old, new = (make_plan("s", {}, order) for order in ([item("x"), item("y")], [item("y"), item("x")]))
    assert old["key"] != new["key"]
    assert explain_difference(old, new) == "its key differs"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"key": 1}', b"\xff\xfe", b'{"key": "x"}'])
def test_a_damaged_plan_is_a_mismatch_that_overwrite_cures(tmp_path: Path, damage: bytes) -> None:
    folder, inputs = finished_stage(tmp_path)
    expected = contents(folder)
    (folder / PLAN).write_bytes(damage)
    assert refusal(folder, "upper", OPTIONS, inputs) == "its plan is damaged"
    with open_stage(folder, "upper", OPTIONS, inputs, overwrite=True) as stage:
        assert stage.pending(3) == [0, 1, 2]
    run_stage(folder, inputs)
    assert contents(folder) == expected


def test_overwrite_empties_the_folder_for_another_key(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    (folder / "_run" / "marks").mkdir()
    (folder / "linked").symlink_to(tmp_path / "shards")
    with open_stage(folder, "upper", {}, inputs, overwrite=True) as stage:
        assert contents(folder).keys() == {PLAN}
        assert {path.name for path in (folder / "_run").iterdir()} == {"lock", "inputs.json"}
        assert stage.pending(3) == [0, 1, 2]
    assert len(list((tmp_path / "shards").iterdir())) == 3  # behind the link, nothing was touched


def test_where_the_inputs_lay_is_kept_and_follows_them(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    places = files.read_json(folder / "_run" / "inputs.json")
    assert places == {item.name: item.path for item in inputs}
    (tmp_path / "shards").rename(tmp_path / "elsewhere")
    moved = tuple(msgspec.structs.replace(item, path=item.path.replace("shards", "elsewhere")) for item in inputs)
    success = read_success(folder)
    assert run_stage(folder, moved) == success
    assert files.read_json(folder / "_run" / "inputs.json") == {item.name: item.path for item in moved}


def test_overwrite_with_the_same_key_resumes(tmp_path: Path) -> None:
    folder, inputs = finished_stage(tmp_path)
    with open_stage(folder, "upper", OPTIONS, inputs, overwrite=True) as stage:
        assert stage.pending(3) == []


def test_overwriting_killed_in_the_middle_is_still_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, inputs = finished_stage(tmp_path)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt), open_stage(folder, "upper", {}, inputs, overwrite=True):
            pass
    assert not (folder / SUCCESS).exists()
    assert "upper True -> None" in refusal(folder, "upper", {}, inputs)
    with open_stage(folder, "upper", {}, inputs, overwrite=True):
        assert contents(folder).keys() == {PLAN}


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("precious")
    for overwrite in (False, True):
        with (
            pytest.raises(UsageError, match=r"already holds other files \('thesis.docx'\); give an empty or new"),
            open_stage(tmp_path, "s", {}, (), overwrite=overwrite),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(UsageError, match="out' is a file; give a folder"), open_stage(tmp_path / "out", "s", {}, ()):
        pass


def test_what_a_kill_before_the_plan_leaves_is_no_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "_run").mkdir()
    (tmp_path / "_run" / "lock").touch()
    (tmp_path / f".tmp-1234-{PLAN}").write_text("{")
    with open_stage(tmp_path, "s", {}, ()):
        assert contents(tmp_path).keys() == {PLAN}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    with open_stage(tmp_path, "s", {}, ()) as stage:
        assert stage.folder == tmp_path


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_process_is_refused_and_disturbs_nothing(tmp_path: Path, overwrite: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        before = contents(tmp_path)
        with (
            pytest.raises(
                UsageError, match=f"process {process.pid} on .* is at work in .*; wait for it or give another"
            ),
            open_stage(tmp_path / "out", "upper", {"other": 1}, (), overwrite=overwrite),
        ):
            pass
        assert contents(tmp_path) == before
        process.kill()
    with open_stage(tmp_path / "out", "upper", {}, ()):
        pass  # a killed process holds nothing


def test_the_lock_is_lifted_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bug"), open_stage(tmp_path, "s", {}, ()):
        raise ValueError("bug")
    with open_stage(tmp_path, "s", {}, ()), pytest.raises(UsageError), open_stage(tmp_path, "s", {}, ()):
        pass


@pytest.mark.parametrize("place", ["file/out", "x" * 300])
def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"cannot be written .*; make room or"),
        open_stage(tmp_path / place, "s", {}, ()),
    ):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_unwritable_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError) as caught, open_stage(tmp_path / "out", "s", {}, ()):
        pass
    assert f"out' cannot be written ({os.strerror(code)}); make room" in str(caught.value)


def test_an_error_inside_the_block_is_not_dressed_up(tmp_path: Path) -> None:
    error = FileNotFoundError(errno.ENOENT, "gone", "input")
    with pytest.raises(FileNotFoundError) as caught, open_stage(tmp_path, "s", {}, ()):
        raise error
    assert caught.value is error


def test_the_run_is_told_apart_from_the_result(tmp_path: Path) -> None:
    folder, _ = finished_stage(tmp_path)
    run = files.read_json(folder / "_run" / "stage.json")
    assert run["seconds"] >= run["shard_seconds"] > 0
    assert run["peak_bytes"] > 1_000_000
    assert run["workers"] == 1
    assert run["resumed_shards"] == 0
    assert run["command"] == sys.argv
    assert run["folder"] == str(Path.cwd())


def test_a_damaged_measurement_costs_nothing_but_itself(tmp_path: Path) -> None:
    inputs = find_inputs([write_shards(tmp_path / "in")])
    with open_stage(tmp_path / "out", "upper", OPTIONS, inputs) as stage:
        for shard in stage.pending(3):
            do_shard(stage, shard, inputs[shard])
        (stage.folder / "_run" / "00001.json").write_text("{")
        assert stage.succeed(3).records == msgspec.json.decode((stage.folder / SUCCESS).read_bytes())["records"]
