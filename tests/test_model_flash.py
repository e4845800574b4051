"""The flash path without a GPU: its kernels are replaced by plain twins, everything around them is the real code."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.model import flash
from glm_data.model.attention import Group, PieceAttention, attended_pairs, mask_of_pieces

HEADS, WIDTH = 2, 4


def scores_of(q, k, causal):
    scores = torch.einsum("qhk,shk->hqs", q, k) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(len(q), len(k), dtype=torch.bool).triu(1), -torch.inf)
    return scores


def pieces_of(bounds_q, bounds_k):
    for number in range(len(bounds_q) - 1):
        yield slice(*bounds_q[number : number + 2].tolist()), slice(*bounds_k[number : number + 2].tolist())


def forward_twin(q, k, v, bounds_q, bounds_k, longest, dropout, causal, random):
    o, logs = torch.full_like(q, torch.nan), torch.full((HEADS, len(q)), torch.nan)
    for here, there in pieces_of(bounds_q, bounds_k):
        assert here.stop - here.start <= longest
        scores = scores_of(q[here], k[there], causal)
        o[here] = torch.einsum("hqs,shk->qhk", scores.softmax(-1), v[there])
        logs[:, here] = scores.logsumexp(-1) if there.start < there.stop else torch.inf  # as the kernel says it
    return o, logs


def backward_twin(grad, q, k, v, o, logs, bounds_q, bounds_k, longest, dropout, causal, random):
    dq, dk, dv = (torch.full_like(x, torch.nan) for x in (q, k, v))
    for here, there in pieces_of(bounds_q, bounds_k):
        shares = (scores_of(q[here], k[there], causal) - logs[:, here, None]).exp()
        dv[there] = torch.einsum("hqs,qhk->shk", shares, grad[here])
        spread = torch.einsum("qhk,shk->hqs", grad[here], v[there]) - (grad[here] * o[here]).sum(-1).T[:, :, None]
        inner = shares * spread / q.shape[-1] ** 0.5
        dq[here], dk[there] = (torch.einsum(f"hqs,{way}", inner, x) for way, x in _ways(q[here], k[there]))
    return dq, dk, dv


def _ways(q, k):
    return ("shk->qhk", k), ("qhk->shk", q)


@pytest.fixture(scope="module", autouse=True)
def _twins():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "_forward", forward_twin)
        patch.setattr(flash, "_backward_call", backward_twin)
        yield


groups_of = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 5), st.integers(0, 5)).filter(lambda g: g[1] + g[2] > 0).map(
        lambda g: Group(g[0], g[1], g[1] + g[2])
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


@given(groups_of, st.integers(0, 3))
@settings(deadline=None, max_examples=25)
def test_three_calls_equal_the_dense_ones_in_output_and_gradients(groups, padding):
    tokens = sum(group.number * group.size for group in groups) + padding
    order = torch.from_numpy(np.append(flash.parts_apart(groups), np.arange(tokens - padding, tokens)))
    generator = torch.Generator().manual_seed(tokens)
    *qkv, up = torch.randn(4, tokens, HEADS, WIDTH, generator=generator).unbind()

    def run(attend, order):
        leaves = [x[order].clone().requires_grad_() for x in qkv]
        output = attend(0, *leaves)
        output.backward(up[order])
        return [output.detach(), *(leaf.grad for leaf in leaves)]

    expected = run(PieceAttention(groups), torch.arange(tokens))
    found = run(flash.FlashAttention(flash.make_tables(groups, 10, "cpu")), order)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other[order], atol=2e-6)


@given(groups_of)
@settings(deadline=None, max_examples=25)
def test_pairs_are_counted_as_the_mask_shows_them(groups):
    pieces, at = [], 0
    for group in groups:
        for _ in range(group.number):
            pieces.append((at, at + group.context, at + group.size, 0))
            at += group.size
    assert attended_pairs(groups) == mask_of_pieces(np.array(pieces), at).sum().item()


def test_tables_are_filled_up_with_empty_pieces():
    tables = flash.make_tables([Group(2, 3, 5), Group(1, 4, 4)], 5, "cpu")
    assert tables.bounds_a.tolist() == [0, 3, 6, *[10] * 62]
    assert tables.bounds_b.tolist() == [0, 2, 4, *[4] * 62]
    assert tables.sizes.tolist() == [10, 4]
    assert flash.parts_apart([Group(2, 3, 5)]).tolist() == [0, 1, 2, 5, 6, 7, 3, 4, 8, 9]
