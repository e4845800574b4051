"""Reads a SentencePiece ``.model`` file without generated protobuf code, and gives it an identity.

The file embeds paths and flags of its training run, so its bytes are not its identity; pieces, scores, types,
algorithm and normaliser are. Only the fields needed for that are read::

    ModelProto        1 pieces (repeated)   2 trainer spec   3 normaliser spec   5 denormaliser spec
    SentencePiece     1 piece: string       2 score: float   3 type: enum, default NORMAL
    TrainerSpec       3 model type: enum, default unigram    35 byte fallback: bool    24 white space as suffix: bool
    NormalizerSpec    2 compiled rules      3 dummy prefix   4 extra white space removed   5 white space escaped
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import xxhash

from tokenizer.errors import TokenizerError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of pieces."""

MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

NOT_A_MODEL = "not a SentencePiece model (damaged, or another kind of file); train it again."

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NORMALIZER_DEFAULTS: dict[int, int | bytes] = {2: b"", 3: 1, 4: 1, 5: 1}
_TRAINER_DEFAULTS: dict[int, int | bytes] = {3: 1, 24: 0, 35: 0}


@dataclass(frozen=True)
class ModelFile:
    """What decides how a model encodes and decodes."""

    pieces: tuple[bytes, ...]
    scores: tuple[bytes, ...]
    """IEEE-754 single precision, little-endian, as stored."""
    types: bytes
    """One byte a piece."""
    trainer: dict[int, int | bytes]
    normalizer: dict[int, int | bytes]

    @property
    def model_type(self) -> str:
        """``bpe``, ``unigram``, ``word`` or ``char``."""
        kind = self.trainer[3]
        return MODEL_TYPES.get(kind if isinstance(kind, int) else 0, "unknown")

    def fingerprint(self) -> str:
        """xxh3-128 over pieces, scores, types, algorithm and normaliser, as 32 hexadecimal digits."""
        hasher = xxhash.xxh3_128()
        for piece, score in zip(self.pieces, self.scores, strict=True):
            hasher.update(struct.pack("<I", len(piece)) + piece + score)
        hasher.update(self.types)
        hasher.update(repr((sorted(self.trainer.items()), sorted(self.normalizer.items()))).encode())
        return hasher.hexdigest()


def parse_model(data: bytes) -> ModelFile:
    """Read the bytes of a ``.model`` file; raises :class:`TokenizerError` if they are not one."""
    try:
        model = _parse(data)
    except (IndexError, struct.error):
        model = None
    if model is None or not model.pieces:
        raise TokenizerError(NOT_A_MODEL)
    return model


def _parse(data: bytes) -> ModelFile | None:
    pieces: list[bytes] = []
    scores: list[bytes] = []
    types = bytearray()
    trainer, normalizer = dict(_TRAINER_DEFAULTS), dict(_NORMALIZER_DEFAULTS)
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            return None
        if number == 1:
            piece, score, kind = _parse_piece(value)
            pieces.append(piece)
            scores.append(score)
            types.append(kind)
        elif number == 2:
            trainer.update((key, item) for key, item in _fields(value) if key in _TRAINER_DEFAULTS)
        elif number == 3:
            normalizer.update((key, item) for key, item in _fields(value) if key in _NORMALIZER_DEFAULTS)
    return ModelFile(tuple(pieces), tuple(scores), bytes(types), trainer, normalizer)


def _parse_piece(data: bytes) -> tuple[bytes, bytes, int]:
    if len(data) > 7 and data[0] == 0x0A and data[1] < 0x80:  # as SentencePiece writes all but the longest
        end, rest = 2 + data[1], data[7 + data[1] :]
        if data[end : end + 1] == b"\x15" and end + 5 <= len(data) and (not rest or (len(rest), rest[0]) == (2, 0x18)):
            return data[2:end], data[end + 1 : end + 5], rest[1] if rest else NORMAL
    piece, score, kind = b"", b"\0\0\0\0", NORMAL
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = value
        elif number == 2 and isinstance(value, bytes):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value & 0xFF
    return piece, score, kind


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of one protobuf message: varints as int, everything else as bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise IndexError(at)
        if at + size > end:
            raise IndexError(at)
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError(at)


def with_pieces(data: bytes, keep: Collection[int]) -> bytes:
    """The model with only the pieces of the ids in ``keep``, in the same order."""
    out, id = bytearray(), 0
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            raise TokenizerError(NOT_A_MODEL)
        if number != 1 or id in keep:
            out += _as_varint(number << 3 | _BYTES) + _as_varint(len(value)) + value
        id += number == 1
    return bytes(out)


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
