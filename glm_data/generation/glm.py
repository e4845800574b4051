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

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from glm_data.errors import InputError, UsageError
from glm_data.generation.beam import search
from glm_data.generation.blanks import MASK
from glm_data.generation.options import GenerationOptions
from glm_data.generation.scoring import Query, losses
from glm_data.generation.texts import Masked, TextStream, continuation, cut_at, stops_in, text_of, with_space
from glm_data.generation.write import Job, Rules, Task, write
from glm_data.int4.linear import for_gpu, prepare, with_quantized_layers
from glm_data.model.device import find_device
from glm_data.model.model import GLM, valueless
from glm_data.model.store import TOKENIZER_FILES, read_description, read_tensors
from tokenizer import SPECIAL, Tokenizer

MOST_TEXTS = 32
"""Texts written side by side; more wait, so that memory does not grow with their number."""
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
    def load(cls, folder: str | Path, device: str = "cpu") -> Glm:
        """Open a folder that training or quantising wrote, on ``cpu``, ``cuda`` or ``cuda:1`` and so on.

        Raises :class:`InputError` if it is none or damaged, :class:`UsageError` if there is no such device here.
        """
        path = Path(folder)
        if "imported" in read_description(path).training and not (path / TOKENIZER_FILES[0]).is_file():
            raise InputError(
                f"'{folder}' was imported without a tokenizer. GLM-130B's (icetk) numbers its tokens otherwise than "
                "this package, so the model cannot read or write text here; it can be quantised, cut anew with "
                "export-checkpoint and run from Python on its own ids. Where its ids are those of a tokenizer of ours, "
                "import it again with --tokenizer."
            )
        tokenizer = Tokenizer.load(path)
        return cls(load_model(path, find_device(device)), tokenizer)

    def infill(self, text: str, options: GenerationOptions | None = None) -> Infilling:
        """Fill the ``[MASK]`` blanks of ``text`` from left to right; each answer sees the ones before it.

        A space before a blank belongs to the answer, as words carry theirs in front. Raises :class:`UsageError` if
        the text has no blank or does not fit.
        """
        return self.infill_many([text], options)[0]

    def infill_many(self, texts: Sequence[str], options: GenerationOptions | None = None) -> list[Infilling]:
        """:meth:`infill` of several texts side by side, whatever their lengths and numbers of blanks."""
        options = options or GenerationOptions()
        masked = [Masked.of(text) for text in texts]
        answers = self._answers([item.task(self.tokenizer) for item in masked], options)
        return [
            Infilling(item.filled(found), tuple(answer.strip(" ") for answer in found))
            for item, found in zip(masked, answers, strict=True)
        ]

    def generate(self, text: str, options: GenerationOptions | None = None) -> str:
        """Continue ``text`` (a ``[gMASK]`` at its end is allowed and means the same); returns what follows it."""
        return self.generate_many([text], options)[0]

    def generate_many(self, texts: Sequence[str], options: GenerationOptions | None = None) -> list[str]:
        """:meth:`generate` of several texts side by side, whatever their lengths."""
        tasks = [continuation(text, self.tokenizer) for text in texts]
        return [answers[0] for answers in self._answers(tasks, options or GenerationOptions())]

    def stream(self, text: str, options: GenerationOptions | None = None) -> Iterator[str]:
        """:meth:`generate` in pieces, as they come; no piece ends inside a character or holds part of a stop text."""
        options = options or GenerationOptions()
        if options.beams > 1:
            raise UsageError("beam search knows its answer only at the end; stream with beams 1.")
        job = self.job(continuation(text, self.tokenizer), options)
        stream = TextStream(self.tokenizer, options.stop)
        for written in write(self.model, [job]):
            for item in written:
                if item.token is not None and (piece := stream.add(item.token)):
                    yield piece
        if rest := stream.end():
            yield rest

    def score(self, context: str, choices: Sequence[str]) -> list[float]:
        """Log-probability (nats) of each of ``choices``, with its end, in place of the one ``[MASK]`` of ``context``.

        A context without a mask is continued: the choices stand for what follows it, their ends not counted. A space
        before the mask belongs to the choice, as in :meth:`infill`. Raises :class:`UsageError` for several masks, no
        choice, or a text that does not fit.
        """
        if context.count(MASK) > 1 or not choices:
            raise UsageError(f"score takes at least one choice and a text with at most one {MASK}.")
        space, end = False, []
        if MASK in context:
            masked = Masked.of(context)
            task, space, end = masked.task(self.tokenizer), masked.spaces[0], [SPECIAL.eop]
        else:
            task = continuation(context, self.tokenizer)
        targets = tuple(self.tokenizer.encode(with_space(choice, space)).tolist() + end for choice in choices)
        self._check_length(len(task.context), max(map(len, targets)))
        (nats,) = losses(self.model, [Query(task.context, task.blanks[0], task.running, targets)])
        return [-cost for cost in nats]

    def write(
        self, tasks: Sequence[Task], options: GenerationOptions, *, words_first: bool = False
    ) -> list[list[list[int]]]:
        """The ids of each answer of each task, :data:`MOST_TEXTS` tasks side by side, each as if it were alone.

        With ``words_first`` no answer begins with punctuation (LAMBADA's rule). Raises :class:`UsageError` before
        anything is written if a task does not fit.
        """
        jobs = [self.job(task, options, words_first=words_first) for task in tasks]
        ids: list[list[list[int]]] = []
        for first in range(0, len(jobs), MOST_TEXTS):
            ids += self._write_some(jobs[first : first + MOST_TEXTS], options)
        return ids

    def job(self, task: Task, options: GenerationOptions, *, words_first: bool = False) -> Job:
        """``task`` with all that decides what is written; raises :class:`UsageError` if it does not fit."""
        self._check_length(len(task.context), task.needs(options) - len(task.context))

        def stopped(answer: Sequence[int]) -> bool:
            return bool(options.stop) and stops_in(text_of(self.tokenizer, answer), options.stop)

        not_first = self._punctuation if words_first else frozenset()
        return Job(task, Rules(self._ends, self._never, stopped, not_first), options)

    @torch.inference_mode()
    def _write_some(self, jobs: Sequence[Job], options: GenerationOptions) -> list[list[list[int]]]:
        ids: list[list[list[int]]] = [[[] for _ in job.task.blanks] for job in jobs]
        parts = [single for job in jobs for single in job.by_blank()] if options.parallel else list(jobs)
        found = search(self.model, parts) if options.beams > 1 else self._draw(parts)
        if not options.parallel:
            return found
        each = iter(found)
        return [[next(each)[0] for _ in answers] for answers in ids]

    def _draw(self, jobs: Sequence[Job]) -> list[list[list[int]]]:
        ids: list[list[list[int]]] = [[[] for _ in job.task.blanks] for job in jobs]
        for written in write(self.model, jobs):
            for item in written:
                if item.token is not None:
                    ids[item.text][item.blank].append(item.token)
        return ids

    def _answers(self, tasks: Sequence[Task], options: GenerationOptions) -> list[list[str]]:
        ids = self.write(tasks, options)
        return [[cut_at(text_of(self.tokenizer, answer), options.stop) for answer in answers] for answers in ids]

    @functools.cached_property
    def _punctuation(self) -> frozenset[int]:
        """Ids whose text, spaces aside, begins with neither letter nor digit; pieces of a character are let pass."""
        texts = ((token, text_of(self.tokenizer, [token]).lstrip()) for token in range(self.tokenizer.pieces))
        return frozenset(token for token, text in texts if text and not text[0].isalnum())

    def _check_length(self, context: int, answers: int) -> None:
        if context + answers > MAX_TOKENS:
            raise UsageError(
                f"the text has {context} tokens and its answers may take {answers}, but only "
                f"{MAX_TOKENS} fit together; shorten the text or ask for shorter answers."
            )


def load_model(folder: Path, device: torch.device | None = None) -> GLM:
    """The network of a train or quantize folder; matrices stay packed in memory, the rest is float32.

    On a GPU a quantised network computes in bfloat16, as its kernels do, and its embedding is unpacked: INT8 has no
    kernel there, and unpacking it at every step would cost more than reading it.
    """
    description, tensors = read_description(folder), read_tensors(folder)
    quantization = description.quantization
    # No gradient flows, and shrinking none would copy the embedding at every step.
    model = valueless(msgspec.structs.replace(description.model, shrink=1.0))
    if quantization is not None and device is not None and device.type == "cuda":
        tensors, quantization = for_gpu(tensors, quantization)
    if quantization is not None:
        model = with_quantized_layers(model, quantization)
    wide = {n: t.float() if t.dtype == torch.float16 and not n.endswith(".scales") else t for n, t in tensors.items()}
    try:
        model.load_state_dict(wide, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise InputError(f"the weights in '{folder}' do not fit its config.json ({''.join(first).strip()}).") from None
    model.requires_grad_(False).to(device)
    prepare(model)
    return model
