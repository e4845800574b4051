"""How GLM-130B (SAT) and GLM-10B (Megatron) cut a model into tensor-parallel parts, and back.

Of P parts, number p holds::

    word_embeddings          rows p/P .. (p+1)/P                 of the (padded) vocabulary
    query_key_value          GLM-130B: heads p/P .. (p+1)/P, rows (head, q|k|v, width), as ours
                             GLM-10B:  the same heads, but rows (q|k|v, head, width)
    dense_h_to_4h            GLM-130B: p/P of the gated half, then p/P of the gate;  GLM-10B: rows p/P .. (p+1)/P
    dense, dense_4h_to_h     columns p/P .. (p+1)/P; their biases whole
    norms, position tables   whole, in every part

Quantised parts (GLM-130B's) have int8 ``weight`` and float16 ``weight_scale[N]``. As matrices were cut before they
were quantised, those cut by columns have a scale for each row *and part*: merged, groups of K / P columns.

Sources: THUDM/GLM-130B ``tools/convert_tp.py`` and ``quantization/layers.py``, THUDM/GLM ``change_mp.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Family = Literal["glm-130b", "glm-10b"]
Cut = Literal["rows", "halves", "heads", "columns", "whole"]

_PREFIXES = re.compile(r"^(?:(?:module|model|transformer)\.)+")
FREQUENCIES = "inv_freq"
"""What the names of GLM-130B's rotary tables end in: half a head's width long, and no weights."""


def our_name(theirs: str) -> str:
    """The name of a tensor in our folder, ``.weight_scale`` of quantised ones as it is."""
    return _PREFIXES.sub("", theirs)


def their_name(ours: str, family: Family) -> str:
    """The name of a tensor in a part."""
    return ours if family == "glm-10b" and ours.startswith("word_embeddings") else "transformer." + ours


def cut_of(name: str, family: Family) -> Cut:
    """How the tensor of our ``name`` is cut."""
    matrix, _, kind = name.removesuffix("_scale").rpartition(".")
    matrix = matrix.rpartition(".")[2]
    if matrix == "query_key_value":
        return "rows" if family == "glm-130b" else "heads"
    if matrix == "dense_h_to_4h":
        return "halves" if family == "glm-130b" else "rows"
    if matrix == "word_embeddings":
        return "rows"
    return "columns" if matrix in ("dense", "dense_4h_to_h") and kind == "weight" else "whole"


def merge(parts: Sequence[Tensor], cut: Cut, heads: int) -> Tensor:
    """The whole of a tensor's parts; ``heads`` is the model's number of attention heads.

    Scales of a matrix that is cut by columns, vectors, become ``[N, P]``.
    """
    if cut == "whole":
        return parts[0]
    if cut == "columns":
        return torch.cat(list(parts), 1) if parts[0].dim() == 2 else torch.stack(list(parts), 1)
    if cut == "halves":
        first, second = zip(*(part.chunk(2) for part in parts), strict=True)
        return torch.cat(first + second)
    if cut == "heads":
        parts = [_thirds_to_heads(part, heads // len(parts)) for part in parts]
    return torch.cat(list(parts))


def take(whole: Tensor, cut: Cut, part: int, parts: int, heads: int) -> Tensor:
    """Part number ``part`` of ``parts`` of a whole tensor: what :func:`merge` puts together again."""
    if cut == "whole":
        return whole
    if cut == "columns":
        return whole.chunk(parts, 1)[part]
    if cut == "halves":
        return torch.cat([half.chunk(parts)[part] for half in whole.chunk(2)])
    rows = whole.chunk(parts)[part]
    return _heads_to_thirds(rows, heads // parts) if cut == "heads" else rows


def _thirds_to_heads(rows: Tensor, heads: int) -> Tensor:
    return rows.reshape(3, heads, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)


def _heads_to_thirds(rows: Tensor, heads: int) -> Tensor:
    return rows.reshape(heads, 3, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)
