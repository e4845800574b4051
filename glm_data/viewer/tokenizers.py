"""Tokenizers beside each other: a text in the pieces of each, and their figures by kind of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from glm_data.errors import UsageError
from glm_data.stage import InputFile
from glm_data.viewer.styled import Span, reveal
from glm_data.vocabulary.report import sample
from tokenizer import TokenizerError
from tokenizer.comparison import Model, Text, measure, open_model, spans

MOST_CHARACTERS = 20_000
"""Of a text to be cut into pieces."""
_SAMPLE_BYTES = 200_000
"""Of each kind of text, to measure on."""
_SHOWN_CHARACTERS = 600


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A text in the pieces of one tokenizer."""

    name: str
    tokens: int
    bytes_per_token: float
    byte_pieces: int
    exact: bool
    """Whether the pieces join to the same text again."""
    pieces: list[list[Span]]


class TokenizersView(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to compare."""

    models: dict[str, int]
    """Pieces of each."""
    kinds: dict[str, dict[str, dict[str, float]]]
    """Figures of each model by kind of text; see :func:`tokenizer.comparison.measure`."""
    samples: dict[str, str]
    """A text of each kind."""


class Bench:
    """Some tokenizers, and texts to measure them on: those of the first of ``inputs``."""

    def __init__(self, paths: Mapping[str, Path], inputs: Sequence[InputFile] = ()) -> None:
        self._models = {name: _open(path) for name, path in paths.items()}
        self._texts: dict[str, list[Text]] = sample(inputs[:1], "auto", _SAMPLE_BYTES)

    def view(self) -> TokenizersView:
        """The models and their figures."""
        return TokenizersView(
            models={name: model.pieces for name, model in self._models.items()},
            kinds={name: measure(model, self._texts) for name, model in self._models.items()},
            samples={kind: found[0].text[:_SHOWN_CHARACTERS] for kind, found in self._texts.items()},
        )

    def cut(self, text: str) -> list[Cut]:
        """``text`` in the pieces of each model; raises :class:`UsageError` for one that is too long."""
        if len(text) > MOST_CHARACTERS:
            raise UsageError(f"the text has {len(text):,} characters, more than {MOST_CHARACTERS:,}; give less.")
        return [cut(model, name, text) for name, model in self._models.items()]


def cut(model: Model, name: str, text: str) -> Cut:
    """``text`` in the pieces of ``model``."""
    ids = model.encode(text)
    pieces = spans(model, text)
    return Cut(
        name=name,
        tokens=len(ids),
        bytes_per_token=len(text.encode("utf-8", "surrogatepass")) / max(len(ids), 1),
        byte_pieces=sum(model.piece(id).startswith("<0x") for id in ids.tolist()),
        exact=model.decode(ids) == text,
        pieces=[reveal(piece, "bytes" if is_byte else "") for piece, is_byte in pieces],
    )


def _open(path: Path) -> Model:
    try:
        return open_model(path)
    except TokenizerError as error:
        raise UsageError(str(error)) from None
