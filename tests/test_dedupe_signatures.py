import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.dedupe.signatures import Lsh, band_keys, best_lsh, signatures
from glm_data.text.shingles import Shingles, shingle_texts

HASHES = st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30), min_size=1, max_size=4)

SHAPES = [Lsh(1, 1), Lsh(3, 5, 77), Lsh(7, 5), Lsh(14, 8), Lsh(9, 13), Lsh(), Lsh(16, 8), Lsh(23, 7)]
"""Permutations that fill one register, or some, or groups of them, or leave lanes over."""


def compressed(rows):
    offsets = np.cumsum([0] + [len(row) for row in rows])
    return Shingles(np.array([h for row in rows for h in row], np.uint64), offsets.astype(np.int64))


def by_datasketch(hashes, lsh):
    sketch = MinHash(num_perm=lsh.permutations, seed=lsh.seed, scheme="affine32", hashfunc=lambda value: value)
    sketch.update_batch([int(value) >> 32 for value in hashes])
    return sketch.hashvalues


@settings(deadline=None, max_examples=30)
@given(HASHES, st.sampled_from(SHAPES))
def test_signatures_are_datasketchs_bit_for_bit(rows, lsh):
    found = signatures(compressed(rows), lsh)
    assert found.dtype == np.uint32
    assert np.array_equal(found, [by_datasketch(row, lsh) for row in rows])


def test_long_texts_cross_tiles():
    hashes = np.random.default_rng(0).integers(0, 2**64, 5000, np.uint64)
    assert np.array_equal(signatures(compressed([hashes]), Lsh())[0], by_datasketch(hashes, Lsh()))


def test_band_keys_depend_on_exactly_their_band():
    lsh = Lsh(4, 3)
    first = signatures(shingle_texts(pa.array(["one two three four five six"])), lsh)
    for column in range(lsh.permutations):
        changed = first.copy()
        changed[0, column] ^= 1
        differs = band_keys(first, lsh)[0] != band_keys(changed, lsh)[0]
        assert np.flatnonzero(differs).tolist() == [column // lsh.rows]


def test_equal_minima_in_two_bands_make_two_keys():
    assert len(set(band_keys(np.zeros((1, 112), np.uint32), Lsh())[0])) == Lsh().bands


def test_probability_is_the_s_curve():
    assert Lsh().probability(0.8) == pytest.approx(1 - (1 - 0.8**6) ** 20)
    lsh, rng = Lsh(14, 8), np.random.default_rng(5)
    shared = [rng.integers(0, 2**64, 80, np.uint64) for _ in range(400)]
    own = [rng.integers(0, 2**64, 10, np.uint64) for _ in range(800)]
    firsts = compressed([np.concatenate([s, o]) for s, o in zip(shared, own[::2], strict=True)])
    seconds = compressed([np.concatenate([s, o]) for s, o in zip(shared, own[1::2], strict=True)])
    keys = [band_keys(signatures(item, lsh), lsh) for item in (firsts, seconds)]
    met = (keys[0] == keys[1]).any(axis=1).mean()
    assert met == pytest.approx(lsh.probability(0.8), abs=0.05)


def test_the_optimiser_is_datasketchs():
    lsh = best_lsh(0.8, 128)
    assert lsh.permutations <= 128
    assert lsh == Lsh(9, 13)
