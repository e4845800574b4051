"""Trains a vocabulary: SentencePiece BPE (or unigram) without normalisation, with byte fallback and fixed task tokens.

Two facts of the trainer shape this module: it skips sentences longer than a limit without a word, so documents are cut
here; and unigram results depend on the number of threads, so one is used (BPE does not use any).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

from tokenizer.alphabet import count_characters, required_characters
from tokenizer.errors import TokenizerError
from tokenizer.special import SPECIAL, SPECIAL_PIECES
from tokenizer.tokenizer import DEFAULT_PAD_MULTIPLE, Tokenizer

SPACE_RUNS = range(2, 17)
"""Runs of this many spaces are symbols, so that indentation costs one token."""

USER_SYMBOLS = ("\n", "\t", *("\u2581" * size for size in SPACE_RUNS))

RESERVED = len(SPECIAL_PIECES) + len(USER_SYMBOLS) + 256
"""Pieces that every vocabulary has: task tokens, white space, bytes."""

SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 512, 150_000

_SENTENCE_BYTES = 8192
_SENTENCE_END = re.compile(r"(?<=[。！？；!?;])|(?<=\. )")
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_HAN_OR_OTHER = re.compile(f"{_HAN.pattern}+|[^{_HAN.pattern[1:]}+")
_QUIET = 2


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What decides a vocabulary, besides the texts."""

    vocab_size: int = 32_000
    """Pieces, 512 to 150,000, before padding."""
    model_type: str = "bpe"
    """``bpe`` or ``unigram``."""
    pad_multiple: int = DEFAULT_PAD_MULTIPLE
    """``Tokenizer.vocab_size`` is a multiple of this."""
    character_coverage: float = 0.9999
    """Share of the occurrences of each writing system whose characters get a piece."""
    longest_han: int = 0
    """Most Han characters in a piece; 0 means as many as SentencePiece takes (16). Chinese has no spaces to end words,
    so a small corpus that repeats its clauses gets whole clauses as pieces, and then nothing smaller to blank out."""


def train(texts: Iterable[str], folder: Path, options: TrainOptions | None = None) -> Tokenizer:
    """Train on ``texts`` (held in memory: a sample) and write ``tokenizer.model`` and ``tokenizer.json`` to ``folder``.

    The same texts in the same order give the same model, wherever and on however many cores. Raises
    :class:`TokenizerError` if the options make no sense or the texts hold too little for the vocabulary.
    """
    options = options or TrainOptions()
    check_options(options)
    sentences = [sentence for text in texts for sentence in cut_sentences(text)]
    if options.longest_han:
        sentences = cut_han(sentences, options.longest_han)
    if not sentences:
        raise TokenizerError("there is no text to train a tokenizer on; give documents that are not empty.")
    tokenizer = Tokenizer(_train(sentences, options), options.pad_multiple)
    tokenizer.save(folder)
    return tokenizer


def cut_sentences(text: str, limit: int = _SENTENCE_BYTES) -> Iterator[str]:
    """Cut a text into the trainer's sentences: lines, and longer ones at sentence ends, spaces or anywhere.

    No sentence has more than ``limit`` bytes and nothing but line ends and U+2581 (the trainer's own space) is lost.
    """
    for line in text.replace("\u2581", "\n").split("\n"):
        if len(line) * 4 <= limit or len(line.encode("utf-8", "replace")) <= limit:
            if line:
                yield line
        else:
            yield from _cut_line(line, limit)


def cut_han(sentences: Iterable[str], longest: int) -> list[str]:
    """Cut runs of Han characters into parts of at most ``longest``, from which no longer piece can be learnt.

    The first part of each run is 1 to ``longest`` characters long in turn, so that every pair of neighbours stays
    together in all but one of ``longest`` occurrences.
    """
    parts: list[str] = []
    runs = 0
    for sentence in sentences:
        for run in _HAN_OR_OTHER.findall(sentence):
            if not _HAN.match(run):
                parts.append(run)
                continue
            first = 1 + runs % longest
            runs += 1
            parts += [run[:first], *(run[i : i + longest] for i in range(first, len(run), longest))]
    return parts


def _cut_line(line: str, limit: int) -> Iterator[str]:
    held = ""
    for part in _small_parts(line, limit // 4):
        if (len(held) + len(part)) * 4 > limit:
            yield held
            held = ""
        held += part
    yield held


def _small_parts(line: str, characters: int) -> Iterator[str]:
    """Sentences of at most ``characters``; a longer one is cut after a space, or else where it reaches the limit."""
    for sentence in _SENTENCE_END.split(line):
        while len(sentence) > characters:
            space = sentence.rfind(" ", 1, characters)
            end = space + 1 if space > 0 else characters
            yield sentence[:end]
            sentence = sentence[end:]
        if sentence:
            yield sentence


def check_options(options: TrainOptions) -> None:
    """Raise :class:`TokenizerError` for options that make no sense."""
    if not SMALLEST_VOCABULARY <= options.vocab_size <= LARGEST_VOCABULARY:
        raise TokenizerError(
            f"a vocabulary of {options.vocab_size} pieces cannot be trained; "
            f"give {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY}."
        )
    if options.model_type not in ("bpe", "unigram"):
        raise TokenizerError(f"model type '{options.model_type}' is unknown; give 'bpe' or 'unigram'.")
    if options.pad_multiple < 1:
        raise TokenizerError(f"a padding multiple of {options.pad_multiple} cannot be meant; give 1 or more.")
    if not 0.9 <= options.character_coverage <= 1.0:
        raise TokenizerError(f"a coverage of {options.character_coverage} makes no sense; give 0.9 to 1.0.")
    if options.longest_han < 0:
        raise TokenizerError(f"pieces of {options.longest_han} Han characters cannot be; give 1 or more, or 0.")


def _train(sentences: list[str], options: TrainOptions) -> bytes:
    room = (options.vocab_size - RESERVED) // 2
    required = required_characters(count_characters(sentences), options.character_coverage, room)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(sentence.encode("utf-8", "replace") for sentence in sentences),
            model_writer=model,
            vocab_size=options.vocab_size,
            model_type=options.model_type,
            required_chars=required,
            **_FIXED,
        )
    except RuntimeError as error:
        raise TokenizerError(_explain(str(error), options.vocab_size)) from None
    return model.getvalue()


_FIXED: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "byte_fallback": True,
    "split_digits": True,
    "character_coverage": 0.98,  # the least that the trainer takes: required_chars decides
    "max_sentence_length": 2 * _SENTENCE_BYTES,
    "num_threads": 1,
    "pad_id": SPECIAL.pad,
    "unk_id": SPECIAL.unk,
    "eos_id": SPECIAL.eos,
    "bos_id": -1,
    "pad_piece": SPECIAL_PIECES[SPECIAL.pad],
    "unk_piece": SPECIAL_PIECES[SPECIAL.unk],
    "eos_piece": SPECIAL_PIECES[SPECIAL.eos],
    "control_symbols": list(SPECIAL_PIECES[SPECIAL.sop :]),
    "user_defined_symbols": list(USER_SYMBOLS),
    "minloglevel": _QUIET,
}
"""Everything that makes the vocabulary lossless and keeps the task tokens where :mod:`tokenizer.special` says."""


def _explain(message: str, vocab_size: int) -> str:
    if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"a vocabulary of {vocab_size} pieces has no room for the characters of these texts; "
            f"ask for at least {needed.group(1)} pieces, better twice as many."
        )
    if possible := re.search(r"value <= (\d+)", message):
        most = int(possible.group(1))
        cure = f"ask for at most {most} or give more text" if most >= SMALLEST_VOCABULARY else "give more text"
        return f"the texts hold too little for a vocabulary of {vocab_size} pieces; {cure}."
    return f"SentencePiece could not train a vocabulary of {vocab_size} pieces ({' '.join(message.split())})."
