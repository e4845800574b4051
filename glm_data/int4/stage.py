"""Quantising as a stage: reads a model tensor by tensor and writes it the same way."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glm_data import files
from glm_data.config import to_mapping
from glm_data.errors import InputError, UsageError
from glm_data.inputs import stage_files
from glm_data.int4.calibrate import Calibration
from glm_data.int4.linear import EMBEDDING, is_quantized
from glm_data.int4.memory import forget
from glm_data.int4.options import QuantizeOptions
from glm_data.int4.quantize import ROWS_AT_ONCE, check_packable, dequantize, quantize
from glm_data.int4.safetensors_stream import TensorSpec, write_tensors
from glm_data.loading import PackedRows
from glm_data.model.store import (
    DESCRIPTION,
    TOKENIZER_FILES,
    WEIGHTS,
    Description,
    Quantization,
    copy_files,
    read_description,
)
from glm_data.stage import (
    Check,
    InputFile,
    ShardRecord,
    Success,
    describe_input,
    finished,
    open_stage,
    output_file,
    write_shard_record,
)
from glm_data.training.batches import FlatBatch, check_width, flatten, positions_of, split_rows
from glm_data.training.options import held_out_rows

STAGE = "quantize"
REPORT = "quantize.json"
WORST_ERROR = 0.5
"""Relative error of a matrix beyond which the guard rail trips; Gaussian rows of any width stay below 0.2."""

Packed = tuple[Tensor, Tensor]


def quantize_stage(
    model: Path, out: Path, options: QuantizeOptions, *, pack: Path | None = None, overwrite: bool = False
) -> Success:
    """Quantise the model folder ``model`` into the stage folder ``out``; calibration is done on rows of ``pack``.

    The folder gets ``model.safetensors`` with ``*.qweight`` and ``*.scales`` in place of each matrix and, unless it
    stays FP16, of the embedding (always by ``absmax``: 255 levels leave nothing to search for), and everything else as
    FP16, ``config.json`` and the tokenizer's files. Peak memory is the largest tensor and its quantised twin; with
    calibration, a layer and the states of the rows. Facts, also in ``quantize.json``: bytes before and after, and of
    each matrix and the embedding the relative error ||W - W'|| / ||W||.
    """
    description = read_description(model)
    if description.quantization is not None:
        raise UsageError(f"'{model}' is quantised already; give the folder that training wrote.")
    names = (WEIGHTS, DESCRIPTION, *(name for name in TOKENIZER_FILES if (model / name).is_file()))
    missing = [name for name in names if not (model / name).is_file()]
    if missing:
        raise InputError(f"'{model}' has no {missing[0]}; train again.")
    rows = _calibration_pack(pack, description, options)
    inputs = _inputs(model, names, pack if rows else None)
    mapping = to_mapping(options)
    if not overwrite and (done := finished(out, STAGE, mapping, inputs)) is not None:
        return done
    with open_stage(out, STAGE, mapping, inputs, overwrite=overwrite) as stage:
        if stage.pending(1):
            started = time.perf_counter()
            batches = _calibration_batches(rows, description, options) if rows else []
            errors = _write_weights(model / WEIGHTS, out / WEIGHTS, description, options, batches)
            files.write_json(out / REPORT, _report(model / WEIGHTS, out / WEIGHTS, errors))
            _write_rest(model, out, description, options)
            outputs = tuple(output_file(out, name) for name in (*names, REPORT))
            write_shard_record(out, ShardRecord(shard=0, input=WEIGHTS, records=1, kept=1, files=outputs), started)
        facts = files.read_json(out / REPORT)
        return stage.succeed(1, [_check(facts)], facts)


def _inputs(model: Path, names: Iterable[str], pack: Path | None) -> tuple[InputFile, ...]:
    found = tuple(describe_input(model / name, name) for name in names)
    return found if pack is None else (*found, *stage_files(pack, "pack/"))


# --- calibration ------------------------------------------------------------------------------------------------------


def _calibration_pack(pack: Path | None, description: Description, options: QuantizeOptions) -> PackedRows | None:
    if options.calibration == "none":
        return None
    if pack is None:
        raise UsageError(f"calibration {options.calibration} needs rows to look at; give a pack with --pack.")
    rows = PackedRows.open(pack)
    if rows.manifest.facts.get("fingerprint") != description.tokenizer:
        raise UsageError(f"'{pack}' was packed with another tokenizer than the model was trained with; give its pack.")
    check_width(description.model, rows.seq_length)
    return rows


def _calibration_batches(rows: PackedRows, description: Description, options: QuantizeOptions) -> list[FlatBatch]:
    """Rows spread over those that training did not keep back to measure the loss on."""
    training, _ = split_rows(len(rows), held_out_rows(description.training))
    number = min(options.calibration_rows, len(training))
    chosen = training[np.arange(number) * len(training) // number]
    positions = positions_of(description.model)
    return [flatten(rows.batch([int(row)], positions=positions)) for row in chosen]


# --- weights ----------------------------------------------------------------------------------------------------------


def _write_weights(
    source: Path, target: Path, description: Description, options: QuantizeOptions, batches: list[FlatBatch]
) -> dict[str, float]:
    """Quantise file to file; returns the relative error of each matrix."""
    errors: dict[str, float] = {}
    try:
        with safe_open(source, framework="pt") as handle:
            specs = [spec for name in _in_order(handle) for spec in _specs(handle, name, options)]
            if batches:
                calibration = Calibration(description.model, _outside(handle, options), batches, options)
                matrices = _calibrated(handle, calibration)
            else:
                matrices = _uncalibrated(handle, options)
            with files.atomic_path(target) as temporary:
                write_tensors(temporary, specs, _converted(handle, options, matrices, errors))
    except SafetensorError as error:
        raise InputError(f"'{source}' is damaged ({error}); train again.") from None
    return errors


def _outside(handle: Any, options: QuantizeOptions) -> dict[str, Tensor]:
    """The tensors outside the layers, as they are once quantised."""
    found = {name: handle.get_tensor(name) for name in _in_order(handle) if not _layer_of(name)}
    return {name: _unpacked_embedding(tensor) if _packing(name, options) else tensor for name, tensor in found.items()}


def _unpacked_embedding(tensor: Tensor) -> Tensor:
    return dequantize(*_pack_embedding(tensor), 0)


def _pack_embedding(tensor: Tensor) -> Packed:
    return quantize(tensor, 0, "absmax", 8)


def _packing(name: str, options: QuantizeOptions) -> tuple[int, int] | None:
    """Bits and group that the tensor ``name`` is packed with; None if it becomes FP16."""
    if is_quantized(name):
        return options.bits, options.group
    return (8, 0) if name == EMBEDDING + ".weight" and options.embedding_bits == 8 else None


def _layer_of(name: str) -> str:
    """``layers.3.`` of a tensor in layer 3; empty outside the layers."""
    parts = name.split(".")
    return ".".join(parts[:2]) + "." if parts[0] == "layers" else ""


def _in_order(handle: Any) -> list[str]:
    """The tensors' names by layer, those outside the layers first."""
    return sorted(handle.keys(), key=lambda name: (int(_layer_of(name)[7:-1] or -1), name))


def _specs(handle: Any, name: str, options: QuantizeOptions) -> list[TensorSpec]:
    """What the tensor ``name`` becomes, from its shape alone."""
    shape = tuple(handle.get_slice(name).get_shape())
    packing = _packing(name, options)
    if packing is None:
        return [TensorSpec(name, shape, torch.float16)]
    rows, columns = shape
    bits, stem, group = packing[0], name.removesuffix(".weight"), packing[1] or columns
    check_packable(columns, bits)
    packed = ((rows, columns // 2), torch.uint8) if bits == 4 else ((rows, columns), torch.int8)
    return [
        TensorSpec(stem + ".qweight", *packed),
        TensorSpec(stem + ".scales", (rows, -(-columns // group)), torch.float16),
    ]


def _uncalibrated(handle: Any, options: QuantizeOptions) -> Iterator[Packed]:
    for name in filter(is_quantized, _in_order(handle)):
        yield quantize(handle.get_tensor(name), options.group, options.scale, options.bits)


def _calibrated(handle: Any, calibration: Calibration) -> Iterator[Packed]:
    names = _in_order(handle)
    for number in range(calibration.model.config.layers):
        prefix = f"layers.{number}."
        mine = [name for name in names if _layer_of(name) == prefix]
        tensors = {name.removeprefix(prefix): handle.get_tensor(name) for name in mine}
        packed = calibration.quantize_layer(number, tensors)
        for name in filter(is_quantized, mine):
            yield packed[name.removeprefix(prefix).removesuffix(".weight")]


def _converted(
    handle: Any, options: QuantizeOptions, matrices: Iterator[Packed], errors: dict[str, float]
) -> Iterator[Tensor]:
    for name in _in_order(handle):
        tensor, packing = handle.get_tensor(name), _packing(name, options)
        if packing is None:
            yield tensor.half()
        else:
            qweight, scales = next(matrices) if is_quantized(name) else _pack_embedding(tensor)
            errors[name.removesuffix(".weight")] = _relative_error(tensor, qweight, scales, packing[1])
            yield qweight
            yield scales
        forget(tensor)


def _relative_error(weight_NK: Tensor, qweight: Tensor, scales: Tensor, group: int) -> float:
    """||W - W'|| / ||W||, a thousand rows at a time."""
    squares = torch.zeros(2, dtype=torch.float64)
    parts = zip(*(torch.split(part, ROWS_AT_ONCE) for part in (weight_NK, qweight, scales)), strict=True)
    for rows, packed, steps in parts:
        exact = rows.float()
        both = (exact - dequantize(packed, steps, group), exact)
        squares += torch.stack([part.square().sum(dtype=torch.float64) for part in both])
    return float((squares[0] / squares[1].clamp(min=1e-60)).sqrt())


# --- what goes with them ----------------------------------------------------------------------------------------------


def _report(before: Path, after: Path, errors: dict[str, float]) -> dict[str, Any]:
    sizes = {"bytes_before": before.stat().st_size, "bytes_after": after.stat().st_size}
    worst = max(errors, key=lambda name: errors[name])
    mean = sum(errors.values()) / len(errors)
    return {
        **sizes,
        "size_ratio": sizes["bytes_after"] / sizes["bytes_before"],
        "relative_error": errors,
        "mean_relative_error": mean,
        "worst": worst,
        "worst_relative_error": errors[worst],
    }


def _write_rest(model: Path, out: Path, description: Description, options: QuantizeOptions) -> None:
    copy_files((model / name for name in TOKENIZER_FILES if (model / name).is_file()), out)
    quantization = msgspec.convert(
        {name: getattr(options, name) for name in ("bits", "group", "scale", "embedding_bits")}, Quantization
    )
    files.write_json(out / DESCRIPTION, msgspec.structs.replace(description, quantization=quantization))


def _check(facts: dict[str, Any]) -> Check:
    worst, error = facts["worst"], facts["worst_relative_error"]
    sentence = f"the worst matrix, {worst}, is off by {error:.1%}; all of them by {facts['mean_relative_error']:.1%}."
    return Check(name="quantization_error", ok=error <= WORST_ERROR, sentence=sentence)
