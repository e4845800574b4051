"""Rendering against a naive twin of promptsource's own algorithm, and what is different on purpose."""

from __future__ import annotations

import copy
import functools
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from glm_data.mip import Refused, Rendered, Renderer, Template, prepare_row
from glm_data.mip.sandbox import Draws


def template(body: str, choices: str | None = None, name: str = "t") -> Template:
    return Template(id=f"id-{name}", name=name, jinja=body, answer_choices=choices)


def render(
    body: str, row: dict[str, Any], choices: str | None = None, number: int = 0, **options: Any
) -> Rendered | Refused:
    return Renderer([template(body, choices)], dataset="d", **options).render(0, prepare_row(row), number)


@functools.cache
def compiled(body: str, choices: str | None) -> Renderer:
    return Renderer([template(body, choices)], dataset="d")


@functools.cache
def plain(source: str) -> Any:
    environment = Environment()
    environment.globals["zip"] = zip
    environment.filters["most_frequent"] = lambda items: [
        item for item, count in Counter(items).items() if count == max(Counter(items).values())
    ]
    return environment.from_string(source)


def naive(body: str, choices: str | None, row: dict[str, Any]) -> list[str] | None:
    """Plain Jinja, split and stripped; None when it raises."""
    values = copy.deepcopy(row)
    try:
        if choices is not None:
            listed = plain(choices).render(values).split("|||")
            values["answer_choices"] = [item.strip() for item in listed]
        return [part.strip() for part in plain(body).render(values).split("|||")]
    except Exception:
        return None


LABELS = "no ||| yes ||| maybe"
LISTED = "{% for i in items %}\n- {{ loop.index }} {{ i }}{% if not loop.last %},{% endif %}{% endfor %}"
SUMMED = "{% set n = namespace(s=0) %}{% for i in items %}{% set n.s = n.s + loop.index0 %}{% endfor %}{{ n.s }}"
LOWERED = "{% set l = [] %}{% for i in items %}{{ l.append(i.lower()) or '' }}{% endfor %}{{ l }} ||| {{ l | length }}"
LAZY = "{% if items | select('equalto', 'nobody') %}lazy{% endif %}"

BODIES: list[tuple[str, str | None]] = [
    ("{{text}} ||| {{answer_choices[label]}}", LABELS),
    ("{% if label == 1 %}{{text}} ||| yes{% endif %}", None),
    ("{{text}}" + LISTED + " ||| {{ items | join(', ') }}", None),
    (LOWERED, None),
    (SUMMED + " ||| {{ answer_choices }}", "{{text}} ||| {{ items | join(' ||| ') }}"),
    (
        "{{ items | map('upper') | list }} {{ items | unique | sort | first }} ||| {{ items | most_frequent | first }}",
        None,
    ),
    ("{{ text.split(' ')[0] }} {{ text[2:5] }} ||| {{ text | replace('a', 'bb') | trim | capitalize }}", None),
    ("{% for a, b in zip(items, items[1:]) %}{{a}}{{b}}{% endfor %} ||| {{ [text, items[-1]] | sort }}", None),
    ("{{ nested.a }} {{ nested['b'] }} {{ nested.c.d }} ||| x", None),
    ("{{ nested.a }} {{ nested['b'] }} ||| {{ nested.keys() | list }}{{ nested.pop('a') }}{{ nested }}", None),
    ("{{ missing }}{{ missing | default('none') }} {{ (label / 3) | round(2) }} ||| {{ ['x', 'y'][label] }}", None),
    (LAZY + "{{ range(3) | list }} ||| {{ items | reject('equalto', text) | list | length }}", None),
    ("{{ items.index(text) }} ||| {{ label * 5 % 3 }}", None),
    ("{{ text }} ||| {{ text }} ||| {{ text }}", None),
    (" ||| {{text}}", None),
    ("{{text}} ||| ", None),
]

_WORDS = st.sampled_from(["", "a cat", "The fox", "猫坐在这里", "x y z", "Banana"])


@settings(deadline=None, max_examples=60)
@given(
    _WORDS, st.integers(0, 3), st.lists(_WORDS, max_size=4), st.fixed_dictionaries({"a": _WORDS, "b": st.integers()})
)
def test_rendering_is_promptsources_own(text: str, label: int, items: list[str], nested: dict[str, Any]) -> None:
    row = {"text": text, "label": label, "items": items, "nested": nested}
    for body, choices in BODIES:
        expected = naive(body, choices, row)
        got = compiled(body, choices).render(0, prepare_row(row), 0)
        if expected is None or len(expected) > 2:
            assert got[0] == "error", body
        elif len(expected) == 1:
            assert got == Refused("not_applicable"), body
        elif not expected[1] or not expected[0]:
            assert got == Refused("empty_target" if not expected[1] else "empty_prompt"), body
        else:
            assert isinstance(got, Rendered), (body, got)
            assert list(got[:2]) == expected, body


def test_nothing_is_truncated() -> None:
    long = "字" * 100_000
    assert render("{{text}} ||| {{text}}", {"text": long})[:2] == (long, long)


def test_pipes_in_the_data_stay_data_at_any_depth() -> None:
    row = {"text": "a|||b", "items": ["c ||| d", {"x": "e|||f"}]}
    outcome = render("{{text}} {{items[1].x}} ||| {{items[0]}} {{answer_choices[1]}}", row, "{{items[0]}} ||| {{text}}")
    assert outcome == Rendered("a|||b e|||f", "c ||| d a|||b", ("c ||| d", "a|||b"))


def test_a_hidden_label_gives_no_output() -> None:
    choices = "no ||| yes"
    hidden = Refused("hidden_label")
    assert render("{{text}} ||| {{answer_choices[label]}}", {"text": "x", "label": -1}, choices) == hidden
    assert render("{{text}} ||| {{answer_choices[other]}}", {"text": "x", "other": -1}, choices) == hidden
    assert render("{{text}} ||| {{answer_choices[other | int]}}", {"text": "x", "other": "-1"}, choices) == hidden
    assert render("{{text}} ||| {{['no', 'yes'][other]}}", {"text": "x", "other": -1}) == hidden
    assert render("{{text}} ||| {{label}}", {"text": "x", "label": -1}) == hidden
    assert render("{{text}} ||| {{grade}}", {"text": "x", "grade": -1}, label="grade") == hidden
    assert render("{{text}} ||| {{text}}", {"text": "x", "label": -1}) == Rendered("x", "x", None)
    assert render("{{text}} ||| {{answer_choices[-1]}}", {"text": "x"}, choices) == Rendered("x", "yes", ("no", "yes"))
    assert render("{{text}} ||| {{answer_choices[label]}}", {"text": "x", "label": 1}, choices)[1] == "yes"


def test_errors_carry_what_happened() -> None:
    assert render("{{a.b.c}} ||| x", {}) == Refused("error", "UndefinedError: 'a' is undefined")
    assert render("{{1 / label}} ||| x", {"label": 0})[0] == "error"
    assert render("{{text}} ||| x", {"text": "a", "answer_choices": ["b"]})[0] == "error"
    assert (
        render("{{text}} ||| a ||| b", {"text": "a"})[1] == "'|||' stands 2 times; there must be a prompt and a target"
    )


def test_a_template_cannot_change_the_row_for_the_next() -> None:
    first = template(
        "{% set x = items.append('z') %}{% set y = nested.update({'k': 2}) %}{{items}} ||| {{nested}}", name="a"
    )
    second = template("{{items}} ||| {{nested}}", name="b")
    made = Renderer([first, second], dataset="d")
    row = prepare_row({"items": ["a"], "nested": {"k": 1}})
    assert made.render(0, row, 0)[:2] == ("['a', 'z']", "{'k': 2}")
    assert made.render(1, row, 0)[:2] == ("['a']", "{'k': 1}")


def test_columns_are_renamed_and_hyphens_become_underscores() -> None:
    row = prepare_row({"review-body": "x", "stars": 3}, {"text": "review-body"})
    assert row == {"text": "x", "stars": 3}
    assert prepare_row({"a-b": 1}) == {"a_b": 1}


RANDOM = "{{ items | choice }} {{ items | random }} {{ items | shuffle | join }} ||| {{ answer_choices | choice }}"


def test_chance_is_a_function_of_seed_data_set_template_and_row() -> None:
    row = prepare_row({"items": [str(i) for i in range(50)]})
    bodies = [template(RANDOM, "a ||| b ||| c", name="a"), template(RANDOM, "a ||| b ||| c", name="b")]

    def outcome(place: int = 0, number: int = 0, **options: Any) -> Rendered | Refused:
        return Renderer(bodies, **{"dataset": "d", **options}).render(place, row, number)

    base = outcome()
    assert outcome() == base
    others = [outcome(place=1), outcome(number=1), outcome(seed=1), outcome(dataset="e"), outcome(subset="s")]
    assert base not in others
    assert len(set(others)) == len(others)
    made = Renderer(bodies, dataset="d")
    random.seed(7)
    order = [made.render(1, row, 5), made.render(0, row, 0)]
    assert order[1] == base


def test_draws_are_even_and_shuffles_are_permutations() -> None:
    draws = Draws("key")
    counts = Counter(draws.below(7) for _ in range(7000))
    assert set(counts) == set(range(7))
    assert max(counts.values()) - min(counts.values()) < 200
    assert sorted(draws.shuffle(range(100))) == list(range(100))
    assert draws.shuffle(range(100)) != list(range(100))
    assert [Draws("key").below(1000) for _ in range(2)] == [Draws("key").below(1000)] * 2


def test_choosing_from_nothing_is_undefined() -> None:
    assert render("x{{ items | choice }} ||| y", {"items": []}) == Rendered("x", "y", None)


@pytest.mark.parametrize("choices", ["{{1 / 0}}", "{{ 'a' * 9999999 }}"])
def test_constant_choices_that_fail_are_refused_at_once(choices: str) -> None:
    with pytest.raises(Exception, match="answer choices: cannot be rendered"):
        render("{{text}} ||| x", {"text": "a"}, choices)
