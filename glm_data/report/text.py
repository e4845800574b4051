"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

SPACE = "\u202f"
"""Between a number and its unit: narrow, and no place to break the line."""


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
