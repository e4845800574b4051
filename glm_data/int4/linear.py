"""A linear layer whose matrix stays packed in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_data.int4 import cpu, cuda, torch_op
from glm_data.int4.quantize import dequantize
from glm_data.model.model import GLM
from glm_data.model.store import Quantization

MATRICES = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""The layers that GLM-130B quantises; norms and biases stay as they are, and the embedding does there."""
EMBEDDING = "word_embeddings"


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
        self._product: cpu.Product | None = None
        shape, kind = ((rows, columns // 2), torch.uint8) if bits == 4 else ((rows, columns), torch.int8)
        self.register_buffer("qweight", torch.empty(shape, dtype=kind))
        self.register_buffer("scales", torch.empty(rows, -(-columns // (group or columns)), dtype=torch.float16))
        self.register_buffer("bias", torch.empty(rows))

    def prepare(self) -> None:
        """Reorder the weights for the fastest way of this CPU that takes them; the packed rows are gone."""
        if self.qweight.is_cuda or self.way != "plain":
            return
        if (tiled := _tile(self.qweight, self.scales, self.bias, self.columns, self.group)) is not None:
            self.qweight, self.scales, self._product = tiled
            self.way = "kernel"
        elif torch_op.fits(self.rows, self.columns, self.group, self.bits):
            self.qweight, self.scales = torch_op.pack(self.qweight, self.scales, self.columns)
            self.way = "torch"

    def forward(self, x: Tensor) -> Tensor:
        """``[..., K] -> [..., N]`` in the type of ``x``."""
        if self._product is not None:
            if x.dim() == 2 and x.dtype == torch.float32 and x.is_contiguous():  # decoding, where every call counts
                return self._product(x, torch.get_num_threads())
            y_MN = _multiply(self._product, x.reshape(-1, self.columns))
        elif self.way == "torch":
            y_MN = torch_op.matmul(x.reshape(-1, self.columns), self.qweight, self.scales) + self.bias
        elif x.is_cuda and x.dtype == torch.bfloat16 and self.bits == 4:
            y_MN = cuda.linear(x.reshape(-1, self.columns), self.qweight, self.scales, self.bias, self.group)
        else:
            weight_NK = dequantize(self.qweight, self.scales, self.group, x.dtype)
            return F.linear(x, weight_NK, self.bias.to(x.dtype))
        return y_MN.to(x.dtype).view(*x.shape[:-1], self.rows)


class QuantizedEmbedding(nn.Module):
    """The tied embedding in INT8, a scale for every row: rows are looked up on the way in, and on the way out all of
    them are multiplied with, by the kernels of this CPU once it is prepared. Scores are float32, as are rows."""

    qweight: Tensor
    scales: Tensor

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.vocab, self.width = vocab, width
        self._product: cpu.Product | None = None
        self.register_buffer("qweight", torch.empty((vocab, width), dtype=torch.int8))
        self.register_buffer("scales", torch.empty(vocab, 1, dtype=torch.float16))

    def prepare(self) -> None:
        """Reorder the rows for the kernels of this CPU, if it has any that take them."""
        if self._product is None:
            bias = torch.zeros(self.vocab)
            if (tiled := _tile(self.qweight, self.scales, bias, self.width, 0)) is not None:
                self.qweight, self.scales, self._product = tiled

    def look_up(self, tokens_T: Tensor, share: float) -> Tensor:
        """Rows by token, ``[T, D]``; ``share`` is of a gradient, which there is none of."""
        if self._product is None:
            levels, scales = self.qweight[tokens_T], self.scales[tokens_T]
        else:
            levels, scales = cpu.tiled_rows(self.qweight, tokens_T), self.scales.flatten()[tokens_T, None]
        return levels.float() * scales.float()

    def scores(self, x_PD: Tensor, share: float) -> Tensor:
        """What the tied output gives, ``[P, V]``."""
        if self._product is not None:
            return _multiply(self._product, x_PD)
        return F.linear(x_PD, dequantize(self.qweight, self.scales, 0, x_PD.dtype))


def _tile(
    qweight: Tensor, scales: Tensor, bias: Tensor, columns: int, group: int
) -> tuple[Tensor, Tensor, cpu.Product] | None:
    """Levels and scales in the order of this CPU's kernels and their product; None if there are no such kernels."""
    size, isas = cpu.activation_group(columns, group), cpu.supported_isas()
    if not size or not isas:
        return None
    scales = scales.repeat_interleave(group // size, 1) if scales.shape[1] > 1 else scales
    tiles, tiled = cpu.tile(qweight, isas[0]), cpu.tile_scales(scales, isas[0])
    return tiles, tiled, cpu.Product(tiles, tiled, bias.float(), columns, size, isas[0])


def _multiply(product: cpu.Product, x_MK: Tensor) -> Tensor:
    if x_MK.dtype != torch.float32 or not x_MK.is_contiguous():
        x_MK = x_MK.float().contiguous()
    return product(x_MK, torch.get_num_threads())


def is_quantized(name: str) -> bool:
    """Whether the parameter ``name`` of the network is one of the matrices that become INT4 or INT8."""
    parts = name.split(".")
    return parts[0] == "layers" and parts[-1] == "weight" and parts[-2] in MATRICES


def with_quantized_layers(model: GLM, quantization: Quantization) -> GLM:
    """Put a :class:`QuantizedLinear` in place of every quantised matrix of ``model``, and a :class:`QuantizedEmbedding`
    in place of its embedding if that is INT8 (weights still to be loaded)."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in MATRICES and isinstance(child, nn.Linear):
                group = quantization.groups.get(name, quantization.group)
                with torch.device(child.weight.device):
                    layer = QuantizedLinear(child.in_features, child.out_features, group, quantization.bits)
                    setattr(module, name, layer)
    if quantization.embedding_bits == 8:
        with torch.device(model.word_embeddings.weight.device):
            setattr(model, EMBEDDING, QuantizedEmbedding(model.config.vocab, model.config.hidden))
    return model


def for_gpu(tensors: Mapping[str, Tensor], quantization: Quantization) -> tuple[dict[str, Tensor], Quantization]:
    """Tensors of a quantised folder as a GPU computes with them: bfloat16 beside the packed ones, and the embedding
    unpacked to it."""
    scales = EMBEDDING + ".scales"
    plain = {n: t.bfloat16() if t.is_floating_point() and not n.endswith(".scales") else t for n, t in tensors.items()}
    if scales in plain:
        levels = plain.pop(EMBEDDING + ".qweight")
        plain[EMBEDDING + ".weight"] = dequantize(levels, plain.pop(scales), 0, torch.float16).bfloat16()
    return plain, msgspec.structs.replace(quantization, embedding_bits=16)


def prepare(model: nn.Module) -> None:
    """``prepare`` of every packed layer of ``model`` and of its embedding."""
    for module in model.modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            module.prepare()
