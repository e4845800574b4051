"""Files written whole or not at all, and digests of them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from glm_data.errors import OutputError

TEMPORARY_PREFIX = ".tmp-"
_CHUNK_BYTES = 1 << 20
_ONLY_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_CUT_SHORT = "requested and"
"""What NumPy says, without a number, when it could write only a part of an array."""
_ALSO_READING = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed to ``path``, on error removed.

    A process killed at any moment leaves either the old file or the new one, plus at most one ``.tmp-`` file that
    :func:`remove_temporaries` clears when the stage is opened again. The temporary name is new on every call, so two
    workers on one shard (runners retry) do not meet; it ends in the name of ``path``, so its suffix is the same.
    Raises :class:`OutputError` for a full or read-only disk or missing permission, whoever wrote to the file.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        make_folder(path.parent)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        is_about_writing = error.errno in _ONLY_WRITING or (error.errno is None and _CUT_SHORT in str(error))
        if is_about_writing or (error.errno in _ALSO_READING and temporary.name in str(error)):
            raise output_error(path, error) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # what went wrong above is the news
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents where missing; raises :class:`OutputError` if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def output_error(path: Path, error: OSError, *, goes_on: bool = True) -> OutputError:
    """The sentence for a user whose ``path`` could not be written; ``goes_on`` if the same command resumes."""
    said = "only a part was written, the disk may be full" if _CUT_SHORT in str(error) else str(error)
    reason = os.strerror(error.errno) if error.errno else said
    again = ", then run again: what is finished is kept" if goes_on else ""
    return OutputError(f"'{path}' cannot be written ({reason}); make room or choose another folder{again}.")


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_if_new(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically, unless it is there already."""
    if not path.exists() or path.read_bytes() != data:
        write_bytes(path, data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON with sorted keys, atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """``value`` as :func:`write_json` writes it."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=1) + b"\n"


def holds_json(path: Path, value: Any) -> bool:
    """Whether the file holds exactly what :func:`write_json` writes for ``value``."""
    return path.read_bytes() == json_bytes(value)


def read_json(path: Path, type: Any = Any) -> Any:
    """Read a JSON file written by :func:`write_json` as ``type``; raises ``OSError`` or ``msgspec.DecodeError``."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type)
    except UnicodeDecodeError as error:  # a damaged byte within a text, which msgspec passes on as Python says it
        raise msgspec.DecodeError(str(error)) from None


def digest_bytes(data: bytes) -> str:
    """xxh3-128 of ``data`` as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def digest_file(path: Path) -> str:
    """xxh3-128 of a file's bytes as 32 hexadecimal digits, read in 1 MiB pieces."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def digest_value(value: Any) -> str:
    """xxh3-128 of a JSON-able value in canonical form (sorted keys, no white space)."""
    return digest_bytes(msgspec.json.encode(value, order="sorted"))


def remove_temporaries(folder: Path) -> None:
    """Delete what :func:`atomic_path` left behind below ``folder`` when its process was killed; follows no links.

    What vanishes meanwhile is passed over: a worker that outlived its killed parent may still be tidying up.
    """
    for root, _, names in os.walk(folder):
        for name in names:
            if name.startswith(TEMPORARY_PREFIX):
                (Path(root) / name).unlink(missing_ok=True)
