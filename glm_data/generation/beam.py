"""Beam search: the likeliest answer instead of the likeliest next token."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from glm_data.generation.decoder import Decoder
from glm_data.generation.options import GenerationOptions
from glm_data.generation.sampling import repeated
from glm_data.generation.write import Rules, Task
from glm_data.model.model import GLM
from tokenizer import SPECIAL

Hypothesis = tuple[float, list[int]]
"""Score of an answer, the mean log-probability of its tokens and its end, and the answer."""


def search(model: GLM, task: Task, rules: Rules, options: GenerationOptions) -> list[list[int]]:
    """The best answer of each blank, from left to right; each sees the ones before it. No draws: always the same."""
    answers: list[list[int]] = []
    for blank in task.blanks:
        decoder = Decoder(model, [task.context], task.needs(options))
        for place, answer in zip(task.blanks, answers, strict=False):
            for step, token in enumerate([SPECIAL.sop, *answer]):
                decoder.step([token], [place + task.running * (1 + step)])
        answers.append(_search_blank(decoder, blank, task.running, rules, options)[0][1])
    return answers


def _search_blank(
    decoder: Decoder, blank: int, running: bool, rules: Rules, options: GenerationOptions
) -> list[Hypothesis]:
    """Finished answers, the best first."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[Hypothesis] = []
    for length in range(options.max_length + 1):
        tokens = [answer[-1] if answer else SPECIAL.sop for _, answer in beams]
        logits_BV = decoder.step(tokens, [blank + running * (1 + length)] * len(beams)).cpu()
        grown: list[tuple[float, int, int]] = []
        for place, (total, answer) in enumerate(beams):
            for token, chance in _continuations(logits_BV[place], answer, rules, options):
                if token in rules.ends:
                    finished.append(((total + chance) / (length + 1), answer))
                elif length < options.max_length:
                    grown.append((total + chance, place, token))
        # Sorted by score alone, and stable: ties go to the better beam, then to the smaller token.
        grown = sorted(grown, key=lambda item: -item[0])[: options.beams]
        # A longer answer may have the better mean, so there is no early end.
        if not grown:
            break
        decoder.select([place for _, place, _ in grown])
        beams = [(total, [*beams[place][1], token]) for total, place, token in grown]
    return sorted(finished, key=lambda item: -item[0])


def _continuations(
    logits_V: torch.Tensor, answer: Sequence[int], rules: Rules, options: GenerationOptions
) -> list[tuple[int, float]]:
    """The likeliest tokens after ``answer`` and their log-probabilities; an answer at its longest can only end."""
    chances_V = logits_V.double().log_softmax(0)
    allowed_V = torch.ones(len(chances_V), dtype=torch.bool)
    allowed_V[list(rules.banned(answer, options))] = False
    allowed_V[repeated(answer, options.no_repeat_ngram)] = False
    if len(answer) == options.max_length or rules.stopped(answer):
        allowed_V &= torch.zeros_like(allowed_V).index_fill(0, torch.tensor(sorted(rules.ends)), True)
    scores_V = chances_V.masked_fill(~allowed_V, -torch.inf)
    best = torch.sort(scores_V, descending=True, stable=True).indices[: options.beams + len(rules.ends)].tolist()
    return [(token, float(chances_V[token])) for token in best if allowed_V[token]]
