"""The bytes of a file, decompressed in pieces of bounded size, with its end checked.

Usual readers take a compressed file that was cut off for a shorter file. Here the end of every gzip member and every
zstd frame is seen, or :class:`BrokenStreamError` is raised after everything readable has been yielded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

CHUNK_BYTES = 1 << 20
_READ_BYTES = 1 << 17
_PIECE_BYTES = 1 << 14
"""Decompressed zstd bytes read at a time: what of a read comes before damage is lost with it."""
_LARGEST_WINDOW = 1 << 31
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC, _SKIPPABLE_MASK = 0x184D2A50, 0xFFFFFFF0
_RLE_BLOCK = 1


class BrokenStreamError(Exception):
    """The stream ends too early (``reason`` is ``truncated``) or is damaged (``corrupt``)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the decompressed bytes of ``path`` in pieces of about 1 MiB; gzip and zstd are known by their magic.

    Memory stays at a few pieces (and the zstd window) whatever the file claims to hold.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        _check_suffix(path.suffix.lower(), head)
        yield from _gather(_pieces(file, head))


def _check_suffix(suffix: str, head: bytes) -> None:
    """A name that promises compression must keep it; an empty file is told apart by its readers."""
    if head and suffix in (".zst", ".zstd") and not _is_zstd(int.from_bytes(head, "little")):
        raise BrokenStreamError("corrupt", "the name says zstd, but the bytes are not")
    if head and suffix == ".gz" and head[:2] != _GZIP_MAGIC:
        raise BrokenStreamError("corrupt", "the name says gzip, but the bytes are not")


def _pieces(file: BinaryIO, head: bytes) -> Iterator[bytes]:
    if head[:2] == _GZIP_MAGIC:
        return _gunzip(file)
    if _is_zstd(int.from_bytes(head, "little")):
        return _unzstd(file)
    return iter(lambda: file.read(CHUNK_BYTES), b"")


def _gather(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces to chunks; what was read before an error is yielded before the error is raised."""
    held: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= CHUNK_BYTES:
                yield b"".join(held)
                held, size = [], 0
    except BrokenStreamError:
        if held:
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    data = file.read(_READ_BYTES)
    while data:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not data:
                data = file.read(_READ_BYTES)
                if not data:
                    raise BrokenStreamError("truncated", "the gzip stream ends before its end mark")
            try:
                piece = member.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise BrokenStreamError("corrupt", f"the gzip stream is damaged: {error}") from None
            if piece:
                yield piece
            data = member.unconsumed_tail
        data = _next_member(member.unused_data, file)


def _next_member(data: bytes, file: BinaryIO) -> bytes:
    """The start of the next gzip member, past the zero bytes that some tools pad with."""
    while True:
        data = data.lstrip(b"\0")
        more = file.read(_READ_BYTES) if len(data) < len(_GZIP_MAGIC) else b""
        if not more:
            break
        data += more
    if data and not data.startswith(_GZIP_MAGIC):
        raise BrokenStreamError("corrupt", "other data follows the gzip stream")
    return data


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    watched = _WatchedFile(file)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    reader = decompressor.stream_reader(cast(BinaryIO, watched), read_across_frames=True, read_size=_READ_BYTES)
    chunk, used = memoryview(bytearray(CHUNK_BYTES)), 0
    broken = None
    try:
        while size := reader.readinto(chunk[used : used + _PIECE_BYTES]):
            used += size
            if used == CHUNK_BYTES:
                yield bytes(chunk)
                used = 0
    except zstandard.ZstdError as error:
        broken = BrokenStreamError("corrupt", f"the zstd stream is damaged: {error}")
    if used:
        yield bytes(chunk[:used])
    if broken is None and not watched.frames.at_end:
        broken = BrokenStreamError("truncated", "the zstd stream ends inside a frame")
    if broken is not None:
        raise broken


class _WatchedFile:
    """A file that shows everything read from it to a :class:`FrameWatch`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.frames = FrameWatch()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.frames.feed(data)
        return data


def _is_zstd(magic: int) -> bool:
    return magic == _ZSTD_MAGIC or magic & _SKIPPABLE_MASK == _SKIPPABLE_MAGIC


class FrameWatch:
    """Follows the frames of a zstd stream by their headers alone, to know whether it may end here.

    Layout after RFC 8878: a frame is magic, header, blocks and an optional checksum; a block's three-byte header holds
    a last-block bit, two bits of type and its size.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._skip = 0
        self._need = 4
        self._step: Callable[[int], None] = self._magic
        self._checksum = False

    @property
    def at_end(self) -> bool:
        """Whether everything seen so far is whole frames."""
        return self._step == self._magic and not self._head and not self._skip

    def feed(self, data: bytes) -> None:
        """Follow ``data``."""
        position = 0
        while position < len(data):
            if self._skip:
                jump = min(self._skip, len(data) - position)
                self._skip -= jump
            else:
                jump = min(self._need - len(self._head), len(data) - position)
                self._head += data[position : position + jump]
                if len(self._head) == self._need:
                    value = int.from_bytes(self._head, "little")
                    self._head.clear()
                    self._step(value)
            position += jump

    def _expect(self, need: int, step: Callable[[int], None], skip: int = 0) -> None:
        self._need, self._step, self._skip = need, step, skip

    def _magic(self, value: int) -> None:
        if value == _ZSTD_MAGIC:
            self._expect(1, self._descriptor)
        elif _is_zstd(value):
            self._expect(4, self._skippable)
        # anything else makes the decompressor raise

    def _skippable(self, size: int) -> None:
        self._expect(4, self._magic, skip=size)

    def _descriptor(self, flags: int) -> None:
        single_segment = flags >> 5 & 1
        content_size = (single_segment, 2, 4, 8)[flags >> 6]
        dictionary_id = (0, 1, 2, 4)[flags & 3]
        self._checksum = bool(flags & 4)
        self._expect(3, self._block, skip=(1 - single_segment) + dictionary_id + content_size)

    def _block(self, header: int) -> None:
        is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
        content = 1 if kind == _RLE_BLOCK else size
        if is_last:
            self._expect(4, self._magic, skip=content + 4 * self._checksum)
        else:
            self._expect(3, self._block, skip=content)
