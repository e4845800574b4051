"""Before a run: a recipe for a folder, what a recipe would take, bundled files, checked files, completion."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from dedupe_texts import write_documents

from glm_data import recipe as recipes
from glm_data.cli.config import bundled, section_lines
from glm_data.cli.shell import run
from glm_data.config import from_mapping
from glm_data.filters import FilterOptions
from glm_data.formats.read import read_blocks
from glm_data.inputs import find_inputs
from glm_data.planning import Look, Part, look_at, write_recipe
from glm_data.planning.estimate import BYTES_A_TOKEN, MEMORY, bytes_a_token, estimate, training_bytes
from glm_data.planning.scaffold import choose_vocabulary, language_weights
from glm_data.vocabulary.options import TokenizerOptions

FILES = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files alike, more than are looked at, in two languages."""
    folder = tmp_path_factory.mktemp("own") / "shards"
    folder.mkdir()
    documents = [*write_documents("en", 6), *write_documents("zh", 6), "zzz " * 200]
    for number in range(FILES):
        lines = [
            {"text": f"{text} {number}", "meta": {"pile_set_name": f"Set {n % 2}"}} for n, text in enumerate(documents)
        ]
        data = "".join(json.dumps(line, ensure_ascii=number % 2 == 0) + "\n" for line in lines)
        (folder / f"{number:02d}.jsonl").write_text(data, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def look(shards: Path) -> Look:
    return look_at([shards], FilterOptions())


def test_a_sample_of_files_alike_tells_of_all_of_them(shards: Path, look: Look) -> None:
    blocks = [block.documents for item in find_inputs([shards], digest=False) for block in read_blocks(item)]
    documents = sum(block.num_rows for block in blocks)
    texts = sum(len(text.encode()) for block in blocks for text in block.column("text").to_pylist())
    assert (look.files, look.sampled, look.formats) == (FILES, 8, Counter(jsonl=8))
    assert look.documents == pytest.approx(documents, rel=0.06)
    assert look.text_bytes == pytest.approx(texts, rel=0.06)
    assert sum(look.dropped.values()) == 8
    assert look.kept_documents == pytest.approx(documents * 12 / 13, rel=0.06)
    assert {(part.source, part.lang) for part in look.kept} >= {("Set 0", "en"), ("Set 1", "zh-Hans")}


def test_without_a_filter_everything_is_kept_and_has_a_language(shards: Path) -> None:
    look = look_at([shards])
    assert look.kept_documents == pytest.approx(look.documents)
    assert look.kept_bytes == pytest.approx(look.text_bytes)
    assert not look.dropped
    assert {"en", "zh-Hans"} <= {part.lang for part in look.kept}


def test_init_writes_a_recipe_that_runs_and_is_not_replaced(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", str(shards)]) == 0
    assert "glm-data run recipe.yaml --out my-run" in capsys.readouterr().out
    loaded = recipes.load(tmp_path / "recipe.yaml")
    assert loaded.recipe.inputs == (str(shards),)
    assert list(loaded.options) == ["filter", "dedupe", "tokenizer", "tokenize", "pack"]
    assert run(["init", str(shards)]) == 2
    assert "'recipe.yaml' is there already; give another --out, or --overwrite" in capsys.readouterr().err
    assert run(["init", str(shards), "--overwrite", "--quiet"]) == 0
    assert run(["config", "validate", "recipe.yaml"]) == 0


def test_a_recipe_in_another_folder_finds_the_inputs(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards.parent)
    (tmp_path / "far").mkdir()
    assert run(["init", "shards", "--out", str(tmp_path / "far" / "mine.yaml"), "--quiet"]) == 0
    assert recipes.load(tmp_path / "far" / "mine.yaml").recipe.inputs == (str(shards),)


@pytest.mark.parametrize("name", ['odd "quotes" #1', "back\\slash: {a}", "古文 [1]"])
def test_any_path_can_stand_in_a_recipe(look: Look, tmp_path: Path, name: str) -> None:
    (tmp_path / "recipe.yaml").write_text(write_recipe(look, [name], "recipe.yaml"), encoding="utf-8")
    assert recipes.load(tmp_path / "recipe.yaml").recipe.inputs == (name,)


def test_weights_are_the_shares_of_the_text_and_vocabularies_grow_with_it() -> None:
    parts = (
        Part("a", "zh-Hans", 9, 500.0),
        Part("a", "zh-Hant", 1, 100.0),
        Part("b", "en", 5, 399.0),
        Part("b", "ko", 1, 1.0),
    )
    assert language_weights(Look(1, 1, 1, kept=parts)) == {"zh": 0.6, "en": 0.399}
    assert language_weights(Look(1, 1, 1)) == {"zh": 0.5, "en": 0.5}
    sizes = [choose_vocabulary(size) for size in (1e5, 1e7, 1e8, 1e9, 1e12)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 147_456


# --- plan -------------------------------------------------------------------------------------------------------------

RECIPE = """
inputs: [{inputs}]
filter: {{}}
dedupe: {{}}
tokenizer: {{vocab_size: 8000}}
tokenize: {{}}
pack: {{mask_share: 1.0, mix: {{"*": {{epochs: 2}}}}}}
train: {{model: tiny, steps: 100, batch_rows: 4}}
"""


@pytest.fixture
def recipe(shards: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(inputs=shards), encoding="utf-8")
    return path


def test_a_plan_names_every_stage_and_adds_up(recipe: Path, look: Look, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(recipe), "--json", "--workers", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in told["stages"]] == ["filter", "dedupe", "tokenizer", "tokenize", "pack"]
    assert all(stage["core_seconds"] > 0 and stage["memory_bytes"] > 1e8 for stage in told["stages"])
    assert told["documents"] == round(look.documents)
    expected = sum(part.text_bytes / bytes_a_token(part.lang, 8000) for part in look.kept)
    assert sum(told["tokens"].values()) == pytest.approx(expected, abs=2)
    # two epochs, each span of 3.157 tokens on average takes two places more
    places = 2 * expected * (1 + 2 * 0.15 / 3.157)
    assert told["rows"] == pytest.approx(places / 2048, abs=1)
    assert told["training"]["tokens"] == 100 * 4 * 2048
    assert told["training"]["flops"] == 6 * told["training"]["parameters"] * told["training"]["tokens"]


def test_a_plan_is_told_in_words_with_the_room_there_is(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(recipe), "--out", str(tmp_path / "not" / "yet")]) == 0
    said = capsys.readouterr().out
    assert "12 files" in said
    assert "free: there is room" in said
    assert "tokens  about" in said
    assert "0.6 M parameters, 100 steps" in said or "M parameters, 100 steps" in said


@pytest.mark.parametrize("load", [0.1, 64.0])
def test_a_plan_says_when_the_cores_are_busy(
    recipe: Path, load: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    assert run(["plan", str(recipe)]) == 0
    assert ("other work now asks for 64.0 of" in capsys.readouterr().out) == (load == 64)


def test_a_tokenizer_is_trained_by_one_process_in_memory_that_grows_with_its_text(recipe: Path) -> None:
    found = estimate(recipes.load(recipe))
    seconds = {stage.stage: stage.core_seconds for stage in found.stages}
    assert found.seconds(1) == pytest.approx(found.core_seconds) == pytest.approx(sum(seconds.values()))
    assert found.seconds(1000) == pytest.approx(0.65 * seconds["tokenizer"], rel=0.05)
    options = TokenizerOptions(vocab_size=32_000)
    measured = 2_246_249_173  # by a run on 241 MB of text, when its words were counted
    assert training_bytes(241e6, options) == pytest.approx(measured, rel=0.02)
    assert training_bytes(1e6, options) == MEMORY["tokenizer"]
    assert training_bytes(241e6, TokenizerOptions(vocab_size=32_000, min_count=2)) < measured / 2


def test_the_demo_makes_its_own_input_and_is_not_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "demo"]) == 2
    assert "makes its own input" in capsys.readouterr().err


@pytest.mark.parametrize("lang", ["en", "zh-Hans", "mixed", "ko"])
def test_larger_vocabularies_have_longer_tokens(lang: str) -> None:
    sizes = [512, 3000, 8000, 20_000, 147_456, 150_000]
    rates = [bytes_a_token(lang, size) for size in sizes]
    assert rates == sorted(rates)
    assert bytes_a_token("en", 8000) == dict(BYTES_A_TOKEN["en"])[8000]


# --- config and completion --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", recipes.STAGES)
def test_the_section_of_a_stage_is_its_defaults(stage: str) -> None:
    import yaml

    lines = list(section_lines(stage))
    values = yaml.safe_load("\n".join(lines))[stage] or {}
    kind = recipes.options_type(stage)
    required = {"decontaminate": {"evaluation": "x.yaml"}}.get(stage, {})
    assert from_mapping({**values, **required}, kind, stage) == from_mapping(required, kind, stage)
    comments = [line for line in lines if line.startswith("  # ")]
    assert len(comments) >= len(lines) // 2


def test_everything_that_is_listed_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed.keys() == bundled().keys() == {"recipes", "profiles", "lists", "stages"}
    assert "bilingual" in listed["profiles"]
    for names in listed.values():
        for name in names:
            assert run(["config", "cat", name]) == 0
            assert ":" in capsys.readouterr().out


def test_a_name_that_is_not_there_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "cat", "gofer"]) == 2
    assert "Did you mean 'gopher'?" in capsys.readouterr().err


def test_validate_names_what_is_wrong_and_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("inputs: [x]\nfilter: {profil: gopher}\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("x: 1\n", encoding="utf-8")
    (tmp_path / "c.yaml").write_text("- 1\n", encoding="utf-8")
    assert run(["config", "validate", *(str(tmp_path / f"{name}.yaml") for name in "abc")]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "Did you mean 'profile'?" in lines[0]
    assert "is no recipe" in lines[1]
    assert "c.yaml" in lines[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_the_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert f"_GLM_DATA_COMPLETE={shell}_complete" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("glm-data ded", ["dedupe"]),
        ("glm-data tokenizer tr", ["train"]),
        ("glm-data pack --mip-ra", ["--mip-ratio", "--mip-ratio-of", "--mip-ramp"]),
    ],
)
def test_words_are_completed(
    words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_GLM_DATA_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert run([]) == 0
    assert sorted(line.split(",")[1] for line in capsys.readouterr().out.splitlines()) == sorted(expected)
