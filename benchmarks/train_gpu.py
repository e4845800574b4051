"""bfloat16 training speed on one CUDA GPU: GLM at 1.3 B parameters beside a causal Llama-like model of its size.

``python -m benchmarks.train_gpu [--json FILE]`` on a machine with a GPU; results are in docs/lab-notes.md.

MFU is useful floating-point operations a second over the card's peak for dense bfloat16 matrices. Useful are: 6 for
each parameter of the layers and each token of a piece, 6 x vocabulary x hidden for each loss token, and
12 x hidden for each pair of tokens that see each other, in each layer. Nothing counts that is only computed:
padding, masked pairs, recomputation. The causal model is counted by the same rule.

Both models have float32 masters (``training/precision.py``), fused AdamW, clipping, and compiled layers. The causal one
is what torchtitan trains, written plainly: RMSNorm, rotary positions, SwiGLU, torch's causal attention, untied head.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_data.model.attention import PieceAttention, attended_pairs
from glm_data.model.config import ModelConfig, layer_parameters
from glm_data.model.flash import FlashAttention, make_tables, parts_apart
from glm_data.model.model import GLM, rotary_table, rotate
from glm_data.training.batches import FlatBatch, flatten
from glm_data.training.losses import batch_loss, loss_weights
from glm_data.training.precision import Masters

LENGTH = 2048
PEAKS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}
"""Dense bfloat16 operations a second by the vendor's data sheets (SXM)."""
SHAPE = {"layers": 24, "hidden": 2048, "heads": 16, "ffn": 5504, "vocab": 50304}


@dataclass(frozen=True)
class ToyBatch:
    """Rows of random tokens in the pieces of a GLM-130B batch."""

    tokens: Any
    targets: Any
    position_ids: Any
    loss_mask: Any
    pieces: Any
    block_position_ids: None = None


def glm_rows(rows: int, vocab: int, seed: int, mask_share: float = 0.3, length: int = LENGTH) -> ToyBatch:
    """``mask_share`` of the rows four [MASK] pieces with 15 % masked, the others one [gMASK] piece cut anywhere."""
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(100, vocab, (2, rows, length)).astype(np.int32)
    mask = np.zeros((rows, length), np.uint8)
    pieces = []
    for row in range(rows):
        if row < round(rows * mask_share):
            quarter = length // 4
            found = [(at, at + round(quarter * 0.87), at + quarter, 1) for at in range(0, length, quarter)]
        else:
            found = [(0, int(rng.integers(1, length)), length, 0)]
        for _, sep, end, _ in found:
            mask[row, sep:end] = 1
        pieces.append(np.array(found, np.int32))
    return ToyBatch(tokens, targets, np.tile(np.arange(length, dtype=np.int32), (rows, 1)), mask, pieces)


class CausalLayer(nn.Module):
    """RMSNorm, causal attention, SwiGLU."""

    def __init__(self, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))
        self.w1, self.w3 = (nn.Linear(hidden, ffn, bias=False) for _ in range(2))
        self.w2 = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (w(h).unflatten(-1, (self.heads, -1)) for w in (self.wq, self.wk, self.wv))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        o = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        x = x + self.wo(o.transpose(1, 2).flatten(2))
        h = self.norm2(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Causal(nn.Module):
    """The causal model."""

    def __init__(self, layers: int, hidden: int, heads: int, ffn: int, vocab: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocab, hidden), nn.Linear(hidden, vocab, bias=False)
        self.layers = nn.ModuleList(CausalLayer(hidden, heads, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden)
        self.config = ModelConfig(vocab=vocab, layers=layers, hidden=hidden, heads=heads, ffn=ffn)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0, 0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        cos, sin = rotary_table(torch.arange(tokens.shape[1], device=tokens.device), self.config, torch.bfloat16)
        cos, sin = cos[:, 0], sin[:, 0]
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return causal_loss(self.head(self.norm(x)), targets)


@torch.compile
def causal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Run:
    """Steps of one model, ``micro`` microbatches each."""

    def __init__(self, model: nn.Module, compiled: bool) -> None:
        self.masters = Masters(model.cuda(), "bfloat16")
        self.optimizer = torch.optim.AdamW(
            self.masters.parameters.values(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        if compiled:
            for layer in model.get_submodule("layers").children():
                layer.compile()

    def step(self, losses: Sequence[Callable[[], Tensor]]) -> float:
        self.optimizer.zero_grad(set_to_none=False)
        values = []
        for loss in losses:
            values.append(value := loss())
            torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(self.masters.parameters.values(), 1.0, foreach=True)
        self.optimizer.step()
        self.masters.publish()
        return float(sum(value.detach() for value in values))


def timed(run: Run, losses: Sequence[Callable[[], Tensor]], steps: int) -> tuple[list[float], float]:
    """Seconds of each step and the last loss."""
    seconds, value = [], 0.0
    for _ in range(steps):
        torch.cuda.synchronize()
        started = time.perf_counter()
        value = run.step(losses)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds, value


def measure_glm(shape: dict[str, int], rows: int, micro: int, options: dict[str, Any], steps: int) -> dict[str, Any]:
    config = ModelConfig(**shape, norm=options.get("norm", "deepnorm"), dropout=options.get("dropout", 0.0))  # type: ignore[arg-type]
    with torch.device("cuda"):
        torch.manual_seed(0)
        model = GLM(config)
    model.load_state_dict(small_start(model))
    model.recompute = options.get("recompute", False)
    run = Run(model, options.get("compile", True))
    batches = [
        flatten(glm_rows(rows, config.vocab, seed, options.get("mask_share", 0.3)), rows * LENGTH)
        .parts_apart()
        .to(torch.device("cuda"))
        for seed in range(micro)
    ]
    weights = [loss_weights(batch, "token").cuda() / micro for batch in batches]
    losses = [partial(_weighted_loss, model, batch, weight) for batch, weight in zip(batches, weights, strict=True)]
    seconds, value = timed(run, losses, steps)
    return summary(seconds, value, config, [cost(config, batch) for batch in batches], rows * LENGTH * micro)


def _weighted_loss(model: GLM, batch: FlatBatch, weights_P: Tensor) -> Tensor:
    return batch_loss(model, batch, weights_P)[0]


def small_start(model: GLM) -> dict[str, Tensor]:
    return {name: p if p.ndim == 1 else p.normal_(0, 0.02) for name, p in model.state_dict().items()}


def cost(config: ModelConfig, batch: FlatBatch) -> tuple[int, int, int]:
    return batch.computed, len(batch.predict_P), attended_pairs(batch.groups)


def measure_causal(shape: dict[str, int], rows: int, micro: int, options: dict[str, Any], steps: int) -> dict[str, Any]:
    with torch.device("cuda"):
        model = Causal(**shape)
    run = Run(model, options.get("compile", True))
    data = torch.randint(100, shape["vocab"], (micro, 2, rows, LENGTH), device="cuda")
    losses = [partial(_mean_loss, model, micro, x, y) for x, y in data]
    seconds, value = timed(run, losses, steps)
    tokens = rows * LENGTH
    pairs = rows * LENGTH * (LENGTH + 1) // 2
    return summary(seconds, value, model.config, [(tokens, tokens, pairs)] * micro, tokens * micro)


def _mean_loss(model: nn.Module, micro: int, tokens: Tensor, targets: Tensor) -> Tensor:
    loss: Tensor = model(tokens, targets) / micro
    return loss


def summary(
    seconds: list[float], loss: float, config: ModelConfig, costs: list[tuple[int, int, int]], tokens: int
) -> dict[str, Any]:
    used, predicted, pairs = (sum(part) for part in zip(*costs, strict=True))
    body = config.layers * layer_parameters(config)
    useful = 6 * body * used + 6 * config.vocab * config.hidden * predicted + 12 * config.hidden * pairs * config.layers
    steady = sorted(seconds[3:])
    median = steady[len(steady) // 2]
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAKS.items() if key in name), float("nan"))
    return {
        "step_s": round(median, 4),
        "spread_s": [round(steady[0], 4), round(steady[-1], 4)],
        "first_s": round(seconds[0], 1),
        "tokens_per_s": round(tokens / median),
        "loss_tokens_per_s": round(predicted / median),
        "tflops": round(useful / median / 1e12, 1),
        "mfu": round(useful / median / peak, 4),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1),
        "loss": round(loss, 3),
    }


def check_attention() -> dict[str, Any]:
    """Flash attention against the dense calls in float64: relative errors of output and gradients, and time."""
    batch = flatten(glm_rows(4, 1000, 1), 4 * LENGTH + 100)
    tables = make_tables(batch.groups, LENGTH, "cuda")
    order = torch.from_numpy(np.append(parts_apart(batch.groups), np.arange(batch.computed, len(batch.tokens_T))))
    torch.manual_seed(0)
    qkv = torch.randn(3, len(batch.tokens_T), 16, 128, device="cuda")
    up = torch.randn_like(qkv[0])
    found: dict[str, Any] = {}

    def gradients(attend: Any, dtype: torch.dtype) -> list[Tensor]:
        here = order.cuda() if isinstance(attend, FlashAttention) else slice(None)
        leaves = [x[here].to(torch.bfloat16).to(dtype).requires_grad_() for x in qkv]
        output = attend(0, *leaves)
        output.backward(up[here].to(torch.bfloat16).to(dtype))
        found = [output.detach(), *(leaf.grad for leaf in leaves)]
        return [x[order.argsort().cuda()] for x in found] if isinstance(attend, FlashAttention) else found

    exact = gradients(PieceAttention(batch.groups), torch.float64)
    once, twice = (gradients(FlashAttention(tables), torch.bfloat16) for _ in range(2))
    dense = gradients(PieceAttention(batch.groups), torch.bfloat16)
    for label, given in (("flash", once), ("dense", dense)):
        found[f"error_{label}"] = [
            float((one.double() - other).norm() / other.norm()) for one, other in zip(given, exact, strict=True)
        ]
    found["same_bits_twice"] = all(torch.equal(one, other) for one, other in zip(once, twice, strict=True))
    dropped = gradients(FlashAttention(tables, 0.1), torch.bfloat16)
    found["dropout_changes"] = [
        float((a - b).float().norm() / b.float().norm()) for a, b in zip(dropped, once, strict=True)
    ]
    kinds = {"gmask": 0.0, "mask": 1.0, "mixed": 0.3}
    for kind, share in kinds.items():
        packed = flatten(glm_rows(8, 1000, 1, share), 8 * LENGTH)
        found[f"ms_{kind}"] = attention_times(packed)
    return found


def attention_times(batch: FlatBatch) -> dict[str, float]:
    """Milliseconds forward and backward of one layer's attention: ours, by a mask of whole rows, plain causal."""
    from triton.testing import do_bench

    tables = make_tables(batch.groups, LENGTH, "cuda")
    q, k, v = (
        torch.randn(len(batch.tokens_T), 16, 128, device="cuda", dtype=torch.bfloat16).requires_grad_()
        for _ in range(3)
    )
    up = torch.randn_like(q)
    rows = len(batch.tokens_T) // LENGTH
    mask = torch.ones(rows, 1, LENGTH, LENGTH, dtype=torch.bool, device="cuda").tril()
    mask[..., : LENGTH // 2] = True

    def by_rows(**options: Any) -> Tensor:
        q_BHLK, k_BHLK, v_BHLK = (x.view(rows, LENGTH, 16, 128).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, **options).transpose(1, 2).flatten(0, 1)

    ways: dict[str, Callable[[], Tensor]] = {
        "three_calls": lambda: FlashAttention(tables)(0, q, k, v),
        "dense_calls": lambda: PieceAttention(batch.groups)(0, q, k, v),
        "row_mask": lambda: by_rows(attn_mask=mask),
        "causal": lambda: by_rows(is_causal=True),
    }
    return {
        name: round(do_bench(lambda way=way: way().backward(up), return_mode="median"), 3) for name, way in ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_gpu", description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--rows", type=int, default=8, help="rows of 2048 tokens in a microbatch")
    parser.add_argument("--micro", type=int, default=4, help="microbatches in a step")
    given = parser.parse_args()
    contests: dict[str, Callable[[], Any]] = {
        "attention": check_attention,
        "glm": lambda: measure_glm(SHAPE, given.rows, given.micro, {}, given.steps),
        "causal": lambda: measure_causal(SHAPE, given.rows, given.micro, {}, given.steps),
        "glm gmask": lambda: measure_glm(SHAPE, given.rows, given.micro, {"mask_share": 0.0}, given.steps),
        "glm dropout 0.1": lambda: measure_glm(SHAPE, given.rows, given.micro, {"dropout": 0.1}, given.steps),
        "glm recompute": lambda: measure_glm(SHAPE, given.rows, given.micro, {"recompute": True}, given.steps),
        "glm eager": lambda: measure_glm(SHAPE, given.rows, given.micro, {"compile": False}, given.steps),
        "glm again": lambda: measure_glm(SHAPE, given.rows, given.micro, {}, given.steps),
        "causal again": lambda: measure_causal(SHAPE, given.rows, given.micro, {}, given.steps),
    }
    results: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name, contest in contests.items():
        started = time.perf_counter()
        try:
            torch.cuda.reset_peak_memory_stats()
            results[name] = contest()
        except Exception:  # one failure must not lose the others
            results[name] = traceback.format_exc()[-1500:]
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
        print(f"{name} ({time.perf_counter() - started:.0f} s): {results[name]}", flush=True)
        if given.json:
            with open(given.json, "w", encoding="utf-8") as handle:  # noqa: PTH123
                json.dump(results, handle, indent=1)


if __name__ == "__main__":
    main()
