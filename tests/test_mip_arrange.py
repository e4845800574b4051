"""Worked examples and listed choices: shares, forms, budget, and that no question is among its own examples."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.mip import Rendered, Renderer, Template, prepare_row
from glm_data.mip.arrange import (
    FEW_SHOT,
    OPTIONS,
    Arranged,
    Arranger,
    OptionForm,
    Pool,
    Question,
    compose,
    last_of,
    with_options,
)
from glm_data.mip.mixture import Shots
from glm_data.mip.sandbox import Draws
from glm_data.mip.templates import Metadata, Separators
from glm_data.mip.tokens import TokenCounter, estimate_tokens

ROWS: list[dict[str, Any]] = [{"text": f"text {number}", "label": number % 2} for number in range(60)]


def template(language: str = "en", **metadata: Any) -> Template:
    said = Metadata(languages=(language,), choices_in_prompt=False, **metadata)
    body = "{{text}} good? ||| {{answer_choices[label]}}"
    return Template(id="t", name="t", jinja=body, answer_choices="no ||| yes", metadata=said)


def arranged(made: Template, shots: Shots, options: float = 0.0, window: int = 2048, **other: Any) -> list[Arranged]:
    """All rows, whose examples are drawn from the first forty of them."""
    renderer = Renderer([made], dataset="d")
    rows = [prepare_row(row) for row in ROWS]
    pool = Pool(renderer, list(enumerate(rows[:40])))
    arranger = Arranger(other.get("key", "0"), shots, options, pool, TokenCounter(), window)
    samples = [renderer.render(0, row, number) for number, row in enumerate(rows)]
    questions = [
        Question(made, 0, number, sample) for number, sample in enumerate(samples) if isinstance(sample, Rendered)
    ]
    assert len(questions) == len(ROWS)
    return arranger.arrange(questions)


def test_no_question_is_among_its_own_examples_and_each_stands_once() -> None:
    made = arranged(template(few_shot=Separators()), Shots(zero=0, few=1, most=8))
    for number, sample in enumerate(made):
        asked = [line for line in sample.prompt.split("\n") if line.startswith("text ")]
        assert asked[-1] == f"text {number} good?"
        assert asked.count(asked[-1]) == 1
        assert len(set(asked)) == len(asked) == sample.shots + 1
    assert {sample.shots for sample in made} <= set(range(2, 9))
    assert len({sample.shots for sample in made}) > 3


def test_a_row_of_another_file_that_asks_the_same_is_no_example() -> None:
    renderer = Renderer([template()], dataset="d")
    row = prepare_row(ROWS[0])
    pool = Pool(renderer, [(-1, row), (-2, prepare_row(ROWS[1])), (-3, row)])
    sample = renderer.render(0, row, 7)
    assert isinstance(sample, Rendered)
    arranger = Arranger("k", Shots(zero=0, one=1), 0, pool, TokenCounter(), 2048)
    (made,) = arranger.arrange([Question(template(), 0, 7, sample)])
    assert made.shots == 1
    assert "text 1 good?" in made.prompt
    assert made.prompt.count("text 0 good?") == 1


def test_examples_are_found_however_few_rows_of_the_pool_a_template_applies_to() -> None:
    made = Template(
        id="t", name="t", jinja="{% if label %}{{text}} good? ||| yes{% endif %}", metadata=Metadata(languages=("en",))
    )
    renderer = Renderer([made], dataset="d")
    rare = {17, 203, 499}
    pool = Pool(renderer, [(-1 - n, prepare_row({"text": f"text {n}", "label": int(n in rare)})) for n in range(512)])
    sample = renderer.render(0, prepare_row({"text": "asked", "label": 1}), 7)
    assert isinstance(sample, Rendered)
    for key in range(5):
        drawn = pool.draw(Question(made, 0, 7, sample), 3, Draws(str(key)))
        assert {item.prompt for item in drawn} == {f"text {number} good?" for number in rare}
    assert len(pool.draw(Question(made, 0, 7, sample), 4, Draws("k"))) == 3


def test_shares_are_those_that_were_stated() -> None:
    counts: Counter[str] = Counter()
    for key in range(40):
        for sample in arranged(template(), Shots(zero=0.5, one=0.2, few=0.3), 0.25, key=str(key)):
            counts["zero" if not sample.shots else "one" if sample.shots == 1 else "few"] += 1
            counts["listed"] += bool(sample.options)
    total = 40 * len(ROWS)
    for name, share in {"zero": 0.5, "one": 0.2, "few": 0.3, "listed": 0.25}.items():
        assert abs(counts[name] / total - share) < 0.04, name


def test_the_window_holds_and_examples_go_from_the_first_on() -> None:
    separators = Separators(query="Q: ", answer="\nA: ")
    whole = arranged(template(few_shot=separators), Shots(zero=0, few=1, most=8))
    tight = arranged(template(few_shot=separators), Shots(zero=0, few=1, most=8), window=50)
    for sample, cut in zip(whole, tight, strict=True):
        assert estimate_tokens(cut.prompt) + estimate_tokens(cut.target) + 2 <= 50
        assert sample.prompt.endswith(cut.prompt) or not cut.shots
    assert sum(sample.shots for sample in tight) < sum(sample.shots for sample in whole)
    none = arranged(template(), Shots(zero=0, few=1), window=12)
    assert {(sample.shots, sample.prompt) for sample in none} == {(0, f"text {n} good?") for n in range(60)}


@pytest.mark.parametrize("form", [form for forms in OPTIONS.values() for form in forms], ids=lambda form: form.name)
def test_choices_are_listed_and_the_answer_is_the_label_of_the_right_one(form: OptionForm) -> None:
    listed = with_options(template(), Rendered("Which?", "yes", ("no", "yes", "maybe")), form)
    assert listed is not None
    lines = listed.prompt.split("\n")
    assert lines[:2] == ["Which?", form.head]
    assert [line.split(" ", 1)[1] for line in lines[2:]] == ["no", "yes", "maybe"]
    right = lines[3].split(" ")[0]
    assert listed.target == ("yes" if right == "-" else right)


def test_choices_stay_unlisted_where_they_are_there_already_or_do_not_tell() -> None:
    form = OPTIONS["en"][1]
    sample = Rendered("Which?", "yes", ("no", "yes"))
    assert with_options(template(), sample, form) is not None
    shown = Template(
        id="s", name="s", jinja="{{answer_choices | join}} ||| {{answer_choices[0]}}", answer_choices="a|||b"
    )
    assert with_options(shown, sample, form) is None
    assert with_options(template(), Rendered("Which?", "yes", None), form) is None
    assert with_options(template(), Rendered("Which?", "other", ("no", "yes")), form) is None
    assert with_options(template(), Rendered("Which?", "yes", ("yes", "yes")), form) is None
    assert with_options(template(), Rendered("Which?", "1", tuple(map(str, range(21)))), form) is None


def test_a_cue_for_the_answer_stays_behind_the_choices() -> None:
    listed = with_options(template(), Rendered("Is it?\n\nAnswer:", "yes", ("no", "yes")), OPTIONS["en"][1])
    assert listed is not None
    assert listed.prompt == "Is it?\nOptions:\n(A) no\n(B) yes\nAnswer:"
    assert listed.target == "(B)"


def test_forms_are_varied_in_the_language_of_the_prompt() -> None:
    for language, tongue in (("en", "en"), ("zh-Hans", "zh")):
        samples = arranged(template(language), Shots(zero=0, few=1), 1.0)
        assert {sample.options for sample in samples} == {form.name for form in OPTIONS[tongue]}
        marks = {form.query for form in FEW_SHOT[tongue] if form.query}
        assert {mark for mark in marks if any(sample.prompt.startswith(mark) for sample in samples)} == marks
        examples = [sample for sample in samples if sample.options.endswith("brackets")]
        assert examples
        assert all(sample.target in ("(A)", "(B)", "（A）", "（B）") for sample in examples)


def test_what_is_drawn_depends_on_the_key_and_the_row_alone() -> None:
    shots = Shots(zero=0.3, one=0.3, few=0.4)
    assert arranged(template(), shots, 0.5) == arranged(template(), shots, 0.5)
    assert arranged(template(), shots, 0.5) != arranged(template(), shots, 0.5, key="1")


_TEXTS = st.text("ab 字\n", max_size=6)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(_TEXTS, _TEXTS), max_size=4), _TEXTS)
def test_composition_holds_every_part_in_order(pairs: list[tuple[str, str]], prompt: str) -> None:
    separators = Separators(query="<q>", answer="<a>", example="<e>")
    text = compose([Rendered(*pair, None) for pair in pairs], prompt, separators)
    assert text == "".join(f"<q>{asked}<a>{answered}<e>" for asked, answered in pairs) + f"<q>{prompt}<a>".rstrip()


def test_examples_that_cannot_fit_are_left_out_before_they_are_counted() -> None:
    examples = [Rendered("x" * size, "y", None) for size in (10, 10_000, 10, 10)]
    assert last_of(examples, 100) == examples[2:]
    assert last_of(examples, 10_000) == examples
    assert last_of(examples, 1) == []


def test_estimates_are_near_what_tokenizers_count() -> None:
    assert 15 <= estimate_tokens("The ferry had left the harbour before the fog came in.") <= 18
    assert estimate_tokens("床前明月光，疑是地上霜。") == 13
    assert estimate_tokens("") == 1
    assert TokenCounter().count_all(["", "床前"]).tolist() == [1, 3]
