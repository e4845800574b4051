"""What a filter stage says of itself: losses by source and by language, and documents at the border."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from glm_data.errors import InputError
from glm_data.manifest import Success


def summarise_filtering(folder: Path, success: Success, plan: dict[str, Any]) -> dict[str, Any]:
    """Dropped documents by source and by language, each by reason, and documents near the bounds of the rules.

    Also documents changed by each cleaning step, and placeholders put in place of personal data.
    """
    cleaned = {
        name.removeprefix("cleaned/"): count for name, count in success.counts.items() if name.startswith("cleaned/")
    }
    return {
        "dropped": dict(success.dropped),
        "by_source": _nested(success.counts, "dropped/"),
        "by_language": _nested(success.counts, "dropped_language/"),
        "cleaned": {name: count for name, count in cleaned.items() if "/" not in name},
        "personal": {name.removeprefix("personal/"): n for name, n in cleaned.items() if name.startswith("personal/")},
        "border": _border(folder, success),
    }


def _nested(counts: Mapping[str, int], prefix: str) -> list[dict[str, Any]]:
    """``<prefix><group>/<reason>`` as one row a group, the largest first; a source's name may hold ``/``."""
    groups: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        if name.startswith(prefix):
            group, _, reason = name.removeprefix(prefix).rpartition("/")
            groups.setdefault(group, {})[reason] = count
    rows = [{"name": group, "dropped": sum(reasons.values()), "reasons": reasons} for group, reasons in groups.items()]
    return sorted(rows, key=lambda row: (-row["dropped"], row["name"]))


def _border(folder: Path, success: Success) -> list[dict[str, Any]]:
    """Of every rule that dropped something, the examples nearest to its bound, of all shards."""
    from glm_data.filters.border import Example, nearest  # with the kernels of its room

    examples: list[Example] = []
    for item in success.files:
        if not item.name.startswith("border/"):
            continue
        try:
            lines = (folder / item.name).read_bytes().splitlines()
            examples += [msgspec.json.decode(line, type=Example) for line in lines]
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"'{folder / item.name}' is damaged ({error}); run that stage again.") from None
    found: dict[str, list[dict[str, Any]]] = {}
    for example in sorted(nearest(examples), key=lambda one: not one.kept):
        found.setdefault(example.rule, []).append(msgspec.to_builtins(example))
    rules = sorted(success.dropped.items(), key=lambda item: (-item[1], item[0]))
    return [{"rule": rule, "examples": found[rule]} for rule, _ in rules if rule in found]
