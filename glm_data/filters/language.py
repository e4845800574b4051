"""Which language a document is in: by script first, by pycld2 among languages in Latin script.

Han characters and Latin words are weighed alike, so that a Chinese article about software stays Chinese and one with
longer passages in English is ``mixed``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.text.statistics import COUNTS

LANGUAGES = ("zh-Hans", "zh-Hant", "en", "ja", "ko", "mixed", "other")
_HANS, _HANT, _EN, _JA, _KO, _MIXED, _OTHER = range(len(LANGUAGES))

MOSTLY = 0.5
"""Share of the units (Han characters, kana, Hangul, words) from which a script names the language."""

SOME = 0.1
"""Share from which Chinese beside Latin words makes a document ``mixed``."""

KANA = 0.1
"""Share of kana among kana and Han characters from which these are Japanese."""

_STOPS = 4
"""Of eight function words of English (``statistics.GOPHER_STOPS``), those that leave no doubt."""

_VOTE_BYTES = 2048
_VOTE_PERCENT = 60
_ENGLISH_WORDS = (b" the ", b" of ", b" and ")
_WORDS_BYTES = 200
"""One of these words in so many bytes makes a text English."""
_SHORTEST_VOTE = 200
"""Bytes below which pycld2 guesses."""


def detect(texts: pa.StringArray, counts: NDArray[np.int64]) -> NDArray[np.int8]:
    """The index in :data:`LANGUAGES` of every text: ``int8[documents]``; ``counts`` are those of ``statistics``."""
    languages = by_script(counts)
    is_plain = counts[:, COUNTS.index("english_stops")] >= _STOPS
    for row in np.flatnonzero((languages == _EN) & ~is_plain).tolist():
        if is_foreign(texts[row].as_buffer()):
            languages[row] = _OTHER
    return languages


def by_script(counts: NDArray[np.int64]) -> NDArray[np.int8]:
    """The index in :data:`LANGUAGES` by script alone: all Latin script counts as English."""
    column = dict(zip(COUNTS, counts.T.astype(np.float64), strict=True))
    han, kana, hangul, words = (column[name] for name in ("han", "kana", "hangul", "words"))
    other = column["letter"] / 5  # letters of a word
    units = np.maximum(han + kana + hangul + words + other, 1e-9)
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
