"""The options of a training run."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError
from glm_data.model.config import ModelConfig, preset

Weighting = Literal["token", "sequence"]


class TrainOptions(Config, frozen=True, kw_only=True):
    """What a training run is, next to its rows. Together they decide every byte of the result.

    The defaults are the ``tiny`` model's, for a run of a few hundred steps. GLM-130B: ``optimizer: adamw``,
    ``lr: 8e-5``, ``min_lr_ratio: 0.1``, ``weight_decay: 0.1``, ``weighting: sequence``.
    """

    model: Annotated[str, Doc("model preset: tiny, 110m, 335m, 2b, 10b or 130b")] = "tiny"
    layers: Annotated[int | None, Doc("transformer layers, instead of the preset's")] = None
    hidden: Annotated[int | None, Doc("hidden width, instead of the preset's")] = None
    heads: Annotated[int | None, Doc("attention heads, instead of the preset's")] = None
    ffn: Annotated[int | None, Doc("GeGLU width, instead of the preset's")] = None
    norm: Annotated[Literal["deepnorm", "pre"] | None, Doc("deepnorm or pre, instead of the preset's")] = None
    shrink: Annotated[float | None, Doc("embedding gradient shrink, instead of the preset's")] = None
    neighbours: Annotated[float | None, Doc("heads that start by looking at neighbours, instead of the preset's")] = (
        None
    )
    dropout: Annotated[float | None, Doc("dropout, instead of the preset's")] = None
    steps: Annotated[int, Doc("optimiser steps; 0 means as many as `epochs` needs")] = 0
    epochs: Annotated[float, Doc("passes over the rows, if `steps` is 0")] = 1.0
    batch_rows: Annotated[int, Doc("rows of 2048 tokens in a step")] = 1
    weighting: Annotated[
        Weighting, Doc("token: every loss token weighs the same; sequence: every row does, as in GLM-130B")
    ] = "token"
    optimizer: Annotated[
        Literal["adamw", "muon"], Doc("adamw as GLM-130B; muon moves the layers' matrices by orthogonalised momentum")
    ] = "muon"
    lr: Annotated[float, Doc("AdamW: highest learning rate (GLM-130B: 8e-5)")] = 0.01
    embedding_lr: Annotated[float, Doc("AdamW: highest learning rate of the embedding; 0 means lr")] = 0.02
    matrix_lr: Annotated[float, Doc("Muon: highest learning rate")] = 0.02
    momentum: Annotated[float, Doc("Muon: momentum")] = 0.9
    warmup: Annotated[int, Doc("steps of linear warm-up")] = 20
    min_lr_ratio: Annotated[float, Doc("last learning rate as a share of the highest (GLM-130B: 0.1)")] = 0.05
    beta1: Annotated[float, Doc("AdamW: decay of the first moment")] = 0.9
    beta2: Annotated[float, Doc("AdamW: decay of the second moment")] = 0.95
    weight_decay: Annotated[float, Doc("weight decay of matrices and embedding (GLM-130B: 0.1)")] = 0.01
    clip: Annotated[float, Doc("largest norm of the gradient; 0 means no clipping")] = 1.0
    seed: Annotated[int, Doc("seed of weights, order and dropout")] = 0
    threads: Annotated[int, Doc("CPU threads; another number may change the last bits of the result")] = 2
    log_every: Annotated[int, Doc("steps between lines of metrics.jsonl")] = 10
    checkpoint_every: Annotated[int, Doc("steps between checkpoints; 0 means none")] = 100
    keep_checkpoints: Annotated[int, Doc("newest checkpoints to keep")] = 2
    held_out_rows: Annotated[int, Doc("rows kept from training to measure the loss on, spread over the pack")] = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        for name in ("batch_rows", "threads", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in (
            "steps",
            "warmup",
            "checkpoint_every",
            "held_out_rows",
            "clip",
            "weight_decay",
            "min_lr_ratio",
            "embedding_lr",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if self.lr <= 0:
            raise ConfigError(f"lr is {self.lr}; it must be above 0.")
        if self.steps == 0 and self.epochs <= 0:
            raise ConfigError("steps is 0 and epochs is not above 0; give one of them.")


def model_config(options: TrainOptions, vocab: int) -> ModelConfig:
    """The preset with the options' replacements, for a tokenizer of ``vocab`` ids."""
    names = ("layers", "hidden", "heads", "ffn", "norm", "shrink", "neighbours", "dropout")
    changes: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return msgspec.structs.replace(preset(options.model, vocab), **changes)


def total_steps(options: TrainOptions, rows: int) -> int:
    """Steps of the run over ``rows`` training rows."""
    return options.steps or max(1, math.ceil(options.epochs * rows / options.batch_rows))
