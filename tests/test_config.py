import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from glm_data.config import (
    Config,
    Doc,
    Option,
    from_flags,
    from_mapping,
    in_flags,
    load_yaml,
    option_value,
    option_words,
    options,
    to_mapping,
)
from glm_data.errors import ConfigError


class Inner(Config):
    """Nested."""

    low: int = 1
    high: float = 2.0


class Sample(Config):
    """Every kind of field."""

    name: Annotated[str, Doc("what it is called")]
    seed: Annotated[int, Doc("random seed")] = 0
    ratio: Annotated[float | None, Doc("share of MIP")] = None
    strict: bool = False
    mode: Annotated[Literal["fast", "exact"], Doc("how")] = "exact"
    languages: Annotated[tuple[str, ...], Doc("kept languages")] = ("en", "zh")
    kinds: tuple[Literal["mask", "gmask"], ...] = ()
    late: Annotated[int, Doc("documented inside")] | None = None
    level: Literal[1, 2] = 1
    point: tuple[int, str] = (1, "a")
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    table: dict[str, Inner] = {}  # noqa: RUF012 - msgspec copies it
    maybe: Annotated[Inner | None, Doc("nested and optional")] = None


def described() -> dict[str, Option]:
    return {option.name: option for option in options(Sample)}


def yaml_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        load_yaml(yaml_file(tmp_path, text), Sample)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'recipe.yaml'}: ")
    assert "\n" not in said
    return said.removeprefix(f"{tmp_path / 'recipe.yaml'}: ")


def test_options_are_described_for_a_shell() -> None:
    found = described()
    assert found["name"] == Option("name", str, msgspec.NODEFAULT, "what it is called")
    assert found["name"].required
    assert found["seed"] == Option("seed", int, 0, "random seed")
    assert not found["seed"].required
    assert found["ratio"] == Option("ratio", float, None, "share of MIP", optional=True)
    assert found["strict"] == Option("strict", bool, False, "")
    assert found["mode"] == Option("mode", str, "exact", "how", choices=("fast", "exact"))
    assert found["languages"] == Option("languages", str, ("en", "zh"), "kept languages", many=True)
    assert found["kinds"] == Option("kinds", str, (), "", choices=("mask", "gmask"), many=True)
    assert found["late"] == Option("late", int, None, "documented inside", optional=True)
    assert found["languages"].flag == "--languages"
    assert Option("mip_ratio", float, 0.0, "").flag == "--mip-ratio"


def test_what_a_shell_cannot_offer_is_left_to_recipes() -> None:
    assert described().keys().isdisjoint({"inner", "many", "table", "maybe", "point", "level"})


def test_a_mapping_comes_back() -> None:
    config = Sample(name="x", ratio=0.05, many=(Inner(low=3),), table={"a": Inner()})
    mapping = to_mapping(config)
    assert mapping["many"] == ({"low": 3, "high": 2.0},)
    assert from_mapping(mapping, Sample, "here") == config
    assert from_mapping(msgspec.json.decode(msgspec.json.encode(mapping)), Sample, "here") == config


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Inner().low = 2  # type: ignore[misc]


def test_yaml_is_read(tmp_path: Path) -> None:
    text = "name: 配方\nseed: 7\nratio: 6e-4\nlanguages: [en]\ninner: {low: 5, high: 3}\n"
    expected = Sample(name="配方", seed=7, ratio=6e-4, languages=("en",), inner=Inner(low=5, high=3.0))
    assert load_yaml(yaml_file(tmp_path, text), Sample) == expected


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-4", 1e-4), ("6E5", 6e5), ("-1.5e3", -1500.0), ("1_0e2", 1000.0), ("2.", 2.0), (".5", 0.5), ("3", 3.0)],
)
def test_numbers_as_people_write_them(tmp_path: Path, written: str, value: float) -> None:
    assert load_yaml(yaml_file(tmp_path, f"name: x\nratio: {written}\n"), Sample).ratio == value


@pytest.mark.parametrize("word", ["e5", "1e", "1e5x", "0x1e-3z", "2024-01e"])
def test_words_that_look_like_numbers_stay_words(tmp_path: Path, word: str) -> None:
    assert load_yaml(yaml_file(tmp_path, f"name: {word}\n"), Sample).name == word


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nsede: 1\n", "Object contains unknown field `sede`. Did you mean 'seed'?"),
        ("name: x\ninner: {lo: 1}\n", "Object contains unknown field `lo` - at `$.inner`. Did you mean 'low'?"),
        ("name: x\ninner: {seed: 1}\n", "Object contains unknown field `seed` - at `$.inner`. Known keys: high, low."),
        ("name: x\nmany: [{low: 1}, {hi: 1}]\n", "unknown field `hi` - at `$.many[1]`. Did you mean 'high'?"),
        ("name: x\ntable: {k: {hig: 1}}\n", "unknown field `hig` - at `$.table[...]`. Did you mean 'high'?"),
        ("name: x\nmaybe: {hihg: 1}\n", "unknown field `hihg` - at `$.maybe`. Did you mean 'high'?"),
        ("name: x\nseed: one\n", "Expected `int`, got `str` - at `$.seed`."),
        ("name: x\nseed: 1.5\n", "Expected `int`, got `float` - at `$.seed`."),
        ("name: x\nseed: true\n", "Expected `int`, got `bool` - at `$.seed`."),
        ("name: no\n", "Expected `str`, got `bool` - at `$.name`."),
        ("name: x\nmode: slow\n", "Invalid enum value 'slow' - at `$.mode`."),
        ("name: x\nkinds: [mask, gmaks]\n", "Invalid enum value 'gmaks' - at `$.kinds[1]`."),
        ("name: x\nlanguages: en\n", "Expected `array`, got `str` - at `$.languages`."),
        ("seed: 1\n", "Object missing required field `name`."),
        ("", "Object missing required field `name`."),
        ("- a\n", "it holds a list, and keys with values are wanted, such as 'name: value'."),
        ("name: x\nseed: 1\nseed: 2\n", "key 'seed' twice"),
        ("name: x\ninner: {low: 1, low: 2}\n", "key 'low' twice"),
        ("name: [\n", "is not valid YAML ("),
        ("name: x\n? [a]\n: 1\n", "is not valid YAML ("),
        ("name: !!python/object/apply:os.system [echo]\n", "is not valid YAML ("),
        ("name: x\0\n", "is not valid YAML ("),
        (b"name: \xff\xfe\n", "is not UTF-8 text (invalid start byte at byte 6)."),
        ("[" * 5000, "is nested too deeply."),
    ],
)
def test_a_wrong_recipe_is_one_sentence_with_its_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_place_that_is_no_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file; check the path"):
        load_yaml(tmp_path / "nothing.yaml", Sample)
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load_yaml(tmp_path, Sample)


def test_merged_yaml_mappings_are_no_doubles(tmp_path: Path) -> None:
    text = "name: x\ninner: &base {low: 4}\nmaybe: {<<: *base, high: 9}\n"
    assert load_yaml(yaml_file(tmp_path, text), Sample).maybe == Inner(low=4, high=9.0)


def test_a_number_out_of_its_range_is_refused_with_the_range():
    class Ranged(Config, frozen=True):
        share: Annotated[float, Doc("a share", 0, 1)] = 0.5

    assert from_mapping({"share": 1}, Ranged, "here").share == 1
    with pytest.raises(ConfigError, match=r"here: share must be at most 1\."):
        from_mapping({"share": 7}, Ranged, "here")


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"share": float("nan")}, "share (nan)"),
        ({"mix": {"zh": float("inf")}}, "mix.zh (inf)"),
        ({"stages": [{"lr": 1.0}, {"lr": -float("inf")}]}, "stages[1].lr (-inf)"),
    ],
)
def test_no_number_may_be_infinite_or_nan(values: dict[str, Any], place: str):
    with pytest.raises(ConfigError) as caught:
        from_mapping(values, Sample, "here")
    assert str(caught.value) == f"here: {place} is not a finite number; give one."


class Share(Config, frozen=True):
    epochs: float | None = None
    share: float | None = None


class Mixed(Config, frozen=True):
    languages: Annotated[dict[str, float], Doc("shares")] = msgspec.field(default_factory=lambda: {"zh": 0.5})
    mix: dict[str, Share] = msgspec.field(default_factory=dict)


class Typed(Config, frozen=True):
    top_p: float = 1.0
    keep: tuple[str, ...] = ()
    seed: Annotated[int, Doc("seed", 0)] = 0

    def __post_init__(self) -> None:
        if self.top_p > 1:
            raise ConfigError(f"top_p is {self.top_p}; give less.")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"top_p": 2.0}, "--top-p is 2.0; give less."),
        ({"top_p": math.nan}, "--top-p (nan) is not a finite number; give one."),
        ({"top_p": "x"}, "Expected `float`, got `str` - at --top-p."),
        ({"seed": -1}, "--seed must be at least 0."),
    ],
)
def test_an_error_of_a_command_line_names_the_option_as_it_is_typed(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_flags(values, Typed)
    assert str(caught.value) == said


def test_what_only_looks_like_an_option_is_left_alone() -> None:
    for sentence in ("'top_p.yaml': keep it.", "no top_p_2 here.", "nobody can keep: this.", "keep off."):
        assert in_flags(sentence, Typed) == sentence
    assert in_flags("keep: no rule 'a'; top_p 3 and 'b/top_p' clash. Known keys: top_p, seed.", Typed) == (
        "--keep: no rule 'a'; --top-p 3 and 'b/top_p' clash. Known keys: top_p, seed."
    )


def test_mappings_of_numbers_are_given_entry_by_entry() -> None:
    languages, mix = options(Mixed)
    assert languages == Option("languages", str, ("zh=0.5",), "shares", many=True, entries=("",))
    assert mix.entries == ("epochs", "share")
    assert option_value(languages, ["zh=0.6", "en=4e-1"]) == {"zh": 0.6, "en": 0.4}
    given = {"a=b/*": {"share": 0.25}, "books": {"epochs": 2.0}}
    assert option_value(mix, option_words(mix, given)) == given
    config = from_mapping({"mix": given}, Mixed, "here")
    assert option_words(mix, config.mix) == ["a=b/*=share:0.25", "books=epochs:2.0"]


@pytest.mark.parametrize("word", ["zh", "zh=", "=0.5", "zh=half", "zh=share:0.5", "zh=1.2.3"])
def test_an_entry_that_cannot_be_read_is_one_sentence(word: str) -> None:
    with pytest.raises(ConfigError, match=f"--languages '{re.escape(word)}'"):
        option_value(options(Mixed)[0], [word])
