"""Recipes: what is refused before anything runs, the steps they become, and the commands that say the same."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from glm_data import recipe as recipes
from glm_data.cli import fields
from glm_data.cli.shell import run
from glm_data.cli.stages import command_line
from glm_data.config import Config, options
from glm_data.errors import ConfigError
from glm_data.recipe import STAGES, Step, load, steps
from glm_data.stage import Success

WHOLE = """
inputs: [shards/pile, "shards/*.json"]
runner: {workers: 1}
filter: {max_bad_fraction: 0.02}
dedupe:
decontaminate: {evaluation: evaluation.yaml}
tokenizer: {vocab_size: 600}
tokenize: {}
mip: {manifest: mixture.yaml}
pack: {mip_ratio: 0.05}
train: {steps: 4}
quantize: {}
infill: ["a [MASK] b"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shards" / "pile").mkdir(parents=True)
    (tmp_path / "shards" / "pile" / "00.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "shards" / "part.json").write_text("[]")
    (tmp_path / "mixture.yaml").write_text("{}")
    (tmp_path / "evaluation.yaml").write_text("{}")
    return tmp_path


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_sections_become_the_rooms_own_structs(folder: Path) -> None:
    loaded = load(_write(folder, WHOLE))
    assert tuple(loaded.options) == STAGES
    assert all(type(value) is recipes.options_type(stage) for stage, value in loaded.options.items())
    assert loaded.options["tokenizer"].vocab_size == 600  # type: ignore[attr-defined]
    assert loaded.options["dedupe"] == recipes.options_type("dedupe")()
    assert loaded.mip_manifest == folder / "mixture.yaml"


def test_steps_read_what_the_steps_before_them_wrote(folder: Path) -> None:
    made = {step.stage: step for step in steps(load(_write(folder, WHOLE)), Path("out"))}
    assert tuple(made) == STAGES
    assert made["filter"].inputs == (str(folder / "shards/pile"), str(folder / "shards/*.json"))
    assert made["dedupe"].inputs == ("out/filter",)
    assert made["decontaminate"].inputs == ("out/dedupe",)
    assert made["decontaminate"].options.evaluation == str(folder / "evaluation.yaml")
    assert made["tokenizer"].inputs == made["tokenize"].inputs == ("out/decontaminate",)
    assert made["tokenize"].tokenizer == made["pack"].tokenizer == Path("out/tokenizer")
    assert made["mip"].inputs == (str(folder / "mixture.yaml"),)
    assert (made["pack"].inputs, made["pack"].mip) == (("out/tokenize",), Path("out/mip"))
    assert made["train"].inputs == ("out/pack",)
    assert made["quantize"].inputs == ("out/train",)
    assert all(step.out == Path("out") / stage for stage, step in made.items())


def test_a_recipe_may_leave_stages_out(folder: Path) -> None:
    made = list(steps(load(_write(folder, "inputs: [shards]\ntokenizer: {}\ntokenize: {}\n")), Path("out")))
    assert [step.stage for step in made] == ["tokenizer", "tokenize"]
    assert all(step.inputs == (str(folder / "shards"),) for step in made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inputs: [x]\nfliter: {}", "Did you mean 'filter'?"),
        ("inputs: [x]\nfilter: {profil: bilingual}", "filter: Object contains unknown field `profil`"),
        ("inputs: [x]\nfilter: {max_bad_fraction: lots}", "Expected `float`, got `str` - at `$.max_bad_fraction`"),
        ("filter: {}", "needs 'inputs'"),
        ("inputs: [x]\ndemo_input: {}\nfilter: {}", "both 'inputs' and 'demo_input'"),
        ("inputs: [x]", "has no stage"),
        ("inputs: [x]\ntokenize: {}", "'tokenize' needs the section 'tokenizer'"),
        ("inputs: [x]\ntokenizer: {}\ntokenize: {}\ntrain: {}", "'train' needs the section 'pack'"),
        ("inputs: [x]\nfilter: {}\nmip: {manifest: mixture.yaml}", "'mip' needs the section 'pack'"),
        ("inputs: [x]\ntokenizer: {}\ntokenize: {}\npack: {}\nmip: {}", "mip: needs 'manifest'"),
        ("inputs: [x]\ntokenizer: {}\ntokenize: {}\npack: {}\nmip: {manifest: no.yaml}", "there is no file 'no.yaml'"),
        ("inputs: [x]\nfilter: {}\ninfill: [a]", "'infill' needs the section 'train'"),
        ("inputs: x", "Expected `array`, got `str` - at `$.inputs`"),
        ("inputs: [x", "is not valid YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(
    folder: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert run(["run", str(path), "--out", str(folder / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"glm-data: {path}")
    assert not (folder / "out").exists()


def test_until_must_name_a_stage_of_the_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(folder, "inputs: [shards]\nfilter: {}")
    assert run(["run", str(path), "--out", str(folder / "out"), "--until", "pack"]) == 2
    assert "it has filter" in capsys.readouterr().err


def test_an_unknown_recipe_names_the_bundled_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "dmeo", "--out", str(folder / "out")]) == 2
    assert "there is no recipe 'dmeo'" in capsys.readouterr().err


def test_paths_are_taken_beside_the_recipe_then_as_typed(folder: Path) -> None:
    path = _write(folder, "")
    assert recipes.resolve(path, "shards/pile") == str(folder / "shards/pile")
    assert recipes.resolve(path, "shards/*.json") == str(folder / "shards/*.json")
    assert recipes.resolve(path, "nowhere/*.json") == "nowhere/*.json"
    assert recipes.resolve(path, "nowhere") == "nowhere"
    assert recipes.resolve(path, str(folder / "shards")) == str(folder / "shards")
    assert recipes.resolve(path, str(folder / "shards/*.json")) == str(folder / "shards/*.json")


def _other_value(option: Any) -> Any:
    """A value that is not the default and that the option's own checks are likely to take."""
    if option.choices:
        other = [choice for choice in option.choices if choice not in (option.default, *(option.default or ()))]
        return (option.choices[0],) if option.many else (other or option.choices)[0]
    if option.many:
        return ("one", "two")
    if option.kind is bool:
        return not option.default
    if option.kind in (int, float):
        return (
            option.kind(option.default + 1)
            if option.default and option.kind is int
            else option.kind(option.default or 1)
        )
    return option.default or "other"


@pytest.mark.parametrize("stage", STAGES)
def test_the_printed_command_performs_the_same_step(
    stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option that a command line can say, one at a time, through the real command."""
    monkeypatch.chdir(folder)
    for name in ("in", "tokenizer", "mip"):
        (folder / name).mkdir()
    kind = recipes.options_type(stage)
    extra: dict[str, Any] = {"tokenizer": Path("tokenizer")} if stage in ("tokenize", "pack") else {}
    given = "mixture.yaml" if stage == "mip" else "in"
    seen: list[Step] = []

    def perform(step: Step, runner: Any, *, overwrite: bool = False) -> Success:
        seen.append(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "perform", perform)
    told = 0
    required = {option.name: "given.yaml" for option in options(kind) if option.required}
    for option in (None, *options(kind)):
        change = {} if option is None else {option.name: _other_value(option)}
        try:
            changed = msgspec.convert({**msgspec.to_builtins(kind(**required)), **change}, kind)
        except (ConfigError, msgspec.ValidationError):
            continue
        step = Step(stage=stage, inputs=(given,), out=Path("out") / stage, options=changed, **extra)
        words = shlex.split(command_line(step))
        assert words[0] == "glm-data"
        assert run(words[1:]) == 130, capsys.readouterr().err
        assert seen.pop() == step
        told += 1
    assert told >= 2 or len(options(kind)) == 0


class _Nested(Config, frozen=True):
    weights: dict[str, float] = msgspec.field(default_factory=lambda: {"zh": 0.5})
    rate: float | None = 0.5
    names: tuple[str, ...] = ()


def test_options_that_flags_cannot_say_point_to_the_recipe() -> None:
    assert fields.flags(_Nested()) == []
    assert fields.flags(_Nested(names=("a", "b"))) == ["--names", "a", "--names", "b"]
    assert fields.flags(_Nested(weights={"en": 1.0})) == ["--weights", "en=1.0"]
    assert fields.flags(_Nested(rate=None)) is None
    step = Step(stage="tokenizer", inputs=("in",), out=Path("out"), options=_Nested(rate=None))
    assert command_line(step, Path("my recipe.yaml")).endswith("--recipe 'my recipe.yaml'")


def test_a_recipe_section_is_the_base_that_flags_override(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(folder, WHOLE)
    seen: list[Step] = []

    def perform(step: Step, runner: Any, *, overwrite: bool = False) -> Success:
        seen.append(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "perform", perform)
    arguments = ["tokenizer", "train", str(folder / "shards"), "--out", str(folder / "t"), "--recipe", str(path)]
    assert run(arguments) == 130
    assert seen[-1].options.vocab_size == 600
    assert run([*arguments, "--vocab-size", "700"]) == 130
    assert seen[-1].options.vocab_size == 700


def test_a_value_out_of_range_is_said_in_terms_of_the_flag(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["dedupe", str(folder / "shards"), "--out", str(folder / "out")]
    assert run([*arguments, "--threshold", "high"]) == 2
    assert "--threshold" in capsys.readouterr().err
    assert run([*arguments, "--threshold", "7"]) == 2
    assert "threshold" in capsys.readouterr().err


def test_a_copy_of_the_demo_recipe_with_inputs_of_ones_own_runs_from_anywhere(tmp_path, monkeypatch):
    import manifests

    text = manifests.path("demo.yaml").read_text(encoding="utf-8")
    own = text.replace("demo_input:\n  seed: 1\n", f"inputs: [{tmp_path / 'shards'}]\n")
    assert "demo_input:" not in own
    (tmp_path / "my-recipe.yaml").write_text(own, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    loaded = recipes.load(tmp_path / "my-recipe.yaml")
    assert loaded.mip_manifest is not None
    assert loaded.mip_manifest.is_file()
    assert loaded.recipe.inputs == (str(tmp_path / "shards"),)
