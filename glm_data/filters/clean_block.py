"""Cleaning of blocks: bytes that need nothing are copied, lines that may need something are cleaned one by one.

The result is that of :func:`glm_data.filters.clean_text.clean_text` on every whole text; tests hold it against that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
    head_bytes,
    is_about_html,
    remove_html_of_line,
    title_line,
)
from glm_data.filters.options import Step
from glm_data.filters.personal import find_personal
from glm_data.text import defects, edits
from glm_data.text.statistics import utf8_buffers

_TITLED_SOURCES = "WuDao"
_BLANK_LINES = re.compile(rb"\n{3,}")
_BY_BYTES = (defects.LAYOUT, defects.BLANK_LINES)
_DONE = (0, *_BY_BYTES)
"""Flags of lines that need no more than their bytes looked at."""


class _Titled(msgspec.Struct):
    title: str | None = None


_title_decoder = msgspec.json.Decoder(_Titled)
_titles_decoder = msgspec.json.Decoder(list[_Titled])


def clean_block(block: pa.RecordBatch, steps: Sequence[Step]) -> tuple[pa.RecordBatch, Counter[str]]:
    """Clean the texts of a block; returns it with how many documents each step changed.

    A document that needs nothing keeps its bytes.
    """
    cleaned: Counter[str] = Counter()
    texts, found = _fix_line_ends(block.column("text"), steps, cleaned)
    texts = _clean(texts, found, steps, cleaned)
    if "last_fragment" in steps:
        changes = {}
        for row, text in enumerate(texts.to_pylist()):
            changed = drop_last_fragment(text)
            if changed != text:
                changes[row] = changed.encode()
        cleaned["last_fragment"] += len(changes)
        texts = replace_texts(texts, changes)
    if "title" in steps:
        texts = _join_titles(texts, *_titled_rows(block), cleaned)
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


class _Edits(NamedTuple):
    """The edits of a block, as they are gathered."""

    spans: NDArray[np.int64]
    """As :func:`edits.edit_texts` takes them, one for each line with a flag."""
    replaced: dict[int, bytes]
    """What comes in place of the spans that are replaced, by number."""
    strip: NDArray[np.bool_]
    """Whether blank lines at both ends of a document go."""
    spaced: NDArray[np.bool_]
    """Whether white space of a document changed."""
    emptied: list[int]
    """Documents of which a line was emptied, so that blank lines may follow one another."""


def _clean(
    texts: pa.StringArray, found: defects.Defects, steps: Sequence[Step], cleaned: Counter[str]
) -> pa.StringArray:
    """The texts after all steps that go line by line.

    Blanks at line ends and needless blank lines, which are most of what is found, are cut in compiled code; of all
    other lines those that change are gathered as edits, as are whole documents.
    """
    if not found.documents.any():
        return texts
    data, offsets = utf8_buffers(texts)
    gathered = _cut_blanks(data, found, steps)
    flags = _leave_out_impersonal(data, found.lines, steps)
    firsts = np.searchsorted(found.lines[:, 0], np.arange(len(texts) + 1))
    for row in np.unique(found.lines[~np.isin(flags, _DONE), 0]).tolist():
        own = slice(int(firsts[row]), int(firsts[row + 1]))
        lines = np.column_stack([found.lines[own, 1:3], flags[own]]).tolist()
        bounds = int(offsets[row]), int(offsets[row + 1])
        _clean_document(data.data, bounds, row, own, lines, int(found.documents[row]), steps, gathered, cleaned)
    edited = edits.edit_texts(texts, gathered.spans, b"".join(gathered.replaced.values()), gathered.strip)
    return _close_up(edited.texts, gathered.emptied, gathered.spaced | edited.stripped, cleaned)


def _cut_blanks(data: NDArray[np.uint8], found: defects.Defects, steps: Sequence[Step]) -> _Edits:
    """The edits that take no look at the text: blanks at line ends and needless blank lines."""
    spans, spaced = np.empty((len(found.lines), 4), np.int64), np.zeros(len(found.documents), bool)
    has_spaces = "white_space" in steps
    edits.cut_blanks(data, found.lines, *(_BY_BYTES if has_spaces else (0, 0)), spans)
    spaced[spans[spans[:, 1] < spans[:, 2], 0]] = True
    strip = has_spaces & ((found.documents & ~np.uint32(defects.PERSONAL)) != 0)
    return _Edits(spans, {}, strip, spaced, [])


def _leave_out_impersonal(
    data: NDArray[np.uint8], lines: NDArray[np.int64], steps: Sequence[Step]
) -> NDArray[np.int64]:
    """The flags of ``lines``; 0 for those that can hold nothing but personal data, and do not.

    Most are such. They are searched together, as what one line holds does not depend on others.
    """
    flags = lines[:, 3].copy()
    for kinds in np.unique(flags[flags & ~defects.PERSONAL == 0]).tolist():
        places = np.flatnonzero(flags == kinds)
        flags[places] = 0
        if "personal" in steps:
            flags[places[_find_personal_lines(data, lines[places], kinds)]] = kinds
    return flags


def _find_personal_lines(data: NDArray[np.uint8], lines: NDArray[np.int64], kinds: int) -> NDArray[np.int64]:
    """Which of ``lines`` hold what has the form of personal data of ``kinds``."""
    joined = b"\n".join([data.data[first:last] for first, last in lines[:, 1:3].tolist()]).decode()
    ends = np.cumsum([len(line) + 1 for line in joined.split("\n")])
    starts = [start for start, _, _ in find_personal(joined, kinds)]
    return np.unique(np.searchsorted(ends, starts, side="right")).astype(np.int64)


def _clean_document(
    view: memoryview, bounds: tuple[int, int], row: int, own: slice, lines: Sequence[Sequence[int]], flags: int,
    steps: Sequence[Step], gathered: _Edits, cleaned: Counter[str],
) -> None:  # fmt: skip
    """Gather the edits of the document of ``row``; its ``lines`` (first byte, end, flags) have the numbers ``own``."""
    spans, changes = gathered.spans, Counter[str]()
    changed = None if flags & WHOLE else _clean_lines(view, *bounds, lines, flags, steps, changes)
    if changed is None:
        changes.clear()
        whole = clean_text(bytes(view[slice(*bounds)]).decode(), flags, steps, changes).encode()
        spans[own, 1:] = bounds[1], bounds[1], 0
        spans[own.start, 1:] = *bounds, len(whole)
        gathered.replaced[own.start] = whole
        gathered.strip[row] = gathered.spaced[row] = False
    for place, line in (changed or {}).items():
        spans[own.start + place, 1:] = *lines[place][:2], len(line)
        gathered.replaced[own.start + place] = line
    if changed and gathered.strip[row] and not all(changed.values()):
        gathered.emptied.append(row)
    gathered.spaced[row] |= changes.pop("white_space", 0) > 0
    cleaned.update({name: count if "/" in name else 1 for name, count in changes.items()})


def _close_up(
    texts: pa.StringArray, emptied: Sequence[int], spaced: NDArray[np.bool_], cleaned: Counter[str]
) -> pa.StringArray:
    """Leave one blank line at most where lines were emptied, and count whose white space changed."""
    changes = {}
    for row in emptied:
        text = bytes(texts[row].as_buffer())
        changes[row] = _BLANK_LINES.sub(b"\n\n", text).strip(b"\n")
        spaced[row] |= len(changes[row]) != len(text)
    cleaned["white_space"] += int(spaced.sum())
    return replace_texts(texts, changes)


def _clean_lines(
    view: memoryview, start: int, end: int, lines: Sequence[Sequence[int]], flags: int, steps: Sequence[Step],
    changes: Counter[str],
) -> dict[int, bytes] | None:  # fmt: skip
    """Those of a document's ``lines`` (first byte, end, flags) that change, by place, and what they become; None if
    only the whole can be cleaned."""
    changed: dict[int, bytes] = {}
    has_html = False
    for place, (first, last, of_line) in enumerate(lines):
        if of_line in _DONE:
            continue
        line, html_before = bytes(view[first:last]).decode(), changes["html"]
        after = clean_line(line, of_line, steps, changes)
        if changes["html"] > html_before:
            if flags & defects.CONTROL or "\n" in remove_html_of_line(line):
                return None
            if not has_html and is_about_html(bytes(view[start:end]).decode()):
                changes.clear()
                rest: list[Step] = [step for step in steps if step != "html"]
                return _clean_lines(view, start, end, lines, flags, rest, changes)
            has_html = True
        if after != line:
            changed[place] = after.encode()
    changes += Counter()
    return changed


def _join_titles(
    texts: pa.StringArray, titled: NDArray[np.int64], titles: Sequence[str], cleaned: Counter[str]
) -> pa.StringArray:
    """The texts with the titles of the rows ``titled`` before them, where they do not begin with these."""
    data, offsets = utf8_buffers(texts)
    view, rows, lines = data.data, [], []
    for number in np.flatnonzero(~edits.begin_with(texts, titled, pa.array(titles, pa.string()))).tolist():
        row, title = int(titled[number]), titles[number]
        start, end = int(offsets[row]), int(offsets[row + 1])
        line = title_line(bytes(view[start : min(end, start + head_bytes(title))]), title)
        if line:
            rows.append(row)
            lines.append(line)
    if not rows:
        return texts
    places = offsets[rows]
    spans = np.stack([rows, places, places, [len(line) for line in lines]], axis=1).astype(np.int64)
    cleaned["title"] += len(rows)
    return edits.edit_texts(texts, spans, b"".join(lines), np.zeros(len(texts), bool)).texts


def _titled_rows(block: pa.RecordBatch) -> tuple[NDArray[np.int64], list[str]]:
    """Rows of WuDao documents, and their titles, empty where there is none."""
    rows = pc.indices_nonzero(pc.starts_with(block.column("source"), _TITLED_SOURCES))
    metas = block.column("meta").take(rows).to_pylist()
    try:
        titles = [of.title or "" for of in _titles_decoder.decode(f"[{','.join(metas)}]")]
    except msgspec.DecodeError:  # one of them is none, or has no such title
        titles = [title_of(meta) for meta in metas]
    return rows.to_numpy().astype(np.int64), titles


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
