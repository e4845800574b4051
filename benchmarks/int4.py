"""Linear layers with packed weights beside torch's own and llama.cpp's, and a stack of them decoding a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peer_ggml
from benchmarks.contest import Contest, Contestant, Timed, Work

SHAPES = ((4096, 4096), (12288, 4096))
"""Rows and columns of the matrices."""
WEIGHTS = 1 << 27
"""Weights of the matrices in turn: together they are larger than the caches."""
TOKENS = (1, 4, 16, 64)
CONTEXT, STEPS = 32, 16
"""Tokens that the stack reads and writes in a timed run."""


def _copies(rows: int, columns: int) -> int:
    return max(2, WEIGHTS // (rows * columns))


def _in_turn(layers: Sequence[Callable[[Any], Any]], columns: int, kind: str = "float32") -> list[Timed]:
    """One work for each number of tokens."""
    import torch

    torch.set_num_threads(1)
    x = torch.randn(TOKENS[-1], columns).to(getattr(torch, kind))
    return [_passes(partial(_each, layers, x[:tokens]), len(layers), tokens) for tokens in TOKENS]


def _each(layers: Sequence[Callable[[Any], Any]], x: Any) -> None:
    for layer in layers:
        layer(x)


def _passes(once: Work, products: int, tokens: int) -> Timed:
    """``once`` as often as it takes for few tokens to last long enough."""
    passes = max(1, 16 // tokens)

    def work() -> None:
        for _ in range(passes):
            once()

    return work, float(passes * products)


def ours(folder: Path, rows: int, columns: int, group: int, bits: int = 4) -> list[Timed]:
    """Our layer, from float32 to float32, with the kernels of this CPU."""
    from glm_data.int4.linear import QuantizedLinear

    layers = [QuantizedLinear(columns, rows, group, bits) for _ in range(_copies(rows, columns))]
    for layer in layers:
        _fill(layer)
        layer.prepare()
    return _in_turn(layers, columns)


def _fill(layer: Any) -> None:
    """Any levels will do; signed ones are INT8."""
    signed = layer.qweight.dtype.is_signed
    layer.qweight.random_(-127 if signed else 0, 128 if signed else 256)
    layer.scales.fill_(0.01)
    if hasattr(layer, "bias"):
        layer.bias.zero_()


def torch_int4(folder: Path, rows: int, columns: int) -> list[Timed]:
    """torch's own operator, in bfloat16: with float32 it takes a path that is 30 times slower."""
    import torch

    levels = torch.randint(0, 16, (rows, columns), dtype=torch.int32)
    packed = [torch._convert_weight_to_int4pack_for_cpu(levels, 8) for _ in range(_copies(rows, columns))]
    scales = torch.full((columns // 128, rows, 2), 0.01, dtype=torch.bfloat16)
    layers = [partial(_torch_product, weight=weight, scales=scales) for weight in packed]
    return _in_turn(layers, columns, "bfloat16")


def _torch_product(x: Any, *, weight: Any, scales: Any) -> Any:
    import torch

    return torch._weight_int4pack_mm_for_cpu(x, weight, 128, scales)


def plain(folder: Path, rows: int, columns: int, kind: str) -> list[Timed]:
    """What ``nn.Linear`` calls, in the type ``kind``."""
    import torch

    dtype = getattr(torch, kind)
    weight, bias = torch.randn(rows, columns).to(dtype), torch.zeros(rows, dtype=dtype)
    linear = torch.nn.functional.linear
    layers = [partial(linear, weight=weight.clone(), bias=bias) for _ in range(_copies(rows, columns))]
    return _in_turn(layers, columns, kind)


def llama_cpp(folder: Path, rows: int, columns: int) -> list[Timed]:
    """llama.cpp's Q4_0 (groups of 32), repacked, from float32 to float32."""
    copies = _copies(rows, columns)
    products = peer_ggml.products(rows, columns, copies, TOKENS)
    return [_passes(once, copies, tokens) for once, tokens in zip(products, TOKENS, strict=True)]


def reading(folder: Path, rows: int, columns: int) -> list[Timed]:
    """Reading as many bytes as the row-wise matrices have and adding them up as 64-bit numbers: what the memory gives a
    thread, in pages of 2 MB and from four places at a time, which is faster than from one."""
    import numba
    import torch

    from glm_data.int4.memory import in_huge_pages

    add = numba.njit(_sums_of_quarters)
    matrices = [
        in_huge_pages(rows * columns // 2).zero_().view(torch.int64).numpy() for _ in range(_copies(rows, columns))
    ]
    return [_passes(lambda: [add(matrix) for matrix in matrices], len(matrices), 1)]


def _sums_of_quarters(numbers: Any) -> int:
    quarter, first, second, third, fourth = len(numbers) // 4, 0, 0, 0, 0
    for place in range(quarter):
        first += numbers[place]
        second += numbers[place + quarter]
        third += numbers[place + 2 * quarter]
        fourth += numbers[place + 3 * quarter]
    return first + second + third + fourth


def decoding(folder: Path, group: int | None, kind: str) -> list[Timed]:
    """A text read by six layers of 308 M weights in all, and one written token by token; ``group`` None: not
    quantised."""
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
        parameter.data = torch.full(parameter.shape, 0.01, dtype=getattr(torch, kind))
    for module in model.modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            _fill(module)
    prepare(model)

    def read() -> None:
        with torch.inference_mode():
            Decoder(model, [list(range(8, 8 + CONTEXT))], CONTEXT)

    def write() -> None:
        with torch.inference_mode():
            decoder = Decoder(model, [[8]], 1 + STEPS)  # one token of context costs what a step does
            for step in range(STEPS):
                decoder.step([step], [step])

    return [(write, float(1 + STEPS)), (read, float(CONTEXT))]


def _contest(rows: int, columns: int) -> Contest:
    what = f"{rows} x {columns}"
    given: dict[str, Any] = {"rows": rows, "columns": columns}
    return Contest(
        name=f"INT4 linear layer, {what}",
        unit="products/s",
        contestants=(
            Contestant(f"glm-data, groups of 128, {what}", partial(ours, **given, group=128)),
            Contestant(f"glm-data, row-wise, {what}", partial(ours, **given, group=0)),
            Contestant(f"glm-data, groups of 32, {what}", partial(ours, **given, group=32)),
            Contestant(f"glm-data, INT8 row-wise, {what}", partial(ours, **given, group=0, bits=8)),
            Contestant(f"llama.cpp Q4_0 repacked, {what}", partial(llama_cpp, **given), is_peer=True),
            Contestant(f"torch INT4 operator, groups of 128, {what}", partial(torch_int4, **given)),
            Contestant(f"torch bfloat16, {what}", partial(plain, **given, kind="bfloat16")),
            Contestant(f"torch float32, {what}", partial(plain, **given, kind="float32")),
            Contestant(f"reading the bytes of row-wise INT4, {what}", partial(reading, **given)),
        ),
        note=f"Products a second of a matrix of {what} (rows x columns) and so many tokens, one thread, matrices of "
        f"{WEIGHTS >> 20} M weights in turn. In brackets the slowest and the fastest round, then the first to this.",
        cases=tuple(f"{tokens} token{'s' * (tokens > 1)}" for tokens in TOKENS),
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
    note="Tokens a second through six layers of 2048 (308 M weights) and a vocabulary of 4096, one text, one thread. "
    "In brackets the slowest and the fastest round, then the first to this.",
    cases=(f"{STEPS} written one by one", f"a context of {CONTEXT} read"),
)

CONTESTS = (*(_contest(*shape) for shape in SHAPES), _STACK)
