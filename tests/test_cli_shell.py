"""The shell of ``glm-data``: lazy commands, help, did-you-mean, exit codes."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import types

import click
import msgspec
import pytest

from glm_data.cli import shell
from glm_data.errors import ConfigError, GlmDataError, InterruptedRunError, MissingExtraError
from pipelines.lean import lean_imports
from tokenizer import TokenizerError

HEAVY = {"numpy", "pyarrow", "apache_beam", "torch", "msgspec", "numba", "rich", "yaml", "datasets", "sentencepiece"}

ERRORS = {
    "user": (GlmDataError("the disk of record 7 is round; give a square one."), 1),
    "config": (ConfigError("demo.yaml: filter: unknown field."), 2),
    "extra": (MissingExtraError("needs the extra 'train': pip install 'glm-data[train]'"), 1),
    "stopped": (InterruptedRunError("stopped; run again to go on."), 130),
    "tokenizer": (TokenizerError("'x/tokenizer.model' cannot be read; give a tokenizer's folder."), 2),
}


@click.command("fail", cls=shell.Command, help="Fail as told.", example="glm-data fail user")
@click.argument("how")
@click.option("--kind-of-day")
def fail(how: str, kind_of_day: str | None) -> int:
    if how in ERRORS:
        raise ERRORS[how][0]
    if how == "bug":
        raise ZeroDivisionError("nobody thought of this")
    if how == "torch":
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    if how == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/data/run/filter")
    if how == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "sigint":
        os.kill(os.getpid(), signal.SIGINT)
    return int(how)


@pytest.fixture(autouse=True)
def _with_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shell.cli.lazy, "fail", (f"{__name__}:fail", "Fail as told."))


def _python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fliter"], ["--no-such-option"]])
def test_the_top_level_imports_no_heavy_module(arguments: list[str]) -> None:
    code = "import sys; from glm_data.cli.shell import run; run(sys.argv[1:]); print('\\n' + ' '.join(sys.modules))"
    done = _python(code, *arguments)
    modules = done.stdout.splitlines()[-1].split()
    assert "click" in modules
    assert not HEAVY & set(modules)
    assert len(modules) < 200, "the command's start has become heavy"


def test_help_opens_with_a_sentence_then_an_example_then_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["fail", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Fail as told."
    assert lines.index("  glm-data fail user") < next(i for i, line in enumerate(lines) if line.startswith("Usage:"))
    assert any("--kind-of-day" in line for line in lines)


@pytest.mark.parametrize(
    "name", [*shell.COMMANDS, "tokenizer train", "tokenizer encode", "tokenizer decode", "mip render"]
)
def test_every_command_has_help_with_an_example_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "beam":  # hands --help on to the launcher
        command = shell.cli.get_command(click.Context(shell.cli), "beam")
        assert isinstance(command, shell.Command)
        assert command.example.startswith("glm-data beam run ")
        return
    assert shell.run([*name.split(), "--help"]) == 0
    sentence, _, rest = capsys.readouterr().out.partition("\n\n")
    assert re.match(r"[A-Z].*\.", sentence, re.DOTALL)
    assert rest.lstrip().startswith(f"glm-data {name}")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["fliter"], "Did you mean 'filter'?"),
        (["tokenizer", "trian"], "Did you mean 'train'?"),
        (["fail", "0", "--kind-of-dya", "x"], "Did you mean '--kind-of-day'?"),
        (["fail", "0", "--how"], "there is no option '--how'. See"),
        (["fail"], "Missing argument 'HOW'"),
        (["xyzzy"], "Commands: demo, init, run,"),
    ],
)
def test_usage_errors_end_with_2_and_the_cure(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("glm-data: ")
    assert hint in said.err
    assert "--help'" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("how", ERRORS)
def test_user_errors_are_one_sentence_and_their_code(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code = ERRORS[how]
    assert shell.run(["fail", how]) == code
    assert capsys.readouterr().err == f"glm-data: {error}\n"


def test_a_missing_extra_names_the_pip_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["fail", "torch"]) == 1
    said = capsys.readouterr().err
    assert "needs the extra 'train': pip install 'glm-data[train]'" in said
    assert "Traceback" not in said


def test_a_full_disk_is_a_sentence_with_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["fail", "full"]) == 1
    assert capsys.readouterr().err.startswith("glm-data: '/data/run/filter': No space left on device; make room")


def test_a_bug_of_ours_shows_the_traceback_and_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["fail", "bug"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "nobody thought of this" in said
    assert "please report it" in said.splitlines()[-1]


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_command_returns_its_exit_code(code: int) -> None:
    assert shell.run(["fail", str(code)]) == code


@pytest.mark.parametrize("how", ["sigterm", "sigint"])
def test_signals_end_with_130_and_restore_the_handler(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert shell.run(["fail", how]) == 130
    assert capsys.readouterr().err == "glm-data: interrupted before it was done; there is nothing to resume.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stage_that_is_interrupted_says_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fail, "resumes", True)
    assert shell.run(["fail", "sigint"]) == 130
    assert capsys.readouterr().err.endswith("what is finished is kept: run the same command again to go on.\n")


def test_no_color_is_honoured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.utils, "should_strip_ansi", lambda *_: False)
    monkeypatch.setattr("click._compat.should_strip_ansi", lambda *_: False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    shell.run(["fail", "user"])
    assert "\x1b[" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    assert shell.colour_choice() is False


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "from glm_data.cli.shell import run; import sys; sys.exit(run(['doctor']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)
    assert "Traceback" not in said


def test_doctor_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["doctor", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["ok"] is True
    assert value["packages"]["msgspec"] == msgspec.__version__
    assert {check["name"] for check in value["checks"]} == {
        "packages", "wheels", "memory", "disk", "temporary", "open files", "encoding", "kernels", "beam", "folder"
    }  # fmt: skip


def test_doctor_is_silent_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["doctor", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_command_does_without_what_its_libraries_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    before = list(sys.meta_path)
    with lean_imports():
        with pytest.raises(ModuleNotFoundError, match="'pandas' is left out"):
            importlib.import_module("pandas")
        monkeypatch.setitem(sys.modules, "datasets", types.ModuleType("datasets"))
        assert importlib.util.find_spec("pandas") is not None, "who reads data sets needs it"
    assert sys.meta_path == before
