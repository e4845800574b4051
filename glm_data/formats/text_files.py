"""Plain text: one document a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from glm_data.documents import document_id
from glm_data.formats.blocks import Document, Unreadable, excerpt
from glm_data.formats.streams import BrokenStreamError, read_chunks


def read_text(path: Path, name: str, max_record_bytes: int) -> Iterator[Document | Unreadable]:
    """Yield the file's document, or why there is none; what was read before a break in compression is kept.

    The source is the folder in ``name``, or the file itself.
    """
    data = bytearray()
    broken = None
    try:
        for chunk in read_chunks(path):
            data += chunk
            if len(data) > max_record_bytes:
                detail = f"the file is longer than {max_record_bytes} bytes"
                yield Unreadable(0, 0, "too_long", detail, excerpt(data))
                return
    except BrokenStreamError as error:
        broken = error
    number = 0
    if data or broken is None:
        yield _document(bytes(data), name, "ignore" if broken else "strict")
        number = 1
    if broken:
        yield Unreadable(number, len(data), broken.reason, broken.detail, "")


def _document(data: bytes, name: str, errors: str) -> Document | Unreadable:
    if not data.strip():
        return Unreadable(0, 0, "empty", "the file holds no text", "")
    try:
        text = data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        detail = f"invalid UTF-8 at offset {error.start}: {error.reason}"
        return Unreadable(0, error.start, "invalid_utf8", detail, excerpt(data[max(0, error.start - 40) :]))
    return Document(document_id(name, 0), text, name.rpartition("/")[0] or name, "", "{}")
