"""Training: fixed task tokens, identity, determinism, and refusals that end with a cure."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer import SPECIAL, SPECIAL_PIECES, Tokenizer, TokenizerError, TrainOptions, train
from tokenizer.alphabet import required_characters
from tokenizer.kernels import CODE_POINTS
from tokenizer.model_file import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, _parse_piece, parse_model
from tokenizer.train import SMALLEST_VOCABULARY, USER_SYMBOLS, check_options, cut_han

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"
TEXTS = [(CORPUS / lang / "story.txt").read_text(encoding="utf-8")[:6000] for lang in ("en", "zh")]
OPTIONS = TrainOptions(vocab_size=1500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train(TEXTS, path, OPTIONS)
    return path


def test_task_tokens_have_their_documented_ids_and_cannot_be_asked_for(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert [tokenizer.piece(i) for i in range(8)] == [
        "<pad>", "<unk>", "<eos>", "<sop>", "<eop>", "[MASK]", "[gMASK]", "[sMASK]",
    ]  # fmt: skip
    assert tuple(tokenizer.special) == tuple(SPECIAL) == tuple(range(8))
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    assert all(processor.is_control(i) or processor.is_unknown(i) for i in range(8))


def test_white_space_and_bytes_are_pieces(folder: Path) -> None:
    parsed = parse_model((folder / "tokenizer.model").read_bytes())
    assert parsed.types.count(BYTE) == 256
    symbols = [piece.decode() for piece, kind in zip(parsed.pieces, parsed.types, strict=True) if kind == USER_DEFINED]
    assert symbols == list(USER_SYMBOLS)
    tokenizer = Tokenizer.load(folder)
    assert len(tokenizer.encode("\n")) == len(tokenizer.encode("\t")) == len(tokenizer.encode("        ")) == 1


def test_digits_are_split(folder: Path) -> None:
    assert len(Tokenizer.load(folder).encode("2048")) == 4


def test_the_wire_reader_agrees_with_sentencepiece(folder: Path) -> None:
    data = (folder / "tokenizer.model").read_bytes()
    parsed = parse_model(data)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert len(parsed.pieces) == processor.get_piece_size()
    for index, piece in enumerate(parsed.pieces):
        assert piece.decode() == processor.id_to_piece(index)
        assert np.frombuffer(parsed.scores[index], "<f4")[0] == np.float32(processor.get_score(index))
        assert (parsed.types[index] == CONTROL) == processor.is_control(index)
        assert (parsed.types[index] == BYTE) == processor.is_byte(index)
    assert parsed.model_type == "bpe"


def test_the_vocabulary_is_padded_and_described(folder: Path, tmp_path: Path) -> None:
    tokenizer = train(TEXTS, tmp_path, TrainOptions(vocab_size=1515, pad_multiple=512))
    assert (tokenizer.pieces, tokenizer.vocab_size) == (1515, 1536)
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    assert described["kind"] == "bpe"
    assert (described["pieces"], described["vocab_size"]) == (1515, 1536)
    assert described["special"] == dict(zip(SPECIAL_PIECES, range(8), strict=True))
    assert described["fingerprint"] == tokenizer.fingerprint
    again = Tokenizer.load(tmp_path)
    assert (again.vocab_size, again.fingerprint) == (1536, tokenizer.fingerprint)
    (tmp_path / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path / "tokenizer.model").vocab_size == 1536  # without a description: a multiple of 64


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_again_elsewhere_gives_the_same_model(kind: str, tmp_path: Path) -> None:
    options = TrainOptions(vocab_size=1500, model_type=kind)
    first = train(TEXTS, tmp_path / "here", options)
    second = train(iter(TEXTS), tmp_path / "a longer path" / "there", options)
    assert first.kind == kind
    assert first.fingerprint == second.fingerprint
    assert first.model_bytes == second.model_bytes


def test_the_fingerprint_ignores_paths_and_sees_scores_types_and_normaliser(folder: Path) -> None:
    data = (folder / "tokenizer.model").read_bytes()
    whole = parse_model(data)
    trainer_input = b"\x12\x0b" + b"\x0a\x09/some/way"  # another trainer spec field 1 (input), merged by readers
    assert parse_model(data + trainer_input).fingerprint() == whole.fingerprint()
    dummy_prefix = b"\x1a\x02" + b"\x18\x01"
    assert parse_model(data + dummy_prefix).fingerprint() != whole.fingerprint()
    byte_fallback_off = b"\x12\x03" + b"\x98\x02\x00"
    assert parse_model(data + byte_fallback_off).fingerprint() != whole.fingerprint()
    other_score = data.replace(b"\x15" + whole.scores[-1], b"\x15\x00\x00\x80\xbf", 1)
    assert other_score != data
    assert parse_model(other_score).fingerprint() != whole.fingerprint()


def test_a_corpus_full_of_task_tokens_trains_and_teaches_none(tmp_path: Path) -> None:
    poisoned = [*TEXTS, "a [gMASK] b <eop> c <0x41> [MASK] <pad> ▁ <sop>\n" * 50]
    tokenizer = train(poisoned, tmp_path, OPTIONS)
    parsed = parse_model(tokenizer.model_bytes)
    assert len(set(parsed.pieces)) == len(parsed.pieces)
    for name in (*SPECIAL_PIECES, "a [gMASK] b<eop>", "<0x41>"):
        ids = tokenizer.encode(name)
        assert ids.min() >= 8
        assert tokenizer.decode(ids) == name


def test_too_little_text_is_said_with_a_number_that_works(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="too little for a vocabulary of 32000 pieces") as caught:
        train(TEXTS, tmp_path, TrainOptions(model_type="unigram"))
    words = str(caught.value).split()
    possible = int(words[words.index("most") + 1])
    options = TrainOptions(vocab_size=possible, model_type="unigram")
    assert train(TEXTS, tmp_path, options).pieces == possible
    with pytest.raises(TokenizerError, match="pieces; give more text"):
        train(["hello there"], tmp_path)


def test_a_vocabulary_too_small_for_the_alphabet_says_what_it_needs(tmp_path: Path) -> None:
    texts = [*TEXTS, "".join(map(chr, range(0x4E00, 0x4E00 + 600))) * 40]
    with pytest.raises(TokenizerError, match=r"no room for the characters .* at least [0-9]+ pieces"):
        train(texts, tmp_path, TrainOptions(vocab_size=SMALLEST_VOCABULARY))


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (TrainOptions(vocab_size=100), "give 512 to 150000"),
        (TrainOptions(vocab_size=200_000), "give 512 to 150000"),
        (TrainOptions(model_type="wordpiece"), "give 'bpe' or 'unigram'"),
        (TrainOptions(pad_multiple=0), "give 1 or more"),
        (TrainOptions(character_coverage=0.2), "give 0.9 to 1.0"),
    ],
)
def test_options_that_cannot_be_meant(options: TrainOptions, cure: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=cure):
        train(TEXTS, tmp_path, options)


@pytest.mark.parametrize("texts", [[], ["", "\n\n"]])
def test_no_text_is_an_error(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no text"):
        train(texts, tmp_path, OPTIONS)


def test_files_that_are_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.load(tmp_path)
    model = (folder / "tokenizer.model").read_bytes()
    for damaged in (b"", b"hello there", model[: len(model) // 2], b"\xff" * 100):
        (tmp_path / "tokenizer.model").write_bytes(damaged)
        with pytest.raises(TokenizerError):
            Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(model)
    (tmp_path / "tokenizer.json").write_text('{"fingerprint": "0123"}')
    with pytest.raises(TokenizerError, match="do not belong together"):
        Tokenizer.load(tmp_path)
    for broken in ("{", "[1]", '{"pad_multiple": "x"}'):
        (tmp_path / "tokenizer.json").write_text(broken)
        with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
            Tokenizer.load(tmp_path)


def test_a_foreign_model_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS[0].splitlines()),
            model_writer=file,
            vocab_size=400,
            model_type="bpe",
            minloglevel=2,
        )
    with pytest.raises(TokenizerError, match="not trained here"):
        Tokenizer.load(tmp_path)


def characters(*texts: str) -> np.ndarray:
    counts = np.zeros((len(texts), CODE_POINTS), np.int64)
    for language, text in enumerate(texts):
        np.add.at(counts[language], [ord(character) for character in text], 1)
    return counts


def test_coverage_is_by_language_and_writing_system() -> None:
    counts = characters("a" * 100_000 + "的" * 90 + "龘" * 10 + "鱻" + "あ" * 5)
    one = np.ones(1)
    assert required_characters(counts, one, 0.99, 100) == "aあ的龘"
    assert required_characters(counts, one, 0.85, 100) == "aあ的"
    assert required_characters(counts, one, 1.0, 2) == "a的"  # the most frequent, when there is little room
    assert required_characters(characters("\n \t▁\0"), one, 1.0, 100) == ""
    both = characters("的" * 1000 + "書" * 9, "書" * 80 + "龘" * 20)
    assert required_characters(both, np.ones(2), 0.95, 100) == "書的龘"  # 龘 is rare, but not in its own language
    assert required_characters(both, np.array([1.0, 100.0]), 0.95, 1) == "書"  # weights decide when room is short
    assert required_characters(both, np.ones(2), 0.95, 1) == "的"


def test_the_package_imports_nothing_of_the_library() -> None:
    code = "import sys, tokenizer; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tokenizer" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("glm_data", "pipelines", "torch") or "pb2" in name]


@settings(deadline=None)
@given(word=st.text(alphabet=st.sampled_from("a b中国的首都。，\U00020000")), longest=st.integers(1, 5))
def test_cutting_han_loses_nothing_and_leaves_no_longer_run(word: str, longest: int) -> None:
    parts = cut_han(word, longest)
    assert "".join(parts) == word
    for part in parts:
        han = [character for character in part if character in "中国的首都\U00020000"]
        assert len(han) in (0, len(part))
        assert len(han) <= longest


def test_long_han_runs_are_cut_at_every_place_in_some_word() -> None:
    words = [f"{chr(0x4E00 + number)}中国的首都" for number in range(60)]
    assert {len(cut_han(word, 3)[0]) for word in words} == {1, 2, 3}


def test_pieces_hold_no_more_han_than_asked(tmp_path):
    line = "床前明月光，疑是地上霜。"
    free = train([*TEXTS, *[line] * 50], tmp_path / "free", OPTIONS)
    short = train([*TEXTS, *[line] * 50], tmp_path / "short", TrainOptions(vocab_size=1500, longest_han=2))
    assert "床前明月光" in map(free.piece, range(free.pieces))
    han = [[c for c in short.piece(number) if "\u4e00" <= c <= "\u9fff"] for number in range(short.pieces)]
    assert max(map(len, han)) == 2
    assert short.decode(short.encode(line)) == line


def test_a_negative_limit_of_han_is_refused():
    with pytest.raises(TokenizerError, match="Han"):
        check_options(TrainOptions(longest_han=-1))


def test_pieces_are_read_as_sentencepiece_reads_them(folder: Path) -> None:
    model = Tokenizer.load(folder).model_bytes
    parsed, processor = parse_model(model), sentencepiece.SentencePieceProcessor(model_proto=model)
    for id, (piece, score) in enumerate(zip(parsed.pieces, parsed.scores, strict=True)):
        assert piece.decode() == processor.id_to_piece(id)
        assert struct.unpack("<f", score)[0] == processor.get_score(id)
    name, score = b"\x0a\x03abc", b"\x15\0\0\x80\x3f"
    for data, expected in (
        (name + score, (b"abc", score[1:], NORMAL)),
        (name + score + b"\x18\x06", (b"abc", score[1:], BYTE)),
        (b"\x18\x03" + score + name, (b"abc", score[1:], CONTROL)),
        (b"\x0a\x83\x01" + b"x" * 131 + score, (b"x" * 131, score[1:], NORMAL)),
        (name + b"\x18\x02", (b"abc", b"\0\0\0\0", UNKNOWN)),
    ):
        assert _parse_piece(data) == expected
