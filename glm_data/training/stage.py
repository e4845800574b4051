"""Training as a stage: a folder with weights, metrics, checkpoints and the tokenizer they belong to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.errors import UsageError
from glm_data.inputs import stage_files
from glm_data.loading import PackedRows
from glm_data.model.config import ModelConfig, count_parameters
from glm_data.model.device import find_device
from glm_data.model.model import GLM, build
from glm_data.model.store import (
    DESCRIPTION,
    TOKENIZER_FILES,
    WEIGHTS,
    Description,
    copy_files,
    save_model,
    tokenizer_files,
)
from glm_data.stage import (
    Check,
    InputFile,
    OutputFile,
    ShardRecord,
    Stage,
    Success,
    describe_input,
    finished,
    open_stage,
    write_shard_record,
)
from glm_data.training.batches import IntArray, OrderFunction, Rows, split_rows
from glm_data.training.distill import load_teacher, teacher_files
from glm_data.training.engine import Engine
from glm_data.training.labels import PackLabels
from glm_data.training.loop import Labels, Report, Trainer, fixed_threads
from glm_data.training.losses import count_targets, measure, unigram_entropy
from glm_data.training.metrics import CURVE, METRICS, write_curve
from glm_data.training.options import TrainOptions, model_config, run_settings, step_bounds
from glm_data.training.tensorboard import require_tensorboard
from tokenizer import Tokenizer

STAGE = "train"
COUNTED_ROWS = 4096
"""Rows whose targets are counted for the unigram entropy; more would not change it."""


@dataclass(frozen=True)
class TrainingData:
    """Everything a run reads: rows, their order, the files they come from and the tokenizer's two files."""

    rows: Rows
    order: OrderFunction
    inputs: Sequence[InputFile]
    tokenizer: Path
    """Folder with ``tokenizer.model`` and ``tokenizer.json``; its ``vocab_size`` is the model's vocabulary."""
    labels: Labels | None = None
    """What tells losses apart besides the kind."""


def train_stage(
    pack: Path,
    out: Path,
    options: TrainOptions,
    *,
    tokenizer: Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Success:
    """Train on a finished pack; see :func:`train_rows`.

    ``tokenizer`` is the folder of the tokenizer that made the pack; by default the pack's own folder if it holds
    one, else ``tokenizer`` beside it. Raises :class:`UsageError` if it is another tokenizer than the pack's, or if
    there is no such device.
    """
    find_device(options.device)
    data = pack_data(pack, tokenizer)
    return train_rows(data, out, options, overwrite=overwrite, report=report)


def pack_data(pack: Path, tokenizer: Path | None = None) -> TrainingData:
    """What training on a finished pack reads; see :func:`train_stage`."""
    rows = PackedRows.open(pack)
    folder = tokenizer or next(
        (f for f in (pack, pack.parent / "tokenizer") if (f / TOKENIZER_FILES[0]).is_file()), None
    )
    if folder is None:
        raise UsageError(f"no tokenizer lies in '{pack}' or beside it; give the folder of the one it was packed with.")
    made_with, given = rows.manifest.facts.get("fingerprint"), Tokenizer.load(folder).fingerprint
    if made_with != given:
        raise UsageError(
            f"'{pack}' was packed with another tokenizer than '{folder}' (fingerprint {str(made_with)[:12]}…, given "
            f"{given[:12]}…); give the one it was packed with."
        )
    return TrainingData(rows, rows.order, stage_files(pack, "pack/"), folder, PackLabels(rows))


def train_rows(
    data: TrainingData,
    out: Path,
    options: TrainOptions,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> Success:
    """Train on ``data`` into the stage folder ``out``; goes on from the newest checkpoint of the same run.

    The folder gets ``model.safetensors``, ``config.json``, ``metrics.jsonl``, ``loss.svg``, ``checkpoints/`` and the
    tokenizer's files, and ``spikes.jsonl`` if steps were left out. Facts: parameters, steps, first and last loss (nats
    a loss token, from metrics.jsonl), the unigram entropy of the loss targets, and the held-out losses if rows are
    held out.
    """
    training, _ = split_data(data.rows, options)
    if options.tensorboard:
        require_tensorboard()
    inputs = run_inputs(data, options)
    mapping = run_settings(options)
    if not overwrite and (done := finished(out, STAGE, mapping, inputs)) is not None:
        return done
    tokenizer = Tokenizer.load(data.tokenizer)
    config = model_config(options, tokenizer.vocab_size)
    with open_stage(out, STAGE, mapping, inputs, overwrite=overwrite) as stage, fixed_threads(options.threads):
        if stage.pending(1):
            started = time.perf_counter()
            teacher = load_teacher(options, config, tokenizer.fingerprint)
            engine = Engine(build(config, options.seed), options, teacher)
            Trainer(engine, data.rows, training, data.order, out, data.labels).run(stage.key, report)
            conclude(stage, engine.exported(), data, options, started)
        return succeed(stage)


def conclude(stage: Stage, model: GLM, data: TrainingData, options: TrainOptions, started: float) -> None:
    """Write the trained ``model`` and what is to be said about its run; ``started`` is a ``time.perf_counter()``."""
    training, held_out = split_data(data.rows, options)
    write_curve(stage.folder, stage.folder / METRICS)
    facts = _facts(model, data.rows, training, held_out, options, stage.folder)
    fingerprint = Tokenizer.load(data.tokenizer).fingerprint
    _write_results(stage, model, model.config, fingerprint, tokenizer_files(data.tokenizer), facts)
    write_shard_record(stage.folder, _record(stage.folder, len(data.rows), facts), started)


def run_inputs(data: TrainingData, options: TrainOptions) -> tuple[InputFile, ...]:
    """All files that a run depends on."""
    own = (describe_input(path, path.name) for path in tokenizer_files(data.tokenizer))
    teacher = (describe_input(path, f"teacher/{path.name}") for path in teacher_files(options.teacher))
    return (*data.inputs, *own, *teacher)


def split_data(rows: Rows, options: TrainOptions) -> tuple[IntArray, IntArray]:
    """Row numbers to train on and to hold out; :class:`UsageError` if nothing would be left."""
    if options.held_out_rows >= len(rows):
        raise UsageError(
            f"the pack has {len(rows)} rows and held_out_rows is {options.held_out_rows}; "
            "pack more text or hold out fewer rows."
        )
    return split_rows(len(rows), options.held_out_rows)


def _facts(
    model: GLM, rows: Rows, training: IntArray, held_out: IntArray, options: TrainOptions, out: Path
) -> dict[str, Any]:
    lines = [msgspec.json.decode(line) for line in (out / METRICS).read_bytes().splitlines()]
    bounds = step_bounds(options, len(training))
    facts: dict[str, Any] = {
        "parameters": count_parameters(model.config),
        "rows": len(training),
        "steps": len(bounds) - 1,
        "epochs": bounds[-1] / len(training),
        "loss_tokens": lines[-1]["loss_tokens"],
        "first_loss": lines[0]["loss"],
        "last_loss": lines[-1]["loss"],
        "last_losses": {name: value for name, value in lines[-1].items() if name.startswith("loss/")},
        "unigram_entropy": unigram_entropy(count_targets(rows, training[:COUNTED_ROWS], model.config.vocab)),
    }
    if len(held_out):
        facts["held_out_rows"] = len(held_out)
        facts["held_out"] = measure(model, rows, held_out).means()
    return facts


def _write_results(
    stage: Stage,
    model: GLM,
    config: ModelConfig,
    fingerprint: str,
    paths: list[Path],
    facts: dict[str, Any],
) -> None:
    copy_files(paths, stage.folder)
    description = Description(
        model=config,
        tokenizer=fingerprint,
        training={"options": stage.plan["options"], "facts": facts},
    )
    save_model(stage.folder, model.state_dict(), description)


def _record(out: Path, rows: int, facts: dict[str, Any]) -> ShardRecord:
    names = (WEIGHTS, DESCRIPTION, METRICS, CURVE, *TOKENIZER_FILES)
    outputs = [
        OutputFile(name=name, bytes=(out / name).stat().st_size, digest=files.digest_file(out / name)) for name in names
    ]
    counts = {"steps": facts["steps"], "loss_tokens": facts["loss_tokens"]}
    return ShardRecord(shard=0, input="rows", records=rows, kept=rows, counts=counts, files=tuple(outputs))


def succeed(stage: Stage) -> Success:
    """Finish the stage whose results are written; the guard rail: a model has to beat guessing by frequency."""
    facts = files.read_json(stage.folder / DESCRIPTION)["training"]["facts"]
    last, entropy = facts["last_loss"], facts["unigram_entropy"]
    sentence = f"last training loss {last:.2f} nats a token; guessing by frequency alone costs {entropy:.2f}."
    return stage.succeed(1, [Check(name="learned", ok=last < entropy, sentence=sentence)], facts)
