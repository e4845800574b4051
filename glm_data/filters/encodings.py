"""Text whose encoding was mistaken, read again: where its bytes prove what it was."""

from __future__ import annotations

import re
from functools import lru_cache

_LEAST_COMMON = 0.9
"""Share of common characters in what Latin-1 letters become as GBK, for it to be Chinese."""


def fix_mojibake(text: str) -> str:
    """Read again, line by line, UTF-8 that was read as Latin-1, Windows-1252 (both by ftfy's judgement) or GBK, and GBK
    that was read as Latin-1.
    """
    return "\n".join(line if line.isascii() else _fix_line(line) for line in text.split("\n"))


def _fix_line(line: str) -> str:
    import ftfy.badness

    chinese = _runs().sub(lambda match: from_latin(match.group()), line)
    if chinese != line:
        return chinese
    return ftfy.fix_encoding(line) if ftfy.badness.is_bad(line) else from_gbk(line)


@lru_cache(maxsize=1)
def _runs() -> re.Pattern[str]:
    return re.compile("[\xa1-\xff]{6,}")


def from_latin(run: str) -> str:
    """The Chinese that a run of Latin-1 letters is in GBK, or the run as it is."""
    try:
        read = run.encode("latin-1").decode("gbk")
    except UnicodeDecodeError:
        return run
    return read if sum(map(_is_common, read)) >= _LEAST_COMMON * len(read) else run


def from_gbk(line: str) -> str:
    """The line in UTF-8 if it is UTF-8 that was read as GBK: rare characters alone, whose bytes are sound UTF-8.

    What had an odd number of bytes has lost its last one, which reads as ``?``; such a line is left as it is.
    """
    try:
        read = line.encode("gb18030").decode()
    except UnicodeError:
        return line
    return read if sum(map(_is_common, read)) > sum(map(_is_common, line)) else line


def _is_common(character: str) -> bool:
    """Of GB 2312: its marks and the common Han characters of the first level."""
    try:
        encoded = character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return len(encoded) == 2 and (0xB0 <= encoded[0] < 0xD8 or encoded[0] in (0xA1, 0xA3))
