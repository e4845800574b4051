"""Profiles: rules over signals, as data, and the verdict they give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from glm_data.config import Config, Doc, load_yaml
from glm_data.errors import ConfigError, did_you_mean
from glm_data.filters.language import LANGUAGES
from glm_data.filters.signals import SIGNALS, Signals

_FOLDER = Path(__file__).with_name("profiles")
LANGUAGE_REASON, SOURCE_REASON, URL_REASON = "language", "source", "url"
"""Reasons that are no rule's: a language that the profile does not keep, a source or address that is refused."""


_RESERVED = (LANGUAGE_REASON, SOURCE_REASON, URL_REASON)


class Rule(Config, frozen=True, kw_only=True):
    """A bound on a signal."""

    name: Annotated[str, Doc("reason under which documents that break the rule are counted")]
    signal: Annotated[str, Doc("the signal")]
    min: Annotated[float | None, Doc("smallest value allowed")] = None
    max: Annotated[float | None, Doc("largest value allowed")] = None
    languages: Annotated[tuple[str, ...], Doc("languages it holds for; none means all")] = ()
    given: Annotated[dict[str, float], Doc("signals that must all reach these values for the rule to hold")] = (
        msgspec.field(default_factory=dict)
    )
    unless: Annotated[dict[str, float], Doc("signals that must all stay below these values for it to hold")] = (
        msgspec.field(default_factory=dict)
    )


class Profile(Config, frozen=True, kw_only=True):
    """What a document must be to be kept."""

    description: Annotated[str, Doc("what the profile is for, and where its bounds come from")]
    languages: Annotated[tuple[str, ...], Doc("languages to keep")] = LANGUAGES
    drop_sources: Annotated[tuple[str, ...], Doc("sources to drop; * stands for anything")] = ()
    drop_url_words: Annotated[tuple[str, ...], Doc("words in the url of meta for which to drop a document")] = ()
    rules: Annotated[tuple[Rule, ...], Doc("rules; the first one broken names the reason")] = ()


class Verdicts(NamedTuple):
    """The judgement on a block's documents."""

    reasons: NDArray[Any]
    """The first reason against each document, ``object[documents]``; empty for those kept."""
    values: NDArray[np.float64]
    """The measured value of that reason's signal; NaN where there is none."""
    broken: list[dict[str, float]]
    """All rules that each document broke, with the measured values."""


def profile_names() -> tuple[str, ...]:
    """The profiles that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_profile(name: str) -> Profile:
    """The profile of the package called ``name``, or the one in the YAML file at the path ``name``.

    Raises :class:`ConfigError` for one that does not exist or does not fit.
    """
    is_path = name.endswith((".yaml", ".yml")) or "/" in name
    if not is_path and name not in profile_names():
        hint = did_you_mean(name, profile_names()) or f" Profiles: {', '.join(profile_names())}, or a path."
        raise ConfigError(f"there is no profile '{name}'.{hint}")
    path = Path(name) if is_path else _FOLDER / f"{name}.yaml"
    profile = load_yaml(path, Profile)
    check_profile(profile, str(path))
    return profile


def check_profile(profile: Profile, where: str) -> None:
    """Raise :class:`ConfigError` for signals and languages that do not exist, and rules without a bound."""
    _check_known(profile.languages, LANGUAGES, where, "language")
    for rule in profile.rules:
        place = f"{where}, rule '{rule.name}'"
        _check_known((rule.signal, *rule.given, *rule.unless), SIGNALS, place, "signal")
        _check_known(rule.languages, LANGUAGES, place, "language")
        if rule.min is None and rule.max is None:
            raise ConfigError(f"{place}: give min, max or both.")
    names = [rule.name for rule in profile.rules]
    doubled = [name for name in names if names.count(name) > 1 or name in _RESERVED]
    if doubled:
        raise ConfigError(f"{where}: two rules are called '{doubled[0]}'; each needs a name of its own.")


def _check_known(words: tuple[str, ...], known: Mapping[str, str] | tuple[str, ...], where: str, what: str) -> None:
    for word in words:
        if word not in known:
            hint = did_you_mean(word, known) or f" Known: {', '.join(known)}."
            raise ConfigError(f"{where}: there is no {what} '{word}'.{hint}")


def judge(profile: Profile, signals: Signals, languages: NDArray[np.int8]) -> Verdicts:
    """Judge documents by their signals (``float64[documents]`` each) and languages (indices of LANGUAGES)."""
    count = len(languages)
    reasons, values, broken = np.full(count, "", object), np.full(count, np.nan), [_NOTHING] * count
    nothing = np.full(count, np.nan)
    for name, rows, measured in (
        (SOURCE_REASON, signals["refused_source"] > 0, nothing),
        (URL_REASON, signals["refused_url"] > 0, nothing),
        (LANGUAGE_REASON, ~_language_mask(profile.languages)[languages], nothing),
        *((rule.name, find_broken(rule, signals, languages), signals[rule.signal]) for rule in profile.rules),
    ):
        for row in np.flatnonzero(rows).tolist():
            value = float(measured[row])
            if not broken[row]:
                reasons[row], values[row], broken[row] = name, value, {}
            broken[row][name] = value
    return Verdicts(reasons, values, broken)


_NOTHING: dict[str, float] = {}
"""What is broken by those that broke nothing: of most, so that they share it."""


def find_broken(rule: Rule, signals: Signals, languages: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which documents break ``rule``: ``bool[documents]``.

    Compared as ``float32``, the type in which signals are kept, so that kept ones give the same verdicts.
    """
    values = signals[rule.signal].astype(np.float32)
    broken = np.zeros(len(values), bool)
    if rule.min is not None:
        broken |= values < np.float32(rule.min)
    if rule.max is not None:
        broken |= values > np.float32(rule.max)
    return broken & find_bound(rule, signals, languages)


def find_bound(rule: Rule, signals: Signals, languages: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which documents ``rule`` holds for: ``bool[documents]``."""
    bound = _language_mask(rule.languages)[languages] if rule.languages else np.ones(len(languages), bool)
    for name, least in rule.given.items():
        bound &= signals[name].astype(np.float32) >= np.float32(least)
    for name, least in rule.unless.items():
        bound &= signals[name].astype(np.float32) < np.float32(least)
    return bound


def _language_mask(languages: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.array([language in languages for language in LANGUAGES])
