"""What de-duplication finds, misses and removes wrongly, on labelled revisions of manuals and on changed copies.

    python -m benchmarks.dedupe_quality FOLDER

FOLDER holds ``zh_revisions.jsonl.zst`` and ``en_revisions.jsonl.zst`` (``id``, ``text``) and every pair of each with an
exact similarity of 0.5 or more (``*.pairs_*.tsv.zst``: ``id_a id_b jaccard``). Prints two tables in Markdown. Pairs are
counted by our own exact similarity and by the labels', whose Chinese shingles take Latin words letter by letter.
"""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from benchmarks.harness import markdown

THRESHOLD, COPIED = 0.8, 300
SETS = {"zh": ("zh_revisions.jsonl.zst", "zh_revisions.pairs_char5.tsv.zst"),
        "en": ("en_revisions.jsonl.zst", "en_revisions.pairs_word5.tsv.zst")}  # fmt: skip
Change = Callable[[str, random.Random], str]


def main(folder: Path) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory(prefix="glm-data-quality-") as work:
        units = ("auto", "word")
        revisions = [_revisions(folder, language, unit, Path(work)) for language in SETS for unit in units]
        head = ("set", "documents", "removed", "pairs >= 0.8", "left", "by the labels", "left", "removed unproven")
        print(markdown([head, *revisions]), flush=True)
        found = {language: _changed(folder, language, Path(work)) for language in SETS}
        rows = [(name, *(found[language].get(name, "–") for language in SETS)) for name in CHANGES]
        print(markdown([("changed copies found", *SETS), *rows]))


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        yield from io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")


def _read(folder: Path, language: str) -> dict[str, str]:
    return {row["id"]: row["text"] for row in map(json.loads, _lines(folder / SETS[language][0]))}


def _run(texts: dict[str, str], out: Path, **options: Any) -> dict[str, tuple[str, str]]:
    """De-duplicate; the removed as ``id -> (kept id, rule)``."""
    import pyarrow.parquet as pq

    from glm_data.dedupe import DedupeOptions
    from pipelines.dedupe import run
    from pipelines.runner import RunnerOptions

    rows = ({"id": key, "text": text, "source": "", "lang": "", "meta": {}} for key, text in texts.items())
    given = out.with_suffix(".jsonl")
    given.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    run([given], out, DedupeOptions(threshold=THRESHOLD, max_source_loss=1.0, **options), RunnerOptions(workers=1))
    table = pq.read_table(out / "duplicates.parquet").to_pylist()
    return {row["removed"]: (row["kept"], row["rule"]) for row in table}


def _revisions(folder: Path, language: str, unit: str, work: Path) -> tuple[str, ...]:
    texts = _read(folder, language)
    removed = _run(texts, work / f"revisions-{language}-{unit}", unit=unit)
    rows = csv.reader(_lines(folder / SETS[language][1]), delimiter="\t", quoting=csv.QUOTE_NONE)
    next(rows)
    pairs = [(a, b, float(similarity)) for a, b, similarity, *_ in rows]
    labelled = [(a, b) for a, b, similarity in pairs if similarity >= THRESHOLD]
    ours = [(a, b) for a, b, _ in pairs if _similarity(texts[a], texts[b], unit) >= THRESHOLD]
    unproven = sum(
        kept in removed or _similarity(texts[key], texts[kept], unit) < THRESHOLD for key, (kept, _) in removed.items()
    )
    counted = [cell for group in (ours, labelled) for cell in _left(group, removed)]
    return (f"{language}, unit {unit}", f"{len(texts):,}", f"{len(removed):,}", *counted, str(unproven))


def _left(pairs: list[tuple[str, str]], removed: dict[str, tuple[str, str]]) -> tuple[str, str]:
    left = sum(a not in removed and b not in removed for a, b in pairs)
    return f"{len(pairs):,}", f"{left} ({left / len(pairs):.3%})"


def _similarity(first: str, second: str, unit: str) -> float:
    """Exact, of sets made anew from both texts."""
    import pyarrow as pa

    from glm_data.text.shingles import shingle_texts

    a, b = (set(shingle_texts(pa.array([text], pa.string()), unit=unit).hashes.tolist()) for text in (first, second))
    return len(a & b) / len(a | b)


def _changed(folder: Path, language: str, work: Path) -> dict[str, str]:
    """Share of changed copies that are removed for their original, by kind of change."""
    texts = _read(folder, language)
    again = _run(texts, work / f"apart-{language}")
    originals = {key: text for key, text in texts.items() if key not in again and len(text) >= 600}
    chosen = random.Random(7).sample(sorted(originals), min(COPIED, len(originals)))
    found = {}
    for name, (change, options) in CHANGES.items():
        if name in ONLY_ZH and language != "zh":
            continue
        copies = {f"copy of {key}": change(originals[key], random.Random(key)) for key in chosen}
        corpus = {**{key: originals[key] for key in chosen}, **copies}
        removed = _run(corpus, work / f"{name}-{language}".replace(" ", "-").replace("%", ""), **options)
        hits = sum(_stands_for(key, removed.get(f"copy of {key}", ("",))[0], removed) for key in chosen)
        found[name] = f"{hits / len(chosen):.3f}"
    return found


def _stands_for(key: str, kept: str, removed: dict[str, tuple[str, str]]) -> bool:
    """Whether a copy went for its original, or for what the original itself went for."""
    return kept == key or (kept != "" and removed.get(key, ("",))[0] == kept)


def _full_width(text: str, _: random.Random) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text)


def _traditional(text: str, _: random.Random) -> str:
    import opencc

    return str(opencc.OpenCC("s2tw").convert(text))


def _spaces(text: str, random_: random.Random) -> str:
    if text.isascii():
        return text.replace(" ", "  ")
    return "".join(c + " " if random_.random() < 0.1 and "\u4e00" <= c <= "\u9fff" else c for c in text)


def _half_width(text: str, _: random.Random) -> str:
    return unicodedata.normalize("NFKC", text).replace("。", ".").replace("、", ",")


def _numbers(text: str, random_: random.Random) -> str:
    return "".join(random_.choice("0123456789") if c.isdigit() and c.isascii() else c for c in text)


def _boilerplate(text: str, _: random.Random) -> str:
    return f"Home > Docs > Page\n{text}\nPrevious | Next | All rights reserved\n"


def _noise(share: float, *, spaces: bool = False) -> Change:
    def change(text: str, random_: random.Random) -> str:
        hit = (random_.random() < share and (spaces or not c.isspace()) for c in text)
        return "".join(
            random_.choice("的一是在不了有和人这") if is_hit else c for c, is_hit in zip(text, hit, strict=True)
        )

    return change


def _lines_dropped(text: str, random_: random.Random) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if random_.random() >= 0.1)


CONTAINMENT = {"containment": 0.9, "bands": 40, "rows": 3}
CHANGES: dict[str, tuple[Change, dict[str, Any]]] = {
    "none": (lambda text, _: text, {}),
    "full width": (_full_width, {}),
    "traditional": (_traditional, {}),
    "spaces": (_spaces, {}),
    "half-width punctuation": (_half_width, {}),
    "other numbers, folded": (_numbers, {"fold_digits": True}),
    "boilerplate around": (_boilerplate, {}),
    "upper case": (lambda text, _: text.upper(), {}),
    "1 % noise": (_noise(0.01), {}),
    "1 % noise, white space too": (_noise(0.01, spaces=True), {}),
    "1 % noise, unit word": (_noise(0.01), {"unit": "word"}),
    "5 % noise": (_noise(0.05), {}),
    "10 % of lines dropped": (_lines_dropped, {}),
    "first 70 %, containment": (lambda text, _: text[: len(text) * 7 // 10], CONTAINMENT),
    "first 50 %, containment": (lambda text, _: text[: len(text) // 2], CONTAINMENT),
    "first 70 %, without": (lambda text, _: text[: len(text) * 7 // 10], {}),
}
ONLY_ZH = {"traditional", "1 % noise", "1 % noise, white space too", "1 % noise, unit word", "5 % noise"}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
