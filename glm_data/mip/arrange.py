"""How a rendered sample is put: with or without its choices listed, after none, one or a few worked examples.

::

    zero-shot                 one-shot                       few-shot, choices listed
    <prompt> -> <target>      <prompt 1><answer><target 1>   Q: <prompt 1>\\nOptions:\\n(A) …\\n(B) …\\nA: (B)
                              <example>                      <example> …
                              <prompt> -> <target>           Q: <prompt>\\nOptions:\\n(A) …\\n(B) …\\nA: -> (A)

Worked examples are rendered by the template of the question from rows of the split train: never from the question's own
row, nor from one that asks the same. They are drawn from a pool of a few hundred rows, the same for every shard, and
shortened from the first on until all of it fits the window. What is drawn is a function of (seed, data set, template,
row). Forms are varied as in FLAN 2022; a template's own ``few_shot`` goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from glm_data.mip.mixture import Shots
from glm_data.mip.render import Refused, Rendered, Renderer
from glm_data.mip.sandbox import Draws
from glm_data.mip.templates import Separators, Template
from glm_data.mip.tokens import TokenCounter

POOL_ROWS = 512
"""Rows of train that worked examples are drawn from: the lowest by a hash of their numbers."""

_FRAME = 2
"""Places of a packed piece besides prompt and target: [MASK] and <sop>."""
_MOST_OPTIONS = 20
_COLONS = (":", "：")
_LONGEST_CUE = 30
"""Characters of a last line such as ``Answer:``, which stays the last when choices are listed."""
_UNIT = 1 << 53


class OptionForm(NamedTuple):
    """How choices are listed: ``head``, then a line for each; the answer is its label, if it has one."""

    name: str
    head: str
    label: str
    """With ``A`` or ``1`` where the letter or number stands; empty: the choice itself is the answer."""


FEW_SHOT: dict[str, tuple[Separators, ...]] = {
    "en": (
        Separators(),
        Separators(query="Q: ", answer="\nA: "),
        Separators(query="Question: ", answer="\nAnswer: "),
        Separators(query="Input: ", answer="\nOutput: ", example="\n\n\n"),
        Separators(answer="\n\n", example="\n\n--\n\n"),
        Separators(query="Problem: ", answer="\nSolution: ", example="\n\n"),
    ),
    "zh": (
        Separators(),
        Separators(query="问：", answer="\n答："),
        Separators(query="题目：", answer="\n答案："),
        Separators(query="输入：", answer="\n输出：", example="\n\n\n"),
        Separators(answer="\n\n", example="\n\n--\n\n"),
        Separators(query="例题：", answer="\n解答："),
    ),
}
OPTIONS: dict[str, tuple[OptionForm, ...]] = {
    "en": (
        OptionForm("en-dash", "Options:", ""),
        OptionForm("en-brackets", "Options:", "(A)"),
        OptionForm("en-letters", "Choose one:", "A."),
        OptionForm("en-numbers", "Pick one of these:", "1)"),
    ),
    "zh": (
        OptionForm("zh-dash", "选项：", ""),
        OptionForm("zh-brackets", "选项：", "（A）"),
        OptionForm("zh-letters", "可选的答案：", "A."),
        OptionForm("zh-numbers", "从下面选一个：", "1）"),
    ),
}


class Arranged(NamedTuple):
    """A sample as it goes out."""

    prompt: str
    target: str
    shots: int
    options: str
    """Name of the form in which the choices are listed; empty: as the template has it."""


class Pool:
    """Rows that worked examples are made of, each rendered when it is first drawn.

    ``numbers`` are the rows' own where they are rows of the file that is rendered, else -1.
    """

    def __init__(self, renderer: Renderer, rows: Sequence[tuple[int, dict[str, object]]]) -> None:
        self._renderer, self._rows = renderer, rows
        self._made: dict[tuple[int, int], Rendered | Refused] = {}

    def draw(self, place: int, number: int, sample: Rendered, count: int, draws: Draws) -> list[Rendered]:
        """``count`` samples of template ``place`` at most, none of them row ``number`` or with the prompt of
        ``sample``; fewer where the pool does not have them."""
        chosen: list[Rendered] = []
        waiting = list(range(len(self._rows)))
        for _ in range(4 * count + 16):
            if not waiting or len(chosen) == count:
                break
            at = draws.below(len(waiting))
            index, waiting[at] = waiting[at], waiting[-1]
            waiting.pop()
            made = self._render(place, index)
            if isinstance(made, Rendered) and self._rows[index][0] != number and made.prompt != sample.prompt:
                chosen.append(made)
        return chosen

    def _render(self, place: int, index: int) -> Rendered | Refused:
        key = place, index
        if key not in self._made:
            self._made[key] = self._renderer.render(place, self._rows[index][1], self._rows[index][0])
        return self._made[key]


class Arranger:
    """Puts the samples of a data set in their forms, by ``shots`` and ``options``, the shares that its entry states.

    ``key`` is of seed and data set; ``window`` the tokens that a sample with worked examples may have.
    """

    def __init__(
        self, key: str, shots: Shots, options: float, pool: Pool | None, counter: TokenCounter, window: int
    ) -> None:
        self._key, self._options, self._pool = key, options, pool
        self._counter, self._window = counter, window
        self._most = shots.most
        total = shots.zero + shots.one + shots.few
        self._zero, self._one = shots.zero / total, (shots.zero + shots.one) / total
        self._plain = options == 0 and (self._zero >= 1 or pool is None)

    def arrange(self, template: Template, place: int, number: int, sample: Rendered) -> Arranged:
        """The sample of row ``number`` by template number ``place``, in its form."""
        if self._plain:
            return Arranged(sample.prompt, sample.target, 0, "")
        draws = Draws(f"{self._key}\0{template.id}\0{number}\0arrange")
        wanted, is_listed = self._count(draws), draws.below(_UNIT) / _UNIT < self._options
        tongue = "zh" if template.language.startswith("zh") else "en"
        form = OPTIONS[tongue][draws.below(len(OPTIONS[tongue]))]
        listed = with_options(template, sample, form) if is_listed else None
        examples = self._pool.draw(place, number, sample, wanted, draws) if wanted and self._pool else []
        if listed is not None:
            examples = [made for item in examples if (made := with_options(template, item, form)) is not None]
        question = listed or sample
        drawn = FEW_SHOT[tongue][draws.below(len(FEW_SHOT[tongue]))]
        asks = question.prompt.endswith(_COLONS)  # "… Answer:" wants no second "Answer:" after it
        separators = template.metadata.few_shot or (Separators() if asks else drawn)
        prompt, shots = self._fit(examples, question, separators)
        return Arranged(prompt, question.target, shots, form.name if listed else "")

    def _count(self, draws: Draws) -> int:
        unit = draws.below(_UNIT) / _UNIT
        several = 2 + draws.below(self._most - 1)
        return 0 if unit < self._zero else 1 if unit < self._one else several

    def _fit(self, examples: list[Rendered], question: Rendered, separators: Separators) -> tuple[str, int]:
        """The prompt with as many of the examples, the last ones, as the window has room for."""
        while examples:
            prompt = compose(examples, question.prompt, separators)
            if self._counter.count(prompt) + self._counter.count(question.target) + _FRAME <= self._window:
                return prompt, len(examples)
            examples = examples[1:]
        return question.prompt, 0


def compose(examples: Sequence[Rendered], prompt: str, separators: Separators) -> str:
    """Worked examples and the question after them, whose answer is left open."""
    worked = [f"{separators.query}{item.prompt}{separators.answer}{item.target}" for item in examples]
    return separators.example.join([*worked, f"{separators.query}{prompt}{separators.answer}".rstrip()])


def with_options(template: Template, sample: Rendered, form: OptionForm) -> Rendered | None:
    """The sample with its choices listed after the prompt; None where they are there already, or cannot be."""
    choices = sample.choices or ()
    is_there = template.metadata.choices_in_prompt is not False or "answer_choices" in template.jinja.split("|||")[0]
    if is_there or not 2 <= len(choices) <= _MOST_OPTIONS or choices.count(sample.target) != 1:
        return None
    labels = [_label(form.label, place) for place in range(len(choices))]
    lines = [f"{label or '-'} {choice}" for label, choice in zip(labels, choices, strict=True)]
    target = labels[choices.index(sample.target)] or sample.target
    asked, _, cue = sample.prompt.rpartition("\n")
    if not asked or len(cue) > _LONGEST_CUE or not cue.endswith(_COLONS):
        return Rendered("\n".join([sample.prompt, form.head, *lines]), target, choices)
    return Rendered("\n".join([asked.rstrip(), form.head, *lines, cue]), target, choices)


def _label(pattern: str, place: int) -> str:
    return pattern.replace("A", chr(ord("A") + place)).replace("1", str(place + 1))
