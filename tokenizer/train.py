"""Trains a vocabulary: SentencePiece BPE (or unigram) without normalisation, with byte fallback and fixed task tokens.

SentencePiece reads words with their counts (its TSV input), never text: memory is that of the different words, and
weights by language are factors. Words come from :mod:`tokenizer.counting`, of one text or of shards anywhere. Unigram
results depend on the number of threads, so one is used; BPE needs none.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sentencepiece
import xxhash

from tokenizer.alphabet import required_characters
from tokenizer.errors import TokenizerError
from tokenizer.special import SPECIAL, SPECIAL_PIECES
from tokenizer.tokenizer import DEFAULT_PAD_MULTIPLE, Tokenizer

if TYPE_CHECKING:
    from tokenizer.counting import Words

Integers = npt.NDArray[np.int64]

_RUNS = ("", *("\u2581" * size for size in range(2, 17)), *("\t" * size for size in range(1, 5)))

USER_SYMBOLS = (
    "\n",
    "\t",
    *(lines + run for lines in ("", "\n", "\n\n") for run in _RUNS if lines + run not in ("", "\n", "\t")),
)
"""Line ends, one or two, with the spaces (2 to 16) or tabs (up to 4) that follow; and such runs by themselves: a new
line of code costs one token, however deep it stands."""

RESERVED = len(SPECIAL_PIECES) + len(USER_SYMBOLS) + 256
"""Pieces that every vocabulary has: task tokens, white space, bytes."""

SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 512, 150_000

PAIRS_PER_RARE = 1_600_000
"""Two Han characters are rare neighbours if they meet less than once among so many pairs: less often than the last
piece of a vocabulary of 150,000 (18 times in a corpus whose bound is 14)."""

_SLICE = 1 << 16
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_HAN_OR_OTHER = re.compile(f"{_HAN.pattern}+|[^{_HAN.pattern[1:]}+")
_QUIET = 2


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What decides a vocabulary, besides the words."""

    vocab_size: int = 32_000
    """Pieces, 512 to 150,000, before padding."""
    model_type: str = "bpe"
    """``bpe`` or ``unigram``."""
    pad_multiple: int = DEFAULT_PAD_MULTIPLE
    """``Tokenizer.vocab_size`` is a multiple of this."""
    character_coverage: float = 0.9999
    """Share of the occurrences of each writing system in each language whose characters get a piece."""
    longest_han: int = 0
    """Most Han characters in a piece; 0 means as many as SentencePiece takes (16). Chinese has no spaces to end words,
    so a small corpus that repeats its clauses gets whole clauses as pieces, and then nothing smaller to blank out."""


class Counted(NamedTuple):
    """A corpus as the trainer sees it: different words (``binary``), their weighted counts, and its characters."""

    words: pa.Array
    counts: Integers
    characters: Integers
    """``int64[languages, code points]``: occurrences, without weights."""
    weights: npt.NDArray[np.float64]
    """Of the languages."""


def train(texts: Iterable[str], folder: Path, options: TrainOptions | None = None) -> Tokenizer:
    """Train on ``texts`` (held in memory) and write ``tokenizer.model`` and ``tokenizer.json`` to ``folder``.

    The same texts give the same model in any order, wherever and on however many cores, and the one that
    :mod:`pipelines.count_words` and :func:`train_counted` would make of them. Raises :class:`TokenizerError` if the
    options make no sense or the texts hold too little for the vocabulary.
    """
    options = options or TrainOptions()
    check_options(options)
    tokenizer = train_counted(count_texts(texts), options)
    tokenizer.save(folder)
    return tokenizer


def count_texts(texts: Iterable[str]) -> Counted:
    """Both passes of counting over texts of one language."""
    from tokenizer.counting import Survey, WordCounter  # compiled: only where words are counted

    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)]).astype(np.int64)
    data, same = np.frombuffer(b"".join(parts), np.uint8), np.zeros(len(parts), np.int32)
    survey, handed = Survey(), [pa.table({"word": pa.array([], pa.binary()), "count": pa.array([], pa.int64())})]
    survey.add(data, offsets, same)
    counter = WordCounter(joined_pairs(*survey.pairs()), lambda words: handed.append(words_table(words)))
    counter.add(data, offsets, same)
    counter.flush()
    return Counted(*sum_words(pa.concat_tables(handed)), survey.characters, np.ones(1))


def words_table(words: Words) -> pa.Table:
    """Columns ``word`` and ``count``."""
    offsets = pa.array(words.ends.astype(np.int32)).buffers()[1]
    column = pa.Array.from_buffers(pa.binary(), len(words.counts), [None, offsets, pa.py_buffer(words.letters)])
    return pa.table({"word": column, "count": words.counts})


def sum_words(table: pa.Table) -> tuple[pa.Array, Integers]:
    """Different words and the sums of their counts."""
    summed = table.group_by("word", use_threads=False).aggregate([("count", "sum")])
    return summed.column("word").combine_chunks(), summed.column("count_sum").to_numpy()


def rare_below(counts: Integers) -> int:
    """How often two Han characters must have met to stay together, from the counts of all pairs; 1 if always."""
    return max(1, int(counts.sum()) // PAIRS_PER_RARE)


def joined_pairs(pairs: Integers, counts: Integers) -> Integers | None:
    """The Han neighbours that stay together in words; None if all do."""
    bound = rare_below(counts)
    return None if bound == 1 else pairs[counts >= bound]


def train_counted(counted: Counted, options: TrainOptions) -> Tokenizer:
    """Train on counted words; raises :class:`TokenizerError` if they hold too little for the vocabulary."""
    if not len(counted.words):
        raise TokenizerError("there is no text to train a tokenizer on; give documents that are not empty.")
    if options.longest_han:
        counted = _with_short_han(counted, options.longest_han)
    if options.model_type == "unigram":  # adds up its probabilities in the order of the words
        order = pc.sort_indices(counted.words)
        counted = counted._replace(words=counted.words.take(order), counts=counted.counts[order.to_numpy()])
    return Tokenizer(_train(counted, options), options.pad_multiple)


def training_memory(words: int, word_bytes: int, options: TrainOptions) -> int:
    """Bytes that the process needs at its peak to train on so many different words (figures: docs/lab-notes.md)."""
    per_byte = 60 if options.model_type == "unigram" else 26 + options.vocab_size / 12_500
    return 400_000_000 + int(word_bytes * per_byte) + 110 * words


def last_merge(tokenizer: Tokenizer, counted: Counted) -> int:
    """How often the piece that BPE made last stands in the words: no piece that it might have made is more frequent.

    (No later merge can have used it up.) 0 for other models.
    """
    merged = [piece for piece in range(RESERVED, tokenizer.pieces) if len(tokenizer.piece(piece)) > 1]
    if tokenizer.kind != "bpe" or not merged:
        return 0
    total = 0
    for start in range(0, len(counted.words), _SLICE):
        ids, offsets = tokenizer.encode_batch(counted.words[start : start + _SLICE])
        found = np.searchsorted(offsets, np.flatnonzero(ids == merged[-1]), side="right") - 1
        total += int(counted.counts[start + found].sum())
    return total


def cut_han(word: str, longest: int) -> list[str]:
    """Cut runs of Han characters into parts of at most ``longest``, from which no longer piece can be learnt.

    The first part of a run is 1 to ``longest`` characters long by a hash of the run, so that every pair of neighbours
    stays together in all but one of ``longest`` words.
    """
    parts: list[str] = []
    for run in _HAN_OR_OTHER.findall(word):
        if not _HAN.match(run):
            parts.append(run)
            continue
        first = 1 + xxhash.xxh3_64_intdigest(run.encode()) % longest
        parts += [run[:first], *(run[place : place + longest] for place in range(first, len(run), longest))]
    return parts


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


def _with_short_han(counted: Counted, longest: int) -> Counted:
    parts: list[bytes] = []
    counts: list[int] = []
    for word, count in zip(counted.words.to_pylist(), counted.counts.tolist(), strict=True):
        cut = [part.encode() for part in cut_han(word.decode("utf-8", "replace"), longest)]
        parts += cut
        counts += [count] * len(cut)
    table = pa.table({"word": pa.array(parts, pa.binary()), "count": pa.array(counts, pa.int64())})
    return counted._replace(**dict(zip(("words", "counts"), sum_words(table), strict=True)))


def _tsv(counted: Counted) -> Iterator[bytes]:
    for start in range(0, len(counted.words), _SLICE):
        part = slice(start, start + _SLICE)
        for word, count in zip(counted.words[part].to_pylist(), counted.counts[part].tolist(), strict=True):
            yield b"%b\t%d" % (word, count)


def _train(counted: Counted, options: TrainOptions) -> bytes:
    room = (options.vocab_size - RESERVED) // 2
    required = required_characters(counted.characters, counted.weights, options.character_coverage, room)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_tsv(counted),
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
    "input_format": "tsv",
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "byte_fallback": True,
    "split_digits": True,
    "split_by_unicode_script": False,  # words are cut where scripts meet, but for a sign before letters
    "character_coverage": 0.98,  # the least that the trainer takes: required_chars decides
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
