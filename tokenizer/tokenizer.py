"""Encodes texts to flat ids and decodes ids to the same bytes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sentencepiece

from tokenizer import model_file
from tokenizer.errors import TokenizerError
from tokenizer.special import SPECIAL, SPECIAL_PIECES, Special

if TYPE_CHECKING:
    from tokenizer.bpe import Tables, WordEncoder

MODEL_NAME, DESCRIPTION_NAME = "tokenizer.model", "tokenizer.json"
DEFAULT_PAD_MULTIPLE = 64

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]

_SPACE = "\u2581".encode()
"""How SentencePiece writes a space; the same letter in a text must therefore go around it."""

_NOT_FOR_SENTENCEPIECE = re.compile(b"(\xe2\x96\x81|\xed[\xa0-\xbf][\x80-\xbf])")
"""U+2581, and surrogates on their own, which a Python string can hold and UTF-8 cannot."""

_WORDS_FROM_BYTES = 1 << 16
"""Batches of at least this size are encoded by :mod:`tokenizer.bpe`, whose kernels and tables take a moment to load."""
_MOST_PART_BYTES = 1 << 20

_FIRST_LINE_END = re.compile(rb"(?<!\n)\n")
PROBES = (
    *(f"a{name} {name}{name}b" for name in SPECIAL_PIECES),
    "def f(self, *args):\n    return  self.x[0x1F]\t# 12 345\n\n\n\t\tend",
    " " * 33 + "x \n y\r\n \u2581 \u2581\u2581z<0x0A>\0",
    "千里之行，始于足下。“你好，Beam 2.77！”——漢字かなカナ한국어",
    "naïve café e\u0301 Ελληνικά русский עברית 🙂👩‍👩‍👧 𠮷龘\ufffd",
    "ooooooooooooooooooooooo ...........!!!!!!?????======== aaaabbbbaaaa",
)
"""Texts on which an encoder other than SentencePiece must agree with it before it is used."""

_CHUNK_BYTES = 1000
"""For SentencePiece texts are cut before the first line end after this many bytes that follows no other, which no piece
crosses: half as fast again for English, where the merge queue of a long document leaves the cache, and the same ids."""


class Tokenizer:
    """A trained vocabulary. Instances are immutable, but for the words they remember, and safe to use from threads.

    ``pieces`` is the number of real pieces, ``vocab_size`` the same padded to a multiple: the rows of an embedding.
    """

    def __init__(self, model: bytes, pad_multiple: int = DEFAULT_PAD_MULTIPLE) -> None:
        if pad_multiple < 1:
            raise TokenizerError(f"a padding multiple of {pad_multiple} cannot be meant; give 1 or more.")
        parsed = model_file.parse_model(model)
        self._check(parsed)
        self._model = model
        self._processor = open_processor(model)
        self._parsed = parsed
        self._names = tuple(piece.decode("utf-8", "replace") for piece in parsed.pieces)
        self._bytes, self._byte_ids = _piece_bytes(parsed)
        self._idle: list[WordEncoder] = []
        self._tables: Tables | None = None
        self._was_tried = False
        self._words_lock = threading.Lock()
        self.kind = parsed.model_type
        self.pieces = len(parsed.pieces)
        self.pad_multiple = pad_multiple
        self.vocab_size = -(-self.pieces // pad_multiple) * pad_multiple
        self.fingerprint = parsed.fingerprint()

    @staticmethod
    def _check(parsed: model_file.ModelFile) -> None:
        specials = tuple(piece.decode("utf-8", "replace") for piece in parsed.pieces[: len(SPECIAL_PIECES)])
        if specials != SPECIAL_PIECES or parsed.types.count(model_file.BYTE) != 256:
            raise TokenizerError(
                "the model has no byte fallback or not our task tokens at ids 0 to 7, so it was not trained here; "
                "train one with this package."
            )
        if model_file.BYTE in parsed.types.replace(bytes([model_file.BYTE]) * 256, b""):
            raise TokenizerError("the model's byte pieces do not follow each other; train it again with this package.")
        if any(parsed.types[i] not in (model_file.CONTROL, model_file.UNKNOWN) for i in range(len(SPECIAL_PIECES))):
            raise TokenizerError("the model's task tokens are not control symbols; train it again with this package.")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Open a folder that holds ``tokenizer.model``, or the file itself.

        ``tokenizer.json`` beside it gives the padding and must match; without one the padding is a multiple of 64.
        """
        file = Path(path) / MODEL_NAME if Path(path).is_dir() else Path(path)
        try:
            model = file.read_bytes()
        except OSError as error:
            raise TokenizerError(f"'{file}' cannot be read ({error.strerror}); give a tokenizer's folder.") from None
        described = _read_description(file.with_name(DESCRIPTION_NAME))
        try:
            tokenizer = cls(model, int(described.get("pad_multiple", DEFAULT_PAD_MULTIPLE)))
        except TokenizerError as error:
            raise TokenizerError(f"'{file}': {error}") from None
        if described.get("fingerprint", tokenizer.fingerprint) != tokenizer.fingerprint:
            raise TokenizerError(
                f"'{file}' and the {DESCRIPTION_NAME} beside it do not belong together; copy both from one training."
            )
        return tokenizer

    @property
    def special(self) -> Special:
        """The ids of the task tokens."""
        return SPECIAL

    @property
    def model_bytes(self) -> bytes:
        """The SentencePiece model as stored."""
        return self._model

    def description(self) -> dict[str, Any]:
        """What ``tokenizer.json`` records."""
        return {
            "kind": self.kind,
            "pieces": self.pieces,
            "vocab_size": self.vocab_size,
            "pad_multiple": self.pad_multiple,
            "special": dict(zip(SPECIAL_PIECES, SPECIAL, strict=True)),
            "fingerprint": self.fingerprint,
        }

    def encode_batch(self, texts: Sequence[str] | pa.StringArray, threads: int = 1) -> tuple[Ids, Offsets]:
        """Encode texts: ``ids: int32[n]`` one after another and ``offsets: int64[len(texts) + 1]`` into them.

        On ``threads`` threads, in parts of about as many bytes; the ids are the same for any number.
        """
        text, offsets = _flat(texts)
        if threads < 1:
            raise TokenizerError(f"{threads} threads cannot encode; give 1 or more.")
        if threads == 1 or len(text) < 2 * _WORDS_FROM_BYTES:
            return self._encode_flat(text, offsets)
        # Parts by far smaller than a thread's share: some text takes several times as long as other.
        size = min(_MOST_PART_BYTES, len(text) // threads)
        inner = np.searchsorted(offsets, np.arange(size, len(text), size))
        cuts = np.unique([0, *inner, len(offsets) - 1]).tolist()
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda cut: self._encode_flat(text, offsets[cut[0] : cut[1] + 1]), pairwise(cuts)))
        ends = np.cumsum([0, *(len(ids) for ids, _ in parts)])[:-1]
        places = [start + own[1:] for start, (_, own) in zip(ends, parts, strict=True)]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([np.zeros(1, np.int64), *places])

    def _encode_flat(self, text: npt.NDArray[np.uint8], offsets: Offsets) -> tuple[Ids, Offsets]:
        text, offsets = text[offsets[0] : offsets[-1]], offsets - offsets[0]
        words = self._take_encoder() if len(text) >= _WORDS_FROM_BYTES else None
        if words is not None:
            try:
                return words.encode(text, offsets)
            finally:
                self._idle.append(words)
        data, bounds = text.tobytes(), offsets.tolist()
        return self._encode_each([data[first:last] for first, last in pairwise(bounds)])

    def _take_encoder(self) -> WordEncoder | None:
        """An encoder by words that no other thread uses; None if the model is not for them, or they did not prove it.

        Its ids are used only after a probe set had the same ones from SentencePiece.
        """
        from tokenizer import bpe

        with self._words_lock:
            if not self._was_tried:
                self._was_tried = True
                tables = bpe.tables(self._parsed, self._byte_ids)
                self._tables = tables if tables and self._agrees(self._new_encoder(tables)) else None
            if self._tables is None:
                return None
            return self._idle.pop() if self._idle else self._new_encoder(self._tables)

    def _new_encoder(self, tables: Tables) -> WordEncoder:
        from tokenizer import bpe

        return bpe.WordEncoder(tables, lambda word: self._encode_each([word])[0])

    def _agrees(self, words: WordEncoder) -> bool:
        """Whether an encoder has SentencePiece's ids for the probe set: task tokens spelt out, odd white space, rare
        letters, and every 61st piece of the vocabulary in a row."""
        some = self._bytes[:: len(self._bytes) // 61 or 1]
        texts = [*PROBES, "".join(piece.decode("utf-8", "replace") for piece in some)]
        ids, _ = words.encode(*_flat(texts))
        return np.array_equal(ids, self._encode_each([text.encode() for text in texts])[0])

    def _encode_each(self, texts: Iterable[bytes]) -> tuple[Ids, Offsets]:
        """As :meth:`encode_batch`, by SentencePiece alone."""
        chunks: list[bytes] = []
        starts = [0]
        escaped: list[int] = []
        for text in texts:
            _cut(text, chunks, escaped)
            starts.append(len(chunks))
        arrays = list(self._processor.encode(chunks, return_type="numpy", num_threads=1)) if chunks else []
        for index in escaped:
            arrays[index] = self._byte_ids[np.frombuffer(chunks[index], np.uint8)]
        sizes = np.fromiter(map(len, arrays), np.int64, len(arrays))
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        ids = np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
        return ids, ends[np.asarray(starts)]

    def encode(self, text: str) -> Ids:
        """Encode one text: ``int32[n]``."""
        return self.encode_batch([text])[0]

    def decode_bytes(self, ids: Iterable[int] | Ids, *, special: bool = False) -> bytes:
        """The bytes that ``ids`` stand for; task tokens and padding give nothing, or their names if ``special``."""
        array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            worst = int(array.min() if array.min() < 0 else array.max())
            raise TokenizerError(
                f"id {worst} is outside the vocabulary of {self.vocab_size}; was it made with another?"
            )
        if special:
            return b"".join(self._bytes[i] if self._is_text(i) else self.piece(i).encode() for i in array.tolist())
        known = array[array < self.pieces].tolist()
        return b"".join([self._bytes[i] for i in known])

    def decode(self, ids: Iterable[int] | Ids, *, special: bool = False) -> str:
        """The text that ``ids`` stand for: exactly what was encoded.

        Ids that do not join to UTF-8 (a slice that cuts a letter of byte pieces) give U+FFFD there.
        """
        data = self.decode_bytes(ids, special=special)
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")

    def piece(self, id: int) -> str:
        """The piece of an id as SentencePiece writes it (U+2581 for a space, ``<0x0A>`` for a byte)."""
        if not 0 <= id < self.vocab_size:
            raise TokenizerError(f"id {id} is outside the vocabulary of {self.vocab_size}; was it made with another?")
        return self._names[id] if id < self.pieces else f"<padding {id}>"

    def piece_bytes(self, id: int) -> bytes:
        """The text bytes of a piece below ``pieces``: none for task tokens."""
        return self._bytes[id]

    def count_byte_pieces(self, ids: Ids) -> int:
        """How many of ``ids`` are byte-fallback pieces."""
        return int(np.count_nonzero((ids - self._byte_ids[0]).view(np.uint32) < len(self._byte_ids)))

    def _is_text(self, id: int) -> bool:
        return len(SPECIAL_PIECES) <= id < self.pieces

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.model`` and ``tokenizer.json``, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        described = json.dumps(self.description(), ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        for name, data in ((MODEL_NAME, self._model), (DESCRIPTION_NAME, described.encode())):
            temporary = folder / f".tmp-{name}"
            temporary.write_bytes(data)
            temporary.replace(folder / name)


def open_processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece on a model; raises :class:`TokenizerError` if that cannot use it."""
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, UnicodeDecodeError):  # the second for what it says of pieces that are not UTF-8
        raise TokenizerError(model_file.NOT_A_MODEL) from None


def _read_description(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"'{path}' cannot be read ({error}); copy it again or train again.") from None
    if not isinstance(described, dict) or not isinstance(described.get("pad_multiple", 1), int):
        raise TokenizerError(f"'{path}' is not a tokenizer's description; copy it again or train again.")
    return described


def _piece_bytes(parsed: model_file.ModelFile) -> tuple[list[bytes], Ids]:
    """The text bytes of every piece (none for task tokens), and the id of each byte's own piece."""
    text: list[bytes] = []
    byte_ids = np.zeros(256, np.int32)
    for index, (piece, kind) in enumerate(zip(parsed.pieces, parsed.types, strict=True)):
        if kind == model_file.BYTE:
            value = int(piece[3:5], 16)  # <0x0A>
            byte_ids[value] = index
            text.append(bytes([value]))
        elif kind in (model_file.CONTROL, model_file.UNKNOWN):
            text.append(b"")
        else:
            text.append(piece.replace(_SPACE, b" "))
    return text, byte_ids


def _flat(texts: Sequence[str] | pa.StringArray) -> tuple[npt.NDArray[np.uint8], Offsets]:
    """The bytes of all texts one after another, and where each begins and ends: text i is ``offsets[i:i + 2]``."""
    if not isinstance(texts, pa.Array | pa.ChunkedArray):
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        return np.frombuffer(b"".join(parts), np.uint8), np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    if texts.null_count:
        raise TokenizerError("a text is null; give an empty string instead.")
    column = texts.cast(pa.large_binary())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not len(column):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, places, data = column.buffers()
    offsets = np.frombuffer(places, np.int64)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _cut(text: bytes, chunks: list[bytes], escaped: list[int]) -> None:
    """Append ``text`` to ``chunks`` in pieces that encode on their own; note the places of what must be escaped."""
    if _SPACE not in text and b"\xed" not in text:
        _cut_at_lines(text, chunks)
        return
    for number, part in enumerate(_NOT_FOR_SENTENCEPIECE.split(text)):
        if number % 2:
            escaped.append(len(chunks))
            chunks.append(part)
        else:
            _cut_at_lines(part, chunks)


def _cut_at_lines(text: bytes, chunks: list[bytes]) -> None:
    start, size = 0, len(text)
    while size - start > _CHUNK_BYTES:
        found = _FIRST_LINE_END.search(text, start + _CHUNK_BYTES)
        if found is None:
            break
        end = found.start()
        chunks.append(text[start:end])
        start = end
    chunks.append(text[start:] if start else text)
