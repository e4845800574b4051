import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_helpers import finished_stage, write_shards

from glm_data import files
from glm_data.errors import InputError, UsageError
from glm_data.stage import SUCCESS, InputFile, check_unchanged, describe_input, find_inputs


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return root


def names(*paths: str | Path) -> list[str]:
    return [item.name for item in find_inputs(paths)]


def test_a_file_is_measured(tmp_path: Path) -> None:
    tree(tmp_path, "pile/00.jsonl")
    expected = InputFile(
        name="pile/00.jsonl",
        path=str(tmp_path / "pile/00.jsonl"),
        bytes=13,
        digest=files.digest_bytes(b"pile/00.jsonl"),
    )
    assert find_inputs([tmp_path / "pile/00.jsonl"]) == (expected,)
    assert describe_input(tmp_path / "pile/00.jsonl", "pile/00.jsonl") == expected


def test_a_folder_stands_for_its_visible_files(tmp_path: Path) -> None:
    tree(tmp_path / "wudao", "b.json", "a/x.json", "a/b/y.json", ".hidden", ".git/z", "_meta/z", "a/_note", "a/.z")
    assert names(tmp_path / "wudao") == ["wudao/a/b/y.json", "wudao/a/x.json", "wudao/b.json"]


@pytest.mark.parametrize("given", ["pile", "pile/", "./pile", "pile/*", "pile/**", "pile/**/*", "pile/**/*.jsonl"])
def test_a_name_does_not_depend_on_how_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    tree(tmp_path, "pile/0.jsonl", "pile/1.jsonl")
    monkeypatch.chdir(tmp_path)
    assert find_inputs([given]) == find_inputs(["pile/1.jsonl", "pile/0.jsonl"])
    assert names(given) == ["pile/0.jsonl", "pile/1.jsonl"]
    assert all(Path(item.path).is_absolute() for item in find_inputs([given]))


@pytest.mark.parametrize("given", [".", "*", "../pile", "../pile/*", "../other/../pile"])
def test_the_working_directory_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    tree(tmp_path, "pile/0.jsonl", "other/1.jsonl")
    monkeypatch.chdir(tmp_path / "pile")
    assert names(given) == ["pile/0.jsonl"]


def test_globs(tmp_path: Path) -> None:
    tree(tmp_path, "d/a/0.json", "d/a/1.txt", "d/b/0.json", "d/b/c/0.json", "d/0.json", "d/.h/0.json", "d/_s/0.json")
    assert names(f"{tmp_path}/d/*.json") == ["d/0.json"]
    assert names(f"{tmp_path}/d/*/0.json") == ["d/a/0.json", "d/b/0.json"]
    assert names(f"{tmp_path}/d/**/*.json") == ["d/0.json", "d/a/0.json", "d/b/0.json", "d/b/c/0.json"]
    assert names(f"{tmp_path}/d/[a]/?.*") == ["d/a/0.json", "d/a/1.txt"]
    assert names(f"{tmp_path}/d/.h/*") == [".h/0.json"]
    assert names(f"{tmp_path}/d/**/_s/*.json") == ["d/_s/0.json"]


def test_a_file_with_a_wildcard_in_its_name_is_that_file(tmp_path: Path) -> None:
    tree(tmp_path, "d/[x].json", "d/x.json")
    assert names(tmp_path / "d/[x].json") == ["d/[x].json"]


def test_spaces_and_chinese(tmp_path: Path) -> None:
    tree(tmp_path, "我的 数据/第一 片.json", "我的 数据/二.json")
    assert names(tmp_path / "我的 数据") == names(f"{tmp_path}/我的 */*.json".replace("我的 *", "我的 数据"))
    assert names(tmp_path / "我的 数据") == ["我的 数据/二.json", "我的 数据/第一 片.json"]


def test_a_link_keeps_the_name_it_is_known_by(tmp_path: Path) -> None:
    tree(tmp_path, "disk7/v3/0.json")
    (tmp_path / "pile").symlink_to(tmp_path / "disk7/v3")
    assert names(tmp_path / "pile") == ["pile/0.json"]
    (tmp_path / "disk7/v3/up").symlink_to(tmp_path / "disk7")  # a loop is not followed
    assert names(tmp_path / "pile") == ["pile/0.json"]


def test_the_order_of_the_arguments_does_not_matter(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1", "c/x/1", "c/x/0")
    paths = [tmp_path / "a", tmp_path / "b/1", f"{tmp_path}/c/**/*"]
    found = {find_inputs(order) for order in itertools.permutations(paths)}
    assert len(found) == 1
    assert [item.name for item in found.pop()] == ["a/1", "b/1", "c/x/0", "c/x/1"]


@settings(deadline=None, max_examples=20)
@given(st.sets(st.text("ab中 .", min_size=1, max_size=4), min_size=1, max_size=5))
def test_every_visible_file_is_found_once(tmp_path_factory: pytest.TempPathFactory, stems: set[str]) -> None:
    stems = {stem.strip(".") or "x" for stem in stems}
    folder = tree(tmp_path_factory.mktemp("in") / "d", *stems)
    assert names(folder) == sorted(f"d/{stem}" for stem in stems)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nothing", "'nothing' does not exist; give a file, a folder, a pattern or a finished stage's folder."),
        ("empty", "'empty' holds no file to read"),
        ("hidden", "'hidden' holds no file to read"),
        ("empty/*.json", "'empty/*.json' matches no file; check the pattern"),
        ("hidden/*", "'hidden/*' matches no file"),
        ("em**", "'em**' is no pattern"),
    ],
)
def test_nothing_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str) -> None:
    tree(tmp_path, "hidden/.x", "hidden/_y")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        find_inputs([given])
    assert str(caught.value).startswith(said)


def test_two_inputs_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    tree(tmp_path, "one/d/0.json", "two/d/0.json")
    with pytest.raises(
        UsageError, match=r"two inputs are named 'd/0.json' \('.*/one/d/0.json' and '.*/two/d/0.json'\)"
    ):
        find_inputs([tmp_path / "one/d", tmp_path / "two/d"])
    assert names(tmp_path / "one", tmp_path / "two") == ["one/d/0.json", "two/d/0.json"]
    with pytest.raises(UsageError, match="give each once"):
        find_inputs([tmp_path / "one/d", tmp_path / "one/d/0.json"])


def test_an_input_that_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "d/0.json")

    def broken(path: Path) -> str:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(files, "digest_file", broken)
    with pytest.raises(InputError, match=r"0\.json' cannot be read \(Input/output error\)"):
        find_inputs([tmp_path / "d"])


def test_a_finished_stage_stands_for_its_data_files_as_recorded(tmp_path: Path) -> None:
    folder, _ = finished_stage(tmp_path)
    (folder / "data" / "stray.txt").write_text("not in the manifest")
    found = find_inputs([folder])
    assert [item.name for item in found] == ["data/00000.txt", "data/00001.txt", "data/00002.txt"]
    assert found[0] == describe_input(folder / "data/00000.txt", "data/00000.txt")


def test_several_stages_keep_their_files_apart(tmp_path: Path) -> None:
    finished_stage(tmp_path, "pile")
    finished_stage(tmp_path, "wudao")
    assert names(tmp_path / "wudao", tmp_path / "pile") == [
        f"{stage}/data/0000{shard}.txt" for stage in ("pile", "wudao") for shard in range(3)
    ]


def test_an_unfinished_or_damaged_stage_is_no_input(tmp_path: Path) -> None:
    folder, _ = finished_stage(tmp_path)
    good = (folder / SUCCESS).read_bytes()
    (folder / SUCCESS).write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match=r"_SUCCESS.json' is damaged .*; run that stage again"):
        find_inputs([folder])
    (folder / SUCCESS).unlink()
    with pytest.raises(UsageError, match=r"is not a finished stage .*; run it to its end first"):
        find_inputs([folder])


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_a_stage_that_lost_data_is_no_input(tmp_path: Path, damage: str) -> None:
    folder, _ = finished_stage(tmp_path)
    path = folder / "data/00001.txt"
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"00001\.txt' is not as its stage left it; run that stage again"):
        find_inputs([folder])


def test_stage_folders_beside_the_input_are_passed_over(tmp_path: Path) -> None:
    """``--out`` inside the input folder must not become input of the next run."""
    folder, inputs = finished_stage(tmp_path, "shards/out")
    assert find_inputs([tmp_path / "shards"]) == inputs
    assert folder.parent == tmp_path / "shards"


def test_a_folder_of_stages_is_told_from_one_of_shards(tmp_path: Path) -> None:
    finished_stage(tmp_path, "run/filter")
    finished_stage(tmp_path, "run/dedupe")
    with pytest.raises(UsageError, match=r"run' holds stage folders \(dedupe, filter\) but no input of its own"):
        find_inputs([tmp_path / "run"])


def test_a_file_that_grows_while_the_stage_runs_is_noticed(tmp_path: Path) -> None:
    write_shards(tmp_path / "d", 1)
    item = find_inputs([tmp_path / "d"])[0]
    check_unchanged(item)
    with Path(item.path).open("a") as handle:
        handle.write("more")
    with pytest.raises(
        InputError, match=rf"changed while the stage ran \({item.bytes} bytes when planned, {item.bytes + 4} now\)"
    ):
        check_unchanged(item)
    Path(item.path).unlink()
    with pytest.raises(InputError, match="0 now"):
        check_unchanged(item)


def test_a_name_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"na\xffme.jsonl")).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"has a name that is not UTF-8, .*; rename it\."):
        find_inputs([tmp_path])
