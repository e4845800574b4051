"""The records of a file of JSON lines or of one JSON array, as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from glm_data.formats.arrays import ArraySplitter
from glm_data.formats.blocks import Records, Unreadable
from glm_data.formats.lines import LineSplitter
from glm_data.formats.streams import BrokenStreamError, read_chunks


class Splitter(Protocol):
    """Cuts a stream into records; what comes from the stream's end may be missing something."""

    def feed(self, chunk: bytes) -> Iterator[Records | Unreadable]:
        """Yield the records that ``chunk`` completes."""

    def finish(self, broken: BrokenStreamError | None) -> Iterator[Records | Unreadable]:
        """Yield what the end of the stream leaves."""


def read_records(path: Path, format: str, max_record_bytes: int) -> Iterator[Records | Unreadable]:
    """Yield the records of ``path``, whose ``format`` is ``"wudao"`` (an array) or any other (lines), each once and
    many at a time.

    A stream that breaks off yields what is whole, then what was begun as :class:`~glm_data.formats.Unreadable`.
    """
    splitter: Splitter = ArraySplitter(max_record_bytes) if format == "wudao" else LineSplitter(max_record_bytes)
    broken = None
    try:
        for chunk in read_chunks(path):
            yield from splitter.feed(chunk)
    except BrokenStreamError as error:
        broken = error
    yield from splitter.finish(broken)
