"""Beam search: the likeliest answer instead of the likeliest next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from glm_data.generation.decoder import Decoder
from glm_data.generation.options import GenerationOptions
from glm_data.generation.sampling import allowed
from glm_data.generation.write import Job, Rules
from glm_data.model.model import GLM
from tokenizer import SPECIAL

Hypothesis = tuple[float, list[int]]
"""Score of an answer, the mean log-probability of its tokens and its end, and the answer."""

MOST_BEAMS = 256
"""Beams side by side in one step, over all texts."""


@dataclass
class _Hunt:
    """The search at one blank: beams with the sum of their log-probabilities, and answers that have ended."""

    job: Job
    blank: int
    beams: list[tuple[float, list[int]]] = field(default_factory=lambda: [(0.0, [])])
    finished: list[Hypothesis] = field(default_factory=list)

    def best(self) -> list[int]:
        return max(self.finished, key=lambda item: item[0])[1]

    def grow(self, logits_BV: torch.Tensor, length: int) -> list[int]:
        """One token more, by the logits of each beam; returns which beam each of the new ones goes on from.

        A blank's answer ends with a token. A continuation that is as long as it may be is cut instead: no end of it is
        known, so none counts.
        """
        rules, options, running = self.job.rules, self.job.options, self.job.task.running
        grown: list[tuple[float, int, int]] = []
        for place, (total, answer) in enumerate(self.beams):
            for token, chance in _continuations(logits_BV[place], answer, rules, options):
                if token in rules.ends:
                    self.finished.append(((total + chance) / (length + 1), answer))
                elif running and (length + 1 == options.max_length or rules.stopped([*answer, token])):
                    self.finished.append(((total + chance) / (length + 1), [*answer, token]))
                elif length < options.max_length:
                    grown.append((total + chance, place, token))
        # Sorted by score alone, and stable: ties go to the better beam, then to the smaller token.
        grown = sorted(grown, key=lambda item: -item[0])[: options.beams]
        # A longer answer may have the better mean, so there is no early end.
        self.beams = [(total, [*self.beams[place][1], token]) for total, place, token in grown]
        return [place for _, place, _ in grown]


def search(model: GLM, jobs: Sequence[Job]) -> list[list[list[int]]]:
    """The best answer of each blank of each job. No draws: always the same.

    Jobs of one blank are searched side by side; blanks of one job from left to right, each seeing the ones before.
    """
    answers: list[list[list[int]]] = [[] for _ in jobs]
    single = [number for number, job in enumerate(jobs) if len(job.task.blanks) == 1]
    size = max(1, MOST_BEAMS // max((job.options.beams for job in jobs), default=1))
    for first in range(0, len(single), size):
        numbers = single[first : first + size]
        for number, answer in zip(numbers, _search_side_by_side(model, [jobs[n] for n in numbers]), strict=True):
            answers[number] = [answer]
    for number, job in enumerate(jobs):
        if len(job.task.blanks) > 1:
            answers[number] = _search_in_turn(model, job)
    return answers


def _search_side_by_side(model: GLM, jobs: Sequence[Job]) -> list[list[int]]:
    decoder = Decoder(model, [job.task.context for job in jobs], max(job.task.needs(job.options) for job in jobs))
    return _search_blanks(decoder, [_Hunt(job, job.task.blanks[0]) for job in jobs])


def _search_in_turn(model: GLM, job: Job) -> list[list[int]]:
    answers: list[list[int]] = []
    for blank in job.task.blanks:
        decoder = Decoder(model, [job.task.context], job.task.needs(job.options))
        for place, answer in zip(job.task.blanks, answers, strict=False):
            for step, token in enumerate([SPECIAL.sop, *answer]):
                decoder.step([token], [place + job.task.running * (1 + step)])
        answers += _search_blanks(decoder, [_Hunt(job, blank)])
    return answers


def _search_blanks(decoder: Decoder, hunts: Sequence[_Hunt]) -> list[list[int]]:
    """The best answer of each hunt; row ``i`` of the decoder is the text of hunt ``i``."""
    going, length = list(hunts), 0
    while going:
        rows = [(hunt, answer) for hunt in going for _, answer in hunt.beams]
        tokens = [answer[-1] if answer else SPECIAL.sop for _, answer in rows]
        positions = [hunt.blank + hunt.job.task.running * (1 + length) for hunt, _ in rows]
        logits_BV = decoder.step(tokens, positions).cpu()
        order, first = [], 0
        for hunt in going:
            end = first + len(hunt.beams)
            order += [first + place for place in hunt.grow(logits_BV[first:end], length)]
            first = end
        going, length = [hunt for hunt in going if hunt.beams], length + 1
        if going:
            decoder.select(order)
    return [hunt.best() for hunt in hunts]


def _continuations(
    logits_V: torch.Tensor, answer: Sequence[int], rules: Rules, options: GenerationOptions
) -> list[tuple[int, float]]:
    """The likeliest tokens after ``answer`` and their log-probabilities; an answer at its longest can only end."""
    chances_V = logits_V.double().log_softmax(0)
    if len(answer) == options.max_length or rules.stopped(answer):
        ends = torch.tensor(sorted(rules.ends))
        scores_V = torch.full_like(chances_V, -torch.inf).index_copy(0, ends, chances_V[ends])
    else:
        scores_V = allowed(chances_V, answer, rules.banned(answer, options), options.no_repeat_ngram)
    wanted = min(options.beams + len(rules.ends), len(scores_V))
    least = torch.topk(scores_V, wanted).values[-1]
    # Of equal ones the smaller token comes first, which topk does not promise.
    likely = torch.nonzero((scores_V >= least) & torch.isfinite(scores_V))[:, 0]
    best = likely[torch.sort(scores_V[likely], descending=True, stable=True).indices[:wanted]].tolist()
    return [(token, float(chances_V[token])) for token in best]
