"""Plain Python twins of the compiled text kernels: one character, one token, one shingle at a time."""

import functools
import unicodedata

import opencc

MASK = (1 << 64) - 1
GOLDEN, FNV, GRAM, SHORT, RAW = (
    0x9E3779B97F4A7C15,
    0xCBF29CE484222325,
    0xD1342543DE82EF95,
    0xA0761D6478BD642F,
    0x8A5CD789635D2DFF,
)


@functools.cache
def _converter(config):
    return opencc.OpenCC(config)


def is_accent(character):
    return "\u0300" <= character <= "\u036f" or character in "\u3099\u309a"


def is_selector(character):
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


@functools.cache
def fold(character):
    """A character's folded form, straight from its definition."""
    for _ in range(2):
        decomposed = unicodedata.normalize("NFKD", character)
        character = "".join(part for part in decomposed if not is_accent(part)).casefold()
    composed = unicodedata.normalize("NFC", "".join(part for part in character if not is_accent(part)))
    simplified = ""
    for part in composed:
        for _ in range(2):
            part = _converter("hk2s").convert(_converter("tw2s").convert(part))
        simplified += part
    return simplified


def stands_alone(character):
    name = unicodedata.name(character, "")
    scripts = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "BOPOMOFO", "YI ")
    return name.startswith(scripts) or character in "々〇"


def tokens(text, fold_digits=False):
    """The words and characters of a text's key, as strings."""
    found, word = [], ""
    for character in text:
        for part in fold(character):
            category = unicodedata.category(part)
            if category == "Cf" or is_selector(part):
                continue
            if fold_digits and category == "Nd":
                word += "" if word.endswith("0") else "0"
            elif category[0] in "LMN" and not stands_alone(part):
                word += part
            else:
                found += [word] if word else []
                found += [part] if category[0] in "LMN" else []
                word = ""
    return found + ([word] if word else [])


def characters(text, fold_digits=False):
    """Every letter, digit and mark of a text's key, and ``\\1`` for any sign."""
    found = []
    for part in "".join(map(fold, text)):
        category = unicodedata.category(part)
        if category in ("Cf", "Cc", "Cn") or category[0] == "Z" or is_selector(part):
            continue
        letter = "0" if fold_digits and category == "Nd" else part if category[0] in "LMN" else "\1"
        if not (fold_digits and letter == "0" and found[-1:] == ["0"]):
            found.append(letter)
    return found


def is_chinese(text):
    """As the unit ``auto`` tells it: one visible character in 64 from U+4000 to U+DFFF."""
    ideographs = [c for c in text if 0x4000 <= ord(c) < 0xE000]
    return bool(ideographs) and 64 * len(ideographs) >= len([c for c in text if c > " " and c != "\u3000"])


def mix(value):
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & MASK
    return value ^ value >> 33


def hash_token(token):
    value = FNV
    for character in token:
        value = (value ^ ord(character)) * GOLDEN & MASK
    return mix(value)


def hash_word(word):
    """As :func:`hash_token`, eight letters at a time; one above ASCII counts as three."""
    letters = []
    for code in map(ord, word):
        letters += [code] if code < 0x80 else [0x80 | code >> shift & 0x7F for shift in (0, 7, 14)]
    value = FNV
    for start in range(0, len(letters), 8):
        value = (value ^ int.from_bytes(letters[start : start + 8], "little")) * GOLDEN & MASK
        value ^= value >> 32
    return mix(value)


def shingles(text, ngram=5, fold_digits=False, unit="word"):
    """The shingle hashes of a text in order, repeats included."""
    apart = unit == "character" or (unit == "auto" and is_chinese(text))
    if apart:
        found = characters(text, fold_digits)
        found = [c for c in found if c != "\1"] if len(found) < ngram else found
        found = [0 if c == "\1" else hash_token(c) for c in found]
    else:
        found = [hash_token(t) if stands_alone(t[0]) else hash_word(t) for t in tokens(text, fold_digits)]
    if not found:
        value = RAW
        for byte in text.encode():
            value = (value ^ byte) * GOLDEN & MASK
        return [mix(value)]
    if len(found) < ngram:
        return [mix(polynomial(found) + len(found) * SHORT & MASK)]
    return [mix(polynomial(found[start : start + ngram])) for start in range(len(found) - ngram + 1)]


def polynomial(values):
    total = 0
    for value in values:
        total = (total * GRAM + value) & MASK
    return total


def jaccard(first, second):
    first, second = set(first), set(second)
    return len(first & second) / len(first | second)


def placed_tokens(text):
    """The tokens of a text's key as (token, is a character, first byte, end)."""
    found, word, first, end, at = [], "", 0, 0, 0
    for character in text:
        beyond = at + len(character.encode())
        for part in fold(character):
            category = unicodedata.category(part)
            if category == "Cf" or is_selector(part):
                continue
            if category[0] in "LMN" and not stands_alone(part):
                first = first if word else at
                word, end = word + part, beyond
            else:
                found += [(word, False, first, end)] if word else []
                found += [(part, True, at, beyond)] if category[0] in "LMN" else []
                word = ""
        at = beyond
    return found + ([(word, False, first, end)] if word else [])


SALT = 0x2545F4914F6CDD1D


def grams(text, words, characters, need, salt=0):
    """The grams of a text, full from the weight ``need`` on, as (hash, first byte, end)."""
    placed = placed_tokens(text)
    found = []
    for start in range(len(placed)):
        weight = 0
        for stop in range(start, len(placed)):
            weight += words if placed[stop][1] else characters
            if weight >= need:
                value = polynomial(hash_token(token[0]) for token in placed[start : stop + 1])
                found.append((mix(value ^ salt), placed[start][2], placed[stop][3]))
                break
    return found


def exact_key(row):
    """The 128-bit key of a text by its shingles, in two halves."""
    first, second = 0x9FB21C651E98DF25, 0xE7037ED1A0B428DB
    for shingle in row:
        first = (first ^ shingle) * 0xE7037ED1A0B428DB & MASK
        first ^= first >> 32
        second = (second + shingle) * 0x9FB21C651E98DF25 & MASK
        second ^= second >> 29
    return [mix(first), mix(second)]
