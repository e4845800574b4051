"""How often each document is used: sources by epochs, weight or target share, repeats from de-duplication.

The Pile up-samples by repeating documents inside its shards (1.5 to 3 times for books and encyclopaedia), which
de-duplication undoes; here it is a number again. Shares are of text tokens. Nothing is repeated more than
``max_epochs`` times: a mix that would need it is refused with the numbers, instead of being met in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import numpy as np

from glm_data.config import Config, Doc
from glm_data.errors import UsageError
from glm_data.packing.rng import EXTRA_COPY, order_keys

if TYPE_CHECKING:
    from glm_data.packing.options import Recipe
    from glm_data.packing.sources import Tokenized

_SHARE_ERROR = 1e-6


class SourceMix(Config, frozen=True):
    """How one source (or all whose names match a pattern) enters: exactly one of the three."""

    epochs: Annotated[float | None, Doc("passes over the source")] = None
    weight: Annotated[float | None, Doc("factor on its natural size; the total stays that of the corpus")] = None
    share: Annotated[float | None, Doc("share of all text tokens")] = None


def document_copies(documents: Tokenized, recipe: Recipe) -> np.ndarray:
    """``int64[D]``: how often each document is used, by the recipe's mix, languages and multiplicities.

    Fractions of an epoch are met to within one document of each source and language, by taking documents in a seeded
    order. Raises :class:`UsageError` if the mix cannot be met.
    """
    base = np.minimum(documents.duplicates, int(recipe.max_epochs)) if recipe.use_duplicates else 1
    base = np.maximum(np.broadcast_to(base, documents.length.shape).astype(np.int64), 1)
    if not recipe.mix and not recipe.languages:
        return base
    tokens = documents.length * base
    groups = documents.source * len(documents.langs) + documents.lang
    sizes = np.bincount(groups, weights=tokens, minlength=len(documents.sources) * len(documents.langs))
    epochs = group_epochs(sizes.reshape(len(documents.sources), -1), documents.sources, documents.langs, recipe)
    copies = np.zeros(len(tokens), np.int64)
    keys = order_keys(recipe.seed, len(tokens), EXTRA_COPY)
    for group in np.flatnonzero(sizes).tolist():
        mine = np.flatnonzero(groups == group)
        times = float(epochs.flat[group])
        copies[mine] = base[mine] * int(times)
        extra = _take_fraction(mine, tokens, keys, times % 1)
        copies[extra] += base[extra]
    most = int(copies.argmax()) if len(copies) else 0
    if len(copies) and copies[most] > recipe.max_epochs:
        raise UsageError(
            f"the mix and the duplicates together would use a document of source "
            f"'{documents.sources[documents.source[most]]}' {copies[most]} times, at most {recipe.max_epochs:g} are "
            "allowed; lower its share, weight or epochs, raise --max-epochs, or leave out --use-duplicates."
        )
    return copies


def group_epochs(sizes: np.ndarray, sources: Sequence[str], langs: Sequence[str], recipe: Recipe) -> np.ndarray:
    """``float64[sources, langs]``: passes over the documents of each source and language.

    ``sizes`` are their tokens. Sources are mixed first (:func:`source_epochs`), then languages are scaled so that each
    one named has its share of all tokens; the total stays what it was.
    """
    by_source = dict(zip(sources, sizes.sum(1).tolist(), strict=True))
    mixed = source_epochs(by_source, recipe.mix, recipe.max_epochs)
    epochs = np.array([mixed[name] for name in sources])[:, None] * np.ones(len(langs))
    if not recipe.languages:
        return epochs
    used = (sizes * epochs).sum(0)
    factors = _language_factors(dict(zip(langs, used.tolist(), strict=True)), recipe.languages)
    epochs = epochs * np.array([factors[name] for name in langs])
    _refuse_repeats(epochs, sizes, sources, langs, recipe.max_epochs)
    return epochs


def _language_factors(used: Mapping[str, float], languages: Mapping[str, float]) -> dict[str, float]:
    """What to multiply each language's tokens with; a name such as ``zh`` stands for ``zh-Hant`` too."""
    owner = {name: _first_known((name, name.partition("-")[0]), languages) for name in used}
    for wanted, share in languages.items():
        if not 0 <= share <= 1:
            raise UsageError(f"languages: {wanted} {share} is no share; give a number from 0 to 1.")
        if not sum(used[name] for name in used if owner[name] == wanted):
            present = ", ".join(sorted(name or "unknown" for name in used))
            raise UsageError(f"languages: there is no text in '{wanted}'; the languages are {present}.")
    total, together = sum(used.values()), sum(languages.values())
    others = sum(size for name, size in used.items() if owner[name] is None)
    if (others and together >= 1) or (not others and abs(together - 1) > _SHARE_ERROR):
        left = "less than 1, for the others" if others else "exactly 1, as every language has one"
        raise UsageError(f"languages: the shares add up to {together:g}; they must be {left}.")
    named = {wanted: sum(used[name] for name in used if owner[name] == wanted) for wanted in languages}
    rest = (1 - together) * total / others if others else 0.0
    scaled = {wanted: languages[wanted] * total / named[wanted] for wanted in languages}
    return {name: rest if (its := owner[name]) is None else scaled[its] for name in used}


def _first_known(names: Sequence[str], known: Mapping[str, float]) -> str | None:
    return next((name for name in names if name in known), None)


def _refuse_repeats(
    epochs: np.ndarray, sizes: np.ndarray, sources: Sequence[str], langs: Sequence[str], most: float
) -> None:
    used = np.where(sizes > 0, epochs, 0)
    if used.max(initial=0) > most:
        source, lang = divmod(int(used.argmax()), used.shape[1])
        raise UsageError(
            f"the languages would use '{langs[lang]}' documents of source '{sources[source]}' {used.max():.2f} times, "
            f"at most {most:g} are allowed; lower the share of '{langs[lang]}', or raise --max-epochs."
        )


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
