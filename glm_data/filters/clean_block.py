"""Cleaning of blocks: bytes that need nothing are copied, lines that may need something are cleaned one by one.

The result is that of :func:`glm_data.filters.clean_text.clean_text` on every whole text; tests hold it against that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from glm_data.filters.clean_text import (
    WHOLE,
    clean_line,
    clean_text,
    drop_last_fragment,
    fix_newlines,
    is_about_html,
    title_line,
)
from glm_data.filters.options import Step
from glm_data.text import defects
from glm_data.text.statistics import utf8_buffers

_TITLED_SOURCES = "WuDao"
_BLANK_LINES = re.compile(rb"\n{3,}")
_BY_BYTES = (defects.LAYOUT, defects.BLANK_LINES)


class _Titled(msgspec.Struct):
    title: str | None = None


_title_decoder = msgspec.json.Decoder(_Titled)


def clean_block(block: pa.RecordBatch, steps: Sequence[Step]) -> tuple[pa.RecordBatch, Counter[str]]:
    """Clean the texts of a block; returns it with how many documents each step changed.

    A document that needs nothing keeps its bytes.
    """
    cleaned: Counter[str] = Counter()
    texts, found = _fix_line_ends(block.column("text"), steps, cleaned)
    changes = dict(_clean(texts, found, steps, cleaned))
    if "last_fragment" in steps:
        texts, changes = replace_texts(texts, changes), {}
        for row, text in enumerate(texts.to_pylist()):
            changed = drop_last_fragment(text)
            if changed != text:
                changes[row] = changed.encode()
        cleaned["last_fragment"] += len(changes)
    if "title" in steps:
        for row, title in _titled_rows(block):
            text = changes[row] if row in changes else bytes(texts[row].as_buffer())
            line = title_line(text, title)
            if line:
                changes[row] = line + text
                cleaned["title"] += 1
    texts = replace_texts(texts, changes)
    return (block if texts is block.column("text") else replace_column(block, "text", texts)), cleaned


def _fix_line_ends(
    texts: pa.StringArray, steps: Sequence[Step], cleaned: Counter[str]
) -> tuple[pa.StringArray, defects.Defects]:
    """The texts with one kind of line end, unless other steps come first, and their defects."""
    found = defects.find_defects(texts)
    odd = (found.documents & (defects.NEWLINES | defects.MOJIBAKE | defects.JOINER)) == defects.NEWLINES
    if "newlines" not in steps or not odd.any():
        return texts, found
    rows = np.flatnonzero(odd).tolist()
    cleaned["newlines"] += len(rows)
    texts = replace_texts(texts, {row: fix_newlines(texts[row].as_py()).encode() for row in rows})
    return texts, defects.find_defects(texts)


def _clean(
    texts: pa.StringArray, found: defects.Defects, steps: Sequence[Step], cleaned: Counter[str]
) -> Iterator[tuple[int, bytes]]:
    """The documents that change, by number, and what they become."""
    data, offsets = utf8_buffers(texts)
    view = data.data
    firsts = np.searchsorted(found.lines[:, 0], np.arange(len(texts) + 1))
    for row in np.flatnonzero(found.documents).tolist():
        flags, start, end = int(found.documents[row]), int(offsets[row]), int(offsets[row + 1])
        lines = found.lines[firsts[row] : firsts[row + 1], 1:].tolist()
        changes: Counter[str] = Counter()
        changed = None if flags & WHOLE else _clean_lines(view, start, end, lines, flags, steps, changes)
        if changed is None:
            changes.clear()
            changed = clean_text(bytes(view[start:end]).decode(), flags, steps, changes).encode()
        cleaned.update({name: count if "/" in name else 1 for name, count in changes.items()})
        if changes:
            yield row, changed


def _clean_lines(
    view: memoryview, start: int, end: int, lines: Sequence[Sequence[int]], flags: int, steps: Sequence[Step],
    changes: Counter[str],
) -> bytes | None:  # fmt: skip
    """A document whose ``lines`` (first byte, end, flags) have been cleaned; None if only the whole can be cleaned."""
    pieces: list[bytes | memoryview] = []
    at, is_emptied = start, False
    for first, last, of_line in lines:
        if of_line in _BY_BYTES and "white_space" in steps:  # most are of these kinds, and need not be decoded
            is_blank = of_line == defects.BLANK_LINES
            pieces.append(view[at : first if is_blank else first + len(bytes(view[first:last]).rstrip(b" \t"))])
            changes["white_space"] += 1
            at = last + is_blank
            continue
        line = bytes(view[first:last]).decode()
        html_before = changes["html"]
        changed = clean_line(line, of_line, steps, changes)
        if changes["html"] > html_before:
            if flags & defects.CONTROL or not is_about_html(bytes(view[start:end]).decode()):
                return None
            changes.clear()
            rest: list[Step] = [step for step in steps if step != "html"]
            return _clean_lines(view, start, end, lines, flags, rest, changes)
        if changed != line:
            pieces += [view[at:first], changed.encode()]
            at, is_emptied = last, is_emptied or not changed
    text = b"".join([*pieces, view[at:end]])
    if "white_space" in steps and flags & ~defects.PERSONAL:
        stripped = (_BLANK_LINES.sub(b"\n\n", text) if is_emptied else text).strip(b"\n")
        changes["white_space"] += len(stripped) != len(text)
        text = stripped
    changes += Counter()
    return text


def _titled_rows(block: pa.RecordBatch) -> list[tuple[int, str]]:
    """Rows of WuDao documents that have a title, and the title."""
    rows = pc.indices_nonzero(pc.starts_with(block.column("source"), _TITLED_SOURCES))
    titles = [title_of(meta) for meta in block.column("meta").take(rows).to_pylist()]
    return [(row, title) for row, title in zip(rows.to_pylist(), titles, strict=True) if title]


def title_of(meta: str) -> str:
    """The title in a document's ``meta``, or an empty string."""
    try:
        return _title_decoder.decode(meta).title or ""
    except msgspec.DecodeError:
        return ""


def replace_texts(texts: pa.StringArray, changes: Mapping[int, bytes]) -> pa.StringArray:
    """``texts`` with other ones at some places."""
    if not changes:
        return texts
    data, offsets = utf8_buffers(texts)
    view, sizes, at = data.data, np.diff(offsets), int(offsets[0])
    pieces: list[bytes | memoryview] = []
    for row in sorted(changes):
        pieces += [view[at : int(offsets[row])], changes[row]]
        at, sizes[row] = int(offsets[row + 1]), len(changes[row])
    joined = b"".join([*pieces, view[at : int(offsets[-1])]])
    bounds: NDArray[np.int32] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(bounds), pa.py_buffer(joined))


def replace_column(block: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    """``block`` with another column ``name``."""
    return block.set_column(block.schema.get_field_index(name), block.schema.field(name), values)
