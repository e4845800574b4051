"""Questions as token ids that fit the model."""

from __future__ import annotations

from collections.abc import Sequence

from glm_data.evaluation.items import Question
from glm_data.evaluation.tasks import Task
from glm_data.generation.blanks import MASK
from glm_data.generation.scoring import Query
from tokenizer import SPECIAL, Tokenizer


def encode_question(
    task: Task, question: Question, tokenizer: Tokenizer, longest: int, answer: int
) -> tuple[Query, bool] | None:
    """The question with its choices as a query, and whether its beginning had to go; None if it cannot fit.

    Text, blank and the longest choice (or ``answer`` tokens) take at most ``longest`` tokens together: what is too long
    loses its first shots, then its beginning, as in GLM-130B, for the question stands at the end. A space before the
    blank belongs to the answer, as words carry theirs in front.
    """
    head, mask, tail = question.text.partition(MASK)
    space = " " if mask and head.endswith(" ") else ""
    head = head.removesuffix(space)
    choices = tuple(_ids(tokenizer, space + choice) + [SPECIAL.eop] * task.end for choice in question.choices)
    behind = [SPECIAL.mask if mask else SPECIAL.gmask, *_ids(tokenizer, tail)]
    room = longest - len(behind) - max(map(len, choices), default=answer)
    if room < 0 or not all(choices):
        return None
    shots, before = list(question.shots), _ids(tokenizer, task.separator.join([*question.shots, head]))
    cut = len(before) > room
    while len(before) > room and shots:
        del shots[0]
        before = _ids(tokenizer, task.separator.join([*shots, head]))
    before = before[max(0, len(before) - room) :]
    return Query([*before, *behind], len(before), not mask, choices), cut


def encode_windows(text: str, tokenizer: Tokenizer, longest: int) -> list[Query]:
    """A document in windows, each token predicted once: half a window seen both ways, half written behind [gMASK].

    The first window has nothing before it. (The Pile's bits per byte as GLM-130B measures them: 1,024 and 1,024.)
    """
    ids = _ids(tokenizer, text)
    written = longest // 2
    seen = longest - written - 1
    windows = []
    for first in range(0, len(ids), written):
        before = ids[max(0, first - seen) : first]
        windows.append(Query([*before, SPECIAL.gmask], len(before), True, (ids[first : first + written],)))
    return windows


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: Sequence[int] = tokenizer.encode(text).tolist()
    return list(ids)
