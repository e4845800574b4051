"""The decorator of kernels: compiled at the first call, never at import, and cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """Compile ``function`` with numba, without the interpreter lock."""
    return cast(FunctionT, numba.njit(cache=True, nogil=True)(function))


def inlined(function: FunctionT) -> FunctionT:
    """As :func:`compiled`, but always made part of its callers: for what they call of every character or word."""
    return cast(FunctionT, numba.njit(cache=True, nogil=True, forceinline=True)(function))
