"""What the system is told about the memory of tensors; on Linux, elsewhere nothing happens."""

from __future__ import annotations

import ctypes
import mmap
import sys

from torch import Tensor

_HUGE_PAGE = 1 << 21
_DONT_NEED, _USE_HUGE_PAGES = 4, 14
"""Linux's MADV_DONTNEED and MADV_HUGEPAGE; Python's mmap module has them only where its system does."""


def forget(tensor: Tensor) -> None:
    """Give back the memory of a tensor that is mapped from a file and was only read; it would be read anew.

    The pages are clean, so the system would take them back when it is short of memory; until then they would count as
    this process's, up to the size of the file.
    """
    _advise(tensor, mmap.PAGESIZE, _DONT_NEED)


def with_huge_pages(tensor: Tensor) -> Tensor:
    """``tensor``, not yet written to, in pages of 2 MB as far as it fills such: it is read faster."""
    _advise(tensor, _HUGE_PAGE, _USE_HUGE_PAGES)
    return tensor


def _advise(tensor: Tensor, page: int, advice: int) -> None:
    """Give ``advice`` about the pages that lie within the tensor as a whole."""
    storage = tensor.untyped_storage()
    start = -(-storage.data_ptr() // page) * page
    length = (storage.data_ptr() + storage.nbytes()) // page * page - start
    if sys.platform == "linux" and length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)
