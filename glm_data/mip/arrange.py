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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from glm_data.mip.mixture import Shots
from glm_data.mip.render import Refused, Rendered, Renderer
from glm_data.mip.sandbox import Draws
from glm_data.mip.templates import Separators, Template
from glm_data.mip.tokens import TokenCounter, estimate_tokens

POOL_ROWS = 512
"""Rows of train that worked examples are drawn from: the lowest by a hash of their numbers."""

FRAME = 2
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
    prompt_tokens: int
    target_tokens: int


class Question(NamedTuple):
    """A sample to be put in its form: what template number ``place`` made of row ``number``."""

    template: Template
    place: int
    number: int
    sample: Rendered


class Pool:
    """Rows that worked examples are made of, each rendered when it is first drawn.

    A row's number is its own where it is a row of the file that is rendered, else below 0.
    """

    def __init__(self, renderer: Renderer, rows: Sequence[tuple[int, dict[str, object]]]) -> None:
        self._renderer, self._rows = renderer, rows
        self._made: dict[tuple[int, int], Rendered | Refused] = {}

    def draw(self, question: Question, count: int, draws: Draws) -> list[Rendered]:
        """``count`` samples of the question's template at most, none of them of its row or with its prompt; fewer
        where the pool does not have them."""
        chosen: list[Rendered] = []
        order = self._order(4 * count + 16, draws)
        while len(chosen) < count and (index := next(order, None)) is not None:
            if self._rows[index][0] == question.number:
                continue
            made = self._render(question.place, index)
            if isinstance(made, Rendered) and made.prompt != question.sample.prompt:
                chosen.append(made)
        return chosen

    def _order(self, tries: int, draws: Draws) -> Iterator[int]:
        """Every row of the pool once: as they are drawn, then those that ``tries`` draws have left out in order."""
        seen: set[int] = set()
        for _ in range(tries):
            if len(seen) == len(self._rows):
                return
            index = draws.below(len(self._rows))
            if index not in seen:
                seen.add(index)
                yield index
        yield from (index for index in range(len(self._rows)) if index not in seen)

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

    def arrange(self, questions: Sequence[Question]) -> list[Arranged]:
        """The samples in their forms. Tokens are counted for many at a time, which is how tokenizers are fast."""
        drafts = [self._draft(question) for question in questions]
        prompts = [draft.prompt() for draft in drafts]
        targets = self._counter.count_all([draft.question.target for draft in drafts])
        counts = self._counter.count_all(prompts)
        while True:
            over = counts + targets + FRAME > self._window
            long = [place for place in over.nonzero()[0].tolist() if drafts[place].examples]
            if not long:
                break
            for place in long:
                drafts[place].examples.pop(0)
                prompts[place] = drafts[place].prompt()
            counts[long] = self._counter.count_all([prompts[place] for place in long])
        return [
            Arranged(prompt, draft.question.target, len(draft.examples), draft.options, *tokens)
            for prompt, draft, *tokens in zip(prompts, drafts, counts.tolist(), targets.tolist(), strict=True)
        ]

    def _draft(self, question: Question) -> _Draft:
        template, sample = question.template, question.sample
        if self._plain:
            return _Draft(sample, [], Separators(), "")
        draws = Draws(f"{self._key}\0{template.id}\0{question.number}\0arrange")
        wanted, is_listed = self._count(draws), draws.below(_UNIT) / _UNIT < self._options
        tongue = "zh" if template.language.startswith("zh") else "en"
        form = OPTIONS[tongue][draws.below(len(OPTIONS[tongue]))]
        varied = FEW_SHOT[tongue][draws.below(len(FEW_SHOT[tongue]))]
        listed = with_options(template, sample, form) if is_listed else None
        drawn = self._pool.draw(question, wanted, draws) if wanted and self._pool else []
        examples = last_of(drawn, 2 * self._window)
        if listed is not None:
            examples = [made for item in examples if (made := with_options(template, item, form)) is not None]
        asked = listed or sample
        is_cued = asked.prompt.endswith(_COLONS)  # "… Answer:" wants no second "Answer:" after it
        separators = template.metadata.few_shot or (Separators() if is_cued else varied)
        return _Draft(asked, examples, separators, form.name if listed else "")

    def _count(self, draws: Draws) -> int:
        unit = draws.below(_UNIT) / _UNIT
        several = 2 + draws.below(self._most - 1)
        return 0 if unit < self._zero else 1 if unit < self._one else several


@dataclass
class _Draft:
    """A sample before it is known how many of its examples fit."""

    question: Rendered
    examples: list[Rendered]
    separators: Separators
    options: str

    def prompt(self) -> str:
        if not self.examples:
            return self.question.prompt
        return compose(self.examples, self.question.prompt, self.separators)


def last_of(examples: Sequence[Rendered], tokens: int) -> list[Rendered]:
    """The longest end of ``examples`` that has ``tokens`` at most by estimate: what cannot fit is not counted."""
    taken: list[Rendered] = []
    for example in reversed(examples):
        tokens -= estimate_tokens(example.prompt) + estimate_tokens(example.target)
        if tokens < 0:
            break
        taken.append(example)
    return taken[::-1]


def compose(examples: Sequence[Rendered], prompt: str, separators: Separators) -> str:
    """Worked examples and the question after them, whose answer is left open."""
    worked = [f"{separators.query}{item.prompt}{separators.answer}{item.target}" for item in examples]
    return separators.example.join([*worked, f"{separators.query}{prompt}{separators.answer}".rstrip()])


def with_options(template: Template, sample: Rendered, form: OptionForm) -> Rendered | None:
    """The sample with its choices listed after the prompt; None where they are there already, or cannot be."""
    choices = sample.choices or ()
    if template.shows_choices or not 2 <= len(choices) <= _MOST_OPTIONS or choices.count(sample.target) != 1:
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
