from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.model import attention
from glm_data.model.attention import Group, MaskedAttention, PieceAttention, lay_out, lower_right_mask, mask_of_pieces

LENGTH = 24


@st.composite
def rows_of_pieces(draw):
    """A few rows: pieces one after the other with gaps, part A and part B of any length, one of them maybe empty."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        pieces, at = [], 0
        while at < LENGTH and draw(st.booleans()):
            start = at + draw(st.integers(0, 2))
            end = start + draw(st.integers(1, 9))
            if end > LENGTH:
                break
            pieces.append((start, draw(st.integers(start, end)), end, draw(st.integers(0, 2))))
            at = end
        rows.append(np.array(pieces, np.int32).reshape(-1, 4))
    return rows


def naive_order(rows):
    """The tokens of all pieces as (row, column, kind)."""
    return [(r, c, k) for r, pieces in enumerate(rows) for s, _, e, k in pieces.tolist() for c in range(s, e)]


@given(rows_of_pieces())
@settings(deadline=None, max_examples=60)
def test_layout_holds_every_token_of_a_piece_once_and_no_padding(rows):
    layout = lay_out(rows, LENGTH)
    found = [(i // LENGTH, i % LENGTH, k) for i, k in zip(layout.index_T.tolist(), layout.kind_T.tolist(), strict=True)]
    assert sorted(found) == sorted(naive_order(rows))
    assert sum(group.number * group.size for group in layout.groups) == len(found)
    assert len({(group.context, group.size) for group in layout.groups}) == len(layout.groups)


@given(rows_of_pieces(), st.sampled_from([1, 2, 512]))
@settings(deadline=None, max_examples=60)
def test_piece_attention_equals_the_masked_definition(rows, chunk):
    layout = lay_out(rows, LENGTH)
    torch.manual_seed(0)
    grid = torch.randn(3, len(rows) * LENGTH, 2, 4, dtype=torch.float64)
    if len(layout.index_T) == 0:
        return
    q, k, v = grid[:, torch.from_numpy(layout.index_T)].unbind()
    with mock.patch.object(attention, "SPAN_CHUNK", chunk):
        found = PieceAttention(layout.groups)(0, q, k, v)
    expected = torch.cat([_masked(grid[:, r * LENGTH :][:, :LENGTH], row) for r, row in enumerate(rows)])
    assert torch.allclose(found, expected[torch.from_numpy(layout.index_T)], atol=1e-12)


def _masked(grid, pieces):
    """Row by row softmax over the visible keys, no torch attention at all."""
    q, k, v = grid
    visible = mask_of_pieces(pieces, LENGTH)
    out = torch.zeros_like(q)
    for i in range(LENGTH):
        seen = visible[i].nonzero()[:, 0]
        if len(seen):
            scores = torch.einsum("hk,nhk->nh", q[i], k[seen]) / q.shape[-1] ** 0.5
            out[i] = torch.einsum("nh,nhk->hk", scores.softmax(0), v[seen])
    return out


def test_mask_of_a_piece_is_the_drawn_one():
    found = mask_of_pieces(np.array([[1, 3, 6, 1]]), 7).int().tolist()
    assert found == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


def test_masked_attention_equals_piece_attention():
    q, k, v = torch.randn(3, 7, 2, 4, generator=torch.Generator().manual_seed(1)).unbind()
    mask = mask_of_pieces(np.array([[0, 4, 7, 0]]), 7)
    found = MaskedAttention(mask)(0, q, k, v)
    assert torch.allclose(found, PieceAttention([Group(1, 4, 7)])(0, q, k, v), atol=1e-6)


def test_lower_right_mask():
    assert lower_right_mask(2, 4).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [([(0, 10, 24, 0)], 2), ([(0, 4, 6, 1), (6, 10, 12, 1), (12, 16, 18, 1)], 2), ([(0, 4, 6, 1), (6, 9, 12, 1)], 4)],
)
def test_pieces_of_one_shape_share_two_calls(pieces, calls):
    layout = lay_out([np.array(pieces)], LENGTH)
    q, k, v = torch.randn(3, len(layout.index_T), 2, 4).unbind()
    with mock.patch.object(F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as counted:
        PieceAttention(layout.groups)(0, q, k, v)
    assert counted.call_count == calls
