"""llama.cpp's matrix product through ggml-python: weights as Q4_0 in the layout that llama.cpp repacks them into.

Imports nothing of ours: it runs in the environment of the peers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

_CONTEXT_BYTES = 16 << 20


def products(rows: int, columns: int, copies: int, tokens: Sequence[int]) -> list[Callable[[], None]]:
    """Functions that multiply so many ``tokens`` each by each of ``copies`` Q4_0 matrices, on one thread."""
    import ggml
    import numpy as np

    backend = ggml.ggml_backend_cpu_init()
    ggml.ggml_backend_cpu_set_n_threads(backend, 1)
    rng = np.random.default_rng(0)
    packed = _q4_0(ggml, rng.standard_normal((rows, columns), np.float32) * 0.02)
    weights = _context(ggml)
    matrices = [ggml.ggml_new_tensor_2d(weights, ggml.GGML_TYPE_Q4_0, columns, rows) for _ in range(copies)]
    if not ggml.ggml_backend_alloc_ctx_tensors_from_buft(weights, _repacking(ggml, backend)):
        raise SystemExit("ggml has no buffer that repacks weights on this CPU")
    for matrix in matrices:
        ggml.ggml_backend_tensor_set(matrix, packed.ctypes.data_as(ctypes.c_void_p), 0, packed.nbytes)
    return [partial(ggml.ggml_backend_graph_compute, backend, _graph(ggml, backend, matrices, m)) for m in tokens]


def _graph(ggml: Any, backend: Any, matrices: Sequence[Any], tokens: int) -> Any:
    """The products of ``tokens`` random activations and each of the matrices."""
    import numpy as np

    plain = _context(ggml)
    columns = matrices[0].contents.ne[0]
    x = ggml.ggml_new_tensor_2d(plain, ggml.GGML_TYPE_F32, columns, tokens)
    graph = ggml.ggml_new_graph(plain)
    for matrix in matrices:
        ggml.ggml_build_forward_expand(graph, ggml.ggml_mul_mat(plain, matrix, x))
    ggml.ggml_backend_alloc_ctx_tensors(plain, backend)
    values = np.random.default_rng(tokens).standard_normal((tokens, columns), np.float32)
    ggml.ggml_backend_tensor_set(x, values.ctypes.data_as(ctypes.c_void_p), 0, values.nbytes)
    return graph


def _context(ggml: Any) -> Any:
    return ggml.ggml_init(ggml.ggml_init_params(mem_size=_CONTEXT_BYTES, mem_buffer=None, no_alloc=True))


def _q4_0(ggml: Any, weight: Any) -> Any:
    import numpy as np

    rows, columns = weight.shape
    packed = np.empty(rows * ggml.ggml_row_size(ggml.GGML_TYPE_Q4_0, columns), np.uint8)
    source = weight.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    ggml.ggml_quantize_chunk(
        ggml.GGML_TYPE_Q4_0, source, packed.ctypes.data_as(ctypes.c_void_p), 0, rows, columns, None
    )
    return packed


def _repacking(ggml: Any, backend: Any) -> Any:
    """The buffer type that llama.cpp loads Q4_0 weights into on a CPU."""
    device = ggml.ggml_backend_get_device(backend)
    registry = ggml.ggml_backend_dev_backend_reg(device)
    address = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    listed = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device)
    for place in range(8):
        if not listed[place]:
            break
        if b"REPACK" in ggml.ggml_backend_buft_name(listed[place]):
            return listed[place]
    raise SystemExit("ggml was built without repacking")
