"""Attention that remembers keys and values: contexts are computed once, each further token alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_data.model.config import ModelConfig


class CachedAttention:
    """An ``Attend`` for B texts of different lengths.

    The first pass through the network brings all contexts, one after the other: part A, whose tokens see each other
    both ways. Every later pass brings one token a text, part B, which sees all of its text before it. Call
    :meth:`advance` after each pass. Memory: 2 x layers x B x capacity x hidden numbers.

    On a GPU a step looks at the whole capacity behind a mask, so that its shapes never change and it can be replayed
    as a graph; on the CPU it looks at what there is.
    """

    def __init__(self, config: ModelConfig, sizes: Sequence[int], capacity: int, like: Tensor) -> None:
        shape = (2, config.layers, len(sizes), config.heads, capacity, config.head_dim)
        self.cache_2LBHSK = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.lengths_B = torch.zeros(len(sizes), dtype=torch.int64, device=like.device)
        self.sizes = list(sizes)
        """Tokens of each text in the pass under way: those of the contexts, later 1 each."""
        self._seen = [0] * len(sizes)
        """The same as ``lengths_B``, on the CPU."""
        self._rows_B = torch.arange(len(sizes), device=like.device)
        self._mask_B11S: Tensor | None = None

    def __call__(self, layer: int, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        """Append the layer's keys and values and attend to all of the text's."""
        if not any(self._seen):
            return self._contexts(layer, q_THK, k_THK, v_THK)
        keys_BHSK, values_BHSK = self.cache_2LBHSK[:, layer]
        keys_BHSK[self._rows_B, :, self.lengths_B] = k_THK
        values_BHSK[self._rows_B, :, self.lengths_B] = v_THK
        if layer == 0:
            self._mask_B11S = self._mask()
        window = self._window()
        keys_BHSK, values_BHSK = keys_BHSK[:, :, :window], values_BHSK[:, :, :window]
        return F.scaled_dot_product_attention(q_THK[:, :, None], keys_BHSK, values_BHSK, self._mask_B11S)[:, :, 0]

    def _contexts(self, layer: int, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        outputs = []
        parts = (torch.split(x.transpose(0, 1), self.sizes, dim=1) for x in (q_THK, k_THK, v_THK))
        for row, (q_HTK, k_HTK, v_HTK) in enumerate(zip(*parts, strict=True)):
            self.cache_2LBHSK[0, layer, row, :, : self.sizes[row]] = k_HTK
            self.cache_2LBHSK[1, layer, row, :, : self.sizes[row]] = v_HTK
            outputs.append(F.scaled_dot_product_attention(q_HTK[None], k_HTK[None], v_HTK[None])[0].transpose(0, 1))
        return torch.cat(outputs)

    def _window(self) -> int:
        return self.cache_2LBHSK.shape[4] if self.cache_2LBHSK.is_cuda else max(self._seen) + 1

    def _mask(self) -> Tensor:
        return (torch.arange(self._window(), device=self.lengths_B.device) <= self.lengths_B[:, None])[:, None, None]

    def advance(self) -> None:
        """Count the tokens of the pass as seen."""
        self.lengths_B += torch.tensor(self.sizes, device=self.lengths_B.device)
        self._seen = [seen + size for seen, size in zip(self._seen, self.sizes, strict=True)]
        self.sizes = [1] * len(self.sizes)

    def select(self, order: Sequence[int]) -> None:
        """Go on with the texts ``order`` alone, in that order; a text may be taken more than once."""
        order_B = torch.tensor(order, dtype=torch.int64, device=self.lengths_B.device)
        self._seen = [self._seen[row] for row in order]
        picked = self.cache_2LBHSK.index_select(2, order_B)
        if len(order) == len(self.sizes):
            # In place, so that a captured graph goes on reading the same memory.
            self.cache_2LBHSK.copy_(picked)
            self.lengths_B.copy_(self.lengths_B[order_B])
            return
        self.cache_2LBHSK, self.lengths_B = picked, self.lengths_B[order_B]
        self.sizes, self._rows_B = [1] * len(order), torch.arange(len(order), device=order_B.device)
