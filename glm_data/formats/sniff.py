"""Which format a file is in, by its content."""

from __future__ import annotations

import re
from pathlib import Path

from glm_data.formats.arrays import WRAPPER
from glm_data.formats.blocks import BadRecordError
from glm_data.formats.records import TEXT_FIELDS, decode_json
from glm_data.formats.streams import BrokenStreamError, read_chunks

FORMATS = ("pile", "wudao", "jsonl", "parquet", "text")
"""Names that readers take; ``pile`` and ``jsonl`` are JSON lines, ``wudao`` is one JSON array."""

_HEAD_BYTES = 1 << 16
_LONG_BLANK = re.compile(rb"[ \t\r\n]{256,}")
_ARRAY = re.compile(rb"\[\s*(?:[{\]]|$)")
_COMPRESSIONS = (".gz", ".zst", ".zstd")
_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "wudao", ".txt": "text", ".md": "text"}


def sniff(path: Path) -> str:
    """Return ``jsonl``, ``wudao``, ``parquet`` or ``text`` for the file at ``path``, compressed or not.

    Content decides where it can, then the name; what is none of the others is text.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PAR1" or path.suffix.lower() == ".parquet":
            return "parquet"
    head = _head(path)
    by_name = _BY_SUFFIX.get(_suffix(path))
    if by_name == "text":
        return "text"
    if _ARRAY.match(head):
        return "wudao"
    if head.startswith(b"{"):
        return "wudao" if WRAPPER.match(head) and not _is_line(head) else "jsonl"
    return by_name or "text"


def _head(path: Path) -> bytes:
    """What the file begins with, after a byte order mark and blanks, however many; long ones inside stand for one."""
    head = b""
    try:
        for chunk in read_chunks(path):
            head = (head + chunk).removeprefix(b"\xef\xbb\xbf").lstrip()
            head = _LONG_BLANK.sub(lambda run: b"\n" if b"\n" in run.group() else b" ", head)[:_HEAD_BYTES]
            if len(head) == _HEAD_BYTES:
                break
    except BrokenStreamError:
        pass
    return head


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_line(head: bytes) -> bool:
    """Whether the first line is a whole document by itself, so that the file is JSON lines."""
    try:
        record = decode_json(head.partition(b"\n")[0])
    except BadRecordError:
        return False
    return isinstance(record, dict) and any(field in record for field in TEXT_FIELDS)
