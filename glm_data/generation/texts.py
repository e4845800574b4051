"""Texts as tasks, and token ids as text again: blanks, the spaces before them, stop texts, whole characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glm_data.errors import UsageError
from glm_data.generation.blanks import GMASK, MASK
from glm_data.generation.write import Task
from tokenizer import SPECIAL, Tokenizer


@dataclass(frozen=True)
class Masked:
    """A text cut at its blanks; a space before a blank is kept apart, as it belongs to the answer."""

    parts: list[str]
    spaces: list[bool]

    @classmethod
    def of(cls, text: str) -> Masked:
        """Cut ``text``; raises :class:`UsageError` if it has no blank, or is to be continued as well."""
        parts = text.split(MASK)
        if len(parts) == 1:
            raise UsageError(f"the text has no {MASK}; write one where something is missing, or use generate.")
        if parts[-1].rstrip().endswith(GMASK):
            raise UsageError(
                f"the text has {MASK} blanks and {GMASK} at its end, and a row has one or the other; fill the blanks "
                "first, then continue what comes out."
            )
        spaces = [part.endswith(" ") for part in parts[:-1]] + [False]
        return cls([part[:-1] if space else part for part, space in zip(parts, spaces, strict=True)], spaces)

    def task(self, tokenizer: Tokenizer) -> Task:
        """Token ids of the text with masks between its parts, and the places of the masks."""
        context: list[int] = []
        blanks: list[int] = []
        for number, part in enumerate(self.parts):
            if number:
                blanks.append(len(context))
                context.append(SPECIAL.mask)
            context += tokenizer.encode(part).tolist()
        return Task(context, tuple(blanks), running=False)

    def filled(self, answers: Sequence[str]) -> str:
        """The text with ``answers`` in its blanks."""
        spaced = [with_space(answer, space) for answer, space in zip(answers, self.spaces, strict=False)]
        return "".join(part + answer for part, answer in zip(self.parts, [*spaced, ""], strict=True))


def continuation(text: str, tokenizer: Tokenizer) -> Task:
    """The task of continuing ``text``; a ``[gMASK]`` at its end means the same.

    Raises :class:`UsageError` for blanks.
    """
    text = text.removesuffix(GMASK)
    if MASK in text:
        raise UsageError(f"the text has {MASK} blanks; fill them with infill, or take them out to continue it.")
    context = [*tokenizer.encode(text).tolist(), SPECIAL.gmask]
    return Task(context, (len(context) - 1,), running=True)


class TextStream:
    """The text of an answer as its tokens come: no part ends inside a character or holds part of a stop text."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._held = max(map(len, self._stops), default=1) - 1
        """Characters that may be the beginning of a stop text, kept back until more is known."""
        self._ids: list[int] = []
        self._sent = 0

    def add(self, token: int) -> str:
        """What can be shown now that ``token`` has come; may be empty."""
        self._ids.append(token)
        whole = text_of(self._tokenizer, self._ids)
        return "" if stops_in(whole, self._stops) else self._up_to(whole, len(whole) - self._held)

    def end(self) -> str:
        """The rest."""
        whole = cut_at(text_of(self._tokenizer, self._ids), self._stops)
        return self._up_to(whole, len(whole))

    def _up_to(self, whole: str, end: int) -> str:
        new, self._sent = whole[self._sent : max(end, self._sent)], max(end, self._sent)
        return new


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ``ids``; bytes that make no whole character, such as one cut by the length limit, are left out."""
    return tokenizer.decode_bytes(np.asarray(ids, np.int64)).decode("utf-8", "ignore")


def stops_in(text: str, stops: Sequence[str]) -> bool:
    """Whether one of ``stops`` stands in ``text``."""
    return any(stop in text for stop in stops)


def cut_at(text: str, stops: Sequence[str]) -> str:
    """``text`` up to the first of ``stops`` in it."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


def with_space(answer: str, space: bool) -> str:
    """Give back the space that was taken from before the blank, unless the answer brings its own."""
    return " " + answer if space and not answer.startswith(" ") else answer
