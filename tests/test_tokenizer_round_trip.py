"""Encoding loses nothing and never makes a task token, whatever the text."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenizer import SPECIAL_PIECES, Tokenizer, TokenizerError, TrainOptions, bpe, train

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"
SAMPLE = [(CORPUS / lang / "story.txt").read_text(encoding="utf-8")[:4000] for lang in ("en", "zh")]

ANY_TEXT = st.text(st.characters(), max_size=60)  # surrogates included
TRICKY = st.lists(
    st.sampled_from(
        [
            *SPECIAL_PIECES,
            "▁",
            "<0x41>",
            "\0",
            "\ud800",
            "\udfff",
            "\n",
            "\r\n",
            "  ",
            "\t",
            "é",
            "\u0301",
            "中",
            "𠮷",
            "a",
            "\ufeff",
        ]
    ),
    max_size=20,
).map("".join)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp(request.param)
    return train(SAMPLE, folder, TrainOptions(vocab_size=1100, model_type=request.param))


@settings(deadline=None)
@given(ANY_TEXT | TRICKY)
@example("▁")
@example("\ud83d\ude00")  # two lone surrogates, which are not the character they would make in UTF-16
@example(" ▁ a  ▁▁b")
@example("[gMASK]<eop></s><pad>")
@example("\0\x01")
def test_any_text_comes_back_and_holds_no_task_token(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert not ids.size or (ids.min() >= 8 and ids.max() < tokenizer.pieces)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode("utf-8", "surrogatepass")


def test_every_code_point_comes_back(tokenizer: Tokenizer) -> None:
    text = "".join(chr(point) for point in range(0, sys.maxunicode + 1, 7)) + "".join(map(chr, range(0x3000)))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None, max_examples=50)
@given(st.lists(ANY_TEXT | TRICKY, max_size=8))
def test_a_batch_is_the_texts_one_by_one(tokenizer: Tokenizer, texts: list[str]) -> None:
    ids, offsets = tokenizer.encode_batch(texts)
    assert (ids.dtype, offsets.dtype, len(offsets)) == (np.int32, np.int64, len(texts) + 1)
    for index, text in enumerate(texts):
        assert np.array_equal(ids[offsets[index] : offsets[index + 1]], tokenizer.encode(text))
    assert (int(offsets[0]), int(offsets[-1])) == (0, len(ids))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=300), max_size=30))
def test_cutting_long_texts_at_lines_changes_no_id(tokenizer: Tokenizer, lines: list[str]) -> None:
    text = "\n".join(lines)
    whole = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    assert tokenizer.encode(text).tolist() == whole.encode(text)


def test_arrow_columns_are_encoded_like_lists(tokenizer: Tokenizer) -> None:
    texts = ["one\ntwo", "", "三 ▁ 四", "[MASK]"]
    expected = tokenizer.encode_batch(texts)
    for column in (
        pa.array(texts),
        pa.array(["x", *texts])[1:],
        pa.array(texts, pa.large_string()),
        pa.chunked_array([texts[:1], texts[1:]]),
    ):
        got = tokenizer.encode_batch(column)
        assert np.array_equal(got[0], expected[0])
        assert np.array_equal(got[1], expected[1])
    with pytest.raises(TokenizerError, match="null"):
        tokenizer.encode_batch(pa.array(["a", None]))


def test_threads_change_nothing(tokenizer: Tokenizer) -> None:
    texts = SAMPLE * 20
    expected = tokenizer.encode_batch(texts)
    with ThreadPoolExecutor(4) as pool:
        for ids, offsets in pool.map(tokenizer.encode_batch, [texts] * 8):
            assert np.array_equal(ids, expected[0])
            assert np.array_equal(offsets, expected[1])


def test_a_batch_on_several_threads_is_that_on_one(tokenizer: Tokenizer) -> None:
    texts = ["", *SAMPLE * 40, "", "x" * 70_000, ""]
    expected = tokenizer.encode_batch(texts)
    for threads in (2, 3, 7):
        ids, offsets = tokenizer.encode_batch(texts, threads=threads)
        assert np.array_equal(ids, expected[0])
        assert np.array_equal(offsets, expected[1])
    with pytest.raises(TokenizerError, match="give 1 or more"):
        tokenizer.encode_batch(texts, threads=0)


def test_an_encoder_that_fails_the_probe_is_not_used(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = SAMPLE * 40
    expected = tokenizer.encode_batch(texts)[0]
    fresh = Tokenizer(tokenizer.model_bytes)
    encode = bpe.WordEncoder.encode
    monkeypatch.setattr(bpe.WordEncoder, "encode", lambda *given: (encode(*given)[0][::-1], encode(*given)[1]))
    assert np.array_equal(fresh.encode_batch(texts)[0], expected)
    assert fresh._was_tried
    assert fresh._tables is None


def test_decoding_task_tokens_padding_and_half_characters(tokenizer: Tokenizer) -> None:
    ids = [5, *tokenizer.encode("中 a").tolist(), 4, tokenizer.vocab_size - 1]
    assert tokenizer.decode(ids) == "中 a"
    shown = tokenizer.decode(ids, special=True)
    assert shown.startswith("[MASK]中 a<eop>")
    rare = tokenizer.encode("𠮷")
    assert len(rare) == 4
    assert tokenizer.count_byte_pieces(rare) == 4
    assert tokenizer.decode(rare[:2]) == "\ufffd"
    assert tokenizer.decode([]) == ""
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(TokenizerError, match="outside the vocabulary"):
            tokenizer.decode([wrong])
        with pytest.raises(TokenizerError, match="outside the vocabulary"):
            tokenizer.piece(wrong)


def test_a_saved_tokenizer_encodes_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "copy")
    copy = Tokenizer.load(tmp_path / "copy")
    assert copy.fingerprint == tokenizer.fingerprint
    assert np.array_equal(copy.encode(SAMPLE[0]), tokenizer.encode(SAMPLE[0]))
