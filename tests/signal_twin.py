"""Every signal of a document in plain Python: what the compiled kernels are held against."""

from __future__ import annotations

import re
from collections import Counter

from glm_data.text import characters as ch
from glm_data.text.characters import classify, misread_characters
from glm_data.text.marks import POLICIES, advertisements
from glm_data.text.repetition import CHARACTERS
from glm_data.text.statistics import CHINESE_STOPS, FUNCTION_WORDS, GOPHER_STOPS

LETTERS = {ch.HAN, ch.KANA, ch.HANGUL, ch.LATIN, ch.LETTER}
MARKS = {ch.PUNCTUATION, ch.SYMBOL}
IN_WORDS = {ch.LATIN, ch.LETTER, ch.DIGIT, ch.HANGUL}
BLANKS = " \t\v\f\r"


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def is_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


# --- characters and lines ---------------------------------------------------------------------------------------------


def raw_lines(text: str) -> list[str]:
    """Lines that are not blank, indented as they are, without white space at their end."""
    found = []
    for line in text.split("\n"):
        solid = [at for at, character in enumerate(line) if classify(character) != ch.SPACE]
        if solid:
            found.append(line[: solid[-1] + 1])
    return found


def stripped(line: str) -> str:
    return line[next(at for at, character in enumerate(line) if classify(character) != ch.SPACE) :]


def solid_characters(text: str) -> list[str]:
    """Characters that are neither white space nor repeat the mark before them."""
    found: list[str] = []
    before = ""
    for character in text:
        kind = classify(character)
        if not (kind in MARKS and character == before) and kind != ch.SPACE:
            found.append(character)
        before = character
    return found


def ends_in_mark(line: str) -> bool:
    line = line.rstrip(ch.CLOSERS)
    return line[-1:] in set(ch.END_MARKS) if line else False


def paragraphs_of(text: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        rest = raw_lines(line)
        if rest:
            indent = len(rest[0]) - len(stripped(rest[0]))
            lines.append(" " * indent + stripped(rest[0]))
        elif lines:
            found.append(tuple(lines))
            lines = []
    return found


def repeated(items: list[str]) -> list[str]:
    """Items that an earlier one is equal to."""
    seen: set[str] = set()
    return [item for item in items if item in seen or seen.add(item)]  # type: ignore[func-returns-value]


def grams_of_13(text: str) -> list[str]:
    """Runs of a mark count over white space."""
    characters: list[str] = []
    before = ""
    for character in text:
        kind = classify(character)
        if kind == ch.SPACE or (kind in MARKS and character == before):
            continue
        before = character
        characters.append(character)
    joined = "".join(characters)
    return [joined[at : at + 13] for at in range(len(joined) - 12)]


# --- tokens -----------------------------------------------------------------------------------------------------------


def tokens_of(text: str) -> list[str]:
    found: list[str] = []
    word, place = "", -1  # place: where the last token that is a run of one mark ends
    for at, character in enumerate(text):
        kind, before, after = classify(character), text[at - 1 : at], text[at + 1 : at + 2]
        if kind == ch.CONTROL:
            continue
        joins = word and (
            character == "_"
            or (character == "." and after.isascii() and after.isalnum())
            or (character == "," and re.fullmatch("[0-9],[0-9]", f"{before},{after}"))
        )
        if kind in IN_WORDS or joins:
            word += character
            continue
        found += [word] if word else []
        word = ""
        if character == "'" and before and classify(before) in IN_WORDS and is_letter(after):
            word = character
        elif character == before and kind in MARKS and found:
            if place == at:
                found[-1] += character
                place = at + 1
        elif kind != ch.SPACE:
            found.append(character)
            place = at + 1 if kind in MARKS else -1
    return found + ([word] if word else [])


def is_alone(token: str) -> bool:
    return classify(token[0]) in (ch.HAN, ch.KANA) and len(token) == 1


def is_word(token: str) -> bool:
    return any(classify(character) in IN_WORDS for character in token) or is_alone(token)


def has_letter(token: str) -> bool:
    return is_word(token) and any(classify(character) in LETTERS for character in token)


def top_gram(tokens: list[str], size: int, words: int) -> int:
    grams = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
    if not grams:
        return 0
    gram, times = Counter(grams).most_common(1)[0]
    return times * (sum(map(len, gram)) + words - 1)


def passed_grams(tokens: list[str], size: int) -> int:
    seen: set[tuple[str, ...]] = set()
    at = characters = 0
    while at + size <= len(tokens):
        gram = tuple(tokens[at : at + size])
        if gram in seen:
            characters += sum(map(len, gram))
            at += size
        else:
            seen.add(gram)
            at += 1
    return characters


def several(items: list[object]) -> float:
    counts = Counter(items)
    return share(sum(count for count in counts.values() if count > 1), len(items))


def frequent(text: str, size: int) -> float:
    """The repetition of characters of ROOTS's filters."""
    text = text[:CHARACTERS]
    counts = sorted(Counter(text[at : at + size] for at in range(len(text) - size + 1)).values(), reverse=True)
    most = min(int(len(counts) ** 0.5), sum(count > 1 for count in counts))
    return share(sum(counts[:most]), sum(counts))


# --- C4, links, advertisements ----------------------------------------------------------------------------------------


def c4(text: str, least: int) -> tuple[int, int]:
    """Sentences of the lines that stay, and lines that make the page go."""
    sentences = banned = 0
    for line in text.split("\n"):
        words, ending = re.split(f"[{BLANKS}]+", line.strip(BLANKS)), line
        while True:
            ending = ending.rstrip(BLANKS)
            shorter = re.sub(r"\[([0-9]*|edit|citation needed)\]$", "", ending)
            if shorter == ending:
                break
            ending = shorter
        if not ending.endswith((".", "?", "!", '"')) or ending.endswith("..."):
            continue
        if len(words) < least or max(map(len, words)) > 1000:
            continue
        lower = re.sub("[A-Z]", lambda match: match[0].lower(), line)
        if "lorem ipsum" in lower or ("{" in line and "javascript" not in lower):
            banned += 1
        elif "javascript" not in lower and not any(policy in lower for policy in POLICIES):
            sentences += max(1, sum(map(ends_sentence, words)))
    return sentences, banned


def ends_sentence(word: str) -> bool:
    bare = word.rstrip("\"')]")
    if bare.endswith(("!", "?")):
        return True
    return bare.endswith(".") and len(bare) > 2 and "." not in bare[:-1]


def links_of(text: str) -> list[str]:
    return re.findall(r"(?:https?://|www\.)[!#-;=?-~]*", text, re.ASCII | re.IGNORECASE)


def advertisement_marks(text: str) -> int:
    lower = re.sub("[A-Z]", lambda match: match[0].lower(), text)
    marks = [mark.lower() for mark in advertisements()]
    return sum(any(lower[:at].endswith(mark) for mark in marks) for at in range(1, len(lower) + 1))


# --- all --------------------------------------------------------------------------------------------------------------


def twin(text: str) -> dict[str, float]:
    """The signals of a text short enough for all of its grams to be taken."""
    return {**of_characters(text), **of_lines(text), **of_words(text), **of_phrases(text)}


def of_characters(text: str) -> dict[str, float]:
    solid, grams = solid_characters(text), grams_of_13(text)
    kinds = Counter(map(classify, solid))
    letters = sum(kinds[kind] for kind in LETTERS)
    words = sum(
        classify(character) == ch.LATIN and (at == 0 or classify(text[at - 1]) != ch.LATIN)
        for at, character in enumerate(text)
    )
    misread = sum(character in misread_characters() for character in text)
    return {
        "characters": len(text),
        "han": kinds[ch.HAN],
        "words": words,
        "letter_share": share(letters, len(solid)),
        "han_share": share(kinds[ch.HAN], letters),
        "digit_share": share(kinds[ch.DIGIT], len(solid)),
        "punctuation_share": share(kinds[ch.PUNCTUATION], len(solid)),
        "symbol_share": share(kinds[ch.SYMBOL], len(solid)),
        "space_share": share(sum(classify(character) == ch.SPACE for character in text), len(text)),
        "garbled_share": share(kinds[ch.GARBLED], len(solid)),
        "misread_share": share(misread, kinds[ch.HAN]),
        "alphanumeric_share": share(letters + kinds[ch.DIGIT], len(text)),
        "special_share": share(len(text) - letters, len(text)),
        "mean_word_length": share(kinds[ch.LATIN], words),
        "repeated_gram_share": share(len(grams) - len(set(grams)), len(grams)),
        "character_repetition_3": frequent(text, 3),
        "character_repetition_10": frequent(text, 10),
    }


def of_lines(text: str) -> dict[str, float]:
    raw = raw_lines(text)
    lines, paragraphs = list(map(stripped, raw)), paragraphs_of(text)
    characters = sum(map(len, lines))
    again, said = repeated(lines), repeated(["\n".join(lines) for lines in paragraphs])
    with_blank = text.count("\n") + 1 if lines else 0
    ellipses = [line for line in lines if line.endswith(("…", "..."))]
    titles = [line for line in lines if len(line) <= 40 and not set(line) & {*ch.END_MARKS, *ch.CLAUSE_MARKS}]
    terminals = {chr(point) for point in ch._TERMINALS}
    return {
        "lines": len(lines),
        "paragraphs": len(paragraphs),
        "longest_line": max(map(len, lines), default=0),
        "mean_line_length": share(characters, len(lines)),
        "end_mark_share": share(sum(map(ends_in_mark, lines)), len(lines)),
        "terminal_share": share(sum(line[-1] in terminals for line in lines), len(lines)),
        "bullet_share": share(sum(line[0] in ch.BULLETS for line in lines), len(lines)),
        "ellipsis_share": share(len(ellipses), len(lines)),
        "short_line_share": share(sum(len(line) <= 30 for line in raw), len(lines)),
        "title_share": share(len(titles), len(lines)),
        "duplicate_line_share": share(sum(map(len, again)), characters),
        "gopher_bullet_share": share(sum(line[0] in "•-" for line in lines), with_blank),
        "gopher_ellipsis_share": share(len(ellipses), with_blank),
        "duplicate_lines": share(len(again), len(lines)),
        "duplicate_paragraphs": share(len(said), len(paragraphs)),
        "duplicate_line_text": share(sum(map(len, again)), len(text)),
        "duplicate_paragraph_text": share(sum(map(len, said)), len(text)),
    }


def of_words(text: str) -> dict[str, float]:
    tokens = tokens_of(text)
    han = sum(map(is_alone, tokens))
    excess = han * (1 - 1 / 1.8)
    solid = [token for token in tokens if is_word(token)]
    words = len(tokens) - excess
    function = sum(token.lower() in {*GOPHER_STOPS, *FUNCTION_WORDS} for token in tokens if token.isascii())
    function += sum(character in ch.FUNCTION_CHARACTERS for character in text)
    sizes = {size: round(size * 1.8) if 2 * han > len(tokens) else size for size in range(2, 11)}
    grams = {n: [tuple(tokens[at : at + sizes[n]]) for at in range(len(tokens) - sizes[n] + 1)] for n in (5, 10)}
    return {
        "gopher_words": len(solid) - excess,
        "gopher_word_length": share(sum(map(len, solid)), len(solid) - excess),
        "gopher_letter_share": share(sum(map(has_letter, tokens)) - excess, words),
        "gopher_hashes": share(text.count("#"), words),
        "gopher_ellipses": share(text.count("...") + text.count("…"), words),
        "gopher_stop_words": len(set(tokens) & set(GOPHER_STOPS)),
        "chinese_stop_words": len(set(tokens) & {*CHINESE_STOPS}),
        "function_word_share": share(function, len(solid)),
        "newlines_a_word": share(text.count("\n"), words),
        **{f"top_{n}_gram": share(top_gram(tokens, sizes[n], n), len(text)) for n in (2, 3, 4)},
        **{f"duplicate_{n}_grams": share(passed_grams(tokens, sizes[n]), len(text)) for n in range(5, 11)},
        **{f"word_repetition_{n}": several(grams[n]) for n in (5, 10)},
    }


def of_phrases(text: str) -> dict[str, float]:
    (paper, paper_banned), (tfds, tfds_banned) = c4(text, 3), c4(text, 5)
    links, marks = links_of(text), advertisement_marks(text)
    return {
        "c4_paper_sentences": paper,
        "c4_paper_banned": paper_banned,
        "c4_tfds_sentences": tfds,
        "c4_tfds_banned": tfds_banned,
        "links": len(links),
        "link_share": share(sum(map(len, links)), len(text)),
        "advertisement_marks": marks,
        "advertisement_density": 1000 * share(marks, len(solid_characters(text))),
    }
