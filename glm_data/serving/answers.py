"""Events of the engine as an asynchronous stream, and as pieces of text with their probabilities."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

from glm_data.generation.texts import TextStream, text_of
from glm_data.generation.write import Job
from glm_data.serving.engine import Engine, Event
from tokenizer import SPECIAL, Tokenizer


async def events(engine: Engine, jobs: Sequence[Job], top: int = -1) -> AsyncIterator[Event]:
    """Have ``jobs`` written and yield what happens; given up if nobody listens to the end.

    Raises what :meth:`Engine.submit` raises, and what went wrong in the engine.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Event | Exception]()

    def hear(event: Event | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
            loop.call_soon_threadsafe(queue.put_nowait, event)

    engine.submit(jobs, hear, top)
    left = sum(len(job.task.blanks) for job in jobs)
    try:
        while left:
            event = await queue.get()
            if isinstance(event, Exception):
                raise event
            left -= bool(event.ended)
            yield event
    finally:
        for job in jobs:
            job.dropped = True


class Answer:
    """An answer as it comes: its text in pieces that end at characters, its tokens, why it ended."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stream = tokenizer, TextStream(tokenizer, stops)
        self._logprob, self._parts = 0.0, 0
        self._top: tuple[tuple[int, float], ...] = ()
        self.events: list[Event] = []
        """Of its tokens."""
        self.text = ""
        self.ended = ""

    def add(self, event: Event) -> list[dict[str, Any]]:
        """The pieces that ``event`` completes: ``text``, ``probability``, and ``alternatives`` if it is one token.

        A piece of several tokens (a character of several bytes, or text held back for a stop text) has the product of
        their probabilities.
        """
        new = ""
        if event.token is not None:
            self.events.append(event)
            new = self._stream.add(event.token)
            self._logprob, self._parts = self._logprob + event.logprob, self._parts + 1
            self._top = event.top
        pieces = [self._piece(new)] if new else []
        self.ended = event.ended
        if self.ended and (rest := self._stream.end()):
            pieces.append(self._piece(rest))
        return pieces

    def _piece(self, text: str) -> dict[str, Any]:
        piece: dict[str, Any] = {"text": text, "probability": math.exp(self._logprob)}
        if self._parts == 1:
            piece["alternatives"] = [
                {"text": self._word(token), "probability": math.exp(chance)} for token, chance in self._top
            ]
        self.text += text
        self._logprob, self._top, self._parts = 0.0, (), 0
        return piece

    def _word(self, token: int) -> str:
        """The text of a token; of an end, nothing; of bytes inside a character, U+FFFD."""
        if token in (SPECIAL.eop, SPECIAL.eos):
            return ""
        return text_of(self._tokenizer, [token]) or "\ufffd"
