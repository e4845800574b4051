"""A saved model with sharp, arbitrary opinions, and a tokenizer small enough to train in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tokenizer
from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.model.store import Description, save_model


def write_small_model(folder: Path) -> Path:
    """Write it into ``folder``, as a train stage does; returns ``folder``."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(60)] + ["床前明月光，", "the fox"] * 9
    texts = [" ".join(rng.choice(words, 30)) for _ in range(60)]
    tokenizer.train(texts, folder, tokenizer.TrainOptions(vocab_size=512))
    config = ModelConfig(vocab=576, layers=2, hidden=32, heads=2, ffn=48, embedding_std=0.5)
    save_model(folder, build(config, 7).state_dict(), Description(model=config))
    return folder
