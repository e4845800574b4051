"""Lint: each check finds its fault in a template that is sound otherwise, and nothing in a sound one."""

from __future__ import annotations

from typing import Any

import pytest

from glm_data.mip import Template, TemplateFile, prepare_row
from glm_data.mip.lint import Finding, lint
from glm_data.mip.templates import Metadata

SOUND = "{% if label >= 0 %}{{text}}? ||| {{answer_choices[label]}}{% endif %}"
ID = "0ec5e4a5-0000-4000-8000-00000000000{}"
ROWS = [(number, prepare_row({"text": f"text {number}", "label": number % 2})) for number in range(4)]


def made(*bodies: str, choices: str | None = "no ||| yes", **changes: Any) -> TemplateFile:
    templates = [
        Template(
            id=changes.get("id", ID.format(number)),
            name=f"t{number}",
            jinja=body,
            answer_choices=choices,
            metadata=changes.get("metadata", Metadata(languages=("en",))),
        )
        for number, body in enumerate(bodies)
    ]
    return TemplateFile(dataset="d", fields={"text": "", "label": ""}, templates={item.id: item for item in templates})


def found(file: TemplateFile, **given: Any) -> list[tuple[str, str]]:
    return [(item.check, item.level) for item in lint(file, **given)]


def test_a_sound_template_has_no_finding() -> None:
    assert lint(made(SOUND)) == []
    assert lint(made(SOUND), rows=ROWS) == []


@pytest.mark.parametrize(
    ("body", "check", "level"),
    [
        ("{{ text.__class__ }} ||| x", "dialect", "error"),
        ("{{ text ", "dialect", "error"),
        ("{{ text }} {{ label }}", "separator", "error"),
        ("{{ text }} {{ txet }} {{ label }} ||| x", "variables", "error"),
        ("{{ text }} ||| {{ answer_choices[label] }}", "unguarded_label", "note"),
        ("{{ text }} ||| {{ ['a', 'b'][label] }}", "unguarded_label", "note"),
        ("{{ text }} ||| {{ [text, label] | choice }}", "random", "note"),
        ("{% if label %}{{ text }} ||| a{% else %}{{ text }} ||| b{% endif %}", "separators", "warning"),
    ],
)
def test_faults_of_the_text_are_named(body: str, check: str, level: str) -> None:
    assert found(made(body)) == [(check, level)]


def test_the_message_says_what_is_wrong_and_what_was_meant() -> None:
    assert lint(made("{{ txet }} ||| x")) == [
        Finding(
            template="t0",
            check="variables",
            level="error",
            text="reads 'txet', which is no column. Did you mean 'text'?",
        )
    ]


def test_choices_ids_languages_and_twins() -> None:
    assert found(made("{{text}} ||| {{answer_choices[0]}}", choices=None)) == [("choices", "error")]
    assert found(made(SOUND, id="mine")) == [("id", "warning")]
    assert found(made(SOUND, metadata=Metadata())) == [("language", "warning")]
    assert found(made(SOUND, SOUND.replace("? ", "?  "))) == [("duplicate", "warning")]


def test_a_loop_variable_or_a_name_that_is_set_is_no_column() -> None:
    body = (
        "{% set x = text %}{% for word in x.split(' ') %}{{word}}{{loop.index}}{% endfor %} ||| {{ range(2) | list }}"
    )
    assert found(made(body)) == []


def test_columns_given_go_before_rows_and_those_before_fields() -> None:
    assert found(made(SOUND), columns=["text", "other"]) == [("variables", "error")]
    assert found(made("{{other}} ||| x"), rows=[(0, {"other": "y"})]) == []
    assert found(TemplateFile(dataset="d", templates=made("{{any}} ||| x").templates)) == []


def test_faults_that_rows_show() -> None:
    assert found(made("{{ text }} ||| {{ 1 / label }}"), rows=ROWS) == [("fails", "error")]
    assert found(made("{% if label == 7 %}{{text}} ||| x{% endif %}"), rows=ROWS) == [("never_applies", "warning")]
    strange = "{{text}} ||| {{answer_choices[0]}}!"
    assert found(made(strange), rows=ROWS) == [("not_in_choices", "warning")]
    assert "row 0: 'no!'" in lint(made(strange), rows=ROWS)[0].text
    long = [(0, prepare_row({"text": "word " * 900, "label": 0}))]
    assert found(made(SOUND), rows=long) == [("long", "warning")]
