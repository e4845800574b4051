"""One linear layer with packed weights beside torch's own, from one token to a short text; weights come from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contest import Contest, Contestant, Work

ROWS = COLUMNS = 4096
COPIES = 8
"""Matrices in turn: together they are larger than the caches."""
TOKENS = (1, 4, 16, 64)


def _in_turn(layers: Sequence[Callable[[Any], Any]], x: Any) -> tuple[Work, float]:
    import torch

    torch.set_num_threads(1)
    repeats = 4 if len(x) <= 4 else 1

    def work() -> None:
        for _ in range(repeats):
            for layer in layers:
                layer(x)

    return work, float(repeats * len(layers))


def ours(folder: Path, tokens: int, group: int) -> tuple[Work, float]:
    """Our layer, from float32 to float32, with the kernels of this CPU."""
    import torch

    from glm_data.int4.linear import QuantizedLinear

    layers = [QuantizedLinear(COLUMNS, ROWS, group) for _ in range(COPIES)]
    for layer in layers:
        layer.qweight.random_(0, 256)
        layer.scales.fill_(0.01)
        layer.bias.zero_()
        layer.prepare()
    return _in_turn(layers, torch.randn(tokens, COLUMNS))


def torch_int4(folder: Path, tokens: int) -> tuple[Work, float]:
    """torch's own operator, in bfloat16: with float32 it takes a path that is 30 times slower."""
    import torch

    levels = torch.randint(0, 16, (ROWS, COLUMNS), dtype=torch.int32)
    packed = [torch._convert_weight_to_int4pack_for_cpu(levels, 8) for _ in range(COPIES)]
    scales = torch.full((COLUMNS // 128, ROWS, 2), 0.01, dtype=torch.bfloat16)
    layers = [partial(_torch_product, weight=weight, scales=scales) for weight in packed]
    return _in_turn(layers, torch.randn(tokens, COLUMNS, dtype=torch.bfloat16))


def _torch_product(x: Any, *, weight: Any, scales: Any) -> Any:
    import torch

    return torch._weight_int4pack_mm_for_cpu(x, weight, 128, scales)


def plain(folder: Path, tokens: int, kind: str) -> tuple[Work, float]:
    """What ``nn.Linear`` calls, in the type ``kind``."""
    import torch

    dtype = getattr(torch, kind)
    weight, bias = torch.randn(ROWS, COLUMNS).to(dtype), torch.zeros(ROWS, dtype=dtype)
    layers = [partial(torch.nn.functional.linear, weight=weight.clone(), bias=bias) for _ in range(COPIES)]
    return _in_turn(layers, torch.randn(tokens, COLUMNS, dtype=dtype))


def _contest(tokens: int) -> Contest:
    what = f"{tokens} token{'s' * (tokens > 1)}"
    return Contest(
        name=f"INT4 linear layer, {what}",
        unit="products/s",
        contestants=(
            Contestant(f"glm-data, groups of 128, {what}", partial(ours, tokens=tokens, group=128)),
            Contestant(f"glm-data, row-wise, {what}", partial(ours, tokens=tokens, group=0)),
            Contestant(f"torch INT4 operator, groups of 128, {what}", partial(torch_int4, tokens=tokens)),
            Contestant(f"torch bfloat16, {what}", partial(plain, tokens=tokens, kind="bfloat16")),
            Contestant(f"torch float32, {what}", partial(plain, tokens=tokens, kind="float32")),
        ),
        note=f"{what} times a matrix of {ROWS} x {COLUMNS}, one thread, {COPIES} matrices in turn.",
    )


CONTESTS = tuple(_contest(tokens) for tokens in TOKENS)
