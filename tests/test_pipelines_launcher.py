from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import pipelines
from pipelines import launcher

WORD_COUNT = """
import argparse
from pathlib import Path
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
import splitting

parser = argparse.ArgumentParser()
parser.add_argument("--input")
parser.add_argument("--output")
known, rest = parser.parse_known_args()
print("runner options:", rest)
with beam.Pipeline(options=PipelineOptions(rest)) as pipeline:
    lines = pipeline | "Lines" >> beam.Create(Path(known.input).read_text().splitlines())
    counts = lines | "Words" >> beam.FlatMap(splitting.words) | "Count" >> beam.combiners.Count.PerElement()
    text = counts | "Format" >> beam.MapTuple(lambda word, count: f"{word} {count}")
    _ = text | "Write" >> beam.io.WriteToText(known.output, shard_name_template="")
"""


@pytest.fixture
def script(tmp_path):
    """A foreign pipeline with a helper module beside it, and its input in another folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "splitting.py").write_text("def words(line):\n    return line.split()\n")
    path = folder / "count.py"
    path.write_text(WORD_COUNT)
    return path


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "in.txt").write_text("a b a\nc a\n")
    yield folder
    sys.modules.pop("splitting", None)


def run(*words):
    return launcher.main([str(word) for word in words])


def test_foreign_pipeline_runs_locally_by_name(script, elsewhere, capfd):
    state = list(sys.path), sys.argv, dict(os.environ)
    assert run("run", script, "--input", "in.txt", "--output", "out.txt") == 0
    assert sorted((elsewhere / "out.txt").read_text().split("\n")) == ["", "a 3", "b 1", "c 1"]
    out, err = capfd.readouterr()
    assert out == "runner options: ['--runner=FnApiRunner']\n"
    assert err == "beam: no --runner given, so it runs on this machine: --runner=FnApiRunner\n"
    assert (list(sys.path), sys.argv, dict(os.environ)) == state


def test_foreign_pipeline_with_an_unknown_option_does_not_run(script, elsewhere, capfd):
    words = ("--input", "in.txt", "--output", "out.txt", "--runner=local", "--direct_num_worker=2")
    assert run("run", script, *words) == 2
    err = capfd.readouterr().err
    assert err == "error: there is no Beam option '--direct_num_worker'. Did you mean '--direct_num_workers'?\n"
    assert not (elsewhere / "out.txt").exists()


def test_foreign_pipeline_takes_what_stands_after_dashes(script, elsewhere, capfd):
    words = ("--input", "in.txt", "--output", "out.txt", "--runner", "local", "--", "--rare=1")
    assert run("run", script, *words) == 0
    assert capfd.readouterr() == ("runner options: ['--runner', 'FnApiRunner', '--rare=1']\n", "")
    assert (elsewhere / "out.txt").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--runner", "dask"], ["--runner", "pipelines.dask.DaskRunner"]),
        (["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"], ["--runner=pipelines.dask.DaskRunner"]),
        (["--runner=Local", "-x"], ["--runner=FnApiRunner", "-x"]),
        (["--runner=DirectRunner"], ["--runner=DirectRunner"]),
        (["--runner=my.own.Runner"], ["--runner=my.own.Runner"]),
        (["--runner"], ["--runner"]),
        (["--runners=2"], ["--runners=2", "--runner=FnApiRunner"]),
    ],
)
def test_friendly_names_become_beams(words, expected):
    assert launcher.name_runner(words) == expected


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('no good')", 1, "no good\n"),
        ("raise KeyboardInterrupt", 130, "error: interrupted.\n"),
        ("from glm_data.errors import InputError\nraise InputError('bad shard.')", 1, "error: bad shard.\n"),
        ("assert sys.argv[1:] == ['--runner=FnApiRunner', 'x'] and __name__ == '__main__'", 0, ""),
    ],
)
def test_exit_codes_of_a_foreign_pipeline(elsewhere, capfd, body, code, error):
    (elsewhere / "script.py").write_text(f"import sys\n{body}\n")
    assert run("run", "script.py", "--runner=local", "x") == code
    assert capfd.readouterr() == ("", error)


def test_module_in_the_working_directory_runs(elsewhere, capfd):
    (elsewhere / "package").mkdir()
    (elsewhere / "package" / "job.py").write_text("import os\nprint(__name__, os.environ['PYTHONPATH'])\n")
    assert run("run", "package.job", "--runner=local") == 0
    out = capfd.readouterr().out.split()
    assert out[0] == "__main__"
    assert out[1].split(os.pathsep)[0] == str(elsewhere)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A pipeline of this package called ``echoing``, beside the real ones."""
    folder = tmp_path / "installed" / "pipelines"
    folder.mkdir(parents=True)
    (folder / "worker.py").write_text('if __name__ == "__main__":\n    pass\n')
    (folder / "helper.py").write_text("")
    (folder / "echoing.py").write_text(
        "import sys\ndef main(argv=None):\n    print(argv, sys.argv[1:])\n    return 3\n"
        'if __name__ == "__main__":\n    sys.exit(main(sys.argv[1:]))\n'
    )
    monkeypatch.setattr(launcher, "_HERE", folder)
    monkeypatch.setattr(pipelines, "__path__", [str(folder), *pipelines.__path__])
    yield folder
    sys.modules.pop("pipelines.echoing", None)


@pytest.mark.parametrize(
    "target", ["pipelines/echoing.py", "./pipelines/echoing.py", "echoing.py", "echoing", "pipelines.echoing"]
)
def test_pipelines_of_the_package_are_found_from_anywhere(own, elsewhere, capfd, target):
    assert list(launcher.find_own_pipelines()) == ["echoing"]
    assert run("run", target, "in", "--output", "o", "--", "--rare") == 3
    words = ["in", "--output", "o", "--", "--rare"]
    assert capfd.readouterr() == (f"{words} {words}\n", "")


def test_file_in_the_working_directory_goes_before_the_installed_one(own, elsewhere, capfd):
    (elsewhere / "echoing.py").write_text("print('mine')\n")
    assert run("run", "echoing.py", "--runner=local") == 0
    assert capfd.readouterr().out == "mine\n"


def test_pipelines_of_the_package_run_alike_in_every_way(elsewhere):
    name, path = next(iter(launcher.find_own_pipelines().items()))
    environment = {**os.environ, "COLUMNS": "100"}
    ways = ([str(path)], ["-m", "pipelines.launcher", "run", f"pipelines/{name}.py"], ["-m", f"pipelines.{name}"])
    results = [
        subprocess.run([sys.executable, *way, "--help"], capture_output=True, text=True, env=environment)
        for way in ways
    ]
    assert {(result.returncode, result.stderr) for result in results} == {(0, "")}
    assert len({result.stdout for result in results}) == 1
    assert "--output" in results[0].stdout


def test_no_pipeline_hides_a_module_of_the_standard_library():
    # ``python pipelines/filter.py`` puts pipelines/ first on the module path.
    names = {path.stem for path in Path(pipelines.__file__).parent.glob("*.py")}
    assert not names & sys.stdlib_module_names


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["runn", "x.py"], "there is no command 'beam runn'. Did you mean 'run'?"),
        (["qqqq"], "there is no command 'beam qqqq'. Commands: run, runners; see beam --help."),
        (["echoing.py"], "there is no command 'beam echoing.py'. Did you mean 'beam run echoing.py'?"),
        (["run"], "beam run needs a pipeline first: beam run FILE|MODULE [ARGUMENTS]."),
        (["run", "--runner=local"], "beam run needs a pipeline first: beam run FILE|MODULE [ARGUMENTS]."),
        (["run", "echoin.py"], "there is no pipeline file or module 'echoin.py'. Did you mean 'echoing'?"),
        (["run", "no.such.module"], "there is no pipeline file or module 'no.such.module'. Pipelines of this"),
    ],
)
def test_usage_errors(own, elsewhere, capfd, monkeypatch, words, error):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])
    assert run(*words) == 2
    assert capfd.readouterr().err.startswith(f"error: {error}")


def test_other_commands_go_to_a_foreign_beam(monkeypatch, capfd):
    def foreign():
        print(sys.argv)
        sys.exit(5)

    entries = [
        types.SimpleNamespace(value="pipelines.launcher:main", dist=types.SimpleNamespace(name="glm-data"), load=None),
        types.SimpleNamespace(value="b.cli:app", dist=types.SimpleNamespace(name="beam-x"), load=lambda: foreign),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: entries)
    assert run("deploy", "--now") == 5
    assert capfd.readouterr() == (
        "['beam', 'deploy', '--now']\n",
        "beam: 'deploy' goes to the beam command of beam-x\n",
    )


def test_help_runners_and_version(capfd):
    assert run("--help") == run("-h") == run() == 0
    shown = capfd.readouterr().out
    assert shown.count("beam run FILE|MODULE") == 3
    assert run("runners") == 0
    listed = capfd.readouterr().out
    for name in ("local", "portable", "flink", "spark", "dataflow", "dask"):
        assert f"\n{name} " in f"\n{listed}"
    assert run("--version") == 0
    assert capfd.readouterr().out.startswith("glm-data ")


@pytest.mark.parametrize("words", [["--help"], ["run", "pipelines/dedupe.py", "--help"]])
def test_help_imports_neither_beam_nor_numpy(words):
    code = (
        f"import sys; from pipelines.launcher import main; code = main({words});"
        "sys.exit(code or any(name in sys.modules for name in ('apache_beam', 'numpy', 'pyarrow', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
