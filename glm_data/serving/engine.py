"""The one thread that runs the model: jobs that wait are written side by side, and nobody waits for all of another's.

::

    requests ── submit ──> waiting ──> a batch of what waits ──┐
                                       a batch that came before ├── a step of each in turn ──> events to the requests
                                       …                        ┘

A batch is made whenever jobs wait and fewer than :attr:`Limits.batches` are under way; its texts are decoded together.
What is written of a job is what is written of it alone, but for rounding (:func:`glm_data.generation.write.write`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from glm_data.generation.glm import Glm
from glm_data.generation.write import Job, Written, write
from glm_data.web import RequestError

_DONE = object()
_STOPPING = "the server is stopping; ask again once it runs."


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes on at once."""

    waiting: int = 64
    """Jobs that may wait; further requests are refused."""
    together: int = 16
    """Jobs of a batch."""
    batches: int = 4
    """Batches under way."""
    max_tokens: int = 512
    """Tokens of an answer at most."""
    stops: int = 16
    """Stop texts of a request at most."""

    def check_stops(self, stops: Sequence[str]) -> None:
        """Raise :class:`RequestError` for more stop texts than are looked for at every token."""
        if len(stops) > self.stops:
            raise RequestError(f"stop holds {len(stops)} texts; give at most {self.stops}.")


class Event(NamedTuple):
    """One token of a job's answer, or its end."""

    job: int
    """Its place among the jobs that were submitted together."""
    blank: int
    token: int | None
    """None where the answer ends by itself."""
    ended: str
    """Empty, or why no more comes for the blank: ``end``, ``stop`` or ``length``."""
    logprob: float
    """Log-probability that the model gave to ``token``, before temperature, cuts and bans; 0 where none is wanted."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens that can be written with theirs, as many as were wanted."""


Hear = Callable[[Event | Exception], None]
"""Is told, in the engine's thread, of every event; of an exception when no more will come."""


@dataclass
class _Ticket:
    number: int
    job: Job
    hear: Hear
    top: int


class Engine:
    """Runs ``glm`` in a thread of its own, from the beginning of a ``with`` block to its end."""

    def __init__(self, glm: Glm, limits: Limits) -> None:
        self.glm, self.limits = glm, limits
        self._waiting: deque[_Ticket] = deque()
        self._running = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="glm-data-engine", daemon=True)

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def load(self) -> tuple[int, int]:
        """Jobs that wait and jobs under way."""
        with self._changed:
            return len(self._waiting), self._running

    def submit(self, jobs: Sequence[Job], hear: Hear, top: int = -1) -> None:
        """Have ``jobs`` written; ``hear`` is told of each token, with the ``top`` likeliest unless that is negative.

        To give up, set :attr:`Job.dropped`. Raises :class:`RequestError` if too many wait or the engine is stopping.
        """
        with self._changed:
            if self._closed:
                raise RequestError(_STOPPING, 503)
            if len(self._waiting) + len(jobs) > self.limits.waiting:
                raise RequestError(
                    f"{len(self._waiting)} texts wait already and {self.limits.waiting} may; ask again in a moment.",
                    429,
                )
            self._waiting += [_Ticket(number, job, hear, top) for number, job in enumerate(jobs)]
            self._changed.notify()

    def _run(self) -> None:
        batches: list[Generator[None]] = []
        while True:
            tickets = self._next_batch(wait=not batches) if len(batches) < self.limits.batches else []
            if self._closed:
                break
            if tickets:
                batches.append(self._write(tickets))
            batches = [batch for batch in batches if next(batch, _DONE) is not _DONE]
        for batch in batches:
            batch.close()
        self._fail(self._waiting, RequestError(_STOPPING, 503))

    def _next_batch(self, *, wait: bool) -> list[_Ticket]:
        with self._changed:
            while wait and not self._waiting and not self._closed:
                self._changed.wait()
            tickets: list[_Ticket] = []
            while not self._closed and self._waiting and len(tickets) < self.limits.together:
                ticket = self._waiting.popleft()
                if not ticket.job.dropped:
                    tickets.append(ticket)
            self._running += len(tickets)
            return tickets

    def _write(self, tickets: Sequence[_Ticket]) -> Generator[None]:
        """Write a batch, a step at a time."""
        try:
            for written in write(self.glm.model, [ticket.job for ticket in tickets]):
                for item in written:
                    ticket = tickets[item.text]
                    ticket.hear(_event(ticket, item))
                yield
        except GeneratorExit:
            self._fail(tickets, RequestError(_STOPPING, 503))
        except Exception as error:
            logging.getLogger(__name__).exception("a batch of %d texts failed", len(tickets))
            self._fail(tickets, error)
        finally:
            with self._changed:
                self._running -= len(tickets)

    @staticmethod
    def _fail(tickets: Iterable[_Ticket], error: Exception) -> None:
        for ticket in tickets:
            if not ticket.job.dropped:
                with contextlib.suppress(RuntimeError):  # whoever asked is gone, and its event loop with it
                    ticket.hear(error)


def _event(ticket: _Ticket, item: Written) -> Event:
    if ticket.top < 0:
        return Event(ticket.number, item.blank, item.token, item.ended, 0.0, ())
    chances_V = item.logits_V.double().log_softmax(0)
    own = 0.0 if item.token is None else float(chances_V[item.token])
    chances_V[list(ticket.job.rules.never)] = -torch.inf  # task tokens and padding are no alternatives
    values, tokens = torch.topk(chances_V, ticket.top)
    top = tuple(zip(tokens.tolist(), values.tolist(), strict=True))
    return Event(ticket.number, item.blank, item.token, item.ended, own, top)
