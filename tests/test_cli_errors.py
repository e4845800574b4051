"""A walk through what people do wrong: every time one sentence with a cure, the documented code, no traceback.

And the same for help: every command has it, with an example of itself, and importing nothing heavy for it.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from packs import make_inputs, make_tokenizer
from report_helpers import make_filter

from glm_data import files
from glm_data.cli import shell

HEAVY = {"apache_beam", "datasets", "numba", "numpy", "opencc", "pyarrow", "pycld2", "scipy", "sentencepiece", "torch"}
LEANT_ON = {"numpy"}
"""What help may import: the options of de-duplication and packing are checked with it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that can be mistaken for something else."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "empty").mkdir()
    (folder / "shards").mkdir()
    (folder / "shards" / "a.jsonl").write_text('{"text": "One sentence."}\n', encoding="utf-8")
    (folder / "twin" / "shards").mkdir(parents=True)
    (folder / "twin" / "shards" / "a.jsonl").write_text('{"text": "One sentence."}\n', encoding="utf-8")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "thesis.doc").touch()
    (folder / "no.yaml").write_text("inputs: [", encoding="utf-8")
    (folder / "typo.yaml").write_text("inputs: [shards]\nfilter: {profil: gopher}\n", encoding="utf-8")
    (folder / "none.yaml").write_text("tasks: []\n", encoding="utf-8")
    (folder / "twice.yaml").write_text("filter: {}\nfilter: {}\n", encoding="utf-8")
    (folder / "nothing.yaml").write_text("inputs: [shards]\n", encoding="utf-8")
    (folder / "order.yaml").write_text("inputs: [shards]\npack: {}\n", encoding="utf-8")
    (folder / "model").mkdir()
    (folder / "model" / "tokenizer.model").write_bytes(b"this is no model")
    (folder / "mixture.yaml").write_text("datasets: [{name: x, language: en}]\n", encoding="utf-8")
    make_filter(folder / "run")
    make_filter(folder / "open", finish=False)
    make_inputs(folder / "work", documents=4, mip_rows=2)
    make_tokenizer(folder / "other", 600)
    return folder


@pytest.fixture(autouse=True)
def _inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


WRONG = {
    # paths
    "filter nowhere --out out": (2, "'nowhere' does not exist; give a file, a folder"),
    "filter empty --out out": (2, "holds no file to read; give a folder with shards"),
    "filter run --out out": (2, "holds stage folders (filter) but no input of its own; give one of those"),
    "filter no*thing --out out": (2, "matches no file; check the pattern"),
    "filter shards twin/shards --out out": (2, "ids would clash; give each once"),
    "filter shards --out shards/a.jsonl": (2, "'shards/a.jsonl'"),
    "filter shards --out foreign": (2, "already holds other files ('thesis.doc'); give an empty or new folder"),
    "filter shards": (2, "Missing option '--out'"),
    "dedupe open/filter --out out": (2, "is not a finished stage"),
    "inspect nowhere": (2, "'nowhere' does not exist"),
    "inspect run/filter": (2, "not a pack; give the pack's folder"),
    "verify shards": (2, "is not a finished stage (no _SUCCESS.json); run it to its end first"),
    "export run/filter --to mds --out out": (2, "not a pack; give the pack's folder"),
    "rewind run/filter --rows 0": (2, "not a pack; give the pack's folder"),
    "duplicates run": (2, "holds no finished dedupe stage; give a run or a stage that does"),
    "explain shards/a.jsonl#0 empty": (2, "holds no stage; give the folder of a run"),
    "report empty": (2, "holds no stage; give the folder of a run"),
    "diff run empty": (2, "holds no stage; give the folder of a run"),
    "run nobody --out out": (2, "there is no recipe 'nobody'"),
    "run nobody.yaml --out out": (2, "no such file; check the path"),
    "init nowhere": (2, "'nowhere' does not exist; give a file"),
    "init .": (2, "would lie among the inputs and be read as one of them; give another --out"),
    "init shards --out no.yaml": (2, "is there already; give another --out"),
    "plan nobody.yaml": (2, "no such file; check the path"),
    "config cat nothing-like-it": (2, "'glm-data config ls' lists what there is"),
    # formats
    "run no.yaml --out out": (2, "is not valid YAML"),
    "run typo.yaml --out out": (2, "Did you mean 'profile'?"),
    "run twice.yaml --out out": (2, "key 'filter' twice"),
    "run nothing.yaml --out out": (2, "has no stage; add a section"),
    "run order.yaml --out out": (2, "'pack' needs the section 'tokenize' too"),
    "tokenizer encode model text": (2, "not a SentencePiece model"),
    "mip render mixture.yaml --out out": (2, "mixture.yaml"),
    "filter shards --profile gofer --out out": (2, "Did you mean 'gopher'?"),
    "decontaminate shards --evaluation nobody.yaml --out out": (2, "nobody.yaml"),
    "verify shards/a.jsonl": (2, "'shards/a.jsonl' is a file; give a folder."),
    "dedupe shards --against shards/a.jsonl --out out": (2, "'shards/a.jsonl' is not a finished stage"),
    "quantize run/filter --out out": (2, "holds no model: config.json is missing; give a train or quantize folder."),
    "import shards --out out": (2, "give the folder of a checkpoint's parts"),
    "eval run/filter --task none.yaml": (2, "none.yaml: lists no task"),
    # options
    "completion": (2, "Missing argument"),
    "filter shards --max-record-bytes 0 --out out": (2, "glm-data: --max-record-bytes must be at least 1."),
    "filtre shards": (2, "Did you mean 'filter'?"),
    "filter shards --profil x --out out": (2, "Did you mean '--profile'?"),
    "filter shards --format wudoa --out out": (2, "wudoa"),
    "dedupe shards --threshold much --out out": (2, "'much' is not a valid float"),
    "dedupe shards --threshold 7 --out out": (2, "glm-data: --threshold 7.0: "),
    "dedupe shards --keep longets --out out": (2, "glm-data: --keep: there is no rule"),
    "filter shards --max-bad-fraction 2 --out out": (2, "glm-data: --max-bad-fraction must be at most 1."),
    "filter shards --workers -3 --out out": (2, "glm-data: --workers -3: "),
    "tokenize shards --tokenizer other --max-bad-fraction nan --out out": (2, "glm-data: --max-bad-fraction (nan) is"),
    "pack work/ids --tokenizer work/tokenizer --mask-rate 2 --out out": (2, "glm-data: --mask-rate 2.0 "),
    "pack work/ids --tokenizer work/tokenizer --mip-ratio 0.5 --out out": (2, "mip"),
    "filter shards --out out --runner sparc": (2, "sparc"),
    "plan train --model 13b": (2, "Known: tiny"),
    "plan train --gpu rtx-9000": (2, "no card 'rtx-9000' is known"),
    "doctor --shard x": (2, "--shard"),
    "completion tcsh": (2, "'tcsh' is not one of"),
    # tokenizers
    "pack work/ids --tokenizer other --out out": (2, "give the one it was made with, or tokenise again"),
    "pack work/ids --tokenizer model --out out": (2, "not a SentencePiece model"),
    "pack work/ids --tokenizer empty --out out": (2, "'empty/tokenizer.model' cannot be read"),
    "tokenize shards --tokenizer empty --out out": (2, "'empty/tokenizer.model' cannot be read"),
}  # fmt: skip


def assert_one_sentence(code: int, expected: int, said: str) -> None:
    assert code == expected, said
    assert said.startswith("glm-data: "), said
    assert said.count("\n") == 1, said
    assert said.endswith((".\n", "?\n", "\n"))
    assert "Traceback" not in said
    assert len(said) > 30


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_said_in_one_sentence_with_a_cure(
    line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, hint = WRONG[line]
    assert_one_sentence(shell.run(line.split()), code, said := capsys.readouterr().err)
    assert hint in said
    assert not (place / "out" / "_SUCCESS.json").exists()


@pytest.mark.parametrize(
    "line", ["train work/pack --out out", "quantize work/model --out out", "infill model x[MASK]", "generate model x"]
)
def test_a_missing_extra_is_named_with_its_pip_line(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pack", "model"):
        (place / "work" / name).mkdir(exist_ok=True)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    assert_one_sentence(shell.run(line.split()), 1, said := capsys.readouterr().err)
    assert "pip install 'glm-data[train]'" in said


def test_a_gpu_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert_one_sentence(shell.run(["train", "shards", "--device", "cuda", "--out", "out"]), 2, capsys.readouterr().err)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("line", ["filter shards --out new", "init shards --out new.yaml --quiet"])
def test_a_disk_that_takes_nothing_is_one_sentence(
    line: str, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, "write_bytes", refuse)
    assert_one_sentence(shell.run(line.split()), 1, said := capsys.readouterr().err)
    assert f"cannot be written ({os.strerror(number)}); make room or choose another folder" in said


def test_an_input_that_may_not_be_read_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(files, "digest_file", refuse)
    assert_one_sentence(shell.run(["filter", "shards", "--out", "new"]), 1, said := capsys.readouterr().err)
    assert "cannot be read (Permission denied); check the file and its permissions" in said


# --- all commands -----------------------------------------------------------------------------------------------------


def commands(group: click.Group = shell.cli, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command of ours by its words, branches included."""
    for word in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), word)
        assert command is not None
        yield f"{name}{word}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name}{word} ")
        for branch, (place, _) in getattr(command, "branches", {}).items():
            yield f"{name}{word} {branch}", shell.load_command(place)


ALL = dict(commands())


@pytest.mark.parametrize("kind", ["nowhere", "empty"])
def test_every_command_refuses_what_is_not_there_or_holds_nothing(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, command in ALL.items():
        given = [] if isinstance(command, click.Group) else list(_given(command, kind, str(tmp_path / "out")))
        if not given:
            continue  # needs nothing that could be wrong
        code = shell.run([*name.split(), *given])
        assert code in (1, 2), (name, given)
        assert_one_sentence(code, code, capsys.readouterr().err)


def test_those_commands_resume_that_work_in_a_stages_folder() -> None:
    for name, command in ALL.items():
        works_in_stage = name != "init" and any(item.name == "overwrite" for item in command.params)
        assert getattr(command, "resumes", False) == works_in_stage, name


def _given(command: click.Command, kind: str, out: str) -> Iterator[str]:
    """``kind`` for every argument and option that has to be given."""
    for item in command.params:
        if isinstance(item, click.Option) and item.required:
            choices = getattr(item.type, "choices", [kind])
            yield from (item.opts[0], out if "--out" in item.opts else choices[0])
        elif item.required:
            yield kind


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ALL if name != "beam"])
def test_every_command_has_help_with_an_example_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run([*name.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert said[0].isupper()
    examples = [line.strip() for line in ALL[name].example.strip().splitlines()]  # type: ignore[attr-defined]
    assert examples[0].startswith(f"glm-data {name}")
    assert examples[0] in said


def test_no_help_imports_anything_heavy() -> None:
    code = (
        "import sys, contextlib, io\nfrom glm_data.cli.shell import run\n"
        "for name in sys.argv[1:]:\n"
        "    with contextlib.redirect_stdout(io.StringIO()): assert run([*name.split(), '--help']) == 0\n"
        "    assert run([*name.split(), '--no-such-option']) == 2\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    names = [name for name, command in ALL.items() if name != "beam" and not isinstance(command, click.Group)]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split()) - LEANT_ON
    assert done.stderr.count("there is no option '--no-such-option'.") >= len(names) - 1
