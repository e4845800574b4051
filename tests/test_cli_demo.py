"""``glm-data demo`` on a very small corpus: it runs, judges itself and says what to type next."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
from cli_jobs import RECIPE, write_corpus, write_evaluation, write_mixture

import manifests
from glm_data.cli.demo import FATES, find_fates, judge
from glm_data.cli.shell import run
from glm_data.config import load_yaml
from glm_data.demo_input import read_planted
from glm_data.recipe import STAGES, Recipe, load
from manifests import path as bundled


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in for the bundled files."""
    folder = tmp_path_factory.mktemp("bundle")
    write_corpus(folder / "demo" / "corpus")
    write_mixture(folder / "mip")
    write_evaluation(folder)
    shutil.copy(bundled("evaluation.yaml"), folder)
    (folder / "demo.yaml").write_text(RECIPE.replace("inputs: [raw/pile, raw/wudao]", "demo_input: {seed: 3}"))
    return folder


def _demo(bundle: Path, *arguments: str) -> tuple[int, str]:
    """Run the demo on ``bundle``; returns exit code and standard output."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(manifests, "path", lambda name: bundle / name)
        code = run(["demo", *arguments])
    return code, out.getvalue()


@pytest.fixture(scope="module")
def demo(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A finished demo, its exit code and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "it is here"
    return folder, *_demo(bundle, str(folder))


def test_the_bundled_recipe_is_whole_and_sound() -> None:
    loaded = load(manifests.path("demo.yaml"))
    assert tuple(loaded.options) == tuple(stage for stage in STAGES if stage != "decontaminate")  # nothing to report
    assert loaded.recipe.demo_input is not None
    blanks = [("[MASK]" in prompt, any(letter >= "\u4e00" for letter in prompt)) for prompt in loaded.recipe.infill]
    assert set(blanks) >= {(True, False), (True, True), (False, False), (False, True)}
    assert "demo" in manifests.names()


def test_a_bundled_file_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"there are: .*demo"):
        manifests.path("no-such.yaml")
    with pytest.raises(FileNotFoundError):
        manifests.path("../pyproject.toml")


def test_every_planted_record_has_one_fate(demo: tuple[Path, int, str]) -> None:
    folder, _, _ = demo
    fates, planted = find_fates(folder), read_planted(folder / "raw")
    for kind, counts in fates.items():
        assert counts["planted"] == counts["filtered"] + counts["duplicates"] + counts["left"], kind
    assert sum(counts["planted"] for counts in fates.values()) == len(planted.records)
    assert fates["broken"]["filtered"] == fates["broken"]["planted"] >= 8
    assert fates["exact_copy"]["left"] == 0
    assert fates["unique"]["left"] >= 0.9 * fates["unique"]["planted"]


def test_the_verdict_counts_what_was_left() -> None:
    def fate(planted: int, filtered: int, duplicates: int) -> Counter[str]:
        return Counter(planted=planted, filtered=filtered, duplicates=duplicates, left=planted - filtered - duplicates)

    fates = {"unique": fate(100, 1, 1), "exact_copy": fate(50, 0, 50), "near_duplicate": fate(50, 0, 30)}
    originals, copies, noise = judge({**fates, "spam": fate(10, 10, 0)})
    assert originals.ok
    assert originals.sentence.startswith("98 of 100 ")
    assert not copies.ok
    assert copies.sentence.startswith("80 of 100 ")
    assert noise.ok


def test_the_demo_tells_its_story(demo: tuple[Path, int, str]) -> None:
    folder, code, said = demo
    assert code in (0, 3)
    for number, stage in enumerate(STAGES, 1):
        assert f"[{number}/{len(STAGES)}] {stage}" in said
    for words in ("What was planted", "What the model learnt", "guessing by frequency alone costs", *FATES):
        assert words in said
    assert (folder / "report.html").exists()
    assert str(folder / "report.html") in said


def test_the_commands_to_type_next_work(demo: tuple[Path, int, str], capsys: pytest.CaptureFixture[str]) -> None:
    _, _, said = demo
    lines = [line.strip() for line in said.splitlines() if line.startswith("  glm-data ") and "--out" not in line]
    assert lines.pop() == "glm-data init FOLDER"
    place = shlex.split(lines.pop(0))
    assert place[:2] == ["glm-data", "view"], (
        "it serves until it is stopped: the viewer's own tests open what runs wrote"
    )
    assert Path(place[2]) == demo[0]
    assert [shlex.split(command)[1] for command in lines] == ["inspect", "verify", "infill", "generate"]
    for command in lines:
        assert run(shlex.split(command)[1:]) == 0, command
        assert capsys.readouterr().out


def test_the_recipe_offered_as_a_start_is_plain_yaml(demo: tuple[Path, int, str]) -> None:
    assert "glm-data run recipe.yaml --out my-run" in demo[2]
    assert isinstance(load_yaml(manifests.path("demo.yaml"), Recipe), Recipe)


def test_json_holds_the_whole_verdict(demo: tuple[Path, int, str], bundle: Path) -> None:
    folder, code, _ = demo
    again, said = _demo(bundle, str(folder), "--json")
    value = json.loads(said)
    assert again == code
    assert value["ok"] == (code == 0)
    assert value["planted"] == {kind: {fate: c[fate] for fate in FATES} for kind, c in find_fates(folder).items()}
    assert value["training"]["unigram_entropy"] > 0
    assert [check["name"] for check in value["checks"]] == ["originals", "copies", "noise"]
    assert [len(item["filled"]) for item in value["completions"]] == [1, 1]
