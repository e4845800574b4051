"""Writes a safetensors file tensor by tensor: the library's own writer wants all of them in memory at once. And gives
memory back that a mapped tensor took when it was read.

The format: the header's length as 8 little-endian bytes, a JSON header ``{name: {dtype, shape, data_offsets}}`` padded
with spaces to a multiple of 8, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8", torch.int8: "I8"}


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of a tensor that will be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes of its data."""
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


def write_tensors(path: Path, specs: Sequence[TensorSpec], tensors: Iterable[Tensor]) -> None:
    """Write ``tensors``, which must come in the order of ``specs`` and fit them; one at a time is in memory."""
    with path.open("wb") as handle:
        header = _header(specs)
        handle.write(len(header).to_bytes(8, "little") + header)
        for spec, tensor in zip(specs, tensors, strict=True):
            if (tuple(tensor.shape), tensor.dtype) != (spec.shape, spec.dtype):
                raise AssertionError(f"{spec.name}: {tuple(tensor.shape)} {tensor.dtype} does not fit {spec}")
            handle.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _header(specs: Sequence[TensorSpec]) -> bytes:
    entries, offset = {}, 0
    for spec in specs:
        entries[spec.name] = {
            "dtype": _DTYPES[spec.dtype],
            "shape": spec.shape,
            "data_offsets": [offset, offset + spec.bytes],
        }
        offset += spec.bytes
    header = msgspec.json.encode(entries)
    return header + b" " * (-len(header) % 8)


def forget(tensor: Tensor) -> None:
    """Give back the memory of a tensor that is mapped from a file and was only read; it would be read anew.

    The pages are clean, so the system would take them back when it is short of memory; until then they would count as
    this process's, up to the size of the file.
    """
    first, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
    if sys.platform == "linux":
        start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (first + size) // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
