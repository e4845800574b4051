"""Attention that remembers keys and values: the context is computed once, each further token alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_data.model.attention import lower_right_mask
from glm_data.model.config import ModelConfig


class CachedAttention:
    """An ``Attend`` for one text. The first call's tokens are part A and see each other both ways; all later ones are
    part B and see everything before them.

    Call :meth:`advance` after each pass through the network. Memory: 2 x layers x capacity x hidden numbers.
    """

    def __init__(self, config: ModelConfig, capacity: int) -> None:
        shape = (2, config.layers, config.heads, capacity, config.head_dim)
        self.cache_2LHSK = torch.zeros(shape)
        self.length = 0

    def __call__(self, layer: int, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        """Append the layer's keys and values and attend to all of them."""
        q_HTK, k_HTK, v_HTK = (x.transpose(0, 1) for x in (q_THK, k_THK, v_THK))
        new, seen = q_THK.shape[0], self.length + q_THK.shape[0]
        self.cache_2LHSK[0, layer, :, self.length : seen] = k_HTK
        self.cache_2LHSK[1, layer, :, self.length : seen] = v_HTK
        keys_HSK, values_HSK = self.cache_2LHSK[:, layer, :, :seen]
        mask = None if self.length == 0 or new == 1 else lower_right_mask(new, seen)
        return F.scaled_dot_product_attention(q_HTK, keys_HSK, values_HSK, mask).transpose(0, 1)

    def advance(self, tokens: int) -> None:
        """Count ``tokens`` as seen."""
        self.length += tokens
