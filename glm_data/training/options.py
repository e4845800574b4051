"""The options of a training run."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec

from glm_data.config import Config, Doc, require_least, require_shares, to_mapping
from glm_data.errors import ConfigError
from glm_data.model.config import ModelConfig, preset
from glm_data.training.schedule import shrink_points, steps_of_run

Precision = Literal["float32", "bfloat16", "float16"]
Weighting = Literal["token", "sequence"]


class TrainOptions(Config, frozen=True, kw_only=True):
    """What a training run is, next to its rows. Together they decide every byte of the result (``tensorboard`` none).

    The defaults are the ``tiny`` model's, for a run of a few hundred steps. GLM-130B: ``optimizer: adamw``,
    ``lr: 8e-5``, ``min_lr_ratio: 0.1``, ``weight_decay: 0.1``, ``weighting: sequence``.
    """

    model: Annotated[str, Doc("model preset: tiny, small, 110m, 335m, 2b, 10b, 130b or glm-10b")] = "tiny"
    layers: Annotated[int | None, Doc("transformer layers, instead of the preset's")] = None
    hidden: Annotated[int | None, Doc("hidden width, instead of the preset's")] = None
    heads: Annotated[int | None, Doc("attention heads, instead of the preset's")] = None
    ffn: Annotated[int | None, Doc("GeGLU width, instead of the preset's")] = None
    norm: Annotated[Literal["deepnorm", "pre", "rms"] | None, Doc("deepnorm, pre or rms, instead of the preset's")] = (
        None
    )
    shrink: Annotated[float | None, Doc("embedding gradient shrink, instead of the preset's")] = None
    neighbours: Annotated[float | None, Doc("heads that start by looking at neighbours, instead of the preset's")] = (
        None
    )
    positions: Annotated[
        Literal["rotary", "learned-2d"] | None, Doc("rotary or learned-2d (GLM-10B), instead of the preset's")
    ] = None
    softmax: Annotated[
        Literal["fused", "glm-130b"] | None,
        Doc("fused, or glm-130b: scores divided by the layer's number, softmax in float32"),
    ] = None
    dropout: Annotated[float | None, Doc("dropout, instead of the preset's")] = None
    steps: Annotated[int, Doc("optimiser steps; 0 means as many as `epochs` needs")] = 0
    epochs: Annotated[float, Doc("passes over the rows, if `steps` is 0")] = 1.0
    batch_rows: Annotated[int, Doc("rows of 2048 tokens in a step")] = 1
    micro_rows: Annotated[int, Doc("rows computed at once, gradients adding up over a step; 0 means all")] = 0
    batch_start: Annotated[int, Doc("rows of the first step, if batches shall grow (GLM-130B: 192); 0 means no")] = 0
    batch_rise: Annotated[int, Doc("rows by which they grow (GLM-130B: 24)")] = 24
    batch_ramp: Annotated[int, Doc("samples over which they grow (GLM-130B: 5493164)")] = 0
    weighting: Annotated[
        Weighting, Doc("token: every loss token weighs the same; sequence: every row does, as in GLM-130B")
    ] = "token"
    optimizer: Annotated[
        Literal["adamw", "muon", "adafactor"],
        Doc("adamw as GLM-130B; muon moves the layers' matrices by orthogonalised momentum; adafactor saves memory"),
    ] = "muon"
    lr: Annotated[float, Doc("AdamW, Adafactor: highest learning rate (GLM-130B: 8e-5)")] = 0.01
    embedding_lr: Annotated[float, Doc("AdamW: highest learning rate of the embedding; 0 means lr")] = 0.02
    matrix_lr: Annotated[float, Doc("Muon: highest learning rate")] = 0.02
    momentum: Annotated[float, Doc("Muon: momentum")] = 0.9
    warmup_samples: Annotated[int, Doc("rows over which the learning rate rises (GLM-130B: 1098632)")] = 20
    min_lr_ratio: Annotated[float, Doc("last learning rate as a share of the highest (GLM-130B: 0.1)")] = 0.05
    beta1: Annotated[float, Doc("AdamW: decay of the first moment")] = 0.9
    beta2: Annotated[float, Doc("AdamW: decay of the second moment")] = 0.95
    decay_share: Annotated[
        float, Doc("share of the run after which the learning rate has come to its last value (GLM-130B: 0.9)")
    ] = 1.0
    shrink_at: Annotated[
        dict[str, float], Doc("samples -> embedding gradient shrink, linear in between, instead of a fixed one")
    ] = msgspec.field(default_factory=dict)
    spike_sigma: Annotated[
        float, Doc("leave out steps this many standard deviations above the usual loss or gradient norm; 0: never")
    ] = 6.0
    spike_window: Annotated[int, Doc("steps that say what is usual")] = 128
    spike_patience: Annotated[int, Doc("stop when so many steps in a row were left out")] = 10
    precision: Annotated[
        Precision, Doc("of the network; the optimiser's weights are float32 (GLM-130B: float16, scaled losses)")
    ] = "float32"
    device: Annotated[Literal["cpu", "cuda"], Doc("where the network is computed")] = "cpu"
    recompute: Annotated[bool, Doc("compute layers again on the way back instead of keeping what is inside")] = False
    compile: Annotated[bool, Doc("compile the layers with torch.compile: pays on CUDA")] = False
    weight_decay: Annotated[float, Doc("weight decay of matrices and embedding (GLM-130B: 0.1)")] = 0.01
    clip: Annotated[float, Doc("largest norm of the gradient; 0 means no clipping")] = 1.0
    seed: Annotated[int, Doc("seed of weights, order and dropout")] = 0
    threads: Annotated[int, Doc("CPU threads; another number may change the last bits of the result")] = 2
    log_every: Annotated[int, Doc("steps between lines of metrics.jsonl")] = 10
    tensorboard: Annotated[
        bool, Doc("also write what is logged for TensorBoard, into _run/tensorboard (extra: tensorboard)")
    ] = False
    checkpoint_every: Annotated[int, Doc("steps between checkpoints; 0 means none")] = 100
    keep_checkpoints: Annotated[int, Doc("newest checkpoints to keep")] = 2
    teacher: Annotated[str, Doc("train folder of a model whose distributions are learned beside the targets")] = ""
    teacher_share: Annotated[float, Doc("weight of the teacher's distributions, the targets' is the rest")] = 0.5
    teacher_temperature: Annotated[
        float, Doc("by which scores are divided before teacher and student are compared")
    ] = 2.0
    held_out_rows: Annotated[int, Doc("rows kept from training to measure the loss on, spread over the pack")] = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        require_least(
            self, 1, "batch_rows", "batch_rise", "threads", "log_every", "keep_checkpoints", "spike_window",
            "spike_patience",
        )  # fmt: skip
        require_least(
            self, 0, "steps", "warmup_samples", "micro_rows", "batch_start", "batch_ramp", "spike_sigma",
            "checkpoint_every", "held_out_rows", "clip", "weight_decay", "min_lr_ratio", "embedding_lr",
        )  # fmt: skip
        require_shares(self, "decay_share", "teacher_share")
        for name in ("lr", "matrix_lr"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie in [0, 1).")
        if self.teacher_temperature <= 0:
            raise ConfigError(f"teacher_temperature is {self.teacher_temperature}; it must be above 0.")
        shrink_points(self.shrink_at)
        if self.steps == 0 and self.epochs <= 0:
            raise ConfigError("steps is 0 and epochs is not above 0; give one of them.")


class PruneOptions(Config, frozen=True, kw_only=True):
    """Which weights of a trained model become zero."""

    pattern: Annotated[
        Literal["2:4", "unstructured"], Doc("2:4: two of every four columns, as sparse tensor cores want; or anywhere")
    ] = "2:4"
    score: Annotated[
        Literal["activation", "magnitude"], Doc("what is kept: largest |weight|, or |weight| times its input's norm")
    ] = "activation"
    sparsity: Annotated[float, Doc("share of each row's weights that become zero, if unstructured")] = 0.5
    calibration_rows: Annotated[int, Doc("rows of the pack on which inputs are measured")] = 64
    held_out_rows: Annotated[int, Doc("other rows, spread as training spreads its own, to measure the loss on")] = 16

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if not 0 < self.sparsity < 1:
            raise ConfigError(f"sparsity is {self.sparsity}; it is a share above 0 and below 1.")
        require_least(self, 1, "calibration_rows", "held_out_rows")


def run_settings(options: TrainOptions) -> dict[str, Any]:
    """The options that decide the result; a run may go on with other ones of the rest."""
    return {name: value for name, value in to_mapping(options).items() if name != "tensorboard"}


def held_out_rows(training: dict[str, Any]) -> int:
    """How many rows a run kept back, from the ``training`` part of its ``config.json``."""
    options: dict[str, Any] = training.get("options", {})
    return int(options.get("held_out_rows", TrainOptions().held_out_rows))


def model_config(options: TrainOptions, vocab: int) -> ModelConfig:
    """The preset with the options' replacements, for a tokenizer of ``vocab`` ids."""
    names = ("layers", "hidden", "heads", "ffn", "norm", "shrink", "neighbours", "positions", "softmax", "dropout")
    changes: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return msgspec.structs.replace(preset(options.model, vocab), **changes)


def step_bounds(options: TrainOptions, rows: int) -> list[int]:
    """Samples before each step of the run over ``rows`` training rows, and in all."""
    total = None if options.steps else max(1, math.ceil(options.epochs * rows))
    start = options.batch_start or options.batch_rows
    return steps_of_run(total, options.steps, options.batch_rows, start, options.batch_rise, options.batch_ramp)
