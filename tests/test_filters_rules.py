"""Profiles as data: strict, and the verdict names every broken rule with its value."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from glm_data.errors import ConfigError
from glm_data.filters import LANGUAGES, Profile, Rule, load_profile, profile_names
from glm_data.filters.rules import judge
from glm_data.filters.signals import SIGNALS

EN, ZH, JA = (LANGUAGES.index(name) for name in ("en", "zh-Hans", "ja"))


def signals(**columns: list[float]) -> dict[str, np.ndarray]:
    count = len(next(iter(columns.values())))
    return {name: np.array(columns.get(name, [0.0] * count), np.float64) for name in SIGNALS}


def test_the_verdict_lists_broken_rules_and_the_first_is_the_reason() -> None:
    profile = Profile(
        description="",
        languages=("en", "zh-Hans"),
        rules=(
            Rule(name="short", signal="characters", min=10),
            Rule(name="digits", signal="digit_share", max=0.5),
            Rule(name="words", signal="words", min=3, languages=("en",)),
            Rule(name="ends", signal="end_mark_share", min=0.1, given={"lines": 5}, unless={"bullet_share": 0.3}),
        ),
    )
    measured = signals(
        characters=[10, 9, 50, 50, 50, 50, 50],
        digit_share=[0.5, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1],
        words=[0, 0, 2, 3, 3, 3, 3],
        lines=[4, 4, 4, 5, 5, 4, 5],
        bullet_share=[0, 0, 0, 0, 0.3, 0, 0],
        end_mark_share=[0, 0, 0, 0.05, 0.05, 0.05, 0.1],
    )
    found = judge(profile, measured, np.array([ZH, ZH, EN, EN, EN, JA, EN], np.int8))
    assert found.broken[:5] == [{}, {"short": 9, "digits": 0.6}, {"words": 2}, {"ends": 0.05}, {}]
    assert list(found.broken[5]) == ["language"]
    assert found.reasons.tolist() == ["", "short", "words", "ends", "", "language", ""]
    assert found.values[1:4].tolist() == [9, 2, 0.05]
    assert math.isnan(found.values[5])


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("rules: []", "missing required field `description`"),
        ("description: x\nrule: []", "Did you mean 'rules'?"),
        ("description: x\nlanguages: [zh]", "there is no language 'zh'. "),
        ("description: x\nrules: [{name: a, signal: caracters, min: 1}]", "Did you mean 'characters'?"),
        ("description: x\nrules: [{name: a, signal: words, min: 1, given: {line: 1}}]", "Did you mean 'lines'?"),
        ("description: x\nrules: [{name: a, signal: words}]", "rule 'a': give min, max or both."),
        ("description: x\nrules: [{name: a, signal: words, min: few}]", "Expected `float | null`, got `str`"),
        ("description: x\nrules: [{name: a, signal: words, min: 1}, {name: a, signal: han, min: 1}]", "two rules"),
        ("description: x\nrules: [{name: language, signal: words, min: 1}]", "'language'"),
        ("description: [", "is not valid YAML"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused_in_a_sentence(tmp_path: Path, yaml: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_profile(str(path))
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert str(error.value).count("\n") == 0


def test_profiles_are_found_by_name() -> None:
    assert "bilingual" in profile_names()
    for name in profile_names():
        assert load_profile(name).rules
    with pytest.raises(ConfigError, match=r"no profile 'bilingul'\. Did you mean 'bilingual'\?"):
        load_profile("bilingul")
    with pytest.raises(ConfigError, match="no such file"):
        load_profile("missing/own.yaml")
