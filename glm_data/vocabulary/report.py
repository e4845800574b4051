"""The report on a tokenizer: figures by kind of text, beside other models, as plain values and as a page of HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import xxhash

from glm_data.errors import InputError, UsageError
from glm_data.formats import read_blocks
from glm_data.hidden import sign_blanks, spell
from glm_data.stage import InputFile
from glm_data.text.characters import script_characters
from tokenizer import Tokenizer, TokenizerError
from tokenizer.comparison import (
    Model,
    Text,
    by_script,
    han_coverage,
    longest_pieces,
    measure,
    open_model,
    smaller,
    spans,
    worst_documents,
)

KINDS = ("en", "zh-Hans", "zh-Hant", "code", "digits", "mixed")
CURVE = (8_000, 16_000, 32_000, 50_000, 64_000, 100_000, 128_000, 150_000)

ICETK_BYTES_PER_TOKEN = {"zh-Hans": 4.65, "en": 3.68}
"""GLM-130B's own tokenizer, as published; on texts of its own."""

_CODE = re.compile(r"github|stack|code", re.IGNORECASE)
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_SHOWN_CHARACTERS = 320


def kind_of(text: str, source: str) -> str:
    """The kind of a document: by source (code), else by its share of digits and of Han characters."""
    if _CODE.search(source):
        return "code"
    marks = max(sum(not letter.isspace() for letter in text), 1)
    if sum(letter.isdigit() for letter in text) > 0.3 * marks:
        return "digits"
    han = len(_HAN.findall(text)) / marks
    if han < 0.05:
        return "en"
    if han < 0.5:
        return "mixed"
    simplified, traditional = script_characters()
    balance = sum((letter in simplified) - (letter in traditional) for letter in text)
    return "zh-Hans" if balance >= 0 else "zh-Hant"


def sample(inputs: Iterable[InputFile], format: str, most: int) -> dict[str, list[Text]]:
    """Documents by kind, about ``most`` bytes of each: those whose ids have the lowest hashes, whatever their order."""
    held: dict[str, list[tuple[int, int, Text]]] = {kind: [] for kind in KINDS}
    sizes = dict.fromkeys(KINDS, 0)
    for item in inputs:
        for block in read_blocks(item, format):
            columns = (block.documents.column(name).to_pylist() for name in ("id", "text", "source"))
            for id, text, source in zip(*columns, strict=True):
                kind, size = kind_of(text, source), len(text.encode())
                held[kind].append((xxhash.xxh3_64_intdigest(id.encode()), size, Text(id, text)))
                sizes[kind] += size
                if sizes[kind] > 3 * most:
                    held[kind] = _first(held[kind], most)
                    sizes[kind] = sum(size for _, size, _ in held[kind])
    return {kind: [text for _, _, text in _first(found, most)] for kind, found in held.items() if found}


def _first(found: list[tuple[int, int, Text]], most: int) -> list[tuple[int, int, Text]]:
    taken, total = [], 0
    for item in sorted(found):
        if total >= most:
            break
        taken.append(item)
        total += item[1]
    return taken


def report(tokenizer: Tokenizer, name: str, others: Sequence[Path], texts: Mapping[str, list[Text]]) -> dict[str, Any]:
    """Everything the report says, as plain values. Raises :class:`InputError` without texts."""
    if not texts:
        raise InputError("tokenizer report: the inputs hold no document; give documents to measure with.")
    models: dict[str, Model] = {name: tokenizer} | {str(path): _open(path) for path in others}
    chinese = [*texts.get("zh-Hans", []), *texts.get("zh-Hant", []), *texts.get("mixed", [])]
    return {
        "tokenizer": {"name": name, **tokenizer.description()},
        "models": {key: {"kind": model.kind, "pieces": model.pieces} for key, model in models.items()},
        "kinds": {key: measure(model, texts) for key, model in models.items()},
        "icetk_bytes_per_token": ICETK_BYTES_PER_TOKEN,
        "han": {key: han_coverage(model, chinese) for key, model in models.items()},
        "scripts": by_script(tokenizer),
        "longest": longest_pieces(tokenizer),
        "worst": worst_documents(tokenizer, texts),
        "curve": curve(tokenizer, texts),
        "samples": {kind: spans(tokenizer, found[0].text[:_SHOWN_CHARACTERS]) for kind, found in texts.items()},
    }


def curve(tokenizer: Tokenizer, texts: Mapping[str, Sequence[Text]]) -> dict[int, dict[str, float]]:
    """Bytes a token by kind for smaller vocabularies of the same training, up to this one. BPE only."""
    if tokenizer.kind != "bpe":
        return {}
    found = {}
    for pieces in sorted({*(size for size in CURVE if size < tokenizer.pieces), tokenizer.pieces}):
        figures = measure(smaller(tokenizer, pieces), texts)
        found[pieces] = {kind: value["bytes_per_token"] for kind, value in figures.items()}
    return found


def _open(path: Path) -> Model:
    try:
        return open_model(path)
    except TokenizerError as error:
        raise UsageError(str(error)) from None


def page(found: Mapping[str, Any]) -> str:
    """The report as one self-contained page: no script, no font, no request; every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("glm_data.vocabulary", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show_piece"] = show_piece
    return environment.get_template("report.html").render(found=found)


def show_piece(piece: str) -> str:
    """A piece with its spaces, tabs and line ends as signs, and what else is no letter that shows spelt out."""
    signed = "⏎\n".join(map(sign_blanks, piece.split("\n")))
    return "".join(letter if letter.isprintable() or letter == "\n" else spell(letter) for letter in signed)
