"""Which language a document is in: by script first, among languages in Latin script by votes of pycld2 and, if the user
has one, of a fastText model.

Han characters and Latin words are weighed alike, so that a Chinese article about software stays Chinese and one with
longer passages in English is ``mixed``.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.filters import fasttext
from glm_data.filters.options import Language
from glm_data.text.statistics import COUNTS

LANGUAGES: tuple[str, ...] = get_args(Language)
_HANS, _HANT, _EN, _JA, _KO, _MIXED, _OTHER = range(len(LANGUAGES))

MOSTLY = 0.5
"""Share of the units (Han characters, kana, Hangul, words) from which a script names the language."""

SOME = 0.1
"""Share from which Chinese beside Latin words makes a document ``mixed``."""

KANA = 0.1
"""Share of kana among kana and Han characters from which these are Japanese."""

_LETTERS_A_WORD = 5
"""Letters of a word in scripts whose words are not counted."""

_STOPS = 4
"""Of eight function words of English (``statistics.GOPHER_STOPS``), those that leave no doubt."""

_ENGLISH_SHARE = 0.3
"""Share of function words of English among the words that leaves no doubt either: of running text they are nearly
half; of texts in Dutch, Portuguese or Italian, which spell some of theirs so, about a tenth."""

_VOTE_BYTES = 2048
_VOTE_PERCENT = 60
_SURE = 0.6
"""Share of its label from which a fastText model is believed."""
_ENGLISH_LABELS = ("en", "eng")
"""How models call English: lid.176, and GlotLID and NLLB before the script."""
_ENGLISH_WORDS = (b" the ", b" of ", b" and ")
_WORDS_BYTES = 200
"""One of these words in so many bytes makes a text English."""
_SHORTEST_VOTE = 200
"""Bytes below which pycld2 guesses."""

_WORD_COUNTS = ("english_stops", "function_words", "word_tokens")


def detect(texts: pa.StringArray, counts: NDArray[np.int64], model: fasttext.Model | None = None) -> NDArray[np.int8]:
    """The index in :data:`LANGUAGES` of every text: ``int8[documents]``; ``counts`` are those of ``statistics``.

    Where ``model`` is sure it decides whether a text in Latin script is English; pycld2 does where it is not.
    """
    languages = by_script(counts)
    stops, function_words, words = (counts[:, COUNTS.index(name)] for name in _WORD_COUNTS)
    is_plain = (stops >= _STOPS) | (function_words >= _ENGLISH_SHARE * np.maximum(words, 1))
    for row in np.flatnonzero((languages == _EN) & ~is_plain).tolist():
        text = texts[row].as_buffer()
        english = is_english(text, model) if model else None
        if is_foreign(text) if english is None else not english:
            languages[row] = _OTHER
    return languages


def is_english(text: pa.Buffer, model: fasttext.Model) -> bool | None:
    """What ``model`` says of the first 2 KiB of a text (UTF-8); None if it is not sure, or the text too short."""
    if text.size < _SHORTEST_VOTE:
        return None
    vote = fasttext.predict(model, bytes(text[:_VOTE_BYTES]).replace(b"\n", b" "))
    return vote.label.split("_")[0] in _ENGLISH_LABELS if vote.share >= _SURE else None


def by_script(counts: NDArray[np.int64]) -> NDArray[np.int8]:
    """The index in :data:`LANGUAGES` by script alone: all Latin script counts as English."""
    column = dict(zip(COUNTS, counts.T.astype(np.float64), strict=True))
    han, kana, hangul = (column[name] for name in ("han", "kana", "hangul"))
    other = column["letter"] / _LETTERS_A_WORD
    units = np.maximum(units_of(counts), 1e-9)
    is_japanese = (kana >= KANA * (kana + han)) & (kana + han >= MOSTLY * units) & (kana > 0)
    chinese = np.where(column["traditional"] > column["simplified"], _HANT, _HANS)
    conditions = [
        units < 1e-6,
        hangul >= MOSTLY * units,
        is_japanese,
        han >= MOSTLY * units,
        other + kana + hangul >= MOSTLY * units,
        han >= SOME * units,
    ]
    choices: list[Any] = [_OTHER, _KO, _JA, chinese, _OTHER, _MIXED]
    languages: NDArray[np.int8] = np.select(conditions, choices, _EN).astype(np.int8)
    return languages


def units_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What scripts are weighed by: Han characters, kana, Hangul and words, ``float64[documents]``."""
    column = {name: counts[:, COUNTS.index(name)] for name in ("han", "kana", "hangul", "words", "letter")}
    units = sum(column.values()) - column["letter"] * (1 - 1 / _LETTERS_A_WORD)
    return np.asarray(units, np.float64)


def is_foreign(text: pa.Buffer) -> bool:
    """Whether pycld2 is sure that a text (UTF-8) in Latin script is in a language other than English.

    The first 2 KiB vote, unless function words of English settle it; code, lists and short texts, of which it is not
    sure, are taken for English.
    """
    import pycld2

    if text.size < _SHORTEST_VOTE:
        return False
    head = bytes(text[:_VOTE_BYTES])
    if sum(map(head.count, _ENGLISH_WORDS)) * _WORDS_BYTES >= len(head):
        return False
    head = head.decode("utf-8", "ignore").encode()
    try:
        reliable, _, details = pycld2.detect(head, isPlainText=True)
    except pycld2.error:  # bytes that it takes for no text
        return False
    return bool(reliable and details[0][1] not in ("en", "un") and details[0][2] >= _VOTE_PERCENT)
