"""Writes a safetensors file tensor by tensor: the library's own writer wants all of them in memory at once.

The format: the header's length as 8 little-endian bytes, a JSON header ``{name: {dtype, shape, data_offsets}}`` padded
with spaces to a multiple of 8, then the tensors' bytes without gaps.
"""

from __future__ import annotations

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
