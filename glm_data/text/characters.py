"""Classes of characters as one table over the Basic Multilingual Plane, for kernels that walk UTF-8.

An entry of the table is a class in its low four bits, and marks above them. Planes beyond are classed by rule: Han
in 2 and 3, symbols (emoji) in 1, letters elsewhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import inlined

HAN, KANA, HANGUL, LATIN, LETTER, DIGIT, SPACE, PUNCTUATION, SYMBOL, GARBLED, CONTROL = range(11)
"""Classes. ``LETTER`` is a letter of any other script; ``GARBLED`` U+FFFD, private use and unassigned."""

CLASS_BITS = 0xF
END_MARK, CLOSER, BULLET, SIMPLIFIED, TRADITIONAL = 0x10, 0x20, 0x40, 0x80, 0x100
TERMINAL, CLAUSE_MARK, DASH, MISREAD, FUNCTION = 0x200, 0x400, 0x800, 0x1000, 0x2000
"""Marks. ``CLOSER``: quotes and brackets that may follow an end mark. ``SIMPLIFIED``, ``TRADITIONAL``: characters that
OpenCC changes on the way to the other script, so that they tell which one a text is in. ``TERMINAL``: ends a sentence
in any script, as FineWeb counts it. ``CLAUSE_MARK``: commas, colons and semicolons. ``DASH``: bullets as Gopher counts
them. ``MISREAD``: what Chinese in UTF-8 becomes when read as GBK, and the reverse. ``FUNCTION``: Han characters that
are function words."""

END_MARKS = ".!?。！？…．｡"
CLAUSE_MARKS = ",;:，、；："
DASHES = "•-"
FUNCTION_CHARACTERS = (
    "的了是在和有不我他她你它们們这這那就也都而及与與着著或把被从從对對到以为為会會之其于於但并並还還很吗嗎呢吧"
)
_TERMINALS = (
    0x21, 0x2E, 0x3F, 0x589, *range(0x61D, 0x620), 0x6D4, *range(0x700, 0x703), 0x7F9, 0x837, 0x839, 0x83D, 0x83E,
    0x964, 0x965, 0x104A, 0x104B, 0x1362, 0x1367, 0x1368, 0x166E, 0x1735, 0x1736, *range(0x17D4, 0x17D7), 0x17D9,
    0x17DA, 0x1803, 0x1809, 0x1944, 0x1945, *range(0x1AA8, 0x1AAC), 0x1B5A, 0x1B5B, 0x1B5E, 0x1B5F, 0x1B7D, 0x1B7E,
    0x1C3B, 0x1C3C, 0x1C7E, 0x1C7F, 0x203C, 0x203D, *range(0x2047, 0x204A), 0x2E2E, 0x2E3C, 0x2E53, 0x2E54, 0x3002,
    0xA4FF, 0xA60E, 0xA60F, 0xA6F3, 0xA6F7, 0xA876, 0xA877, 0xA8CE, 0xA8CF, 0xA92F, 0xA9C8, 0xA9C9,
    *range(0xAA5D, 0xAA60), 0xAAF0, 0xAAF1, 0xABEB, 0xFE52, 0xFE56, 0xFE57, 0xFF01, 0xFF0E, 0xFF1F, 0xFF61,
)  # fmt: skip
"""Unicode's sentence terminals of the plane."""
_COMMON = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然"
    "家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十"
    "民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月"
    "话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四"
    "神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非"
    "则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识"
    "，。、：；！？“”（）《》"
)
CLOSERS = "\"'”’»)]}」』）】》〉］｝"
BULLETS = "•-*+·●○■□▪◆◇▶►–—※★☆"

FIRST_OF_HAN, LAST_OF_HAN = 0xE4, 0xE9
"""First bytes of U+4000 to U+9FFF in UTF-8: of most Han characters, and a few symbols."""

_HAN_RANGES = ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))
_KANA_RANGES = ((0x3041, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D))
_HANGUL_RANGES = ((0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7A3))
_SCRIPTS = ((HAN, _HAN_RANGES), (KANA, _KANA_RANGES), (HANGUL, _HANGUL_RANGES))
_BY_CATEGORY = {"L": LETTER, "M": LETTER, "N": DIGIT, "P": PUNCTUATION, "S": SYMBOL, "Z": SPACE}


def classify(character: str) -> int:
    """The class of one character."""
    point = ord(character)
    if point > 0xFFFF:
        return HAN if 0x20000 <= point < 0x40000 else SYMBOL if point < 0x20000 else LETTER
    if character in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85":
        return SPACE
    for script, ranges in _SCRIPTS:
        if any(first <= point <= last for first, last in ranges) and character != "〆":
            return script
    category = unicodedata.category(character)
    if character == "\ufffd" or category in ("Co", "Cn", "Cs"):
        return GARBLED
    if category[0] == "C" or 0xFE00 <= point <= 0xFE0F:  # variation selectors belong to the character before
        return CONTROL
    if category[0] in "LM" and ("LATIN" in unicodedata.name(character, "") or 0x0300 <= point <= 0x036F):
        return LATIN
    return _BY_CATEGORY[category[0]]


@lru_cache(maxsize=1)
def character_table() -> NDArray[np.uint16]:
    """``uint16[65536]``: class and marks of every character of the plane (0.1 s, once a process)."""
    table = np.array([classify(chr(point)) for point in range(0x10000)], np.uint16)
    simplified, traditional = script_characters()
    marked: tuple[tuple[Iterable[str], int], ...] = (
        (END_MARKS, END_MARK),
        (CLOSERS, CLOSER),
        (BULLETS, BULLET),
        (simplified, SIMPLIFIED),
        (traditional, TRADITIONAL),
        (map(chr, _TERMINALS), TERMINAL),
        (CLAUSE_MARKS, CLAUSE_MARK),
        (DASHES, DASH),
        (misread_characters(), MISREAD),
        (FUNCTION_CHARACTERS, FUNCTION),
    )
    for characters, bit in marked:
        table[[ord(character) for character in characters]] |= bit
    return table


@lru_cache(maxsize=1)
def misread_characters() -> frozenset[str]:
    """Han characters that rarely stand in Chinese but often in Chinese whose encoding was mistaken.

    They come of the commonest characters in UTF-8 read as GBK (``鐨`` of ``的``), or of U+FFFD and of memory that was
    never written read as GBK (``锟斤拷``, ``烫``, ``屯``); those of GB 2312's first level are common and
    left out.
    """
    pairs = (first + second for first in _COMMON[::7] for second in _COMMON)
    read = {character for pair in pairs for character in pair.encode().decode("gbk", "ignore")}
    return frozenset(character for character in read if not _is_common(character)) | frozenset("锟烫")


def _is_common(character: str) -> bool:
    """Whether a character is no Han character, or of the first level of GB 2312."""
    try:
        return classify(character) != HAN or character.encode("gb2312")[0] < 0xD8
    except UnicodeEncodeError:
        return False


@lru_cache(maxsize=1)
def script_characters() -> tuple[frozenset[str], frozenset[str]]:
    """The Han characters that only simplified and only traditional Chinese uses, by OpenCC's tables."""
    import opencc

    characters = [chr(point) for first, last in _HAN_RANGES[1:3] for point in range(first, last + 1)]
    lines = "\n".join(characters)
    to_simplified = opencc.OpenCC("t2s").convert(lines).split("\n")
    to_traditional = opencc.OpenCC("s2t").convert(lines).split("\n")
    traditional = {mine for mine, other in zip(characters, to_simplified, strict=True) if mine != other}
    simplified = {mine for mine, other in zip(characters, to_traditional, strict=True) if mine != other}
    return frozenset(simplified - traditional), frozenset(traditional - simplified)


@inlined
def decode_at(data: Any, position: int) -> Any:
    """The code point at ``position`` of valid UTF-8, and its number of bytes; ``data`` is an array or a pointer."""
    first = np.uint32(data[position])
    if first < 0x80:
        return first, 1
    second = np.uint32(data[position + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = np.uint32(data[position + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0xF) << 12 | second << 6 | third, 3
    return (first & 7) << 18 | second << 12 | third << 6 | np.uint32(data[position + 3]) & 0x3F, 4


@inlined
def entry_of(table: Any, point: Any) -> Any:
    """The table's entry of a code point of any plane."""
    if point < 0x10000:
        return table[point]
    if 0x20000 <= point < 0x40000:
        return np.uint16(0)  # HAN
    return np.uint16(8) if point < 0x20000 else np.uint16(4)  # SYMBOL, LETTER
