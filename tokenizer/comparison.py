"""What a vocabulary makes of texts: figures for a report, of our tokenizers and of any other SentencePiece model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tokenizer import model_file
from tokenizer.errors import TokenizerError
from tokenizer.special import SPECIAL
from tokenizer.tokenizer import Ids, Tokenizer, open_processor

HAN_BANDS = (500, 1000, 2000, 3500, 6500)
"""Ends of the frequency bands of Han characters, by rank in the texts."""

_LONGEST, _WORST = 12, 5


class Model(Protocol):
    """What a report needs of a tokenizer."""

    kind: str
    pieces: int

    def encode(self, text: str) -> Ids:
        """The ids of one text."""
        ...

    def decode(self, ids: Ids) -> str:
        """The text of ids."""
        ...

    def piece(self, id: int) -> str:
        """A piece as SentencePiece writes it."""
        ...


class OtherModel:
    """A SentencePiece model that was not trained here."""

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TokenizerError(f"'{path}' cannot be read ({error.strerror}); give a SentencePiece model.") from None
        try:
            parsed = model_file.parse_model(data)
            self._processor = open_processor(data)
        except TokenizerError as error:
            raise TokenizerError(f"'{path}': {error}") from None
        self.kind, self.pieces = parsed.model_type, len(parsed.pieces)

    def encode(self, text: str) -> Ids:
        """The ids of one text."""
        data = text.encode("utf-8", "replace")
        return np.asarray(self._processor.encode(data, return_type="numpy", num_threads=1), np.int32)

    def decode(self, ids: Ids) -> str:
        """The text of ids."""
        return self._processor.decode(ids.tolist())

    def piece(self, id: int) -> str:
        """A piece as SentencePiece writes it."""
        return self._processor.id_to_piece(id)


class Text(NamedTuple):
    """A document of a report."""

    id: str
    text: str


def open_model(path: Path) -> Model:
    """Ours if it is one of ours, else any SentencePiece model."""
    try:
        return Tokenizer.load(path)
    except TokenizerError:
        if path.is_dir():
            raise
        return OtherModel(path)


def measure(model: Model, kinds: Mapping[str, Sequence[Text]]) -> dict[str, dict[str, float]]:
    """Figures by kind of text: size, bytes and characters a token, shares of byte and unknown pieces, round trips."""
    byte_pieces, unknown = _special_pieces(model)
    return {kind: _measure_kind(model, texts, byte_pieces, unknown) for kind, texts in kinds.items()}


def _measure_kind(
    model: Model, texts: Sequence[Text], byte_pieces: npt.NDArray[np.bool_], unknown: npt.NDArray[np.bool_]
) -> dict[str, float]:
    size = characters = tokens = fallen = lost = exact = 0
    for (_, text), ids in zip(texts, _encode(model, [text for _, text in texts]), strict=True):
        size += len(text.encode("utf-8", "surrogatepass"))
        characters, tokens = characters + len(text), tokens + len(ids)
        fallen, lost = fallen + int(byte_pieces[ids].sum()), lost + int(unknown[ids].sum())
        exact += model.decode(ids) == text
    return {
        "documents": len(texts),
        "bytes": size,
        "bytes_per_token": size / max(tokens, 1),
        "characters_per_token": characters / max(tokens, 1),
        "byte_pieces": fallen / max(tokens, 1),
        "unknown": lost / max(tokens, 1),
        "round_trips": exact,
    }


def _encode(model: Model, texts: Sequence[str]) -> Iterable[Ids]:
    """The ids of each text; at once where that is faster."""
    if not isinstance(model, Tokenizer):
        return map(model.encode, texts)
    ids, offsets = model.encode_batch(texts)
    return (ids[first:last] for first, last in pairwise(offsets.tolist()))


def _special_pieces(model: Model) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which ids are pieces of a byte, and which stand for what is unknown."""
    names = [model.piece(id) for id in range(model.pieces)]
    return np.array([_is_byte(name) for name in names]), np.array([name == "<unk>" for name in names])


def _is_byte(name: str) -> bool:
    return len(name) == 6 and name.startswith("<0x") and name.endswith(">")


def han_coverage(model: Model, texts: Sequence[Text]) -> list[dict[str, Any]]:
    """By frequency band of the texts' Han characters: how many there are, and how many have a piece of their own."""
    counts = Counter(letter for _, text in texts for letter in text if _script(letter) == "Han")
    ranked = [letter for letter, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    single = {name for name in map(model.piece, range(model.pieces)) if len(name) == 1}
    bands, start = [], 0
    for end in (*HAN_BANDS, len(ranked)):
        band = ranked[start:end]
        if band:
            covered = sum(letter in single for letter in band)
            bands.append({"from": start + 1, "to": start + len(band), "covered": covered})
        start = max(start, end)
    return bands


def by_script(model: Model) -> dict[str, int]:
    """How many pieces of the vocabulary are of which writing system, the most first."""
    counts = Counter(_piece_script(model.piece(id)) for id in range(model.pieces))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _piece_script(name: str) -> str:
    if _is_byte(name):
        return "bytes"
    body = name.replace("\u2581", "").strip()
    if not body:
        return "white space"
    if (body[0], body[-1]) in (("<", ">"), ("[", "]")) and len(body) > 2 and body[1:-1].isalnum():
        return "special"
    scripts = {_script(letter) for letter in body if letter.isalpha()}
    if len(scripts) == 1:
        return scripts.pop()
    return "several" if scripts else "digits" if body.isdecimal() else "signs"


def _script(letter: str) -> str:
    """The first word of a letter's Unicode name, which is its writing system; ``Han`` for ideographs."""
    first = unicodedata.name(letter, "unnamed").split()[0]
    return "Han" if first == "CJK" and letter.isalpha() else first.capitalize()


def longest_pieces(model: Model) -> list[str]:
    """The longest pieces of letters, as they are written."""
    names = (model.piece(id) for id in range(model.pieces))
    return sorted((name for name in names if any(map(str.isalpha, name))), key=lambda name: (-len(name), name))[
        :_LONGEST
    ]


def worst_documents(model: Model, kinds: Mapping[str, Sequence[Text]]) -> list[dict[str, Any]]:
    """The documents with the fewest bytes a token, of at least 200 bytes."""
    found = []
    for kind, texts in kinds.items():
        for id, text in texts:
            size = len(text.encode("utf-8", "surrogatepass"))
            if size >= 200:
                found.append(
                    {"id": id, "kind": kind, "bytes_per_token": size / len(model.encode(text)), "begins": text[:60]}
                )
    return sorted(found, key=lambda item: (item["bytes_per_token"], item["id"]))[:_WORST]


def smaller(tokenizer: Tokenizer, pieces: int) -> Tokenizer:
    """The BPE vocabulary of ``pieces`` that training would have made on its way to this one.

    Merges are learnt in order of frequency, so a smaller vocabulary is a beginning of a larger one; characters keep
    their pieces as far as they fill half of the room.
    """
    if tokenizer.kind != "bpe" or pieces > tokenizer.pieces:
        raise TokenizerError(f"a vocabulary of {pieces} is no part of one of {tokenizer.pieces} ({tokenizer.kind}).")
    parsed = model_file.parse_model(tokenizer.model_bytes)
    ids = np.arange(tokenizer.pieces)
    normal = np.frombuffer(parsed.types, np.uint8) == model_file.NORMAL
    single = np.array([len(tokenizer.piece(id)) == 1 for id in range(tokenizer.pieces)])
    room = pieces - int((~normal).sum())
    letters = ids[normal & single][: max(room // 2, 0)]
    known = {tokenizer.piece(id) for id in letters.tolist()}
    merges = [id for id in ids[normal & ~single].tolist() if set(tokenizer.piece(id)) <= known][: room - len(letters)]
    if room < len(SPECIAL):
        raise TokenizerError(f"a vocabulary of {pieces} has no room for words; give more.")
    keep = {*ids[~normal].tolist(), *letters.tolist(), *merges}
    return Tokenizer(model_file.with_pieces(tokenizer.model_bytes, keep), tokenizer.pad_multiple)


def spans(model: Model, text: str) -> list[tuple[str, bool]]:
    """The pieces of a text as they read, and whether each is of bytes: those of one letter stand together."""
    parts: list[tuple[str, bool]] = []
    held: list[int] = []
    for id in model.encode(text).tolist():
        is_byte = _is_byte(model.piece(id))
        if held and not is_byte:
            parts.append((model.decode(np.array(held, np.int32)), True))
            held = []
        if is_byte:
            held.append(id)
        else:
            parts.append((model.piece(id).replace("\u2581", " "), False))
    if held:
        parts.append((model.decode(np.array(held, np.int32)), True))
    return parts
