"""Linear layers with packed weights beside torch's own and llama.cpp's, and a stack of them decoding a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peer_ggml
from benchmarks.contest import Contest, Contestant, Work

SHAPES = ((4096, 4096), (12288, 4096))
"""Rows and columns of the matrices."""
WEIGHTS = 1 << 27
"""Weights of the matrices in turn: together they are larger than the caches."""
TOKENS = (1, 4, 16, 64)
STEPS = 32
"""Tokens that the stack writes in a timed run."""


def _copies(rows: int, columns: int) -> int:
    return max(2, WEIGHTS // (rows * columns))


def _in_turn(layers: Sequence[Callable[[Any], Any]], x: Any) -> tuple[Work, float]:
    import torch

    torch.set_num_threads(1)
    repeats = 4 if len(x) <= 4 else 1

    def work() -> None:
        for _ in range(repeats):
            for layer in layers:
                layer(x)

    return work, float(repeats * len(layers))


def ours(folder: Path, rows: int, columns: int, tokens: int, group: int, bits: int = 4) -> tuple[Work, float]:
    """Our layer, from float32 to float32, with the kernels of this CPU."""
    import torch

    from glm_data.int4.linear import QuantizedLinear

    layers = [QuantizedLinear(columns, rows, group, bits) for _ in range(_copies(rows, columns))]
    for layer in layers:
        _fill(layer)
        layer.prepare()
    return _in_turn(layers, torch.randn(tokens, columns))


def _fill(layer: Any) -> None:
    """Any levels will do; signed ones are INT8."""
    signed = layer.qweight.dtype.is_signed
    layer.qweight.random_(-127 if signed else 0, 128 if signed else 256)
    layer.scales.fill_(0.01)
    if hasattr(layer, "bias"):
        layer.bias.zero_()


def torch_int4(folder: Path, rows: int, columns: int, tokens: int) -> tuple[Work, float]:
    """torch's own operator, in bfloat16: with float32 it takes a path that is 30 times slower."""
    import torch

    levels = torch.randint(0, 16, (rows, columns), dtype=torch.int32)
    packed = [torch._convert_weight_to_int4pack_for_cpu(levels, 8) for _ in range(_copies(rows, columns))]
    scales = torch.full((columns // 128, rows, 2), 0.01, dtype=torch.bfloat16)
    layers = [partial(_torch_product, weight=weight, scales=scales) for weight in packed]
    return _in_turn(layers, torch.randn(tokens, columns, dtype=torch.bfloat16))


def _torch_product(x: Any, *, weight: Any, scales: Any) -> Any:
    import torch

    return torch._weight_int4pack_mm_for_cpu(x, weight, 128, scales)


def plain(folder: Path, rows: int, columns: int, tokens: int, kind: str) -> tuple[Work, float]:
    """What ``nn.Linear`` calls, in the type ``kind``."""
    import torch

    dtype = getattr(torch, kind)
    weight, bias = torch.randn(rows, columns).to(dtype), torch.zeros(rows, dtype=dtype)
    linear = torch.nn.functional.linear
    layers = [partial(linear, weight=weight.clone(), bias=bias) for _ in range(_copies(rows, columns))]
    return _in_turn(layers, torch.randn(tokens, columns, dtype=dtype))


def llama_cpp(folder: Path, rows: int, columns: int, tokens: int) -> tuple[Work, float]:
    """llama.cpp's Q4_0 (groups of 32), repacked, from float32 to float32."""
    copies, repeats = _copies(rows, columns), 4 if tokens <= 4 else 1
    once = peer_ggml.products(rows, columns, copies, tokens)

    def work() -> None:
        for _ in range(repeats):
            once()

    return work, float(repeats * copies)


def bandwidth(folder: Path, rows: int, columns: int) -> tuple[Work, float]:
    """Reading as many bytes as the row-wise matrices have, summed by 64-bit numbers: what the memory gives a thread."""
    import torch

    torch.set_num_threads(1)
    copies = _copies(rows, columns)
    matrices = [torch.zeros(rows * columns // 16, dtype=torch.int64) for _ in range(copies)]

    def work() -> None:
        for _ in range(4):
            for matrix in matrices:
                matrix.sum()

    return work, float(4 * copies)


def decoding(folder: Path, group: int | None, kind: str) -> tuple[Work, float]:
    """A text written by six layers of 308 M weights in all, token by token; ``group`` None: not quantised."""
    import torch

    from glm_data.generation.decoder import Decoder
    from glm_data.int4.linear import QuantizedEmbedding, QuantizedLinear, prepare, with_quantized_layers
    from glm_data.model.config import ModelConfig
    from glm_data.model.model import valueless
    from glm_data.model.store import Quantization

    torch.set_num_threads(1)
    model = valueless(ModelConfig(vocab=4096, layers=6, hidden=2048, heads=16, ffn=5632, shrink=1.0))
    if group is not None:
        model = with_quantized_layers(model, Quantization(group=group, embedding_bits=8))
    model = model.to_empty(device="cpu").requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape).mul_(0.02).to(getattr(torch, kind))
    for module in model.modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            _fill(module)
    prepare(model)

    def work() -> None:
        with torch.inference_mode():
            decoder = Decoder(model, [list(range(8, 40))], 32 + STEPS)
            for step in range(STEPS):
                decoder.step([step], [step])

    return work, float(STEPS)


def _contest(rows: int, columns: int, tokens: int) -> Contest:
    what = f"{tokens} token{'s' * (tokens > 1)}, {rows} x {columns}"
    shape: dict[str, Any] = {"rows": rows, "columns": columns}
    given: dict[str, Any] = {**shape, "tokens": tokens}
    contestants = [
        Contestant(f"glm-data, groups of 128, {what}", partial(ours, **given, group=128)),
        Contestant(f"glm-data, row-wise, {what}", partial(ours, **given, group=0)),
        Contestant(f"glm-data, groups of 32, {what}", partial(ours, **given, group=32)),
        Contestant(f"glm-data, INT8 row-wise, {what}", partial(ours, **given, group=0, bits=8)),
        Contestant(f"llama.cpp Q4_0 repacked, {what}", partial(llama_cpp, **given), is_peer=True),
        Contestant(f"torch INT4 operator, groups of 128, {what}", partial(torch_int4, **given)),
        Contestant(f"torch bfloat16, {what}", partial(plain, **given, kind="bfloat16")),
        Contestant(f"torch float32, {what}", partial(plain, **given, kind="float32")),
    ]
    if tokens == 1:
        contestants.append(Contestant(f"reading the bytes of row-wise INT4, {what}", partial(bandwidth, **shape)))
    return Contest(
        name=f"INT4 linear layer, {what}",
        unit="products/s",
        contestants=tuple(contestants),
        note=f"{what} (rows x columns of the matrix), one thread, matrices of {WEIGHTS >> 20} M weights in turn.",
    )


_STACK = Contest(
    name="Decoding with INT4 weights",
    unit="tokens/s",
    contestants=(
        Contestant("glm-data INT4, groups of 128", partial(decoding, group=128, kind="float32")),
        Contestant("glm-data INT4, row-wise", partial(decoding, group=0, kind="float32")),
        Contestant("the same in bfloat16", partial(decoding, group=None, kind="bfloat16")),
        Contestant("the same in float32", partial(decoding, group=None, kind="float32")),
    ),
    note="One text, token by token, through six layers of 2048 (308 M weights) and a vocabulary of 4096, one thread.",
)

CONTESTS = (*(_contest(*shape, tokens) for shape in SHAPES for tokens in TOKENS), _STACK)
