"""Signals of documents, measured by compiled walks over a block's UTF-8.

Lines are what ``\\n`` parts, stripped of white space; blank ones do not count, and part paragraphs. Of a run of one
punctuation mark or symbol only the first counts as such; the rest is a ruler, as are the lines of tables and the
underlines of titles. Tokens are Han and kana characters, runs of letters and digits, and runs of one mark
(:func:`glm_data.text.counting.count_tokens`); words are tokens, of which a Han character is 1 / 1.8. A share of nothing
is 0. tests/signal_twin.py defines every signal in plain Python.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.kernels import compiled
from glm_data.text import character_grams, counting, lines, marks, repetition
from glm_data.text.characters import character_table
from glm_data.text.machine import further, pointer

REPETITION_COUNTS = (
    *(f"top_{size}_gram_characters" for size in repetition.TOP),
    *(f"duplicate_{size}_gram_characters" for size in repetition.DUPLICATE),
    *("places_5", "repeated_5", "places_10", "repeated_10"),
)
CHARACTER_REPETITION_COUNTS = ("grams_of_3", "frequent_of_3", "grams_of_10", "frequent_of_10")
COUNTS = (
    *counting.CHARACTER_COUNTS,
    *counting.TOKEN_COUNTS,
    *lines.LINE_COUNTS,
    *marks.MARK_COUNTS,
    *repetition.GRAM_COUNTS,
    *REPETITION_COUNTS,
    *CHARACTER_REPETITION_COUNTS,
)
"""What the kernels count; the classes of characters stand first, in the order of their numbers."""

_TEXT, _GRAMS, _REPETITION = (COUNTS.index(name) for name in ("token_text", "grams", REPETITION_COUNTS[0]))

GOPHER_STOPS = ("the", "be", "to", "of", "and", "that", "have", "with")
CHINESE_STOPS = "的年在月是和日了於為有被人中为他與後也而由"
"""The stop words of the Gopher rules, and those that FineWeb-2 put in their place for Chinese, without ``·``."""

FUNCTION_WORDS = (
    "a", "about", "after", "all", "also", "am", "an", "any", "are", "as", "at", "because", "been", "before", "being",
    "between", "both", "but", "by", "can", "could", "did", "do", "does", "down", "during", "each", "few", "for", "from",
    "further", "had", "has", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "it",
    "its", "just", "may", "me", "might", "more", "most", "must", "my", "no", "nor", "not", "now", "off", "on", "once",
    "only", "or", "other", "our", "ours", "out", "over", "own", "same", "shall", "she", "should", "so", "some", "such",
    "than", "their", "them", "then", "there", "these", "they", "this", "those", "through", "too", "under", "until",
    "up", "upon", "us", "very", "was", "we", "were", "what", "when", "where", "which", "while", "who", "whom", "why",
    "will", "would", "you", "your", "yours",
)  # fmt: skip
"""Further function words of English, of up to seven letters."""

SIGNALS = {
    "characters": "code points",
    "han": "Han characters",
    "words": "runs of Latin letters",
    "lines": "lines that are not blank",
    "paragraphs": "what blank lines part",
    "letter_share": "letters of all scripts / solid characters: neither white space nor ruler",
    "han_share": "Han characters / letters of all scripts",
    "digit_share": "digits / solid characters",
    "punctuation_share": "punctuation / solid characters",
    "symbol_share": "symbols / solid characters",
    "space_share": "white space / characters",
    "garbled_share": "U+FFFD, private-use and unassigned characters / solid characters",
    "misread_share": "Han characters that mistaken encodings leave (UTF-8 as GBK and the reverse) / Han characters",
    "alphanumeric_share": "letters and digits / characters",
    "special_share": "characters other than letters / characters",
    "mean_word_length": "Latin letters / runs of them",
    "mean_line_length": "characters of lines / lines",
    "longest_line": "characters of the longest line",
    "end_mark_share": "lines that end in one of .!?。！？… (before closing quotes and brackets) / lines",
    "terminal_share": "lines whose last character ends a sentence in some script / lines (FineWeb)",
    "bullet_share": "lines that begin with a bullet / lines",
    "ellipsis_share": "lines that end in … or ... / lines",
    "short_line_share": "lines of at most 30 characters, indentation included / lines (FineWeb)",
    "title_share": "lines of at most 40 characters without an end mark, comma or colon / lines",
    "duplicate_line_share": "characters of lines that repeat an earlier line / characters of lines",
    "repeated_gram_share": "13-character grams that repeat an earlier one / grams, of solid characters",
    "gopher_words": "words that are not marks; a Han character is 1 / 1.8 word",
    "gopher_word_length": "characters of these words / these words",
    "gopher_letter_share": "words with a letter / words, marks included",
    "gopher_hashes": "# / words",
    "gopher_ellipses": "... and … / words",
    "gopher_bullet_share": "lines that begin with • or - / lines, blank ones included",
    "gopher_ellipsis_share": "lines that end in … or ... / lines, blank ones included",
    "gopher_stop_words": "how many of the, be, to, of, and, that, have, with it holds, in lower case",
    "chinese_stop_words": "how many of FineWeb-2's 21 stop words for Chinese it holds",
    "function_word_share": "function words of English and Chinese / tokens that are not marks",
    "newlines_a_word": "newlines / words, marks included (FineWeb)",
    "duplicate_lines": "lines that repeat an earlier one / lines",
    "duplicate_paragraphs": "paragraphs that repeat an earlier one / paragraphs",
    "duplicate_line_text": "characters of lines that repeat an earlier one / characters",
    "duplicate_paragraph_text": "characters of paragraphs that repeat an earlier one / characters",
    **{f"top_{n}_gram": f"characters of the most frequent {n}-gram of words / characters" for n in (2, 3, 4)},
    **{f"duplicate_{n}_grams": f"characters of {n}-grams of words met before / characters" for n in range(5, 11)},
    "word_repetition_5": "5-grams of words that are found more than once / 5-grams",
    "word_repetition_10": "10-grams of words that are found more than once / 10-grams",
    "character_repetition_3": "3-character grams found more than once, of the most frequent / grams (ROOTS, Chinese)",
    "character_repetition_10": "10-character grams found more than once, of the most frequent / grams (ROOTS, English)",
    "c4_paper_sentences": "sentences of the lines that C4 keeps by the paper: of 3 words, ending in . ! ? or a quote",
    "c4_paper_banned": "such lines with a curly bracket or lorem ipsum, for which C4 drops the page",
    "c4_tfds_sentences": "the same by the code of TensorFlow Datasets: of 5 words",
    "c4_tfds_banned": "such lines with a curly bracket or lorem ipsum",
    "links": "http://, https:// and www.",
    "link_share": "characters of links / characters",
    "advertisement_marks": "phrases of shops, advertisements and page frames",
    "advertisement_density": "such phrases / 1000 solid characters",
}  # fmt: skip
"""The signals that the kernels measure, and what each is."""


def utf8_buffers(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of a string array and its ``int64[len + 1]`` offsets into them, without a copy of the bytes.

    The bytes are read-only, whatever Arrow's buffer is, so that kernels are compiled for one type alone.
    """
    _, offsets, data = texts.buffers()
    view = np.frombuffer(data or b"", np.uint8)
    view.flags.writeable = False
    if len(texts) == 0:
        return view, np.zeros(1, np.int64)
    return view, np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4).astype(np.int64)


def count(texts: pa.StringArray) -> NDArray[np.int64]:
    """Count everything in :data:`COUNTS`: ``int64[documents, counts]``."""
    data, offsets = utf8_buffers(texts)
    counts = np.zeros((len(texts), len(COUNTS)), np.int64)
    if len(texts):
        newlines = lines.most_newlines(data, offsets)
        _count_all(
            data, offsets, character_table(), *_stop_tables(), marks.phrase_table(), counts,
            repetition.scratch_for(newlines), repetition.WORD_SIZES, repetition.HAN_SIZES,
        )  # fmt: skip
    return counts


@lru_cache(maxsize=1)
def _stop_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """A multiplier that gives each English function word a slot to itself, and the slots: a word's bytes and above them
    its number; and the number of each Chinese stop word."""
    numbers = {word: number for number, word in enumerate(GOPHER_STOPS, 1)}
    words = (*GOPHER_STOPS, *FUNCTION_WORDS)
    packed = np.array([int.from_bytes(word.encode(), "little") for word in words], np.uint64)
    multipliers = np.random.default_rng(0).integers(1, 1 << 63, 10_000, np.uint64) | np.uint64(1)
    slots = next(
        (multiplier, places)
        for multiplier in multipliers
        if len(np.unique(places := packed * multiplier >> np.uint64(64 - _STOP_BITS))) == len(words)
    )
    table = np.zeros(1 + counting.STOP_SLOTS, np.uint64)
    table[0] = slots[0]
    numbered = np.array([numbers.get(word, counting.GOPHER) for word in words], np.uint64)
    table[1 + slots[1].astype(np.int64)] = packed | numbered << np.uint64(56)
    han = np.full(0x10000, 0, np.uint8)
    han[[ord(character) for character in CHINESE_STOPS]] = np.arange(len(CHINESE_STOPS)) + counting.FIRST_CHINESE
    return table, han


_STOP_BITS = counting.STOP_SLOTS.bit_length() - 1


@compiled
def _count_all(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], table: NDArray[np.uint16], stops: NDArray[np.uint64],
    han_stops: NDArray[np.uint8], phrases: Any, counts: NDArray[np.int64], scratch: Any,
    word_sizes: NDArray[np.int64], han_sizes: NDArray[np.int64],
) -> None:  # fmt: skip
    text, tables = (pointer(data), data.shape[0]), (pointer(table), pointer(stops), pointer(han_stops))
    found, work = counting.point_at_phrases(phrases), repetition.point_at(scratch)
    of_words, of_han = pointer(word_sizes), pointer(han_sizes)
    for row in range(counts.shape[0]):
        start, end, own = offsets[row], offsets[row + 1], further(pointer(counts), row * counts.shape[1])
        solid, tokens = counting.count_text(*text, start, end, *tables, found, own, work)
        is_han = 2 * own[counting.HAN_TOKENS] > own[counting.ALL_TOKENS]
        is_long = end - start > repetition.LONG_BYTES
        repetition.count_grams_of_13(work, solid, is_long, further(own, _GRAMS))
        repetition.count_repetition(work, tokens, of_han if is_han else of_words, own, _REPETITION)
        used = min(own[_TEXT], repetition.CHARACTERS)
        character_grams.count_character_repetition(work, used, own, _REPETITION + len(REPETITION_COUNTS))


class Tokens(NamedTuple):
    """The first tokens of each document, hashed: ``values: uint64[tokens]``, ``offsets: int64[documents + 1]``."""

    values: NDArray[np.uint64]
    offsets: NDArray[np.int64]


def tokenize(texts: pa.StringArray) -> Tokens:
    """Cut texts into tokens as :func:`count` does: of each text the first :data:`glm_data.text.repetition.TOKENS`."""
    data, bounds = utf8_buffers(texts)
    sizes = np.minimum(np.diff(bounds), repetition.TOKENS)
    values, offsets = np.zeros(int(sizes.sum()), np.uint64), np.zeros(len(texts) + 1, np.int64)
    if len(texts):
        newlines = lines.most_newlines(data, bounds)
        scratch = repetition.scratch_for(newlines)
        _tokenize(data, bounds, character_table(), *_stop_tables(), marks.phrase_table(), scratch, values, offsets)
    return Tokens(values[: offsets[-1]], offsets)


@compiled
def _tokenize(
    data: NDArray[np.uint8], bounds: NDArray[np.int64], table: NDArray[np.uint16], stops: NDArray[np.uint64],
    han_stops: NDArray[np.uint8], phrases: Any, scratch: Any, values: NDArray[np.uint64], offsets: NDArray[np.int64],
) -> None:  # fmt: skip
    text, tables = (pointer(data), data.shape[0]), (pointer(table), pointer(stops), pointer(han_stops))
    found, work, unused = counting.point_at_phrases(phrases), repetition.point_at(scratch), np.zeros(len(COUNTS), np.int64)
    for row in range(offsets.shape[0] - 1):
        first = offsets[row]
        _, used = counting.count_text(*text, bounds[row], bounds[row + 1], *tables, found, pointer(unused), work)
        values[first : first + used] = scratch.tokens[:used]
        offsets[row + 1] = first + used


# --- signals ----------------------------------------------------------------------------------------------------------


def derive(counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The signals of :data:`SIGNALS`, by name, from :func:`count`'s counts: ``float64[documents]`` each."""
    column = dict(zip(COUNTS, counts.T.astype(np.float64), strict=True))
    characters = _sum(column, counting.CLASSES)
    signals = {
        **{name: column[name] for name in ("han", "words", "lines", "paragraphs", "longest_line", "links")},
        **{name: column[name] for name in marks.MARK_COUNTS if name in SIGNALS},
        "characters": characters,
        "gopher_stop_words": column["english_stops"],
        "chinese_stop_words": column["chinese_stops"],
        **_shares_of_characters(column, characters),
        **_shares_of_lines(column),
        **_shares_of_words(column),
        **_repetition(column, characters),
    }
    return {name: signals[name] for name in SIGNALS}


def _sum(column: dict[str, NDArray[np.float64]], names: tuple[str, ...]) -> NDArray[np.float64]:
    return np.sum([column[name] for name in names], axis=0)


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _shares_of_characters(
    column: dict[str, NDArray[np.float64]], characters: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    solid = characters - column["space"] - column["ruler"]
    letters = _sum(column, ("han", "kana", "hangul", "latin", "letter"))
    return {
        **{f"{name}_share": _share(column[name], solid) for name in ("digit", "punctuation", "symbol", "garbled")},
        "letter_share": _share(letters, solid),
        "han_share": _share(column["han"], letters),
        "space_share": _share(column["space"], characters),
        "misread_share": _share(column["misread"], column["han"]),
        "alphanumeric_share": _share(letters + column["digit"], characters),
        "special_share": _share(characters - letters, characters),
        "mean_word_length": _share(column["latin"], column["words"]),
        "link_share": _share(column["link_characters"], characters),
        "advertisement_density": 1000 * _share(column["advertisement_marks"], solid),
    }


def _shares_of_lines(column: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    lines = column["lines"]
    with_blank = np.where(lines > 0, column["newlines"] + 1, 0)
    return {
        **{f"{name}_share": _share(column[f"{name}_lines"], lines)
           for name in ("end_mark", "terminal", "bullet", "ellipsis", "title")},
        "short_line_share": _share(column["short_lines"], lines),
        "mean_line_length": _share(column["line_characters"], lines),
        "duplicate_line_share": _share(column["duplicate_line_characters"], column["line_characters"]),
        "duplicate_lines": _share(column["duplicate_lines"], lines),
        "duplicate_paragraphs": _share(column["duplicate_paragraphs"], column["paragraphs"]),
        "gopher_bullet_share": _share(column["dash_lines"], with_blank),
        "gopher_ellipsis_share": _share(column["ellipsis_lines"], with_blank),
    }  # fmt: skip


def _shares_of_words(column: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    excess = column["han_tokens"] * (1 - 1 / repetition.HAN_CHARACTERS_A_WORD)
    words, solid = column["tokens"] - excess, column["word_tokens"] - excess
    return {
        "gopher_words": solid,
        "gopher_word_length": _share(column["word_token_characters"], solid),
        "gopher_letter_share": _share(column["letter_tokens"] - excess, words),
        "gopher_hashes": _share(column["hashes"], words),
        "gopher_ellipses": _share(column["ellipses"], words),
        "newlines_a_word": _share(column["newlines"], words),
        "function_word_share": _share(column["function_words"], column["word_tokens"]),
    }


def _repetition(
    column: dict[str, NDArray[np.float64]], characters: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    text = column["token_text"]
    return {
        **{f"top_{n}_gram": _share(column[f"top_{n}_gram_characters"], text) for n in repetition.TOP},
        **{f"duplicate_{n}_grams": _share(column[f"duplicate_{n}_gram_characters"], text) for n in range(5, 11)},
        **{f"word_repetition_{n}": _share(column[f"repeated_{n}"], column[f"places_{n}"]) for n in (5, 10)},
        **{f"character_repetition_{n}": _share(column[f"frequent_of_{n}"], column[f"grams_of_{n}"]) for n in (3, 10)},
        "repeated_gram_share": _share(column["repeated_grams"], column["grams"]),
        "duplicate_line_text": _share(column["duplicate_line_characters"], characters),
        "duplicate_paragraph_text": _share(column["duplicate_paragraph_characters"], characters),
    }  # fmt: skip


def measure(texts: pa.StringArray) -> dict[str, NDArray[np.float64]]:
    """The signals of every text, by name: ``float64[documents]`` each."""
    return derive(count(texts))
