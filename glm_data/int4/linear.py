"""A linear layer whose matrix stays packed in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_data.int4.quantize import dequantize
from glm_data.model.model import GLM

MATRICES = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""The layers that GLM-130B quantises; embedding, norms and biases stay as they are."""


class Int4Linear(nn.Module):
    """``y = x W^T + b`` with W packed; W is unpacked at every call, so results are exactly those of its levels."""

    qweight: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, columns: int, rows: int, group: int) -> None:
        super().__init__()
        self.group = group
        self.register_buffer("qweight", torch.empty(rows, columns // 2, dtype=torch.uint8))
        self.register_buffer("scales", torch.empty(rows, -(-columns // (group or columns)), dtype=torch.float16))
        self.register_buffer("bias", torch.empty(rows))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., K] -> [..., N]`` in the type of ``x``."""
        weight_NK = dequantize(self.qweight, self.scales, self.group, x.dtype)
        return F.linear(x, weight_NK, self.bias.to(x.dtype))


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
