"""Writing the answers of many texts side by side, a token of each at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

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
    """Which tokens end an answer, which are never written (or not first), and whether it must stop as it is."""

    ends: frozenset[int]
    never: frozenset[int]
    stopped: Callable[[Sequence[int]], bool]
    not_first: frozenset[int] = frozenset()

    def banned(self, answer: Sequence[int], options: GenerationOptions) -> Collection[int]:
        """Tokens that may not follow ``answer``."""
        never = self.never if answer else self.never | self.not_first
        return never | self.ends if len(answer) < options.min_length else never


@dataclass
class Job:
    """A task and all that decides what is written. Set ``dropped`` while it is written if nobody wants it any more."""

    task: Task
    rules: Rules
    options: GenerationOptions
    dropped: bool = False

    def by_blank(self) -> list[Job]:
        """One job for each blank, none of which sees another's answer."""
        singles = (Task(self.task.context, (blank,), self.task.running) for blank in self.task.blanks)
        return [Job(single, self.rules, self.options) for single in singles]


class Written(NamedTuple):
    """A token that was chosen, or the end of an answer."""

    text: int
    """Number of the job."""
    blank: int
    token: int | None
    """None where the answer ends by itself."""
    ended: str
    """Empty, or why no more comes for the blank: ``end``, ``stop`` (a stop text) or ``length``."""
    logits_V: Tensor
    """What it was chosen by, on the CPU."""


@dataclass
class _State:
    """Where one text is: the blank being filled and what is fed next."""

    number: int
    job: Job
    draws: torch.Generator
    blank: int = 0
    answer: list[int] = field(default_factory=list)
    full: bool = False
    """The answer has ended with a token that is still to be fed."""
    token: int = SPECIAL.sop
    position: int = 0

    def begin(self, blank: int) -> None:
        self.blank, self.answer, self.full, self.token = blank, [], False, SPECIAL.sop
        if blank < len(self.job.task.blanks):
            self.position = self.job.task.blanks[blank] + self.job.task.running

    def take(self, logits_V: Tensor) -> Written | None:
        """Choose what follows; None if the token just fed was the last of a full answer."""
        if self.full:
            self.begin(self.blank + 1)
            return None
        rules, options = self.job.rules, self.job.options
        token = choose(logits_V, self.answer, rules.banned(self.answer, options), options, self.draws)
        blank = self.blank
        if token in rules.ends:
            self.begin(blank + 1)
            return Written(self.number, blank, None, "end", logits_V)
        self.answer.append(token)
        self.token, self.position = token, self.position + self.job.task.running
        ended = "stop" if rules.stopped(self.answer) else "length" if len(self.answer) == options.max_length else ""
        self.full = bool(ended)
        return Written(self.number, blank, token, ended, logits_V)

    def is_finished(self) -> bool:
        last = len(self.job.task.blanks) - 1
        return self.job.dropped or self.blank > last or (self.full and self.blank == last)


def write(model: GLM, jobs: Sequence[Job]) -> Iterator[list[Written]]:
    """Yield what is written at each step, the blanks of each text from left to right.

    Every text has draws of its own from its seed: what is written does not depend on its neighbours, but for rounding.
    """
    states = [_State(n, job, torch.Generator().manual_seed(job.options.seed)) for n, job in enumerate(jobs)]
    for state in states:
        state.begin(0)
    # Inference mode is left before every yield: a generator that waits inside it would leave its caller in it.
    with torch.inference_mode():
        most = max(job.task.needs(job.options) for job in jobs)
        decoder = Decoder(model, [job.task.context for job in jobs], most)
    while states:
        with torch.inference_mode():
            logits_BV = decoder.step([state.token for state in states], [state.position for state in states])
            taken = [state.take(logits_V) for state, logits_V in zip(states, logits_BV.cpu(), strict=True)]
        yield [item for item in taken if item is not None]
        going = [place for place, state in enumerate(states) if not state.is_finished()]
        if 0 < len(going) < len(states):
            with torch.inference_mode():
                decoder.select(going)
        states = [states[place] for place in going]
