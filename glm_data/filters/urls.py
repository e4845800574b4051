"""Rules about where a document is from: sources by name, and hosts and words of its address."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from glm_data.errors import ConfigError


class UrlRules(NamedTuple):
    """Hosts to refuse, with all below them, and words to refuse in an address."""

    hosts: frozenset[str]
    words: re.Pattern[str] | None

    def refuse(self, url: str) -> bool:
        """Whether ``url`` is on a refused host or has a refused word between marks."""
        try:
            host = (urlsplit(url if "://" in url else f"//{url}").hostname or "").rstrip(".")
        except ValueError:
            host = ""
        labels = host.split(".")
        if any(".".join(labels[start:]) in self.hosts for start in range(len(labels))):
            return True
        return bool(self.words and self.words.search(url.lower()))


def make_url_rules(hosts: Iterable[str], words: Sequence[str]) -> UrlRules:
    """Rules from host names (``www.`` is no part of one) and words, in either case."""
    kept = frozenset(host.strip().lower().removeprefix("www.").rstrip(".") for host in hosts)
    either = "|".join(re.escape(word.lower()) for word in words)
    return UrlRules(kept - {""}, re.compile(rf"(?<![a-z0-9])(?:{either})(?![a-z0-9])") if either else None)


@lru_cache(maxsize=8)
def read_list(path: str, digest: str) -> tuple[str, ...]:
    """The lines of a list, without blank ones and comments (``#``); ``digest`` tells versions of the file apart."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"the list '{path}' cannot be read ({error.strerror}); check the path.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the list '{path}' is not UTF-8 text; give one entry a line.") from None
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def is_refused_source(source: str, patterns: Sequence[str]) -> bool:
    """Whether a source's name matches one of ``patterns`` (``*`` stands for anything)."""
    return any(fnmatch.fnmatchcase(source, pattern) for pattern in patterns)
