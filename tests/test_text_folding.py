import sys
import unicodedata

import numpy as np
import pytest
from text_twin import fold, is_selector, stands_alone

from glm_data.text.folding import (
    BREAK,
    CHARACTER,
    CODE_POINT_MASK,
    DIGIT,
    EXPANSION_FLAG,
    KIND_SHIFT,
    LENGTH_SHIFT,
    NOTHING,
    WORD,
    fold_table,
)


def read_table(character, table):
    """What the table makes of a character: (folded string without breaks, kinds)."""
    entry = int(table.entries[ord(character)])
    entries = [entry]
    if entry & EXPANSION_FLAG:
        start = entry & CODE_POINT_MASK
        entries = [int(item) for item in table.expansions[start : start + (entry >> LENGTH_SHIFT)]]
    kinds = [item >> KIND_SHIFT for item in entries]
    assert all(kind in (BREAK, WORD, CHARACTER, NOTHING) for kind in kinds)
    kept = [item for item, kind in zip(entries, kinds, strict=True) if kind in (WORD, CHARACTER)]
    return "".join(chr(item & CODE_POINT_MASK) for item in kept), kinds


def every_nth_character():
    assigned = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cn", "Co", "Cs")]
    chosen = set(assigned[::199]) | {c for c in assigned[::7] if ord(c) < 0x3000}
    return sorted(chosen | {c for c in assigned if 0xFF00 <= ord(c) < 0xFFF0})


def test_the_table_agrees_with_unicodedata_and_opencc():
    table = fold_table()
    for character in every_nth_character():
        expected = "".join(part for part in fold(character) if unicodedata.category(part)[0] in "LMN")
        expected = "".join(part for part in expected if not is_selector(part))
        assert read_table(character, table)[0] == expected, f"U+{ord(character):04X}"


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("Ａ", "a"),
        ("ﬁ", "fi"),
        ("É", "e"),
        ("ß", "ss"),
        ("１", "1"),
        ("½", "12"),
        ("國", "国"),
        ("裡", "里"),
        ("裏", "里"),
        ("為", "为"),
        ("著", "着"),
        ("ガ", "カ"),
        ("ｶ", "カ"),
        ("㌖", "キロメートル"),
        ("각", "각"),
        ("，", ""),
        ("　", ""),
        ("\u00ad", ""),
        ("\u200b", ""),
        ("\u0301", ""),
        ("😀", ""),
    ],
)
def test_characters_fold_as_a_reader_would(written, folded):
    assert read_table(written, fold_table())[0] == folded


def test_kinds_follow_the_script():
    table = fold_table()
    for character, kind in [
        ("国", CHARACTER),
        ("か", CHARACTER),
        ("한", CHARACTER),
        ("ไ", CHARACTER),
        ("𠀀", CHARACTER),
    ]:
        assert read_table(character, table)[1] == [kind] == [CHARACTER if stands_alone(character) else WORD]
    for character, kind in [("é", WORD), ("7", WORD), ("я", WORD), (" ", BREAK), ("。", BREAK), ("\u200d", NOTHING)]:
        assert read_table(character, table)[1] == [kind]


def test_simplified_forms_are_final():
    entries = fold_table().entries
    han = np.arange(0x4E00, 0xA000)
    once = entries[han] & CODE_POINT_MASK
    assert np.array_equal(entries[once] & CODE_POINT_MASK, once)


def test_digits_fold_on_request_only():
    folded, kept = fold_table(True), fold_table(False)
    digits = [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == "Nd"]
    assert {int(folded.entries[c]) for c in digits} == {DIGIT}
    assert read_table("7", kept)[0] == "7"
    differing = np.flatnonzero(folded.entries != kept.entries)
    assert all(any(unicodedata.category(part) == "Nd" for part in fold(chr(c))) for c in differing)
