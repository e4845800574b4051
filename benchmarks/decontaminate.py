"""Text in memory to the evaluation items that stand in it, one core."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.contest import Contest, Contestant, Work, megabytes, read_texts

LANGUAGES = {"english": 13, "chinese": 24}
"""Words, or characters, in a gram."""
ITEM_CHARACTERS, EVERY = 300, 50


def _items(texts: list[str]) -> list[str]:
    """What stands in for evaluation items: the middle of one text in ``EVERY``."""
    return [text[len(text) // 2 :][:ITEM_CHARACTERS] for text in texts[::EVERY]]


def ours(language: str, folder: Path) -> tuple[Work, float]:
    """Folding, grams, lookup and coverage of every item, with the place of all that was found."""
    import pyarrow as pa

    from glm_data.decontaminate import build_index, read_evaluation, search
    from glm_data.text.grams import Shape

    texts = read_texts(folder / f"{language}.jsonl")
    rows = [json.dumps({"text": item}, ensure_ascii=False) + "\n" for item in _items(texts)]
    (folder / f"items-{language}.jsonl").write_text("".join(rows), encoding="utf-8")
    manifest = {"benchmarks": [{"name": "items", "files": [f"items-{language}.jsonl"], "fields": ["text"]}]}
    (folder / f"items-{language}.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    index = build_index(read_evaluation(folder / f"items-{language}.yaml"), Shape(), common_items=10)
    column = pa.array(texts, pa.string())
    return lambda: search(column, index), megabytes(texts)


def plain(language: str, folder: Path) -> tuple[Work, float]:
    """The usual script: lower case, no punctuation, a Python set of n-grams as strings; whether a text holds any."""
    import re

    texts = read_texts(folder / f"{language}.jsonl")
    token, size = re.compile(r"\w+" if language == "english" else r"\w"), LANGUAGES[language]

    def grams(text: str) -> list[str]:
        tokens = token.findall(text.lower())
        return [" ".join(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]

    index = {gram for item in _items(texts) for gram in grams(item)}
    return lambda: [any(gram in index for gram in grams(text)) for text in texts], megabytes(texts)


def _contest(language: str) -> Contest:
    size, unit = LANGUAGES[language], "words" if language == "english" else "characters"
    return Contest(
        name=f"Decontamination, {language}",
        unit="MB/s",
        contestants=(
            Contestant(f"glm-data, {language}", lambda folder: ours(language, folder)),
            Contestant(f"Python set, {language}", lambda folder: plain(language, folder)),
        ),
        note=f"Text in memory against evaluation items, grams of {size} {unit}, one core. The script tells whether a "
        "text holds any gram; ours how much of which item, and where, in any script and width.",
    )


CONTESTS = tuple(_contest(language) for language in LANGUAGES)
