"""The order of rows is a bijection and a function of (rows, seed, epoch)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.loading import shuffled


@settings(deadline=None, max_examples=150)
@given(rows=st.integers(1, 3000), seed=st.integers(0, 2**62), epoch=st.integers(0, 1000))
def test_every_row_stands_at_exactly_one_position(rows, seed, epoch):
    order = shuffled(np.arange(rows), rows, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(rows))


def test_any_part_of_the_order_can_be_asked_alone():
    rows = 1_000_003
    part = shuffled(np.arange(500_000, 500_100), rows, 7, 3)
    assert [int(shuffled(np.array([at]), rows, 7, 3)[0]) for at in range(500_000, 500_100)] == part.tolist()


def test_seed_and_epoch_change_the_order_and_nothing_else_does():
    first = shuffled(np.arange(1000), 1000, 1, 0)
    assert np.array_equal(first, shuffled(np.arange(1000), 1000, 1, 0))
    assert (first == shuffled(np.arange(1000), 1000, 2, 0)).mean() < 0.05
    assert (first == shuffled(np.arange(1000), 1000, 1, 1)).mean() < 0.05


def test_the_order_looks_random():
    rows = 20_000
    order = shuffled(np.arange(rows), rows, 42)
    assert abs(np.corrcoef(np.arange(rows), order)[0, 1]) < 0.03
    neighbours = np.abs(np.diff(order)) == 1
    assert neighbours.mean() < 0.002


def test_the_order_is_pinned():
    assert shuffled(np.arange(8), 8, 1234).tolist() == PINNED


PINNED = [4, 2, 5, 3, 6, 0, 1, 7]
