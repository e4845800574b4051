"""The decorators of kernels: compiled by numba at the first call, never at import, and cached on disk.

numba's cache of a kernel knows the file that it stands in, and nothing of the kernels and constants that it takes from
other files: after an update of one of those it would go on running the old code. Here a module's cache is dropped
when any file that its kernels are made from has changed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_IMPORT = re.compile(rb"^from ([\w.]+) import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)
_OURS = ("glm_data", "tokenizer")


def compiled(function: FunctionT) -> FunctionT:
    """Compile ``function``, without the interpreter lock."""
    return _kernel(function)


def inlined(function: FunctionT) -> FunctionT:
    """As :func:`compiled`, but always made part of its callers: for what they call of every character or word.

    A call would count references to each array that it is given.
    """
    return _kernel(function, forceinline=True)


def _kernel(function: FunctionT, **flags: bool) -> FunctionT:
    dispatcher = numba.njit(nogil=True, **flags)(function)
    dispatcher._cache = _Cache(function)  # what cache=True does, with a cache of numba's own
    drop_stale(function.__module__, Path(dispatcher.stats.cache_path))
    return cast(FunctionT, dispatcher)


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache, which brings a kernel back without the import of what only compiling needs (half a second)."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The kernel for a signature as it was kept, or None."""
        rtsys.initialize(target_context)  # memory is counted by it; the compiler fetches the rest itself
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


@functools.cache
def drop_stale(module: str, folder: Path) -> None:
    """Forget what is cached in ``folder`` of a module's kernels, unless it was made from the sources as they are."""
    source = _source(module)
    if source is None:
        return
    stamp, kept = _digest(module), folder / f"{source.stem}.kernels"
    with contextlib.suppress(OSError):  # where nothing can be written, nothing is cached
        if kept.exists() and kept.read_bytes() == stamp:
            return
        for index in folder.glob(f"{source.stem}.*.nbi"):
            index.unlink(missing_ok=True)
        kept.write_bytes(stamp)


def _digest(module: str) -> bytes:
    """Of the files that ``module`` takes kernels and constants from, its own among them."""
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        source = _source(name)
        if name in found or source is None:
            continue
        found[name] = source.read_bytes()
        if b"glm_data.kernels" in found[name] or b"numba" in found[name]:
            waiting += _imported(found[name], (*_OURS, module.partition(".")[0]))
    digest = hashlib.sha256(repr(sorted(found)).encode())
    for name in sorted(found):
        digest.update(hashlib.sha256(found[name]).digest())
    return digest.hexdigest().encode()


def _imported(text: bytes, packages: tuple[str, ...]) -> Iterator[str]:
    """Names of modules of ``packages`` that a source may import; names of what is none among them."""
    for package, listed, line in _IMPORT.findall(text):
        name = package.decode()
        if name.partition(".")[0] in packages:
            yield name
            yield from (f"{name}.{item}" for item in re.findall(r"\w+", (listed or line).decode()))


def _source(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and file.endswith(".py") else None
