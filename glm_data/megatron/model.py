"""What model a checkpoint holds, and its tensors as those of our folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from glm_data.errors import InputError, UsageError
from glm_data.int4.linear import is_quantized
from glm_data.int4.memory import forget
from glm_data.int4.quantize import from_glm130b
from glm_data.int4.safetensors_stream import TensorSpec
from glm_data.megatron.layout import Family, cut_of, merge
from glm_data.megatron.parts import Parts
from glm_data.model.config import ModelConfig
from glm_data.model.model import valueless
from glm_data.model.store import Quantization

EMBEDDING, TABLE = "word_embeddings.weight", "position_embeddings.weight"
_QKV, _OUT, _ENTRY = (
    f"layers.0.{name}.weight" for name in ("attention.query_key_value", "mlp.dense_4h_to_h", "mlp.dense_h_to_4h")
)

_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True)
class Source:
    """A checkpoint that was understood."""

    parts: Parts
    family: Family
    config: ModelConfig
    quantization: Quantization | None

    def specs(self) -> list[TensorSpec]:
        """The tensors of our folder, in the order of :meth:`tensors`, from the parts' shapes alone."""
        shapes = {name: tuple(tensor.shape) for name, tensor in valueless(self.config).state_dict().items()}
        specs = []
        for name, parts in self.parts.tensors.items():
            if name.endswith("_scale"):
                continue
            if self.quantization is None or not is_quantized(name):
                specs.append(TensorSpec(name, shapes[name], parts[0].dtype))
                continue
            (rows, columns), stem = shapes[name], name.removesuffix(".weight")
            packed, kind = (columns // 2, torch.uint8) if self.quantization.bits == 4 else (columns, torch.int8)
            groups = columns // (self.quantization.groups.get(stem.rpartition(".")[2]) or columns)
            specs += [
                TensorSpec(stem + ".qweight", (rows, packed), kind),
                TensorSpec(stem + ".scales", (rows, groups), torch.float16),
            ]
        return specs

    def tensors(self) -> Iterator[Tensor]:
        """The merged tensors, one at a time."""
        for name, parts in self.parts.tensors.items():
            if name.endswith("_scale"):
                continue
            merged = merge(parts, cut_of(name, self.family), self.config.heads)
            if self.quantization is None or not is_quantized(name):
                yield merged
            else:
                yield from_glm130b(merged) if self.quantization.bits == 4 else merged
                scale = name + "_scale"
                scales = merge(self.parts.tensors[scale], cut_of(scale, self.family), self.config.heads)
                yield scales.view(len(scales), -1)
            for part in parts:
                forget(part)


def understand(parts: Parts, heads: int | None) -> Source:
    """Find out the model by its tensors' names and shapes.

    Raises :class:`InputError` if it is neither GLM-130B's nor GLM-10B's kind, and :class:`UsageError` if ``heads`` is
    needed and not given, or does not fit.
    """
    for name in (EMBEDDING, _QKV, _OUT, _ENTRY, "final_layernorm.weight"):
        if name not in parts.tensors:
            raise InputError(f"the checkpoint has no '{name}'; it is neither GLM-130B's kind nor GLM-10B's.")
    _check_matrices(parts, (EMBEDDING, _QKV, _ENTRY, TABLE))
    family: Family = "glm-10b" if TABLE in parts.tensors else "glm-130b"
    config = _config(parts, family, heads)
    quantization = _quantization(parts, config)
    _check_shapes(parts, family, config, quantization)
    return Source(parts, family, config, quantization)


def _check_matrices(parts: Parts, names: Iterable[str]) -> None:
    """Refuse tensors that the model's sizes are read from, unless they are matrices."""
    for name in names:
        for rank, part in enumerate(parts.tensors.get(name, ())):
            if part.dim() != 2 or not part.numel():
                raise InputError(f"part {rank} has '{name}' of shape {list(part.shape)}; it has to be a matrix.")


def _config(parts: Parts, family: Family, heads: int | None) -> ModelConfig:
    tensors = parts.tensors
    vocab, hidden = (sum(len(part) for part in tensors[EMBEDDING])), tensors[EMBEDDING][0].shape[1]
    found = hidden // (2 * parts.frequencies) if parts.frequencies else heads
    if not found:
        raise UsageError("the checkpoint does not say how many attention heads its model has; give --heads.")
    if heads not in (None, found):
        raise UsageError(f"--heads is {heads}, but the checkpoint's rotary frequencies are those of {found} heads.")
    if hidden % (2 * found) or found % parts.number:
        raise UsageError(f"{found} heads fit neither a width of {hidden} nor {parts.number} parts; correct --heads.")
    entry = sum(len(part) for part in tensors[_ENTRY])
    shape = {
        "vocab": vocab,
        # As many as are named: a number beyond them, or none, is refused with the names.
        "layers": len({match[1] for name in tensors if (match := _LAYER.match(name))}),
        "hidden": hidden,
        "heads": found,
        "dropout": 0.1,
    }
    if family == "glm-130b":
        return ModelConfig(**shape, ffn=entry // 2, softmax="glm-130b")  # type: ignore[arg-type]
    return ModelConfig(
        **shape,  # type: ignore[arg-type]
        ffn=entry,
        norm="pre",
        feed_forward="gelu-tanh",
        positions="learned-2d",
        longest=len(tensors[TABLE][0]),
        shrink=1.0,
        embedding_std=0.02,
    )


def _quantization(parts: Parts, config: ModelConfig) -> Quantization | None:
    if _QKV + "_scale" not in parts.tensors:
        return None
    bits: Literal[4, 8] = 8 if parts.tensors[_QKV][0].shape[1] == config.hidden else 4
    shares = {"dense": config.hidden // parts.number, "dense_4h_to_h": config.ffn // parts.number}
    return Quantization(bits=bits, scale="absmax", groups=shares if parts.number > 1 else {})


def _check_shapes(parts: Parts, family: Family, config: ModelConfig, quantization: Quantization | None) -> None:
    """Refuse names that the network does not have, lacks, or has in another shape."""
    network: Mapping[str, Tensor] = valueless(config).state_dict()
    names = {name for name in parts.tensors if not name.endswith("_scale")}
    different = sorted(names ^ set(network))
    if different:
        raise InputError(
            f"the checkpoint {'has' if different[0] in names else 'lacks'} '{different[0]}', which a model of "
            f"{family}'s kind {'lacks' if different[0] in names else 'has'}."
        )
    for name in sorted(names):
        whole = list(network[name].shape)
        if quantization is not None and is_quantized(name):
            whole[1] //= 8 // quantization.bits
            _check_scales(parts, name)
        axis = {"columns": 1, "whole": None}.get(cut_of(name, family), 0)
        for rank, part in enumerate(parts.tensors[name]):
            expected = [size // parts.number if place == axis else size for place, size in enumerate(whole)]
            if list(part.shape) != expected:
                raise InputError(
                    f"part {rank} has '{name}' of shape {list(part.shape)}; one part in {parts.number} has {expected}."
                )


def _check_scales(parts: Parts, name: str) -> None:
    """Refuse a quantised matrix without an FP16 scale for every row of every part."""
    scales = parts.tensors.get(name + "_scale", ())
    if not scales:
        raise InputError(f"the checkpoint is quantised, but lacks '{name}_scale'; convert all of it, or none.")
    for rank, (part, scale) in enumerate(zip(parts.tensors[name], scales, strict=True)):
        if (part.dtype, scale.dtype, list(scale.shape)) != (torch.int8, torch.float16, [len(part)]):
            raise InputError(
                f"part {rank} has '{name}' of {part.dtype} with {scale.dtype} scales of shape {list(scale.shape)}; "
                f"GLM-130B's are int8 with {len(part)} scales of float16."
            )
