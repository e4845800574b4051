"""All signals and the default verdict of documents in memory, one core; and whether verdicts agree with datatrove's.

python -m benchmarks.filters FOLDER PEERS        agreement, on FOLDER/english.jsonl and FOLDER/chinese.jsonl
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contest import Contest, Contestant, Work, megabytes, read_texts

_BLOCK_BYTES = 2_000_000
_CODES = {"english": "eng", "chinese": "cmn"}

CHINESE: dict[str, dict[str, Any]] = {
    "quality": {
        "min_avg_word_length": 1,
        "max_avg_word_length": 5,
        "max_non_alpha_words_ratio": 0.735,
        "stop_words": list("的年在月是和日了於·為有被人中为他與後也而由"),
    },
    "repetition": {
        "dup_line_frac": 0.287,
        "dup_para_frac": 0,
        "dup_line_char_frac": 0,
        "dup_para_char_frac": 0,
        "top_n_grams": ((2, 0.256), (3, 0.201), (4, 0.171)),
        "dup_n_grams": ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.14), (10, 0.127)),
    },
    "fineweb": {"line_punct_thr": 0.106, "short_line_thr": 999, "char_duplicates_ratio": 0.1, "new_line_ratio": 0.178},
}
"""What FineWeb-2's configuration for cmn_Hani sets."""


def ours(language: str, folder: Path) -> tuple[Work, float]:
    """Every signal, the language, and the verdict of the profile ``bilingual`` with all rules broken."""
    from glm_data.filters import FilterOptions, load_profile
    from glm_data.filters.language import detect
    from glm_data.filters.rules import judge
    from glm_data.filters.signals import gather
    from glm_data.text import statistics

    texts = read_texts(folder / f"{language}.jsonl")
    blocks = list(_blocks(texts))
    profile, options = load_profile("bilingual"), FilterOptions()

    def work() -> None:
        for block in blocks:
            measured = statistics.count(block.column("text"))
            judge(profile, gather(block, measured, options, {}), detect(block.column("text"), measured))

    return work, megabytes(texts)


def _blocks(texts: list[str]) -> Iterator[Any]:
    from glm_data import documents

    held: list[str] = []
    for text in texts:
        held.append(text)
        if sum(map(len, held[-64:])) > _BLOCK_BYTES or len(held) >= 1024:
            yield documents.make_block(*columns(held))
            held = []
    if held:
        yield documents.make_block(*columns(held))


def columns(texts: list[str]) -> list[list[str]]:
    """The columns of a block of ``texts``."""
    ids = [str(number) for number in range(len(texts))]
    return [ids, texts, *([value] * len(texts) for value in ("benchmark", "", "{}"))]


def datatrove(language: str, folder: Path) -> tuple[Work, float]:
    """The chain of FineWeb: Gopher repetition and quality, then its own; what one drops does not reach the next."""
    from datatrove.data import Document

    texts = read_texts(folder / f"{language}.jsonl")
    filters = _filters(language)

    def work() -> None:
        for text in texts:
            document = Document(text=text, id="")
            all(item.filter(document) is True for item in filters.values())

    return work, megabytes(texts)


def _filters(language: str) -> dict[str, Any]:
    """datatrove's filters: defaults for English, FineWeb-2's for Chinese."""
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from loguru import logger

    logger.remove()
    given = CHINESE if language == "chinese" else {"quality": {}, "repetition": {}, "fineweb": {}}
    code = _CODES[language]
    return {
        "repetition": GopherRepetitionFilter(language=code, **given["repetition"]),
        "quality": GopherQualityFilter(language=code, **given["quality"]),
        "fineweb": FineWebQualityFilter(language=code, **given["fineweb"]),
    }


def _contest(language: str) -> Contest:
    return Contest(
        name=f"All signals and the verdict, {language}",
        unit="MB/s",
        contestants=(
            Contestant(f"glm-data, {language}", lambda folder: ours(language, folder)),
            Contestant(f"datatrove 0.10, {language}", lambda folder: datatrove(language, folder), is_peer=True),
        ),
        note="Text in memory to verdicts, one core: ours measures every signal there is; datatrove runs Gopher "
        "repetition, Gopher quality and FineWeb, in FineWeb's order, its words cut by spaCy (and jieba).",
    )


CONTESTS = tuple(_contest(language) for language in _CODES)


# --- agreement --------------------------------------------------------------------------------------------------------


def peer_verdicts(folder: Path) -> None:
    """In the environment of the peers: the verdict of every filter on every document, as JSON on standard output."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter

    said: dict[str, dict[str, list[str]]] = {}
    for language in _CODES:
        filters = _filters(language)
        if language == "english":
            filters["c4-paper"] = C4QualityFilter()
            filters["c4-tfds"] = C4QualityFilter(min_num_sentences=3, min_words_per_line=5)
        texts = read_texts(folder / f"{language}.jsonl")
        said[language] = {
            name: [_reason(item.filter(Document(text=text, id=""))) for text in texts] for name, item in filters.items()
        }
    print(json.dumps(said))


def _reason(verdict: Any) -> str:
    return "" if verdict is True else str(verdict[1])


def our_verdicts(folder: Path, language: str) -> dict[str, list[str]]:
    """The same filters as parts of our profiles: the first rule broken by each document."""
    import numpy as np

    from glm_data import documents
    from glm_data.filters import FilterOptions, load_profile
    from glm_data.filters.rules import Profile, judge
    from glm_data.filters.signals import gather
    from glm_data.text import statistics

    texts = read_texts(folder / f"{language}.jsonl")
    block = documents.make_block(*columns(texts))
    signals = gather(block, statistics.count(block.column("text")), FilterOptions(), {})
    profile = load_profile("fineweb" if language == "english" else "fineweb2-cmn")
    fineweb = ("end_marks", "short_lines", "duplicate_characters", "list")
    repetition = ("duplicate_", "top_")
    parts = {
        "fineweb": [rule for rule in profile.rules if rule.name in fineweb],
        "repetition": [r for r in profile.rules if r.name.startswith(repetition) and r.name not in fineweb],
    }
    taken = {rule.name for rules in parts.values() for rule in rules}
    parts["quality"] = [rule for rule in profile.rules if rule.name not in taken]
    if language == "english":
        parts |= {name: list(load_profile(name).rules) for name in ("c4-paper", "c4-tfds")}
        parts["c4-tfds"] = [rule for rule in parts["c4-tfds"] if rule.name != "too_long"]
    languages = np.full(len(texts), 2 if language == "english" else 0, np.int8)
    return {
        name: judge(Profile(description="", rules=tuple(rules)), signals, languages).reasons.tolist()
        for name, rules in parts.items()
    }


def agreement(folder: Path, peers: Path) -> Iterator[tuple[str, ...]]:
    """Rows of a table: per filter, documents, verdicts that agree, and the reasons of those that do not."""
    command = [str(peers), "-m", "benchmarks.filters", str(folder)]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    yield (
        "filter",
        "documents",
        "agree",
        "kept by us",
        "kept by datatrove",
        "they drop, we keep",
        "we drop, they keep",
    )
    for language in _CODES:
        mine = our_verdicts(folder, language)
        for name, verdicts in theirs[language].items():
            pairs = list(zip(mine[name], verdicts, strict=True))
            same = sum((not our) == (not their) for our, their in pairs)
            kept = [str(sum(not pair[side] for pair in pairs)) for side in (0, 1)]
            lost = Counter(their for our, their in pairs if their and not our)
            gained = Counter(our for our, their in pairs if our and not their)
            differ = [", ".join(f"{reason} {count}" for reason, count in c.most_common(6)) for c in (lost, gained)]
            yield (f"{name}, {language}", str(len(pairs)), f"{same / len(pairs):.1%}", *kept, *differ)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        peer_verdicts(Path(sys.argv[1]))
    else:
        from benchmarks.harness import markdown

        print(markdown(list(agreement(Path(sys.argv[1]), Path(sys.argv[2])))))
