"""Characters that do not show, or steer what shows them, spelt out: foreign text made safe to look at.

Terminal and pages share this: control characters, overrides of the writing direction, private use, lone surrogates and
letters that are blank become escapes such as ``\\u202e``. What scripts and emoji are joined with stays.
"""

from __future__ import annotations

import unicodedata

_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_JOINERS = "\u200c\u200d"
_SIGNS = {ord(" "): "·", ord("\t"): "⇥", ord("\n"): "⏎"}


def is_hidden(letter: str) -> bool:
    """Whether a character has to be spelt out to be seen; white space has signs of its own, line ends and tabs too."""
    if letter in _JOINERS:
        return False
    return unicodedata.category(letter) in _CATEGORIES or letter in _BLANK_LETTERS


def is_plain(text: str) -> bool:
    """Whether nothing in ``text`` is hidden, found without looking at each character; False may be a false alarm."""
    return text.isprintable() and _BLANK_LETTERS.isdisjoint(text)


def spell(letters: str) -> str:
    """Each of ``letters`` as its escape: ``\\u202e``, ``\\U000e0041``."""
    return "".join(f"\\u{ord(letter):04x}" if letter < "\U00010000" else f"\\U{ord(letter):08x}" for letter in letters)


def spell_hidden(text: str, keep: str = "\t\n") -> str:
    """``text`` with what is hidden spelt out; ``keep`` stays as it is."""
    if is_plain(text.translate(dict.fromkeys(map(ord, keep)))):
        return text
    return "".join(spell(letter) if letter not in keep and is_hidden(letter) else letter for letter in text)


def sign_blanks(text: str) -> str:
    """``text`` with spaces, tabs and line ends as the signs ``·``, ``⇥`` and ``⏎``."""
    return text.translate(_SIGNS)
