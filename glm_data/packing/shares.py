"""What each source and language is of the text: tokens, passes, share got and share wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from glm_data.packing.options import Recipe
from glm_data.packing.sources import Tokenized

Shares = dict[str, dict[str, Any]]


def source_shares(documents: Tokenized, copies: np.ndarray, recipe: Recipe) -> Shares:
    """By source ``documents``, ``available`` tokens, ``tokens`` used, ``epochs`` and ``share``.

    A pattern with a wanted share has a line of its own with ``wanted``.
    """
    shares = _shares(documents.source, documents.sources, documents.length, copies)
    for pattern, rule in recipe.mix.items():
        if rule.share is not None:
            owned = [name for name in shares if _first_match(name, list(recipe.mix)) == pattern]
            shares[pattern] = {**_together(shares, owned), "wanted": rule.share}
    return shares


def language_shares(documents: Tokenized, copies: np.ndarray, recipe: Recipe) -> Shares:
    """The same by language; a wanted ``zh`` holds ``zh-Hant`` and its like too."""
    shares = _shares(documents.lang, documents.langs, documents.length, copies)
    for wanted, share in recipe.languages.items():
        owned = [n for n in shares if n == wanted or (n.partition("-")[0] == wanted and n not in recipe.languages)]
        shares[wanted] = {**_together(shares, owned), "wanted": share}
    return shares


def _first_match(name: str, patterns: Sequence[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def _shares(numbers: np.ndarray, names: Sequence[str], lengths: np.ndarray, copies: np.ndarray) -> Shares:
    once = np.bincount(numbers, weights=lengths, minlength=len(names))
    used = np.bincount(numbers, weights=lengths * copies, minlength=len(names))
    documents = np.bincount(numbers, minlength=len(names))
    total = max(1.0, float(used.sum()))
    return {
        name or "unknown": {
            "documents": int(documents[at]),
            "available": int(once[at]),
            "tokens": int(used[at]),
            "epochs": round(float(used[at] / max(1.0, once[at])), 4),
            "share": round(float(used[at] / total), 6),
        }
        for at, name in enumerate(names)
    }


def _together(shares: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    tokens = sum(shares[name]["tokens"] for name in names)
    once = sum(shares[name]["available"] for name in names)
    return {
        "documents": sum(shares[name]["documents"] for name in names),
        "available": once,
        "tokens": tokens,
        "epochs": round(tokens / max(1.0, once), 4),
        "share": round(sum(shares[name]["share"] for name in names), 6),
    }
