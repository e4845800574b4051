"""``POST /infill``: a text with blanks in, the text with its blanks filled out, whole or as they are being filled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from glm_data.config import from_mapping
from glm_data.generation.blanks import GMASK, MASK
from glm_data.generation.glm import Glm
from glm_data.generation.options import GenerationOptions
from glm_data.generation.texts import Masked, continuation
from glm_data.serving.answers import Answer, events
from glm_data.serving.engine import Engine
from glm_data.web import RequestError

MOST_ALTERNATIVES = 10


class InfillRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request, but for the options of generation, which stand beside these fields."""

    text: str
    """With ``[MASK]`` blanks; or with ``[gMASK]`` at its end, to be continued."""
    stream: bool = False
    alternatives: int = 0
    """How many likely tokens to name beside each piece."""


class Infill:
    """One request: its jobs, and its answer whole or in events."""

    def __init__(self, engine: Engine, body: Mapping[str, Any]) -> None:
        own = {name: body[name] for name in InfillRequest.__struct_fields__ if name in body}
        self.request = from_mapping(own, InfillRequest, "the request")
        rest = {"max_length": min(GenerationOptions().max_length, engine.limits.max_tokens)}
        rest |= {name: value for name, value in body.items() if name not in own}
        options = from_mapping(rest, GenerationOptions, "the request")
        if options.beams > 1:
            raise RequestError("beams are not served, as they know their answer only at the end; use glm-data infill.")
        if options.max_length > engine.limits.max_tokens:
            raise RequestError(f"max_length is {options.max_length}; give at most {engine.limits.max_tokens}.")
        engine.limits.check_stops(options.stop)
        if not 0 <= self.request.alternatives <= MOST_ALTERNATIVES:
            raise RequestError(f"alternatives is {self.request.alternatives}; give 0 to {MOST_ALTERNATIVES}.")
        self._engine = engine
        self._masked, jobs = _read(engine.glm, self.request.text, options)
        self._jobs = [single for job in jobs for single in job.by_blank()] if options.parallel else jobs
        if len(self._jobs) > engine.limits.waiting:
            raise RequestError(f"the text has {len(self._jobs)} blanks; fill at most {engine.limits.waiting} at once.")
        blanks = sum(len(job.task.blanks) for job in self._jobs)
        self._answers = [Answer(engine.glm.tokenizer, options.stop) for _ in range(blanks)]

    async def parts(self) -> AsyncIterator[dict[str, Any]]:
        """Pieces as they come, ``{blank, text, probability, alternatives}``, and at the end the answer as a whole."""
        pieces: list[list[dict[str, Any]]] = [[] for _ in self._answers]
        async for event in events(self._engine, self._jobs, self.request.alternatives):
            blank = event.job + event.blank  # one of the two is always 0
            for piece in self._answers[blank].add(event):
                pieces[blank].append(piece)
                yield {"blank": blank, **piece}
        answers = [answer.text for answer in self._answers]
        yield {
            "done": True,
            "text": self._filled(answers),
            "answers": answers,
            "ended": [answer.ended for answer in self._answers],
            "pieces": pieces,
        }

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        last: dict[str, Any] = {}
        async for part in self.parts():
            last = part
        del last["done"]
        return last

    def _filled(self, answers: list[str]) -> str:
        if self._masked is not None:
            return self._masked.filled(answers)
        return self.request.text.removesuffix(GMASK) + answers[0]


def _read(glm: Glm, text: str, options: GenerationOptions) -> tuple[Masked | None, list[Any]]:
    if MASK not in text and text.endswith(GMASK):
        return None, [glm.job(continuation(text, glm.tokenizer), options)]
    if MASK not in text:
        raise RequestError(
            f"the text has no {MASK}; write one where something is missing, or {GMASK} at its end to have it continued."
        )
    masked = Masked.of(text)
    return masked, [glm.job(masked.task(glm.tokenizer), options)]
