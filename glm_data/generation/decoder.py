"""Texts being written side by side: their contexts encoded once, then one token of each text a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_data.generation.cache import CachedAttention
from glm_data.model.model import GLM


class Decoder:
    """``contexts`` holds the part-A ids of each text; ``capacity`` is the most tokens that a text will have in all."""

    def __init__(self, model: GLM, contexts: Sequence[Sequence[int]], capacity: int) -> None:
        self.model = model
        weight = next(model.final_layernorm.parameters())
        self.attend = CachedAttention(model.config, [len(context) for context in contexts], capacity, weight)
        tokens_T = torch.tensor([token for context in contexts for token in context], device=weight.device)
        positions_T = torch.cat([torch.arange(len(context)) for context in contexts]).to(weight.device)
        # No position predicts here, so the head is applied to none: only keys and values are wanted.
        model(tokens_T, positions_T, self.attend, torch.empty(0, dtype=torch.int64, device=weight.device))
        self.attend.advance()
        self._replayed: _Captured | None = None

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Feed each text its token at its position; returns the logits ``[B, V]`` of what follows.

        On a GPU the step is captured as a CUDA graph at the first call: launching its hundreds of kernels one by one
        would take longer than they run. The result is overwritten by the next step there.
        """
        input_2B = torch.tensor([list(tokens), list(positions)], device=self.attend.lengths_B.device)
        if input_2B.is_cuda:
            if self._replayed is None:
                self._replayed = _Captured(self.model, self.attend, input_2B)
            logits_BV = self._replayed(input_2B)
        else:
            logits_BV = self.model(*input_2B, self.attend)
        self.attend.advance()
        return logits_BV

    def select(self, order: Sequence[int]) -> None:
        """Go on with the texts ``order`` alone, in that order; a text may be taken more than once."""
        if len(order) != len(self.attend.sizes):
            self._replayed = None
        self.attend.select(order)


class _Captured:
    """One step as a CUDA graph over fixed memory."""

    def __init__(self, model: GLM, attend: CachedAttention, input_2B: Tensor) -> None:
        self._input_2B = input_2B.clone()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # kernels are chosen and compiled at the first runs, which capture must not see
                model(*self._input_2B, attend)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits_BV = model(*self._input_2B, attend)

    def __call__(self, input_2B: Tensor) -> Tensor:
        self._input_2B.copy_(input_2B)
        self._graph.replay()
        return self._logits_BV
