"""A linear layer whose matrix stays packed in memory."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_data.int4 import cpu, cuda, torch_op
from glm_data.int4.quantize import dequantize
from glm_data.model.model import GLM
from glm_data.model.store import Quantization

MATRICES = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""The layers that GLM-130B quantises; embedding, norms and biases stay as they are."""


class QuantizedLinear(nn.Module):
    """``y = x W^T + b`` with W packed in 4 or 8 bits, by the fastest way of the machine at hand.

    As loaded, W is unpacked at every call: exact, and slow. :meth:`prepare` puts it in the order of the CPU's kernels
    or, on a CPU without any, of torch's INT4 operator; on a GPU the kernels read it as it is.
    """

    qweight: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, columns: int, rows: int, group: int, bits: int = 4) -> None:
        super().__init__()
        self.columns, self.rows, self.group, self.bits = columns, rows, group, bits
        self.way: Literal["plain", "kernel", "torch"] = "plain"
        shape, kind = ((rows, columns // 2), torch.uint8) if bits == 4 else ((rows, columns), torch.int8)
        self.register_buffer("qweight", torch.empty(shape, dtype=kind))
        self.register_buffer("scales", torch.empty(rows, -(-columns // (group or columns)), dtype=torch.float16))
        self.register_buffer("bias", torch.empty(rows))

    def prepare(self) -> None:
        """Reorder the weights for the fastest way of this CPU that takes them; the packed rows are gone."""
        if self.qweight.is_cuda or self.way != "plain":
            return
        size = cpu.activation_group(self.columns, self.group)
        if size and cpu.supported_isas():
            scales = self.scales.repeat_interleave(self.group // size, 1) if self.scales.shape[1] > 1 else self.scales
            self.qweight, self.scales, self.way = cpu.tile(self.qweight), cpu.tile_scales(scales), "kernel"
        elif torch_op.fits(self.rows, self.columns, self.group, self.bits):
            self.qweight, self.scales = torch_op.pack(self.qweight, self.scales, self.columns)
            self.way = "torch"

    def forward(self, x: Tensor) -> Tensor:
        """``[..., K] -> [..., N]`` in the type of ``x``."""
        if self.way == "plain" and not (x.is_cuda and x.dtype == torch.bfloat16 and self.bits == 4):
            weight_NK = dequantize(self.qweight, self.scales, self.group, x.dtype)
            return F.linear(x, weight_NK, self.bias.to(x.dtype))
        return self._packed(x.reshape(-1, self.columns)).to(x.dtype).view(*x.shape[:-1], self.rows)

    def _packed(self, x_MK: Tensor) -> Tensor:
        if self.way == "plain":
            return cuda.linear(x_MK, self.qweight, self.scales, self.bias, self.group)
        if self.way == "torch":
            return torch_op.matmul(x_MK, self.qweight, self.scales) + self.bias
        size = cpu.activation_group(self.columns, self.group)
        isa, threads = cpu.supported_isas()[0], torch.get_num_threads()
        y_MN = cpu.matmul(x_MK.float().contiguous(), self.qweight, self.scales, size, isa, threads)
        return y_MN[:, : self.rows] + self.bias


def is_quantized(name: str) -> bool:
    """Whether the parameter ``name`` of the network is one of the matrices that become INT4 or INT8."""
    parts = name.split(".")
    return parts[0] == "layers" and parts[-1] == "weight" and parts[-2] in MATRICES


def with_quantized_layers(model: GLM, quantization: Quantization) -> GLM:
    """Put a :class:`QuantizedLinear` in place of every quantised matrix of ``model`` (weights still to be loaded)."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in MATRICES and isinstance(child, nn.Linear):
                group = quantization.groups.get(name, quantization.group)
                with torch.device(child.weight.device):
                    layer = QuantizedLinear(child.in_features, child.out_features, group, quantization.bits)
                    setattr(module, name, layer)
    return model


def prepare(model: nn.Module) -> None:
    """:meth:`QuantizedLinear.prepare` of every packed layer of ``model``."""
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.prepare()
