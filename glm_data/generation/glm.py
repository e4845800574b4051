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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glm_data.errors import InputError, UsageError
from glm_data.generation.cache import CachedAttention
from glm_data.generation.options import GenerationOptions
from glm_data.generation.sampling import choose
from glm_data.int4.linear import with_int4_layers
from glm_data.model.model import GLM
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
            raise InputError("only models with rotary positions can write; this one has learned tables of positions.")
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
        options = options or GenerationOptions()
        parts = text.split(MASK)
        if len(parts) == 1:
            raise UsageError(f"the text has no {MASK}; write one where something is missing, or use generate.")
        spaces = [part.endswith(" ") for part in parts[:-1]] + [False]
        parts = [part[:-1] if space else part for part, space in zip(parts, spaces, strict=True)]
        context, blanks = self._join(parts)
        answers = self._answer(context, blanks, running=False, options=options)
        filled = [_with_space(answer, space) for answer, space in zip(answers, spaces, strict=False)]
        whole = "".join(part + answer for part, answer in zip(parts, [*filled, ""], strict=True))
        return Infilling(whole, tuple(answer.strip(" ") for answer in answers))

    def generate(self, text: str, options: GenerationOptions | None = None) -> str:
        """Continue ``text`` (a ``[gMASK]`` at its end is allowed and means the same); returns what follows it."""
        options = options or GenerationOptions()
        text = text.removesuffix(GMASK)
        if MASK in text:
            raise UsageError(f"the text has {MASK} blanks; fill them with infill, or take them out to continue it.")
        context = [*self.tokenizer.encode(text).tolist(), SPECIAL.gmask]
        return self._answer(context, [len(context) - 1], running=True, options=options)[0]

    def _join(self, parts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Token ids of a text with masks between its parts, and the places of the masks."""
        context: list[int] = []
        blanks: list[int] = []
        for number, part in enumerate(parts):
            if number:
                blanks.append(len(context))
                context.append(SPECIAL.mask)
            context += self.tokenizer.encode(part).tolist()
        return context, blanks

    @torch.inference_mode()
    def _answer(
        self, context: list[int], blanks: Sequence[int], *, running: bool, options: GenerationOptions
    ) -> list[str]:
        needed = len(context) + len(blanks) * (options.max_length + 1)
        if needed > MAX_TOKENS:
            raise UsageError(
                f"the text has {len(context)} tokens and its answers may take {needed - len(context)}, but only "
                f"{MAX_TOKENS} fit together; shorten the text or lower max_length."
            )
        draws = torch.Generator().manual_seed(options.seed)
        decoder = Decoder(self.model, context, needed)
        answers = [self._decode(decoder, blank, running, options, draws) for blank in blanks]
        return [text_of(self.tokenizer, answer) for answer in answers]

    def _decode(
        self, decoder: Decoder, blank: int, running: bool, options: GenerationOptions, draws: torch.Generator
    ) -> list[int]:
        answer: list[int] = []
        position = blank + running
        logits_V = decoder.step(SPECIAL.sop, position)
        while len(answer) < options.max_length:
            banned = self._never | self._ends if len(answer) < options.min_length else self._never
            token = choose(logits_V, answer, banned, options, draws)
            if token in self._ends:
                break
            answer.append(token)
            position += running
            logits_V = decoder.step(token, position)
        return answer


class Decoder:
    """One text being written: its context encoded once, then one token a :meth:`step`."""

    def __init__(self, model: GLM, context: Sequence[int], capacity: int) -> None:
        self.model = model
        self.attend = CachedAttention(model.config, capacity)
        # No position predicts here, so the head is applied to none: only keys and values are wanted.
        self._run(torch.tensor(context), torch.arange(len(context)), torch.empty(0, dtype=torch.int64))

    def step(self, token: int, position: int) -> Tensor:
        """Feed ``token`` at ``position``; returns the logits ``[V]`` of what follows it."""
        return self._run(torch.tensor([token]), torch.tensor([position]), None)[0]

    def _run(self, tokens_T: Tensor, positions_T: Tensor, predict: Tensor | None) -> Tensor:
        logits: Tensor = self.model(tokens_T, positions_T, self.attend, predict)
        self.attend.advance(len(tokens_T))
        return logits


def load_model(folder: Path) -> GLM:
    """The network of a train or quantize folder; INT4 matrices stay packed in memory, the rest is float32."""
    description, tensors = read_description(folder), read_tensors(folder)
    with torch.device("meta"):
        model = GLM(description.model)
        if description.quantization is not None:
            model = with_int4_layers(model, description.quantization.group)
    wide = {n: t.float() if t.dtype == torch.float16 and not n.endswith(".scales") else t for n, t in tensors.items()}
    try:
        model.load_state_dict(wide, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise InputError(f"the weights in '{folder}' do not fit its config.json ({''.join(first).strip()}).") from None
    return model.requires_grad_(False)


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ``ids``; bytes that make no whole character, such as one cut by the length limit, are left out."""
    return tokenizer.decode_bytes(np.asarray(ids, np.int64)).decode("utf-8", "ignore")


def _with_space(answer: str, space: bool) -> str:
    """Give back the space that was taken from before the blank, unless the answer brings its own."""
    return " " + answer if space and not answer.startswith(" ") else answer
