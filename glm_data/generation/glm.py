"""A trained model that fills blanks and continues texts.

A text with blanks becomes a [MASK] row: the text with its masks is part A, encoded once; the answers are part B,
decoded one after the other from left to right, every token of an answer at the position of its mask::

    part A       The quick brown fox [MASK] over the lazy [MASK] .
    positions     0    1     2    3     4     5    6   7     8    9
    part B                                              <sop> jumps | <sop> dog
    positions                                             4     4       8    8

A continuation is a [gMASK] row: the text and [gMASK] are part A, positions run on in part B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from glm_data.errors import InputError, UsageError
from glm_data.generation.beam import search
from glm_data.generation.decoder import Decoder
from glm_data.generation.options import GenerationOptions
from glm_data.generation.write import Rules, Task, write
from glm_data.int4.linear import prepare, with_quantized_layers
from glm_data.model.model import GLM, valueless
from glm_data.model.store import read_description, read_tensors
from tokenizer import SPECIAL, Tokenizer

MASK, GMASK = "[MASK]", "[gMASK]"
MAX_TOKENS = 2048
"""Tokens of text and answers together: the length of a row, beyond which no position was trained."""


@dataclass(frozen=True)
class Infilling:
    """A text with its blanks filled, and the answers in the order of the blanks."""

    text: str
    answers: tuple[str, ...]


class Glm:
    """A network with its tokenizer, ready to write. Use :meth:`load`."""

    def __init__(self, model: GLM, tokenizer: Tokenizer) -> None:
        if model.config.vocab < tokenizer.vocab_size:
            raise InputError(
                f"the model knows {model.config.vocab} tokens and the tokenizer has {tokenizer.vocab_size}; "
                "they do not belong together."
            )
        if model.config.positions != "rotary":
            raise InputError(
                f"the model has {model.config.positions} positions, which only training and eval know; "
                "generate with a model of rotary positions."
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        # Task tokens are no text, and ids beyond the real pieces pad the embedding.
        padding = range(tokenizer.pieces, model.config.vocab)
        self._ends = frozenset({SPECIAL.eop, SPECIAL.eos})
        self._never = frozenset(SPECIAL) - self._ends | frozenset(padding)

    @classmethod
    def load(cls, folder: str | Path) -> Glm:
        """Open a folder that training or quantising wrote; raises :class:`InputError` if it is none or damaged."""
        path = Path(folder)
        return cls(load_model(path), Tokenizer.load(path))

    def infill(self, text: str, options: GenerationOptions | None = None) -> Infilling:
        """Fill the ``[MASK]`` blanks of ``text`` from left to right; each answer sees the ones before it.

        A space before a blank belongs to the answer, as words carry theirs in front. Raises :class:`UsageError` if
        the text has no blank or does not fit.
        """
        return self.infill_many([text], options)[0]

    def infill_many(self, texts: Sequence[str], options: GenerationOptions | None = None) -> list[Infilling]:
        """:meth:`infill` of several texts side by side, whatever their lengths and numbers of blanks."""
        options = options or GenerationOptions()
        masked = [_Masked.of(text) for text in texts]
        answers = self._answers([self._task(item.parts) for item in masked], options)
        return [item.filled(found) for item, found in zip(masked, answers, strict=True)]

    def generate(self, text: str, options: GenerationOptions | None = None) -> str:
        """Continue ``text`` (a ``[gMASK]`` at its end is allowed and means the same); returns what follows it."""
        return self.generate_many([text], options)[0]

    def generate_many(self, texts: Sequence[str], options: GenerationOptions | None = None) -> list[str]:
        """:meth:`generate` of several texts side by side, whatever their lengths."""
        tasks = [self._continuation(text) for text in texts]
        return [answers[0] for answers in self._answers(tasks, options or GenerationOptions())]

    def stream(self, text: str, options: GenerationOptions | None = None) -> Iterator[str]:
        """:meth:`generate` in pieces, as they come; no piece ends inside a character or holds part of a stop text."""
        options = options or GenerationOptions()
        if options.beams > 1:
            raise UsageError("beam search knows its answer only at the end; stream with beams 1.")
        task = self._continuation(text)
        self._check_fits(task, options)
        ids: list[int] = []
        sent, held = 0, max((len(stop) for stop in options.stop), default=1) - 1
        with torch.inference_mode():
            for _, _, token in write(self.model, [task], self._rules(options), options):
                ids.append(token)
                whole = text_of(self.tokenizer, ids)
                if len(whole) - held > sent and not _stops(whole, options.stop):
                    yield whole[sent : len(whole) - held]
                    sent = len(whole) - held
        rest = _cut(text_of(self.tokenizer, ids), options.stop)[sent:]
        if rest:
            yield rest

    @torch.inference_mode()
    def score(self, context: str, choices: Sequence[str]) -> list[float]:
        """Log-probability (nats) of each of ``choices``, with its end, in place of the one ``[MASK]`` of ``context``.

        A context without a mask is continued: the choices stand for what follows it, their ends not counted.
        Raises :class:`UsageError` for several masks, no choice, or a text that does not fit.
        """
        parts = context.split(MASK)
        if len(parts) > 2 or not choices:
            raise UsageError(f"score takes at least one choice and a text with at most one {MASK}.")
        running = len(parts) == 1
        task = self._continuation(context) if running else self._task(parts)
        targets = [self.tokenizer.encode(choice).tolist() + ([] if running else [SPECIAL.eop]) for choice in choices]
        longest = max(map(len, targets))
        self._check_length(len(task.context), longest)
        decoder = Decoder(self.model, [task.context], len(task.context) + longest + 1)
        decoder.select([0] * len(choices))
        totals = [0.0] * len(choices)
        inputs = [SPECIAL.sop] * len(choices)
        for step in range(longest):
            position = task.blanks[0] + task.running * (1 + step)
            logits_BV = decoder.step(inputs, [position] * len(choices)).double().log_softmax(-1)
            for row, target in enumerate(targets):
                if step < len(target):
                    totals[row] += float(logits_BV[row, target[step]])
                    inputs[row] = target[step]
        return totals

    def _task(self, parts: Sequence[str]) -> Task:
        """Token ids of a text with masks between its parts, and the places of the masks."""
        context: list[int] = []
        blanks: list[int] = []
        for number, part in enumerate(parts):
            if number:
                blanks.append(len(context))
                context.append(SPECIAL.mask)
            context += self.tokenizer.encode(part).tolist()
        return Task(context, tuple(blanks), running=False)

    def _continuation(self, text: str) -> Task:
        text = text.removesuffix(GMASK)
        if MASK in text:
            raise UsageError(f"the text has {MASK} blanks; fill them with infill, or take them out to continue it.")
        context = [*self.tokenizer.encode(text).tolist(), SPECIAL.gmask]
        return Task(context, (len(context) - 1,), running=True)

    @torch.inference_mode()
    def _answers(self, tasks: Sequence[Task], options: GenerationOptions) -> list[list[str]]:
        for task in tasks:
            self._check_fits(task, options)
        rules = self._rules(options)
        ids: list[list[list[int]]] = [[[] for _ in task.blanks] for task in tasks]
        if options.beams > 1:
            ids = [search(self.model, task, rules, options) for task in tasks]
        elif options.parallel:
            single = [Task(task.context, (blank,), task.running) for task in tasks for blank in task.blanks]
            whose = [(number, place) for number, task in enumerate(tasks) for place in range(len(task.blanks))]
            for row, _, token in write(self.model, single, rules, options):
                ids[whose[row][0]][whose[row][1]].append(token)
        else:
            for number, blank, token in write(self.model, tasks, rules, options):
                ids[number][blank].append(token)
        return [[_cut(text_of(self.tokenizer, answer), options.stop) for answer in answers] for answers in ids]

    def _rules(self, options: GenerationOptions) -> Rules:
        def stopped(answer: Sequence[int]) -> bool:
            return bool(options.stop) and _stops(text_of(self.tokenizer, answer), options.stop)

        return Rules(self._ends, self._never, stopped)

    def _check_fits(self, task: Task, options: GenerationOptions) -> None:
        self._check_length(len(task.context), task.needs(options) - len(task.context))

    def _check_length(self, context: int, answers: int) -> None:
        if context + answers > MAX_TOKENS:
            raise UsageError(
                f"the text has {context} tokens and its answers may take {answers}, but only "
                f"{MAX_TOKENS} fit together; shorten the text or lower max_length."
            )


@dataclass(frozen=True)
class _Masked:
    """A text cut at its blanks; a space before a blank is kept apart, as it belongs to the answer."""

    parts: list[str]
    spaces: list[bool]

    @classmethod
    def of(cls, text: str) -> _Masked:
        parts = text.split(MASK)
        if len(parts) == 1:
            raise UsageError(f"the text has no {MASK}; write one where something is missing, or use generate.")
        spaces = [part.endswith(" ") for part in parts[:-1]] + [False]
        return cls([part[:-1] if space else part for part, space in zip(parts, spaces, strict=True)], spaces)

    def filled(self, answers: Sequence[str]) -> Infilling:
        spaced = [_with_space(answer, space) for answer, space in zip(answers, self.spaces, strict=False)]
        whole = "".join(part + answer for part, answer in zip(self.parts, [*spaced, ""], strict=True))
        return Infilling(whole, tuple(answer.strip(" ") for answer in answers))


def load_model(folder: Path) -> GLM:
    """The network of a train or quantize folder; INT4 matrices stay packed in memory, the rest is float32."""
    description, tensors = read_description(folder), read_tensors(folder)
    # No gradient flows, and shrinking none would copy the embedding at every step.
    model = valueless(msgspec.structs.replace(description.model, shrink=1.0))
    if description.quantization is not None:
        model = with_quantized_layers(model, description.quantization)
    wide = {n: t.float() if t.dtype == torch.float16 and not n.endswith(".scales") else t for n, t in tensors.items()}
    try:
        model.load_state_dict(wide, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise InputError(f"the weights in '{folder}' do not fit its config.json ({''.join(first).strip()}).") from None
    model.requires_grad_(False)
    prepare(model)
    return model


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ``ids``; bytes that make no whole character, such as one cut by the length limit, are left out."""
    return tokenizer.decode_bytes(np.asarray(ids, np.int64)).decode("utf-8", "ignore")


def _stops(text: str, stops: Sequence[str]) -> bool:
    return any(stop in text for stop in stops)


def _cut(text: str, stops: Sequence[str]) -> str:
    """``text`` up to the first of ``stops`` in it."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


def _with_space(answer: str, space: bool) -> str:
    """Give back the space that was taken from before the blank, unless the answer brings its own."""
    return " " + answer if space and not answer.startswith(" ") else answer
