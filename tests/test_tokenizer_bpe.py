"""Encoding by words: the ids of SentencePiece, whatever the text, the model, and what was remembered before."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenizer import SPECIAL_PIECES, Tokenizer, TrainOptions, bpe, model_file, train

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"
STORIES = [(CORPUS / lang / "story.txt").read_text(encoding="utf-8") for lang in ("en", "zh")]

FRAGMENTS = st.integers(0, 1).flatmap(
    lambda which: st.integers(0, 6000).flatmap(
        lambda start: st.integers(1, 12).map(lambda size: STORIES[which][start : start + size])
    )
)
WHITE = [
    " ",
    "  ",
    " " * 15,
    " " * 16,
    " " * 17,
    " " * 33,
    "\n",
    "\n\n",
    "\n\n\n",
    "\n  ",
    "\n ",
    "\n\n\t\t",
    "\t",
    "\t" * 9,
    "\r",
]
SIGNS = st.sampled_from(
    [*WHITE, *SPECIAL_PIECES, "<0x41>", "\0", "é", "\u0301", "𠮷", "\ufffd", "7", "42", "中", "。", ". "]
)
TEXTS = st.lists(FRAGMENTS | SIGNS | st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"])))
TEXT = TEXTS.map("".join)


@pytest.fixture(scope="module", params=[1100, 3000])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp(str(request.param))
    return train([story[:30_000] for story in STORIES], folder, TrainOptions(vocab_size=request.param))


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> bpe.WordEncoder:
    return encoder_of(tokenizer.model_bytes)


def encoder_of(model: bytes) -> bpe.WordEncoder:
    parsed = model_file.parse_model(model)
    first = parsed.types.index(model_file.BYTE)
    tables = bpe.tables(parsed, np.arange(first, first + 256, dtype=np.int32))
    assert tables is not None
    return bpe.WordEncoder(tables, lambda word: processor_of(model).encode(word, return_type="numpy"))


def processor_of(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def encode(words: bpe.WordEncoder, texts: list[str]) -> list[list[int]]:
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.cumsum([0, *map(len, parts)])
    ids, ends = words.encode(np.frombuffer(b"".join(parts), np.uint8), offsets)
    assert (int(ends[0]), int(ends[-1]), ids.dtype) == (0, len(ids), np.int32)
    return [ids[first:last].tolist() for first, last in pairwise(ends)]


@settings(deadline=None, max_examples=200)
@given(st.lists(TEXT, max_size=4))
@example(["", "   ", " a", "a ", "a  b", "\n\n", ""])
@example(["\n" * lines + run + "the" for lines in range(5) for run in ("", " ", "  ", " " * 17, "\t", "\t" * 6, " \t")])
@example([" " * size + "the" + " " * size for size in range(40)])
def test_ids_are_those_of_sentencepiece(tokenizer: Tokenizer, words: bpe.WordEncoder, texts: list[str]) -> None:
    assert encode(words, texts) == processor_of(tokenizer.model_bytes).encode(texts)


def test_whole_stories_and_every_code_point(tokenizer: Tokenizer, words: bpe.WordEncoder) -> None:
    points = "".join(chr(p) for p in range(sys.maxunicode + 1) if not 0xD800 <= p < 0xE000 and p != 0x2581)
    texts = [*STORIES, points[:0x4000], points[0x4000::5], points[::-7]]
    assert encode(words, texts) == processor_of(tokenizer.model_bytes).encode(texts)


def test_what_sentencepiece_would_change_becomes_bytes(tokenizer: Tokenizer, words: bpe.WordEncoder) -> None:
    texts = ["▁", " ▁ a  ▁▁b", "\ud800", "x\ud83d\ude00y", "\udfff▁"]
    assert encode(words, texts) == [tokenizer.encode(text).tolist() for text in texts]
    assert [tokenizer.decode(ids) for ids in encode(words, texts)] == texts


def test_long_words_are_left_to_sentencepiece(tokenizer: Tokenizer) -> None:
    letter = next(name[0] for name in map(tokenizer.piece, range(300, tokenizer.pieces)) if name in ("oo", "ee", "ss"))
    sizes = range(bpe.LONGEST_WORD - 3, bpe.LONGEST_WORD + 4)
    texts = [letter * size for size in sizes] + [f"。{letter * 3000}。\n{letter * 700}\n{letter * 9}"]
    words, sent = encoder_of(tokenizer.model_bytes), []
    encode_long = words._encode_long
    words._encode_long = lambda word: sent.append(len(word)) or encode_long(word)  # type: ignore[func-returns-value]
    assert encode(words, texts) == processor_of(tokenizer.model_bytes).encode(texts)
    assert sent == [*(size for size in sizes if size > bpe.LONGEST_WORD), 3000, 700]


def test_forgetting_changes_nothing(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = processor_of(tokenizer.model_bytes).encode(STORIES)
    for words, places in ((8, 1 << 21), (1 << 18, 1 << 9)):
        monkeypatch.setattr(bpe, "_MOST_WORDS", words)
        monkeypatch.setattr(bpe, "_RECORD_PLACES", places)
        small = encoder_of(tokenizer.model_bytes)
        assert encode(small, STORIES) == expected
        assert small._memory.used[0] <= words
        assert small._memory.used[1] <= places


@pytest.fixture(scope="module")
def equal_scores(tokenizer: Tokenizer) -> bytes:
    """The model with its scores rounded, so that hundreds of pieces share one."""
    out = b""
    for number, value in model_file._fields(tokenizer.model_bytes):
        assert isinstance(value, bytes)
        if number == 1:
            piece, score, kind = model_file._parse_piece(value)
            rounded = struct.pack("<f", struct.unpack("<f", score)[0] // 400)
            value = b"\x0a" + _varint(len(piece)) + piece + b"\x15" + rounded + b"\x18" + _varint(kind)
        out += _varint(number << 3 | 2) + _varint(len(value)) + value
    return out


def test_equal_scores_are_merged_from_the_left(tokenizer: Tokenizer, equal_scores: bytes) -> None:
    words, processor = encoder_of(equal_scores), processor_of(equal_scores)

    @settings(deadline=None, max_examples=100)
    @given(st.lists(TEXT, max_size=3))
    def compare(texts: list[str]) -> None:
        assert encode(words, texts) == processor.encode(texts)

    compare()
    assert encode(words, STORIES) == processor.encode(STORIES)
    assert encode(words, STORIES) != processor_of(tokenizer.model_bytes).encode(STORIES)


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + _varint(value >> 7)


def test_large_batches_and_columns_are_encoded_like_single_texts(tokenizer: Tokenizer) -> None:
    texts = 2 * [part for story in STORIES for part in story.split("\n\n")] + ["", "▁", "[MASK]"]
    column = pa.array(["left out", *texts])[1:]
    single = [tokenizer.encode(text) for text in texts]
    for batch in (texts, column, pa.chunked_array([texts[:9], texts[9:]]), column.cast(pa.large_string())):
        ids, offsets = tokenizer.encode_batch(batch)
        assert np.array_equal(ids, np.concatenate(single))
        assert offsets.tolist() == np.cumsum([0, *map(len, single)]).tolist()
    assert tokenizer._tables is not None


def test_other_kinds_of_models_are_left_to_sentencepiece(tokenizer: Tokenizer, tmp_path: Path) -> None:
    parsed, byte_ids = model_file.parse_model(tokenizer.model_bytes), np.arange(256, dtype=np.int32)
    kinds = bytearray(parsed.types)
    kinds[parsed.pieces.index("▁▁▁".encode())] = model_file.NORMAL  # a run of spaces is missing
    assert bpe.tables(dataclasses.replace(parsed, types=bytes(kinds)), byte_ids) is None
    kinds = bytearray(parsed.types)
    kinds[next(at for at, piece in enumerate(parsed.pieces) if len(piece) > 5)] = model_file.USER_DEFINED
    assert bpe.tables(dataclasses.replace(parsed, types=bytes(kinds)), byte_ids) is None
    kinds = bytearray(parsed.types)
    kinds[-1] = model_file.UNUSED
    assert bpe.tables(dataclasses.replace(parsed, types=bytes(kinds)), byte_ids) is None
    kinds[-1] = model_file.CONTROL  # a letter of other pieces has none of its own
    kinds[parsed.pieces.index(b"e")] = model_file.CONTROL
    assert bpe.tables(dataclasses.replace(parsed, types=bytes(kinds)), byte_ids) is None
    unigram = train([story[:4000] for story in STORIES], tmp_path, TrainOptions(vocab_size=1100, model_type="unigram"))
    assert unigram.encode_batch(2 * STORIES)[0].tolist() == [
        id for ids in processor_of(unigram.model_bytes).encode(2 * STORIES) for id in ids
    ]


def test_small_batches_load_no_compiler() -> None:
    code = "import sys, tokenizer; assert 'numba' not in sys.modules, 'numba'"
    subprocess.run([sys.executable, "-c", code], check=True)
