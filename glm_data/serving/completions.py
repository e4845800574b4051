"""``POST /v1/completions``: OpenAI's form of completions, as far as a GLM can mean it.

A prompt is continued; with a ``suffix``, what stands between the two is filled in. A field that would change the answer
and is not known here is refused rather than passed over.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from glm_data.generation.blanks import MASK
from glm_data.generation.options import GenerationOptions
from glm_data.generation.texts import Masked, continuation
from glm_data.generation.write import Job
from glm_data.serving.answers import Answer, events
from glm_data.serving.engine import Engine, Event
from glm_data.web import RequestError
from tokenizer import Tokenizer

MOST_ANSWERS = 16
"""Answers of one request: prompts times ``n``."""
MOST_LOGPROBS = 5
_REASONS = {"end": "stop", "stop": "stop", "length": "length"}


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""

    prompt: str | list[str]
    model: str | None = None
    suffix: str | None = None
    max_tokens: int | None = 16
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    n: int | None = 1
    stream: bool | None = False
    logprobs: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    echo: bool | None = False
    best_of: int | None = None
    presence_penalty: float | None = 0.0
    frequency_penalty: float | None = 0.0
    logit_bias: dict[str, float] | None = None
    stream_options: dict[str, Any] | None = None


class Completions:
    """One request: its jobs, and its answer whole or in events."""

    def __init__(self, engine: Engine, body: CompletionRequest, name: str) -> None:
        self._engine, self._body = engine, body
        self._tokenizer: Tokenizer = engine.glm.tokenizer
        _refuse_what_is_not_meant(body, engine.limits.max_tokens)
        self._seed = secrets.randbits(31) if body.seed is None else body.seed
        self._stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        engine.limits.check_stops(self._stops)
        most = min(MOST_ANSWERS, engine.limits.waiting)
        if not 1 <= len(prompts) * (body.n or 1) <= most:
            raise RequestError(
                f"{len(prompts) * (body.n or 1)} answers are asked for (prompts times n); ask for 1 to {most}."
            )
        self._jobs = [self._job(prompt, draw) for prompt in prompts for draw in range(body.n or 1)]
        self._answers = [Answer(self._tokenizer, self._stops) for _ in self._jobs]
        self._offsets = [0] * len(self._jobs)
        """Of each answer the characters of the tokens that were told of."""
        self._top = -1 if body.logprobs is None else body.logprobs
        about = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion"}
        self._about: dict[str, Any] = {**about, "created": int(time.time()), "model": name}

    def _job(self, prompt: str, draw: int) -> Job:
        body = self._body
        options = GenerationOptions(
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            max_length=16 if body.max_tokens is None else body.max_tokens,
            stop=tuple(self._stops),
            seed=(self._seed + draw) % 2**63,
            min_length=0,
            no_repeat_ngram=0,
        )
        if body.suffix and MASK in prompt + body.suffix:
            raise RequestError(f"prompt and suffix hold {MASK} themselves; fill several blanks with /infill.")
        text = Masked.of(f"{prompt}{MASK}{body.suffix}") if body.suffix else None
        task = text.task(self._tokenizer) if text else continuation(prompt, self._tokenizer)
        return self._engine.glm.job(task, options)

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        async for event in events(self._engine, self._jobs, self._top):
            self._answers[event.job].add(event)
        choices = [self._choice(place, answer, answer.text, 0) for place, answer in enumerate(self._answers)]
        read = sum(len(job.task.context) for job in self._jobs)
        written = sum(len(answer.events) for answer in self._answers)
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return {**self._about, "choices": choices, "usage": usage, "seed": self._seed}

    async def parts(self) -> AsyncIterator[dict[str, Any]]:
        """The answer in parts as they come; each has one choice."""
        sent = [0] * len(self._answers)
        async for event in events(self._engine, self._jobs, self._top):
            answer = self._answers[event.job]
            text = "".join(piece["text"] for piece in answer.add(event))
            if text or event.ended:
                choice = self._choice(event.job, answer, text, sent[event.job])
                sent[event.job] = len(answer.events)
                yield {**self._about, "choices": [choice]}

    def _choice(self, place: int, answer: Answer, text: str, first: int) -> dict[str, Any]:
        logprobs = None if self._body.logprobs is None else self._logprobs(place, answer.events[first:])
        reason = _REASONS.get(answer.ended)
        return {"text": text, "index": place, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, place: int, new: Sequence[Event]) -> dict[str, list[Any]]:
        """Of the ``new`` tokens of an answer: the model's own log-probabilities, before temperature and cuts."""
        offsets = []
        for event in new:
            offsets.append(self._offsets[place])
            self._offsets[place] += len(self._tokenizer.decode_bytes([event.token or 0]).decode("utf-8", "ignore"))
        return {
            "tokens": [self._spell(event.token or 0) for event in new],
            "token_logprobs": [event.logprob for event in new],
            "top_logprobs": [{self._spell(token): chance for token, chance in event.top} for event in new],
            "text_offset": offsets,
        }

    def _spell(self, token: int) -> str:
        """A token's text, or its bytes if they are no whole characters; special pieces by name."""
        data = self._tokenizer.decode_bytes([token])
        if not data:
            return f"<|{token}|>"
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _refuse_what_is_not_meant(body: CompletionRequest, most: int) -> None:
    """Raise :class:`RequestError` for what this server does not do."""
    if body.max_tokens is not None and not 1 <= body.max_tokens <= most:
        raise RequestError(f"max_tokens is {body.max_tokens}; give 1 to {most}.")
    if body.n is not None and not 1 <= body.n <= MOST_ANSWERS:
        raise RequestError(f"n is {body.n}; give 1 to {MOST_ANSWERS}.")
    if body.logprobs is not None and not 0 <= body.logprobs <= MOST_LOGPROBS:
        raise RequestError(f"logprobs is {body.logprobs}; give 0 to {MOST_LOGPROBS}.")
    if body.temperature is not None and not (math.isfinite(body.temperature) and body.temperature <= 100):
        raise RequestError(f"temperature is {body.temperature}; give 0 to 100.")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise RequestError("best_of is not served; ask for n answers and choose among them by their logprobs.")
    for field in ("echo", "presence_penalty", "frequency_penalty", "logit_bias"):
        if getattr(body, field):
            raise RequestError(f"{field} is not served; leave it out.")
