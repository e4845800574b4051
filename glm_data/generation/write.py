"""Writing the answers of many texts side by side, a token of each at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from glm_data.generation.decoder import Decoder
from glm_data.generation.options import GenerationOptions
from glm_data.generation.sampling import choose
from glm_data.model.model import GLM
from tokenizer import SPECIAL


@dataclass(frozen=True)
class Task:
    """A text to write into: part A's ids, the places of its masks, and whether positions run on after a mask."""

    context: list[int]
    blanks: tuple[int, ...]
    running: bool

    def needs(self, options: GenerationOptions) -> int:
        """Tokens of text and answers at most."""
        return len(self.context) + len(self.blanks) * (options.max_length + 1)


@dataclass(frozen=True)
class Rules:
    """Which tokens end an answer, which are never written, and whether an answer must stop as it is."""

    ends: frozenset[int]
    never: frozenset[int]
    stopped: Callable[[Sequence[int]], bool]

    def banned(self, answer: Sequence[int], options: GenerationOptions) -> Collection[int]:
        """Tokens that may not follow ``answer``."""
        return self.never | self.ends if len(answer) < options.min_length else self.never


@dataclass
class _State:
    """Where one text is: the blank being filled and what is fed next."""

    number: int
    task: Task
    draws: torch.Generator
    blank: int = 0
    answer: list[int] = field(default_factory=list)
    full: bool = False
    """The answer has ended with a token that is still to be fed."""
    token: int = SPECIAL.sop
    position: int = 0

    def begin(self, blank: int) -> None:
        self.blank, self.answer, self.full, self.token = blank, [], False, SPECIAL.sop
        if blank < len(self.task.blanks):
            self.position = self.task.blanks[blank] + self.task.running


def write(
    model: GLM, tasks: Sequence[Task], rules: Rules, options: GenerationOptions
) -> Iterator[tuple[int, int, int]]:
    """Yield ``(text, blank, token)`` as tokens are chosen, the blanks of each text from left to right.

    Every text has draws of its own from the same seed: what is written does not depend on its neighbours, but for
    rounding. Ends are not yielded.
    """
    states = [_State(n, task, torch.Generator().manual_seed(options.seed)) for n, task in enumerate(tasks)]
    for state in states:
        state.begin(0)
    decoder = Decoder(model, [task.context for task in tasks], max(task.needs(options) for task in tasks))
    while states:
        logits_BV = decoder.step([state.token for state in states], [state.position for state in states])
        for state, logits_V in zip(states, logits_BV.cpu(), strict=True):
            if state.full:
                state.begin(state.blank + 1)
                continue
            token = choose(logits_V, state.answer, rules.banned(state.answer, options), options, state.draws)
            if token in rules.ends:
                state.begin(state.blank + 1)
                continue
            state.answer.append(token)
            state.token, state.position = token, state.position + state.task.running
            state.full = len(state.answer) == options.max_length or rules.stopped(state.answer)
            yield state.number, state.blank, token
        going = [place for place, state in enumerate(states) if not _finished(state)]
        if 0 < len(going) < len(states):
            decoder.select(going)
        states = [states[place] for place in going]


def _finished(state: _State) -> bool:
    last = len(state.task.blanks) - 1
    return state.blank > last or (state.full and state.blank == last)
