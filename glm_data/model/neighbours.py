"""A start that saves a small model its first hours: heads that already look at the tokens next to theirs.

A query and a key bias make part of a head's score a function of distance alone. With equal biases on the fastest n
rotary pairs, turned by d positions in the query,

    score(distance) = strength / n * sum over i < n of cos((distance - d) * base^(-2i / K)),

which peaks at distance d: the head looks d tokens on (d < 0: back). A model learns such heads by itself, but from
thousands of steps; GLM-130B starts with zero biases, which is strength 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glm_data.model.config import ModelConfig

OFFSETS = (-1, 1, -2, 2, -3, 3, 0, 0)
"""Where the heads look, one after the other through all layers, then again from the first."""

_PAIRS = 8


def neighbour_bias(config: ModelConfig, layer: int) -> Tensor:
    """The query-key-value bias of ``layer`` at the start, ``[H * 3 * K]``."""
    half = config.head_dim // 2
    pairs = min(_PAIRS, half)
    speed = config.rope_base ** (-torch.arange(pairs) / half)
    size = (config.neighbours * config.head_dim**0.5 / pairs) ** 0.5
    bias_H3K = torch.zeros(config.heads, 3, config.head_dim)
    for head in range(config.heads):
        turn = speed * OFFSETS[(layer * config.heads + head) % len(OFFSETS)]
        bias_H3K[head, 0, :pairs] = size * turn.cos()
        bias_H3K[head, 0, half : half + pairs] = size * turn.sin()
        bias_H3K[head, 1, :pairs] = size
    return bias_H3K.flatten()
