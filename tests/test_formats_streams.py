"""Compressed streams: bounded pieces, every frame's end seen, everything before a break kept."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.formats.streams import CHUNK_BYTES, BrokenStreamError, FrameWatch, read_chunks

TEXT = b"".join(b"line %d of a text that is not all the same\n" % n for n in range(4000))
SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"abcde"


def zst(data: bytes, **settings: bool) -> bytes:
    return zstandard.ZstdCompressor(**settings).compress(data)


def streamed(data: bytes) -> bytes:
    """A frame without its content size, as ``zstd -c`` writes it, in several blocks."""
    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    parts = [
        compressor.compress(data[at : at + 1000]) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for at in range(0, len(data), 1000)
    ]
    return b"".join(parts) + compressor.flush()


def read(path: Path) -> tuple[bytes, str]:
    """What can be read, and the reason why no more."""
    pieces: list[bytes] = []
    try:
        for piece in read_chunks(path):
            pieces.append(piece)
    except BrokenStreamError as error:
        return b"".join(pieces), error.reason
    return b"".join(pieces), ""


NOISE = random.Random(0).randbytes(300_000)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TEXT, TEXT),
        (b"", b""),
        (gzip.compress(TEXT), TEXT),
        (gzip.compress(TEXT) + gzip.compress(TEXT), TEXT + TEXT),
        (gzip.compress(TEXT) + bytes(1000), TEXT),
        (zst(TEXT), TEXT),
        (zst(TEXT) + zst(TEXT, write_checksum=True), TEXT + TEXT),
        (SKIPPABLE + zst(TEXT) + SKIPPABLE, TEXT),
        (zst(TEXT, write_content_size=False), TEXT),
        (streamed(TEXT), TEXT),
        (zst(bytes(300_000)), bytes(300_000)),  # run-length blocks
        (zst(NOISE), NOISE),  # raw blocks
    ],
)
def test_whole_files_are_read_whole(tmp_path: Path, data: bytes, expected: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert read(path) == (expected, "")


@pytest.mark.parametrize("data", [gzip.compress(TEXT), streamed(TEXT), zst(TEXT), zst(TEXT) + zst(TEXT)])
def test_every_cut_is_noticed_and_what_is_before_it_kept(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    for cut in {*range(8, len(data), max(1, len(data) // 40)), len(data) - 1} - {len(zst(TEXT))}:
        path.write_bytes(data[:cut])
        found, reason = read(path)
        assert reason == "truncated"
        assert (TEXT + TEXT).startswith(found)


def test_a_cut_at_the_last_byte_loses_nothing_but_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (gzip.compress(TEXT), streamed(TEXT)):
        path.write_bytes(data[:-1])
        assert read(path) == (TEXT, "truncated")


def test_what_was_decompressed_before_damage_is_kept(tmp_path: Path) -> None:
    data = bytearray(streamed(TEXT))
    data[len(data) // 2 :] = random.Random(1).randbytes(len(data) - len(data) // 2)
    path = tmp_path / "file.zst"
    path.write_bytes(data)
    found, reason = read(path)
    assert reason in ("corrupt", "truncated")
    assert TEXT.startswith(found)
    assert len(found) >= len(TEXT) // 4


@pytest.mark.parametrize("data", [gzip.compress(TEXT), zst(TEXT)])
def test_what_follows_the_stream_is_reported(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data + b"something else")
    found, reason = read(path)
    assert reason == "corrupt"
    assert TEXT.startswith(found)
    assert len(found) >= len(TEXT) - (1 << 14)


def test_a_bomb_comes_in_bounded_pieces(tmp_path: Path) -> None:
    for data in (zst(bytes(1 << 27)), gzip.compress(bytes(1 << 25))):
        path = tmp_path / "bomb"
        path.write_bytes(data)
        assert max(len(piece) for piece in read_chunks(path)) <= 2 * CHUNK_BYTES


@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=4), st.data())
@settings(deadline=None, max_examples=60)
def test_frames_are_followed_through_any_pieces(parts: list[bytes], data: st.DataObject) -> None:
    frames = [zst(part, write_checksum=data.draw(st.booleans())) for part in parts]
    stream, ends, length = b"".join(frames), set(), 0
    for frame in frames:
        length += len(frame)
        ends.add(length)
    watch, position = FrameWatch(), 0
    while position < len(stream):
        step = data.draw(st.integers(1, len(stream)))
        watch.feed(stream[position : position + step])
        position = min(len(stream), position + step)
        assert watch.at_end == (position in ends)


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.json.gz", "a.zstd"])
def test_a_name_that_promises_compression_must_keep_it(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b'{"text": "plain"}\n')
    assert read(path) == (b"", "corrupt")
    path.write_bytes(b"")
    assert read(path) == (b"", "")
