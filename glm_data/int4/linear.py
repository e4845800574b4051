"""A linear layer whose matrix stays packed in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_data.int4 import cpu, cuda
from glm_data.int4.kernel_ir import Isa
from glm_data.int4.quantize import dequantize
from glm_data.model.model import GLM

MATRICES = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""The layers that GLM-130B quantises; embedding, norms and biases stay as they are."""


class Int4Linear(nn.Module):
    """``y = x W^T + b`` with W packed, by the fastest way of the machine at hand.

    As loaded, W is unpacked at every call: exact, and slow. :meth:`prepare` puts it in the order of the CPU's kernels;
    on a GPU the kernels read it as it is.
    """

    qweight: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, columns: int, rows: int, group: int) -> None:
        super().__init__()
        self.columns, self.rows, self.group = columns, rows, group
        self.isa: Isa | None = None
        self.register_buffer("qweight", torch.empty(rows, columns // 2, dtype=torch.uint8))
        self.register_buffer("scales", torch.empty(rows, -(-columns // (group or columns)), dtype=torch.float16))
        self.register_buffer("bias", torch.empty(rows))

    def prepare(self) -> None:
        """Reorder the weights for the kernels of this CPU, if it has any that take them; the packed rows are gone."""
        isas = cpu.supported_isas()
        if not self.qweight.is_cuda and isas and cpu.activation_group(self.columns, self.group):
            self.isa = isas[0]
            self.qweight, self.scales = cpu.tile(self.qweight), cpu.tile_scales(self.scales)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., K] -> [..., N]`` in the type of ``x``."""
        if self.isa is not None:
            return self._by_kernel(x, self.isa)
        if x.is_cuda and x.dtype == torch.bfloat16:
            y_MN = cuda.linear(x.reshape(-1, self.columns), self.qweight, self.scales, self.bias, self.group)
            return y_MN.view(*x.shape[:-1], self.rows)
        weight_NK = dequantize(self.qweight, self.scales, self.group, x.dtype)
        return F.linear(x, weight_NK, self.bias.to(x.dtype))

    def _by_kernel(self, x: Tensor, isa: Isa) -> Tensor:
        x_MK = x.reshape(-1, self.columns).float().contiguous()
        size = cpu.activation_group(self.columns, self.group)
        y_MN = cpu.matmul(x_MK, self.qweight, self.scales, size, isa, torch.get_num_threads())[:, : self.rows]
        return (y_MN + self.bias).to(x.dtype).view(*x.shape[:-1], self.rows)


def is_quantized(name: str) -> bool:
    """Whether the parameter ``name`` of the network is one of the matrices that become INT4."""
    parts = name.split(".")
    return parts[0] == "layers" and parts[-1] == "weight" and parts[-2] in MATRICES


def with_int4_layers(model: GLM, group: int) -> GLM:
    """Put an :class:`Int4Linear` in place of every quantised matrix of ``model`` (weights still to be loaded)."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in MATRICES and isinstance(child, nn.Linear):
                with torch.device(child.weight.device):
                    setattr(module, name, Int4Linear(child.in_features, child.out_features, group))
    return model


def prepare(model: nn.Module) -> None:
    """:meth:`Int4Linear.prepare` of every packed layer of ``model``."""
    for module in model.modules():
        if isinstance(module, Int4Linear):
            module.prepare()
