"""What the system is told about the memory of tensors; on Linux, elsewhere nothing happens."""

from __future__ import annotations

import ctypes
import mmap
import sys

import torch
from torch import Tensor

_HUGE_PAGE = 1 << 21
_DONT_NEED, _USE_HUGE_PAGES = 4, 14
"""Linux's MADV_DONTNEED and MADV_HUGEPAGE; Python's mmap module has them only where its system does."""


def forget(tensor: Tensor) -> None:
    """Give back the memory of a tensor that is mapped from a file and was only read; it would be read anew.

    The pages are clean, so the system would take them back when it is short of memory; until then they would count as
    this process's, up to the size of the file.
    """
    storage = tensor.untyped_storage()
    _advise(storage.data_ptr(), storage.nbytes(), mmap.PAGESIZE, _DONT_NEED)


def in_huge_pages(size: int) -> Tensor:
    """``uint8[size]``, not yet written to, in pages of 2 MB as far as it fills such, from its start on: read faster."""
    if size < _HUGE_PAGE:
        return torch.empty(size, dtype=torch.uint8)
    spacious = torch.empty(size + _HUGE_PAGE, dtype=torch.uint8)  # what is never touched takes no memory
    tensor = spacious[-spacious.data_ptr() % _HUGE_PAGE :][:size]
    _advise(tensor.data_ptr(), size, _HUGE_PAGE, _USE_HUGE_PAGES)
    return tensor


def _advise(address: int, size: int, page: int, advice: int) -> None:
    """Give ``advice`` about the pages that lie as a whole within ``size`` bytes."""
    start = -(-address // page) * page
    length = (address + size) // page * page - start
    if sys.platform == "linux" and length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)
