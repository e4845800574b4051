"""How often each document is used: sources by epochs, weight or target share, repeats from de-duplication.

The Pile up-samples by repeating documents inside its shards (1.5 to 3 times for books and encyclopaedia), which
de-duplication undoes; here it is a number again. Shares are of text tokens. Nothing is repeated more than
``max_epochs`` times: a mix that would need it is refused with the numbers, instead of being met in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated

import numpy as np

from glm_data.config import Config, Doc
from glm_data.errors import UsageError
from glm_data.packing.rng import EXTRA_COPY, order_keys

_SHARE_ERROR = 1e-6


class SourceMix(Config, frozen=True):
    """How one source (or all whose names match a pattern) enters: exactly one of the three."""

    epochs: Annotated[float | None, Doc("passes over the source")] = None
    weight: Annotated[float | None, Doc("factor on its natural size; the total stays that of the corpus")] = None
    share: Annotated[float | None, Doc("share of all text tokens")] = None


def document_copies(
    tokens: np.ndarray,
    sources: np.ndarray,
    duplicates: np.ndarray,
    mix: Mapping[str, SourceMix],
    *,
    use_duplicates: bool,
    max_epochs: float,
    seed: int,
) -> np.ndarray:
    """``int64[D]``: how often each document is used.

    ``tokens`` and ``duplicates`` are ``int64[D]``, ``sources`` strings. Fractions of an epoch are met to within one
    document, by taking documents in a seeded order. Raises :class:`UsageError` if the mix cannot be met.
    """
    base = np.minimum(duplicates, int(max_epochs)) if use_duplicates else np.ones(len(tokens), np.int64)
    base = np.maximum(base, 1)
    if not mix:
        return base
    names, number = np.unique(sources, return_inverse=True)
    sizes = np.bincount(number, weights=tokens * base, minlength=len(names))
    epochs = source_epochs(dict(zip(names.tolist(), sizes.tolist(), strict=True)), mix, max_epochs)
    copies = np.zeros(len(tokens), np.int64)
    keys = order_keys(seed, len(tokens), EXTRA_COPY)
    for index, name in enumerate(names.tolist()):
        mine = np.flatnonzero(number == index)
        copies[mine] = base[mine] * int(epochs[name])
        extra = _take_fraction(mine, tokens * base, keys, epochs[name] % 1)
        copies[extra] += base[extra]
    return copies


def _take_fraction(documents: np.ndarray, tokens: np.ndarray, keys: np.ndarray, fraction: float) -> np.ndarray:
    """Documents, in the order of their keys, whose tokens come nearest to ``fraction`` of all."""
    order = documents[np.argsort(keys[documents], kind="stable")]
    reached = np.concatenate([[0], np.cumsum(tokens[order])])
    return order[: int(np.argmin(np.abs(reached - fraction * reached[-1])))]


def source_epochs(sizes: Mapping[str, float], mix: Mapping[str, SourceMix], max_epochs: float) -> dict[str, float]:
    """Passes over each source: ``sizes`` are tokens by source; see :class:`SourceMix`.

    A source takes the first rule whose pattern matches its name, and is used once if none does. Weighted sources keep
    their total; the share of a pattern is dealt to its sources by size, and is one of all text tokens in the end.
    """
    rules = {name: next((pattern for pattern in mix if fnmatchcase(name, pattern)), None) for name in sizes}
    _check(rules, mix)
    epochs = {name: _plain_epochs(mix.get(pattern or "", SourceMix())) for name, pattern in rules.items()}
    weights = {name: epochs[name] for name, pattern in rules.items() if pattern and mix[pattern].weight is not None}
    natural = sum(sizes[name] for name in weights)
    scaled = sum(weight * sizes[name] for name, weight in weights.items())
    for name, weight in weights.items():
        epochs[name] = weight * natural / scaled if scaled else 0.0
    epochs |= _shared_epochs(sizes, rules, mix, epochs)
    for name, used in epochs.items():
        if used > max_epochs:
            raise UsageError(
                f"the mix would use source '{name}' {used:.2f} times, at most {max_epochs:g} are allowed; "
                "lower its share or weight, or raise --max-epochs."
            )
    return epochs


def _plain_epochs(rule: SourceMix) -> float:
    given = rule.weight if rule.weight is not None else rule.epochs
    return 1.0 if given is None else given


def _check(rules: Mapping[str, str | None], mix: Mapping[str, SourceMix]) -> None:
    for pattern, rule in mix.items():
        given = [value for value in (rule.epochs, rule.weight, rule.share) if value is not None]
        if len(given) != 1 or given[0] < 0:
            raise UsageError(f"mix: '{pattern}' needs exactly one of epochs, weight or share, not below 0.")
        if pattern not in rules.values():
            known = ", ".join(sorted(rules)[:8])
            raise UsageError(f"mix: no source is left for '{pattern}'; the sources are {known}.")


def _shared_epochs(
    sizes: Mapping[str, float],
    rules: Mapping[str, str | None],
    mix: Mapping[str, SourceMix],
    epochs: Mapping[str, float],
) -> dict[str, float]:
    """Epochs of the sources with a share: the other sources' tokens are what the shares leave over."""
    shares = {pattern: rule.share for pattern, rule in mix.items() if rule.share is not None}
    if not shares:
        return {}
    others = sum(epochs[name] * size for name, size in sizes.items() if rules[name] not in shares)
    together = sum(shares.values())
    if (others and together >= 1) or (not others and abs(together - 1) > _SHARE_ERROR):
        left = "less than 1, for the sources without one" if others else "exactly 1, as every source has one"
        raise UsageError(f"mix: the shares add up to {together:g}; they must be {left}.")
    total = others / (1 - together) if others else sum(sizes.values())
    found: dict[str, float] = {}
    for pattern, share in shares.items():
        mine = [name for name in sizes if rules[name] == pattern]
        size = sum(sizes[name] for name in mine)
        found |= dict.fromkeys(mine, share * total / size)
    return found
