"""Tokenizers beside each other: a text in the pieces of each, and their figures by kind of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from glm_data.errors import UsageError
from glm_data.formats import read_blocks
from glm_data.stage import InputFile
from glm_data.viewer.styled import Span, reveal
from glm_data.vocabulary.report import KINDS, kind_of
from tokenizer import TokenizerError
from tokenizer.comparison import Model, Text, measure, open_model, spans

MOST_CHARACTERS = 20_000
"""Of a text to be cut into pieces."""
_SAMPLE_DOCUMENTS, _SAMPLE_CHARACTERS = 600, 4_000
"""Documents to measure on, and what is read of each."""
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
    """Some tokenizers, and texts to measure them on: the first documents of each of ``inputs``."""

    def __init__(self, paths: Mapping[str, Path], inputs: Sequence[InputFile] = ()) -> None:
        self._models = {name: _open(path) for name, path in paths.items()}
        self._texts = sample(inputs)

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


def sample(inputs: Sequence[InputFile]) -> dict[str, list[Text]]:
    """Beginnings of the first documents of each input by kind of text, in the order of the kinds."""
    found: dict[str, list[Text]] = {kind: [] for kind in KINDS}
    each = -(-_SAMPLE_DOCUMENTS // max(len(inputs), 1))
    for item in inputs:
        block = next(iter(read_blocks(item)), None)
        rows = [] if block is None else block.documents.slice(0, each).to_pylist()
        for row in rows:
            text = row["text"][:_SAMPLE_CHARACTERS]
            found[kind_of(text, row["source"])].append(Text(row["id"], text))
    return {kind: texts for kind, texts in found.items() if texts}


def cut(model: Model, name: str, text: str) -> Cut:
    """``text`` in the pieces of ``model``."""
    ids = model.encode(text)
    return Cut(
        name=name,
        tokens=len(ids),
        bytes_per_token=len(text.encode("utf-8", "surrogatepass")) / max(len(ids), 1),
        byte_pieces=sum(model.piece(id).startswith("<0x") for id in ids.tolist()),
        exact=model.decode(ids) == text,
        pieces=pieces_of(spans(model, text)),
    )


def pieces_of(parts: Iterable[tuple[str, bool]]) -> list[list[Span]]:
    """What :func:`tokenizer.comparison.spans` found, each piece as spans."""
    return [reveal(piece, "bytes" if is_byte else "") for piece, is_byte in parts]


def _open(path: Path) -> Model:
    try:
        return open_model(path)
    except TokenizerError as error:
        raise UsageError(str(error)) from None
