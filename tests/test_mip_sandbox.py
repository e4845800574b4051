"""Hostile templates and rows: none runs code, reads a file, exceeds a cap or stops the run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from glm_data.mip import Refused, Rendered, Renderer, Template, TemplateError, dialect, prepare_row
from glm_data.mip.rows import TooDeepError


def renderer(body: str, choices: str | None = None, **options: Any) -> Renderer:
    template = Template(id="t", name="hostile", jinja=body, answer_choices=choices)
    return Renderer([template], dataset="d", **options)


REFUSED = {
    "globals of a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "underscore by item name": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "lipsum": "{{ lipsum.__globals__ }}",
    "self": "{{ self._TemplateReference__context }}",
    "self by item": "{{ self['_TemplateReference__context'] }}",
    "undefined's class": "{{ nothing.__class__ }}",
    "attr filter": "{{ text | attr('__class__') }}",
    "format method": "{{ '{0.__class__}'.format(text) }}",
    "power": "{{ 9 ** 9 ** 7 }}",
    "tilde": "{{ text ~ text }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "from import": "{% from 'os' import system %}",
    "extends": "{% extends 'base' %}",
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "call block": "{% call f() %}{% endcall %}",
    "filter block": "{% filter upper %}x{% endfilter %}",
    "set block": "{% set x %}y{% endset %}",
    "block": "{% block b %}{% endblock %}",
    "with": "{% with a = 1 %}{% endwith %}",
    "recursive loop": "{% for a in text recursive %}{{ loop(a) }}{% endfor %}",
    "unknown filter": "{{ text | pprint }}",
    "wide centre": "{{ text | center(1000000000) }}",
    "indent": "{{ text | indent(1000000000) }}",
    "unknown function": "{{ open('/etc/passwd') }}",
    "dict function": "{{ dict(a=1) }}",
    "computed call": "{{ [text.lower][0]() }}",
    "unknown method": "{{ text.encode() }}",
    "zfill": "{{ text.zfill(1000000000) }}",
    "unpacked arguments": "{{ text.replace(*rows) }}",
    "huge number": "{{ 99999999999999999999999999999999 }}",
    "number that Python refuses": "{{ " + "9" * 5000 + " }}",
    "deep brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep lists": "{{ " + "[" * 80 + "]" * 80 + " }}",
    "deep loops": "{% for a in text %}" * 40 + "x" + "{% endfor %}" * 40,
    "huge source": "x" * 60_000,
    "many parts": "{{ text }}" * 6_000,
    "unclosed": "{{ text ",
    "own filter": "{{ text | __loop }}",
    "function as a value": "{{ range }}",
    "function in a list": "{{ [zip, text] | join }}",
    "unknown test": "{{ text is mapping }}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_of_the_dialect_is_refused_before_it_runs(body: str) -> None:
    with pytest.raises(TemplateError, match="template 'hostile'") as caught:
        renderer(body)
    assert len(str(caught.value)) < 300
    with pytest.raises(TemplateError, match="answer choices"):
        renderer("{{ text }} ||| x", choices=body)


def grow(start: str, step: str, then: str = "") -> str:
    """A template that does ``step`` sixty times to what it keeps in the namespace ``n``."""
    return f"{{% set n = namespace({start}) %}}{{% for i in range(60) %}}{step}{{% endfor %}}{then}"


LIMITED = {
    "long string by times": "{{ 'a' * 100000000 }}",
    "times from the row": "{{ text * number }}",
    "long list by times": "{{ ([text] * 100000000) | length }}",
    "doubling a string": grow("s=text", "{% set n.s = n.s + n.s %}"),
    "doubling a list": grow("s=[1]", "{% set n.s = n.s + n.s %}"),
    "doubling by nesting": grow("s=[1]", "{% set n.s = [n.s, n.s] %}", "{{ n.s }}"),
    "comparing nested": grow(
        "a=[1], b=[1]", "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}", "{{ n.a == n.b }}"
    ),
    "hashing nested": grow("a=(1, 1)", "{% set n.a = (n.a, n.a) %}", "{{ {n.a: 1}[n.a] }}"),
    "sorting nested": grow("a=[1]", "{% set n.a = [n.a, n.a] %}", "{{ [n.a, n.a] | sort }}"),
    "joining nested": grow("a=[1]", "{% set n.a = [n.a, n.a] %}", "{{ n.a | join }}"),
    "growing by replace": grow("s=text", "{% set n.s = n.s.replace('a', 'aaaaaaaaaa') %}"),
    "growing by the filter": grow("s=text", "{% set n.s = n.s | replace('a', 'aaaaaaaaaa') %}"),
    "growing by join": grow("s=text", "{% set n.s = n.s.join([n.s, n.s, n.s]) %}"),
    "growing by the join filter": grow("s=text", "{% set n.s = [n.s, n.s] | join(n.s) %}"),
    "squaring a number": grow("s=9", "{% set n.s = n.s * n.s %}"),
    "long range": "{{ range(100000000) | list }}",
    "nested loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "loops over the row": "{% for a in rows %}" * 3 + "{% endfor %}" * 3,
    "endless append": "{% for a in rows %}{{ rows.append(a) }}" * 2 + "{% endfor %}" * 2,
    "a list in itself": "{% set l = [1] %}{{ l.append(l) }}{{ l | sort }}",
    "wide format": "{{ '%1000000000d' | format(1) }}",
    "wide format from the row": "{{ '%*d' | format(number, 1) }}",
    "round to many places": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "long output": "{% for a in range(9000) %}" + "{{ text }}" * 8 + "{% endfor %}",
    "map over long texts": "{% for a in range(9000) %}{% set x = rows | map('upper') | list %}{% endfor %}",
    "scanning a long text": "{% for a in range(9000) %}{% set x = [long.split('q')] %}{% endfor %}",
    "slicing a long text": "{% for a in range(9000) %}" + "{% set x = long[1:] %}" * 9 + "{% endfor %}",
    "most frequent of nested": grow("a=(1, 1)", "{% set n.a = (n.a, n.a) %}", "{{ [n.a] | most_frequent }}"),
}

ROW = {"text": "a" * 30, "number": 10**9, "rows": ["a b c"] * 300, "long": "a" * 200_000}


@pytest.mark.parametrize("body", LIMITED.values(), ids=LIMITED.keys())
def test_what_grows_without_bound_ends_at_a_limit(body: str) -> None:
    made = renderer(body + " ||| x")
    started = time.process_time()
    outcome = made.render(0, prepare_row(ROW), 0)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "over_limit", outcome
    assert time.process_time() - started < 5
    fine = renderer("{{ text }} ||| ok").render(0, prepare_row(ROW), 0)
    assert isinstance(fine, Rendered)  # the refusal left nothing behind


HARMLESS_ROWS: list[dict[str, Any]] = [
    {"text": "{{ ''.__class__ }}"},
    {"text": "{% for x in range(10) %}x{% endfor %}"},
    {"text": "a ||| b ||| c"},
    {"text": ["a ||| b", {"x": "c ||| d"}]},
    {"text": None},
    {"text": -1, "label": "x"},
    {"self": 1, "loop": 2, "range": 3, "namespace": 4, "zip": 5, "text": "a"},
    {"text": "\0\ud800"},
    {"text": {"__class__": "x", "keys": 1}},
    {"answer-choices": "x", "text": "y"},
]


@pytest.mark.parametrize("row", HARMLESS_ROWS)
def test_rows_are_data_and_never_templates(row: dict[str, Any]) -> None:
    outcome = renderer("{{ text }} ||| {{ text }}").render(0, prepare_row(row), 0)
    assert isinstance(outcome, Rendered | Refused)
    if isinstance(outcome, Rendered) and isinstance(row["text"], str):
        assert outcome.prompt == outcome.target == row["text"]


def test_half_a_character_is_refused_and_never_written() -> None:
    for body in ('{{ "\\ud800" }}', "{{ '%c' | format(55296) }}", "\ud800"):
        outcome = renderer(body + " {{ text }} ||| x").render(0, prepare_row({"text": "a"}), 0)
        assert outcome == Refused("error", "the text holds half of a surrogate pair, which is no character")


def test_a_row_that_is_nested_too_deeply_is_refused_by_name() -> None:
    deep: Any = "x"
    for _ in range(600):
        deep = [deep]
    with pytest.raises(TooDeepError, match="more than 100 levels"):
        prepare_row({"text": deep})


def test_a_row_cannot_smuggle_in_functions() -> None:
    class Trap:
        def __call__(self) -> str:
            raise AssertionError("called")

        secret = "s"

    row = {"text": Trap(), "range": Trap(), "items": {"lower": Trap()}}
    for body in ("{{ range(3) }}", "{{ text.lower() }}", "{{ items.lower() }}", "{{ text.secret }}{{ nothing.at }}"):
        outcome = renderer(body + "x ||| y").render(0, row, 0)
        assert isinstance(outcome, Refused)
        assert outcome.reason == "error"


def test_compiling_folds_no_constants() -> None:
    started = time.process_time()
    made = [
        renderer("{{ 'aaaaaaaaaa' * 999999999 * 99 }} ||| x"),
        renderer("{{ ('a' * 99999999) | upper | length }} ||| x"),
    ]
    assert time.process_time() - started < 1
    assert [made_one.render(0, {}, 0)[0] for made_one in made] == ["over_limit", "over_limit"]


def test_caps_are_options() -> None:
    row = prepare_row({"text": "abc"})
    assert renderer("{{ text * 100 }} ||| x", longest_output=100).render(0, row, 0) == Refused(
        "over_limit", "a value grows too long"
    )
    assert isinstance(renderer("{{ text * 10 }} ||| x", longest_output=100).render(0, row, 0), Rendered)
    loop = "{% for a in range(100) %}{{ a }}{% endfor %} ||| x"
    assert renderer(loop, most_steps=50).render(0, row, 0) == Refused("over_limit", "it takes too many steps")
    assert isinstance(renderer(loop).render(0, row, 0), Rendered)


def test_the_same_row_always_fares_alike() -> None:
    body = "{% for a in rows %}{{ a | choice }}{% endfor %} ||| x"
    outcomes = {renderer(body, most_steps=1000).render(0, prepare_row({"rows": ["ab"] * n}), 0)[0] for n in (200,) * 5}
    assert len(outcomes) == 1


_NAMES = st.sampled_from(
    ["text", "rows", "label", "loop", "self", "range", "namespace", "zip", "_x", "__import__", "answer_choices"]
)
_LEAVES = _NAMES | st.sampled_from(["1", "-1", "'a|||b'", "none", "true", "0.5", "[]", "{}", "'%9999d'", "10000000"])


def _combine(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    filters = st.sampled_from([*sorted(dialect.FILTERS), "attr", "pprint", "tojson"])
    attributes = st.sampled_from([*sorted(dialect.METHOD_NAMES), "__class__", "__globals__", "format", "index0", "x"])
    return st.one_of(
        st.tuples(parts, filters).map(lambda p: f"({p[0]} | {p[1]})"),
        st.tuples(parts, filters, parts).map(lambda p: f"({p[0]} | {p[1]}({p[2]}))"),
        st.tuples(parts, attributes).map(lambda p: f"{p[0]}.{p[1]}"),
        st.tuples(parts, attributes, parts).map(lambda p: f"{p[0]}.{p[1]}({p[2]})"),
        st.tuples(parts, st.sampled_from([*"+-*/%<~", "==", "in", "and", "or", "**"]), parts).map(
            lambda p: f"({p[0]} {p[1]} {p[2]})"
        ),
        st.tuples(parts, parts).map(lambda p: f"{p[0]}[{p[1]}]"),
        st.tuples(parts, parts).map(lambda p: f"[{p[0]}, {p[1]}]"),
        st.tuples(parts, parts).map(lambda p: f"{p[0]}({p[1]})"),
    )


_EXPRESSIONS = st.recursive(_LEAVES, _combine, max_leaves=8)


@settings(deadline=None, max_examples=100)
@given(_EXPRESSIONS, _EXPRESSIONS)
def test_any_template_is_refused_or_ends(first: str, second: str) -> None:
    shown = f"{{{{ {second} }}}}"
    body = f"{{% for x in {first} %}}{{% for text in {first} %}}{shown}{{% endfor %}}{{% endfor %}} ||| {shown}"
    try:
        made = renderer(body, choices=shown, most_steps=20_000, longest_output=10_000)
    except TemplateError:
        return
    outcome = made.render(0, prepare_row({"text": "a ||| b", "rows": [[1, "x"], {"a": 2}], "label": 1}), 0)
    assert isinstance(outcome, Rendered | Refused)
    if isinstance(outcome, Rendered):
        assert len(outcome.prompt) <= 10_000
        assert "object at 0x" not in outcome.prompt + outcome.target  # no address: the same on every machine


def test_plain_jinja_would_have_run_it(tmp_path: Path) -> None:
    """The first wall is needed: the same text runs a command in an ordinary environment."""
    witness = tmp_path / "witness"
    bomb = "{{ cycler.__init__.__globals__.os.system('echo > " + str(witness) + "') }}"
    Environment().from_string(bomb).render()
    assert witness.exists()
    witness.unlink()
    with pytest.raises(TemplateError):
        renderer(bomb)
    assert not witness.exists()
