"""Reading and writing checkpoints as stages: tensor by tensor, so that none needs the memory of a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glm_data import files
from glm_data.config import to_mapping
from glm_data.errors import InputError, UsageError
from glm_data.int4.linear import EMBEDDING
from glm_data.int4.memory import forget
from glm_data.int4.quantize import dequantize, to_glm130b
from glm_data.int4.safetensors_stream import write_tensors
from glm_data.megatron.layout import Cut, Family, cut_of, take, their_name
from glm_data.megatron.model import Source, understand
from glm_data.megatron.options import ImportOptions
from glm_data.megatron.parts import PART, POINTERS, Parts, find_parts
from glm_data.model.config import ModelConfig, count_parameters
from glm_data.model.store import DESCRIPTION, TOKENIZER_FILES, WEIGHTS, Description, copy_files, read_description
from glm_data.stage import ShardRecord, Success, describe_input, finished, open_stage, output_file, write_shard_record
from tokenizer import Tokenizer

IMPORT, EXPORT = "import", "export-checkpoint"
REPORT = "import.json"
_ITERATION = "1"
"""Name of the only folder of parts that is written."""


def import_stage(checkpoint: Path, out: Path, options: ImportOptions, *, overwrite: bool = False) -> Success:
    """Read a GLM-130B or GLM-10B checkpoint into a model folder, as training or quantising would have written it.

    Parts are merged; weights keep their type, INT4 and INT8 ones their levels and scales. Peak memory is the largest
    tensor and its merged twin. Facts, also in ``import.json``: family, parts, parameters, bits.
    """
    paths = find_parts(checkpoint)
    copies = [Path(options.tokenizer) / name for name in TOKENIZER_FILES] if options.tokenizer else []
    fingerprint = Tokenizer.load(options.tokenizer).fingerprint if options.tokenizer else ""
    inputs = [describe_input(path, path.name) for path in [*paths, *copies]]
    mapping = to_mapping(options)
    if not overwrite and (done := finished(out, IMPORT, mapping, inputs)) is not None:
        return done
    source = understand(Parts(paths), options.heads)
    with open_stage(out, IMPORT, mapping, inputs, overwrite=overwrite) as stage:
        if stage.pending(1):
            started = time.perf_counter()
            facts = _facts(source)
            names = _write(source, out, copies, fingerprint, facts)
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


def _write(source: Source, out: Path, copies: list[Path], fingerprint: str, facts: dict[str, Any]) -> list[str]:
    with files.atomic_path(out / WEIGHTS) as temporary:
        write_tensors(temporary, source.specs(), source.tensors())
    copy_files(copies, out)
    files.write_json(out / REPORT, facts)
    description = Description(
        model=source.config, quantization=source.quantization, tokenizer=fingerprint, training={"imported": facts}
    )
    files.write_json(out / DESCRIPTION, description)
    return [WEIGHTS, DESCRIPTION, REPORT, *(path.name for path in copies)]


def export_stage(model: Path, out: Path, parts: int, *, overwrite: bool = False) -> Success:
    """Write a model folder as a checkpoint of ``parts`` tensor-parallel parts, in the form of GLM-130B or GLM-10B.

    The folder gets ``latest`` and ``1/mp_rank_*``; types, levels and scales stay as they are. Peak memory is a part.
    Raises :class:`UsageError` if the model is of neither kind or cannot be cut so.
    """
    description = read_description(model)
    family = family_of(description.model)
    if not (model / WEIGHTS).is_file():
        raise InputError(f"'{model}' has no {WEIGHTS}; import, train or quantise again.")
    inputs = [describe_input(model / name, name) for name in (WEIGHTS, DESCRIPTION)]
    mapping = {"parts": parts}
    if not overwrite and (done := finished(out, EXPORT, mapping, inputs)) is not None:
        return done
    check_cuts(description, parts)
    with open_stage(out, EXPORT, mapping, inputs, overwrite=overwrite) as stage:
        for rank in stage.pending(parts):
            started = time.perf_counter()
            name = f"{_ITERATION}/{PART.format(rank)}"
            with files.atomic_path(out / name) as temporary:  # nothing of a part outlives its line
                torch.save({"module": _part(model / WEIGHTS, family, description.model.heads, rank, parts)}, temporary)
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


def check_cuts(description: Description, parts: int) -> None:
    """Raise :class:`UsageError` unless ``parts`` divide all that is cut, and no byte of two columns is."""
    packed = description.quantization is not None and description.quantization.bits == 4
    for name in ("vocab", "heads", "hidden", "ffn"):
        size = getattr(description.model, name)
        if size % (2 * parts if packed and name in ("hidden", "ffn") else parts):
            whole = " into even widths" if packed else ""
            raise UsageError(f"the model's {name} is {size}, which {parts} parts do not divide{whole}.")


def _part(weights: Path, family: Family, heads: int, rank: int, parts: int) -> dict[str, Tensor]:
    """The tensors of a part by their names there, copied out of the file."""
    content: dict[str, Tensor] = {}
    try:
        with safe_open(weights, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - not a mapping
                stem, _, kind = name.rpartition(".")
                if stem == EMBEDDING and kind == "scales":
                    continue  # that checkpoint's embedding is never packed: it was unpacked with its levels
                plain = f"{stem}.weight" if kind in ("qweight", "scales") else name
                theirs, cut = their_name(plain, family), cut_of(plain, family)
                tensor = mapped = handle.get_tensor(name)
                if kind == "scales":
                    content[theirs + "_scale"] = _scales_of(stem, tensor, cut, rank, parts, heads).clone()
                    continue
                if stem == EMBEDDING and kind == "qweight":
                    tensor = dequantize(tensor, handle.get_tensor(f"{stem}.scales"), 0, torch.float16)
                share = take(tensor, cut, rank, parts, heads)
                content[theirs] = to_glm130b(share) if share.dtype == torch.uint8 else share.contiguous().clone()
                forget(mapped)
    except SafetensorError as error:
        raise InputError(f"'{weights}' is damaged ({error}); import, train or quantise again.") from None
    return content


def _scales_of(stem: str, scales: Tensor, cut: Cut, rank: int, parts: int, heads: int) -> Tensor:
    """A part's scales, one a row. A part that is cut by columns must lie within one group of them."""
    groups = scales.shape[1]
    if cut != "columns" and groups == 1:
        return take(scales[:, 0], cut, rank, parts, heads)
    if cut == "columns" and parts % groups == 0:
        return scales[:, rank * groups // parts]
    raise UsageError(
        f"'{stem}' has {groups} scales a row, and one of {parts} parts of GLM-130B's form has one; quantise with group "
        "0, or write as many parts as it was imported from."
    )
