"""What the walk over a text counts and keeps in mind: the columns of its counts, and the places of its state."""

from __future__ import annotations

from glm_data.text.lines import FREE, LINE_COUNTS

CLASSES = (
    "han",
    "kana",
    "hangul",
    "latin",
    "letter",
    "digit",
    "space",
    "punctuation",
    "symbol",
    "garbled",
    "control",
    "ruler",
)
CHARACTER_COUNTS = (*CLASSES, "simplified", "traditional", "misread", "words", "hashes", "function_words")
TOKEN_COUNTS = (
    "tokens", "han_tokens", "word_tokens", "word_token_characters", "letter_tokens", "english_stops", "chinese_stops",
    "token_text",
)  # fmt: skip
"""A token is a Han or kana character, a run of one mark, or a run of letters and digits: with ``_`` and ``.`` in it,
``,`` between digits, and begun anew by an apostrophe before a letter (``don't`` is ``don`` and ``'t``)."""

RULER = CLASSES.index("ruler")
SIMPLIFIED, TRADITIONAL, MISREAD, WORDS, HASHES, FUNCTION = range(len(CLASSES), len(CHARACTER_COUNTS))
_OF_TOKENS = len(CHARACTER_COUNTS)
ALL_TOKENS, HAN_TOKENS, WORD_TOKENS, WORD_CHARACTERS, LETTER_TOKENS, ENGLISH, CHINESE, TEXT = range(
    _OF_TOKENS, _OF_TOKENS + len(TOKEN_COUNTS)
)
OF_LINES = _OF_TOKENS + len(TOKEN_COUNTS)
OF_MARKS = OF_LINES + len(LINE_COUNTS)
"""The columns where each kind of counts begins."""

BEFORE, KIND, SOLID_BEFORE, STORED, TEXT_END, FIRST, CONTROLS, HAS_LETTER = range(FREE, FREE + 8)
FOUND, LINE, LINE_FIRST, PHRASE = range(FREE + 8, FREE + 12)
"""Places of the state: the character before and its class, the solid one before; tokens kept, and characters up to the
last of them; of the word so far its first character, the controls in it and whether it has a letter; the function words
found, a bit each; the line's first byte and character; where the next phrase may end."""

STOP_SLOTS = 1 << 11
"""Slots of the table of function words, each of which has one to itself; its highest byte is the number."""
GOPHER = 9
"""Function words numbered below ``GOPHER`` are those of its rules; ``GOPHER`` are all others."""
FIRST_CHINESE = 16
"""The number of the first of the stop words for Chinese."""
