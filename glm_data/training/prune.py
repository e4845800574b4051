"""Pruning: the least weights of the layers' matrices become zero, two of every four columns or a share of each row.

What is least is said by |w| alone, or by |w| times the norm of its input over packed rows (Wanda, Sun et al. 2023,
section 3): a small weight on a large input matters. Weights are compared within a row, which computes one output.
Nothing is trained again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from glm_data import files
from glm_data.config import to_mapping
from glm_data.errors import InputError, UsageError
from glm_data.inputs import stage_files
from glm_data.loading import PackedRows
from glm_data.model.model import GLM
from glm_data.model.store import (
    DESCRIPTION,
    TOKENIZER_FILES,
    WEIGHTS,
    Description,
    copy_files,
    read_description,
    read_tensors,
    save_model,
    tokenizer_files,
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
from glm_data.training.batches import IntArray, Rows, split_rows
from glm_data.training.losses import measure
from glm_data.training.options import PruneOptions

STAGE, REPORT = "prune", "prune.json"
WORST_RISE = 1.0
"""Nats a token by which the loss may rise before the guard rail trips."""


def prune_stage(model: Path, pack: Path, out: Path, options: PruneOptions, *, overwrite: bool = False) -> Success:
    """Prune the model folder ``model`` into the stage folder ``out``, with inputs and losses measured on ``pack``.

    The folder gets ``model.safetensors``, ``config.json`` and the tokenizer's files as training writes them. Facts,
    also in ``prune.json``: the share of zeros in each matrix and the held-out losses before and after, by kind.
    Raises :class:`UsageError` if model and pack have different tokenizers or the pack has too few rows.
    """
    rows, description = PackedRows.open(pack), read_description(model)
    inputs = _inputs(model, pack, rows, description)
    mapping = to_mapping(options)
    if not overwrite and (done := finished(out, STAGE, mapping, inputs)) is not None:
        return done
    calibration, held_out = _split(len(rows), options)
    with open_stage(out, STAGE, mapping, inputs, overwrite=overwrite) as stage:
        if stage.pending(1):
            started = time.perf_counter()
            network = GLM(description.model)
            network.load_state_dict(read_tensors(model))
            facts = prune(network, rows, calibration, held_out, options)
            _write(model, out, network, description, facts)
            names = (WEIGHTS, DESCRIPTION, *TOKENIZER_FILES, REPORT)
            outputs = tuple(output_file(out, name) for name in names)
            write_shard_record(out, ShardRecord(shard=0, input=WEIGHTS, records=1, kept=1, files=outputs), started)
        facts = files.read_json(out / REPORT)
        return stage.succeed(1, [_check(facts)], facts)


def prune(model: GLM, rows: Rows, calibration: IntArray, held_out: IntArray, options: PruneOptions) -> dict[str, Any]:
    """Prune the matrices of ``model``'s layers in place; returns the facts of :func:`prune_stage`."""
    before = measure(model, rows, held_out).means()
    norms = input_norms(model, rows, calibration) if options.score == "activation" else {}
    zeros: dict[str, float] = {}
    for name, matrix in _matrices(model).items():
        scores_NK = matrix.weight.detach().abs()
        if name in norms:
            scores_NK = scores_NK * norms[name]
        keep_NK = keep(scores_NK, options.pattern, options.sparsity)
        with torch.no_grad():
            matrix.weight.mul_(keep_NK)
        zeros[name] = float((matrix.weight == 0).double().mean())
    sizes = {name: matrix.weight.numel() for name, matrix in _matrices(model).items()}
    share = sum(zeros[name] * size for name, size in sizes.items()) / sum(sizes.values())
    after = measure(model, rows, held_out).means()
    return {"loss_before": before, "loss_after": after, "zeros": share, "zeros_of_matrices": zeros}


def keep(scores_NK: Tensor, pattern: str, sparsity: float) -> Tensor:
    """Which weights stay, ``bool[N, K]``: of equal scores the first. Raises :class:`InputError` for a 2:4 pattern
    over a width that is no multiple of 4."""
    width = scores_NK.shape[1]
    if pattern == "2:4" and width % 4:
        raise InputError(f"a matrix of {width} columns has no 2:4 pattern; use --pattern unstructured.")
    groups = scores_NK.reshape(-1, 4) if pattern == "2:4" else scores_NK
    kept = 2 if pattern == "2:4" else width - round(sparsity * width)
    best = groups.argsort(dim=1, descending=True, stable=True)[:, :kept]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, best, True).reshape(scores_NK.shape)


def input_norms(model: GLM, rows: Rows, indices: IntArray) -> dict[str, Tensor]:
    """Euclidean norm of each input column of each matrix, ``float32[K]``, over all tokens of the rows ``indices``."""
    squares: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def add(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            found_K = given[0].detach().double().square().sum(0)
            squares[name] = squares[name] + found_K if name in squares else found_K

        return add

    handles = [matrix.register_forward_pre_hook(hook(name)) for name, matrix in _matrices(model).items()]
    try:
        measure(model, rows, indices)
    finally:
        for handle in handles:
            handle.remove()
    return {name: square_K.sqrt().float() for name, square_K in squares.items()}


def _matrices(model: GLM) -> dict[str, nn.Linear]:
    found = model.layers.named_modules(prefix="layers")
    return {name: module for name, module in found if isinstance(module, nn.Linear)}


def _inputs(model: Path, pack: Path, rows: PackedRows, description: Description) -> tuple[InputFile, ...]:
    if description.quantization is not None:
        raise UsageError(f"'{model}' is quantised; prune the train folder, then quantise.")
    if rows.manifest.facts.get("fingerprint") != description.tokenizer:
        raise UsageError(f"'{pack}' was packed with another tokenizer than '{model}' was trained with; give its pack.")
    paths = [model / WEIGHTS, model / DESCRIPTION, *tokenizer_files(model)]
    if not paths[0].is_file():
        raise InputError(f"'{model}' has no {WEIGHTS}; train again.")
    return (*(describe_input(path, path.name) for path in paths), *stage_files(pack, "pack/"))


def _split(rows: int, options: PruneOptions) -> tuple[IntArray, IntArray]:
    """Rows to measure inputs on, spread over the pack, and rows to measure the loss on."""
    if options.held_out_rows >= rows:
        raise UsageError(
            f"the pack has {rows} rows and held_out_rows is {options.held_out_rows}; give fewer, or a larger pack."
        )
    rest, held_out = split_rows(rows, options.held_out_rows)
    chosen = np.arange(min(options.calibration_rows, len(rest))) * len(rest)
    return rest[chosen // min(options.calibration_rows, len(rest))], held_out


def _write(model: Path, out: Path, network: GLM, description: Description, facts: dict[str, Any]) -> None:
    copy_files(tokenizer_files(model), out)
    training = {**description.training, "pruning": facts}
    save_model(out, network.state_dict(), msgspec.structs.replace(description, training=training))
    files.write_json(out / REPORT, facts)


def _check(facts: dict[str, Any]) -> Check:
    before, after = facts["loss_before"]["loss"], facts["loss_after"]["loss"]
    sentence = (
        f"{facts['zeros']:.1%} of the layers' weights are zero; the held-out loss is {after:.3f} nats a token, "
        f"{before:.3f} before."
    )
    return Check(name="pruned_loss", ok=after - before <= WORST_RISE, sentence=sentence)
