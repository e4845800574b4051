"""The exported tokenizer.json has SentencePiece's ids, on any text, and is not written where it has not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.cli import tokenizer as commands
from glm_data.errors import GlmDataError, UsageError
from tokenizer import SPECIAL_PIECES, Tokenizer, TokenizerError, TrainOptions, huggingface, train

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"
STORIES = [(CORPUS / lang / "story.txt").read_text(encoding="utf-8") for lang in ("en", "zh")]
SIGNS = st.sampled_from(
    [*SPECIAL_PIECES, "  ", " " * 17, "\n", "\n\n", "\n   ", "\t", "▁", "<0x41>", "\0", "é", "𠮷", "7"]
)
PARTS = st.sampled_from([*STORIES[0].split()[:200], *STORIES[1].split("，")[:50]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train(STORIES, path, TrainOptions(vocab_size=2000))
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def other(ours: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(huggingface.tokenizer_json(ours))


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(PARTS | SIGNS | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)))
def test_ids_and_texts_are_the_same(ours: Tokenizer, other: tokenizers.Tokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    found = other.encode(text, add_special_tokens=False)
    assert found.ids == ours.encode(text).tolist()
    assert other.decode(found.ids) == text


def test_stories_and_every_part_of_the_vocabulary(folder: Path, other: tokenizers.Tokenizer) -> None:
    tokenizer = Tokenizer.load(folder)
    assert [other.encode(story).ids for story in STORIES] == [tokenizer.encode(story).tolist() for story in STORIES]
    assert other.get_vocab_size() == tokenizer.pieces
    assert [other.token_to_id(name) for name in SPECIAL_PIECES] == list(range(8))


def test_a_difference_is_found_and_nothing_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.load(folder)
    value = json.loads(huggingface.tokenizer_json(tokenizer))
    value["model"]["merges"].pop(len(value["model"]["merges"]) // 2)
    assert huggingface.first_difference(tokenizer, json.dumps(value)) is not None
    monkeypatch.setattr(huggingface, "tokenizer_json", lambda _: json.dumps(value))
    done = CliRunner().invoke(commands.export, [str(folder), str(tmp_path / "t.json")])
    assert isinstance(done.exception, GlmDataError)
    assert "nothing was written" in str(done.exception)
    assert not (tmp_path / "t.json").exists()


def test_the_command_writes_what_was_proved(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(commands.export, [str(folder), str(tmp_path / "t.json")], catch_exceptions=False)
    assert "the same ids on the probe set" in done.output
    written = (tmp_path / "t.json").read_text(encoding="utf-8")
    assert written == huggingface.tokenizer_json(Tokenizer.load(folder))


def test_unigram_is_refused(tmp_path: Path) -> None:
    unigram = train(STORIES[:1], tmp_path, TrainOptions(vocab_size=800, model_type="unigram"))
    with pytest.raises(TokenizerError, match="cannot be written"):
        huggingface.tokenizer_json(unigram)


def test_lines_go_through_a_pipe_and_back(folder: Path) -> None:
    text = "The fox\n\n床前明月光  [gMASK]\n\tend"
    encoded = CliRunner().invoke(commands.encode, [str(folder), "--lines"], input=text, catch_exceptions=False)
    lines = encoded.output.splitlines()
    tokenizer = Tokenizer.load(folder)
    assert [[int(word) for word in line.split()] for line in lines] == [
        tokenizer.encode(line).tolist() for line in text.split("\n")
    ]
    decoded = CliRunner().invoke(commands.decode, [str(folder), "--lines"], input=encoded.output)
    assert decoded.output == text + "\n"


@pytest.mark.parametrize(
    ("command", "arguments", "given_text", "message"),
    [
        ("encode", [], b"", "give a text"),
        ("encode", ["--lines", "text"], b"", "give a text"),
        ("encode", ["--lines"], b"a\n\xff\n", "not UTF-8"),
        ("encode", ["-"], b"\xff", "not UTF-8"),
        ("decode", [], b"", "give ids"),
        ("decode", ["--lines"], b"1 2\n3 x\n", "line 2 of standard input: 'x' is not a token id"),
    ],
)
def test_wrong_use_is_one_sentence(
    folder: Path, command: str, arguments: list[str], given_text: bytes, message: str
) -> None:
    done = CliRunner().invoke(getattr(commands, command), [str(folder), *arguments], input=given_text)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
