"""Foreign text made safe to look at, and numbers as people read them."""

from __future__ import annotations

import re
from typing import Any

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)

SPACE = "\u202f"
"""Between a number and its unit: narrow, and no place to break the line."""


def visible(value: str) -> str:
    """``value`` with control characters, invisible ones and overrides of the writing direction spelled out.

    C0 controls become their picture (U+2400 on), the rest ``⟨U+202E⟩``; tabs and line ends stay, and so do the joiners
    that scripts and emoji are written with.
    """
    return _HIDDEN.sub(_spell, value)


def _spell(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def show_space(value: str) -> str:
    """``value`` with spaces, tabs and line ends as signs."""
    return value.translate({ord(" "): "·", ord("\t"): "⇥", ord("\n"): "⏎"})


def number(value: Any) -> str:
    """``12,345`` for whole numbers, four significant digits for others."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def size(value: float | None) -> str:
    """Bytes in the decimal unit that leaves one to three digits before the point; a dash for None."""
    if value is None:
        return "–"
    if value < 1000:
        return f"{value:.0f}{SPACE}B"
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.3g}{SPACE}{unit}"
    return f"{value / 1000:,.3g}{SPACE}TB"


def percent(part: float, whole: float) -> str:
    """``12.3 %`` of ``whole``, ``<0.1 %`` and ``>99.9 %`` where it is not quite nothing or all; a dash of nothing."""
    if not whole:
        return "–"
    value = 100 * part / whole
    if 0 < value < 0.05:
        return f"<0.1{SPACE}%"
    return f">99.9{SPACE}%" if 99.95 <= value < 100 else f"{value:.1f}{SPACE}%"


def duration(seconds: float) -> str:
    """``0.8 s``, ``2 min 05 s`` or ``3 h 02 min``."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def flatten(options: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested options as ``(path, value)`` lines, such as ``("limits.low", "1")``."""
    if isinstance(options, dict) and options:
        return [
            line for name, value in options.items() for line in flatten(value, f"{prefix}.{name}" if prefix else name)
        ]
    if isinstance(options, list) and any(isinstance(item, dict) for item in options):
        return [line for index, item in enumerate(options) for line in flatten(item, f"{prefix}[{index}]")]
    if isinstance(options, list):
        return [(prefix, ", ".join(_plain(item) for item in options) or "none")]
    return [(prefix, _plain(options))]


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)
