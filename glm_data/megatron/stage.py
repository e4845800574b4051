"""Reading and writing checkpoints as stages: tensor by tensor, so that none needs the memory of a model."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from glm_data import files
from glm_data.config import to_mapping
from glm_data.errors import UsageError
from glm_data.int4.quantize import to_glm130b
from glm_data.int4.safetensors_stream import write_tensors
from glm_data.megatron.layout import Cut, Family, cut_of, take, their_name
from glm_data.megatron.model import Source, understand
from glm_data.megatron.options import ImportOptions
from glm_data.megatron.parts import PART, POINTERS, Parts, find_parts
from glm_data.model.config import ModelConfig, count_parameters
from glm_data.model.store import DESCRIPTION, WEIGHTS, Description, read_description
from glm_data.stage import ShardRecord, Success, describe_input, finished, open_stage, output_file, write_shard_record
from tokenizer import Tokenizer

IMPORT, EXPORT = "import", "export-checkpoint"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
REPORT = "import.json"
_ITERATION = "1"
"""Name of the only folder of parts that is written."""


def import_stage(checkpoint: Path, out: Path, options: ImportOptions, *, overwrite: bool = False) -> Success:
    """Read a GLM-130B or GLM-10B checkpoint into a model folder, as training or quantising would have written it.

    Parts are merged; weights keep their type, INT4 and INT8 ones their levels and scales. Peak memory is the largest
    tensor and its merged twin. Facts, also in ``import.json``: family, parts, parameters, bits.
    """
    paths = find_parts(checkpoint)
    tokenizer = Path(options.tokenizer) if options.tokenizer else None
    inputs = [describe_input(path, path.name) for path in paths]
    if tokenizer is not None:
        inputs += [describe_input(tokenizer / name, name) for name in TOKENIZER_FILES]
    mapping = to_mapping(options)
    if not overwrite and (done := finished(out, IMPORT, mapping, inputs)) is not None:
        return done
    fingerprint = Tokenizer.load(tokenizer).fingerprint if tokenizer else ""
    source = understand(Parts(paths), options.heads)
    with open_stage(out, IMPORT, mapping, inputs, overwrite=overwrite) as stage:
        if stage.pending(1):
            started = time.perf_counter()
            facts = _facts(source)
            names = _write(source, out, tokenizer, fingerprint, facts)
            outputs = tuple(output_file(out, name) for name in names)
            write_shard_record(
                out, ShardRecord(shard=0, input=paths[0].name, records=1, kept=1, files=outputs), started
            )
        return stage.succeed(1, [], files.read_json(out / REPORT))


def _facts(source: Source) -> dict[str, Any]:
    quantization = source.quantization
    return {
        "family": source.family,
        "parts": source.parts.number,
        "parameters": count_parameters(source.config),
        "bits": quantization.bits if quantization else 8 * source.parts.tensors["word_embeddings.weight"][0].itemsize,
    }


def _write(source: Source, out: Path, tokenizer: Path | None, fingerprint: str, facts: dict[str, Any]) -> list[str]:
    with files.atomic_path(out / WEIGHTS) as temporary:
        write_tensors(temporary, source.specs(), source.tensors())
    for name in TOKENIZER_FILES if tokenizer else ():
        with files.atomic_path(out / name) as temporary:
            shutil.copyfile(tokenizer / name, temporary)  # type: ignore[operator]
    files.write_json(out / REPORT, facts)
    description = Description(
        model=source.config, quantization=source.quantization, tokenizer=fingerprint, training={"imported": facts}
    )
    files.write_json(out / DESCRIPTION, description)
    return [WEIGHTS, DESCRIPTION, REPORT, *(TOKENIZER_FILES if tokenizer else ())]


def export_stage(model: Path, out: Path, parts: int, *, overwrite: bool = False) -> Success:
    """Write a model folder as a checkpoint of ``parts`` tensor-parallel parts, in the form of GLM-130B or GLM-10B.

    The folder gets ``latest`` and ``1/mp_rank_*``; types, levels and scales stay as they are. Peak memory is a part.
    Raises :class:`UsageError` if the model is of neither kind or cannot be cut so.
    """
    description = read_description(model)
    family = family_of(description.model)
    inputs = [describe_input(model / name, name) for name in (WEIGHTS, DESCRIPTION)]
    mapping = {"parts": parts}
    if not overwrite and (done := finished(out, EXPORT, mapping, inputs)) is not None:
        return done
    check_cuts(description.model, parts)
    with open_stage(out, EXPORT, mapping, inputs, overwrite=overwrite) as stage:
        for rank in stage.pending(parts):
            started = time.perf_counter()
            name = f"{_ITERATION}/{PART.format(rank)}"
            with files.atomic_path(out / name) as temporary:
                content = _part(model / WEIGHTS, family, description.model.heads, rank, parts)
                torch.save({"module": content}, temporary)
            written = [name]
            if rank == 0:
                files.write_bytes(out / POINTERS[0], _ITERATION.encode())
                written.append(POINTERS[0])
            outputs = tuple(output_file(out, name) for name in written)
            record = ShardRecord(shard=rank, input=WEIGHTS, records=1, kept=1, files=outputs)
            write_shard_record(out, record, started)
        return stage.succeed(parts, [], {"family": family, "parts": parts})


def family_of(config: ModelConfig) -> Family:
    """Whose form a model can be written in."""
    if (config.norm, config.feed_forward, config.positions) == ("deepnorm", "geglu", "rotary"):
        return "glm-130b"
    if config.norm == "pre" and config.feed_forward in ("gelu", "gelu-tanh") and config.positions == "learned-2d":
        return "glm-10b"
    raise UsageError(
        f"a model of {config.norm} norm, {config.feed_forward} and {config.positions} positions has no form in the "
        "checkpoints of GLM-130B or GLM-10B."
    )


def check_cuts(config: ModelConfig, parts: int) -> None:
    """Raise :class:`UsageError` unless ``parts`` divide all that is cut."""
    for name in ("vocab", "heads", "hidden", "ffn"):
        if getattr(config, name) % parts:
            raise UsageError(f"the model's {name} is {getattr(config, name)}, which {parts} parts do not divide.")


def _part(weights: Path, family: Family, heads: int, rank: int, parts: int) -> dict[str, Tensor]:
    content: dict[str, Tensor] = {}
    with safe_open(weights, framework="pt") as handle:
        for name in handle.keys():  # noqa: SIM118 - not a mapping
            if name.endswith(".qweight"):
                stem = name.removesuffix(".qweight")
                matrix, scales = handle.get_tensor(name), handle.get_tensor(stem + ".scales")
                theirs, cut = their_name(stem + ".weight", family), cut_of(stem + ".weight", family)
                columns = take(matrix, cut, rank, parts, heads)
                content[theirs] = (to_glm130b(columns) if matrix.dtype == torch.uint8 else columns).contiguous().clone()
                content[theirs + "_scale"] = _scales_of(stem, scales, cut, rank, parts, heads)
            elif not name.endswith(".scales"):
                share = take(handle.get_tensor(name), cut_of(name, family), rank, parts, heads)
                content[their_name(name, family)] = share.contiguous().clone()
    return content


def _scales_of(stem: str, scales: Tensor, cut: Cut, rank: int, parts: int, heads: int) -> Tensor:
    """A part's scales, one a row. A part that is cut by columns must lie within one group of them."""
    groups = scales.shape[1]
    if cut != "columns" and groups == 1:
        return take(scales[:, 0], cut, rank, parts, heads).contiguous().clone()
    if cut == "columns" and parts % groups == 0:
        return scales[:, rank * groups // parts].contiguous().clone()
    raise UsageError(
        f"'{stem}' has {groups} scales a row, but a GLM-130B part has one; quantise with group 0, or write "
        f"{groups} parts."
        if cut == "columns"
        else f"'{stem}' has {groups} scales a row; quantise with group 0."
    )
