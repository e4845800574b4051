import itertools

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_data.dedupe import DedupeOptions
from glm_data.dedupe import select as select_module
from glm_data.dedupe.candidates import components, find_copies, is_member, star_edges
from glm_data.dedupe.priority import OWN
from glm_data.dedupe.select import cut_walk, margin, select
from glm_data.dedupe.sets import Sets, pack_units
from glm_data.dedupe.sign import stable_order
from glm_data.dedupe.signatures import Lsh, band_keys, signatures
from glm_data.dedupe.verdicts import multiplicities, settle
from glm_data.dedupe.work import CONTAINED, COPY, EXACT, NEAR, REMOVAL, key_range, slice_of
from glm_data.text.shingles import Shingles

LSH = Lsh(40, 2)


def make_sets(sets):
    rows = [np.array(sorted(item), np.uint64) for item in sets]
    offsets = np.cumsum([0] + [row.size for row in rows]).astype(np.int64)
    shingles = Shingles(np.concatenate(rows) * np.uint64(0x9E3779B97F4A7C15), offsets)
    hashes = np.concatenate([np.sort(shingles.hashes[a:b]) for a, b in itertools.pairwise(offsets)])
    return Sets(hashes, offsets, signatures(Shingles(hashes, offsets), LSH))


def run_select(sets, priority=None, bands=None, settled=(), **options):
    made = make_sets(sets)
    bands = band_keys(made.signatures, LSH) if bands is None else bands
    priority = OWN | (np.zeros(len(sets), np.uint64) if priority is None else np.array(priority, np.uint64))
    priority[list(settled)] = 0

    def load(rows):
        ends = [made.hashes[made.offsets[row] : made.offsets[row + 1]] for row in rows]
        offsets = np.cumsum([0] + [end.size for end in ends]).astype(np.int64)
        return Sets(np.concatenate(ends), offsets, made.signatures[rows]), bands[rows]

    shape = {"bands": bands.shape[1], "rows": LSH.permutations // bands.shape[1]}
    return select(load, np.diff(made.offsets), priority, DedupeOptions(**shape, **options))


def jaccard(a, b):
    return len(a & b) / len(a | b)


SETS = st.lists(st.sets(st.integers(0, 14), min_size=1, max_size=12), min_size=1, max_size=12)


@settings(deadline=None, max_examples=200)
@given(SETS, st.sampled_from([0.4, 0.6, 0.8, 1.0]), st.sampled_from([0.0, 0.7, 0.9]), st.randoms())
def test_every_removal_is_proven_against_a_kept_document(sets, threshold, containment, random):
    priority = [random.randrange(3) for _ in sets]
    found = run_select(sets, priority, threshold=threshold, containment=containment)
    for removed, partner in enumerate(found.partner):
        if partner < 0:
            continue
        assert found.partner[partner] == -1
        assert (priority[partner], partner) < (priority[removed], removed)
        assert found.shared[removed] == len(sets[removed] & sets[partner])
        if found.rule[removed] == NEAR:
            assert jaccard(sets[removed], sets[partner]) >= threshold
        else:
            assert found.rule[removed] == CONTAINED
            assert len(sets[removed] & sets[partner]) / len(sets[removed]) >= containment > 0


def greedy_twin(sets, threshold):
    kept, partner = [], []
    for document, own in enumerate(sets):
        scores = [(jaccard(own, sets[k]), -k) for k in kept]
        best, place = max(scores, default=(0, 0))
        partner.append(-place if best >= threshold else -1)
        kept += [] if best >= threshold else [document]
    return partner


@settings(deadline=None, max_examples=100)
@given(SETS)
def test_selection_is_the_greedy_one_when_all_pairs_are_candidates(sets):
    found = run_select(sets, bands=np.zeros((len(sets), 1), np.uint64), threshold=0.7)
    assert found.partner.tolist() == greedy_twin(sets, 0.7)


def test_a_chain_is_not_removed_transitively():
    chain = [set(range(start, start + 20)) for start in range(0, 40, 2)]
    found = run_select(chain, threshold=0.8)
    kept = [i for i, partner in enumerate(found.partner) if partner < 0]
    assert kept == list(range(0, 20, 2))
    found = run_select(chain, list(range(20, 0, -1)), threshold=0.8)
    assert found.partner[19] == -1
    assert found.partner[18] == 19


def test_a_part_is_removed_only_where_containment_is_asked_for():
    whole, part, other = set(range(100)), set(range(40)), set(range(200, 240))
    assert (run_select([whole, part, other]).partner == -1).all()
    found = run_select([whole, part, other], containment=0.9)
    assert found.partner.tolist() == [-1, 0, -1]
    assert found.rule.tolist() == [0, CONTAINED, 0]


def test_a_crowded_bucket_is_bounded_and_counted():
    sets = [set(range(i * 10, i * 10 + 10)) for i in range(300)]
    found = run_select(sets, bands=np.zeros((300, 1), np.uint64), bucket_limit=50)
    assert (found.partner == -1).all()
    assert found.crowded == 250


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SETS, st.integers(1, 5), st.integers(1, 4), st.sampled_from([0.0, 0.7]), st.randoms())
def test_a_walk_in_pieces_comes_to_the_same(monkeypatch, sets, step, limit, containment, random):
    priority = [random.randrange(3) for _ in sets]
    settled = [i for i in range(len(sets)) if random.random() < 0.2]
    given = {"priority": priority, "settled": settled, "threshold": 0.5, "containment": containment}
    whole = run_select(sets, bucket_limit=limit, **given)
    with monkeypatch.context() as patch:
        patch.setattr(
            select_module, "cut_walk", lambda order, *_: [order[a : a + step] for a in range(0, order.size, step)]
        )
        pieces = run_select(sets, bucket_limit=limit, **given)
    assert pieces.pieces == -(-len(sets) // step)
    for before, after in zip(whole[:-1], pieces[:-1], strict=True):
        assert np.array_equal(before, after)


def test_a_walk_is_cut_where_two_pieces_fill_the_memory():
    order, sizes = np.arange(10)[::-1], np.full(10, 40_000)
    sizes[3] = 10_000_000
    pieces = list(cut_walk(order, sizes, DedupeOptions(memory_mb=2)))
    assert [piece.tolist() for piece in pieces] == [[9, 8, 7, 6], [5, 4, 3], [2, 1, 0]]
    assert list(cut_walk(order[:0], sizes, DedupeOptions())) == []


def test_documents_of_an_earlier_run_stay_and_go_first():
    same = set(range(30))
    found = run_select([same, same, same, set(range(40, 60))], [0, 1, 2, 3], settled=[1, 2])
    assert found.partner.tolist() == [1, -1, -1, -1]


def test_the_margin_spares_no_pair_at_the_threshold():
    rng = np.random.default_rng(3)
    lsh = Lsh()
    below = 0
    for _ in range(300):
        shared, own = rng.integers(0, 2**64, 80, np.uint64), rng.integers(0, 2**64, 20, np.uint64)
        rows = np.concatenate([shared, own[:10], shared, own[10:]])
        minima = signatures(Shingles(rows, np.array([0, 90, 180])), lsh)
        below += (minima[0] == minima[1]).mean() < 0.8 - margin(0.8, lsh.permutations)
    assert below == 0


def test_copies_go_to_the_best_of_their_key():
    high = np.array([5, 7, 5, 5, 7, 9], np.uint64)
    low = np.array([1, 1, 1, 2, 1, 1], np.uint64)
    priority = np.array([4, 1, 2, 0, 1, 0], np.uint64)
    copies = find_copies(high, low, priority, np.arange(10, 16))
    assert copies.tolist() == [(10, 12), (14, 11)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), max_size=40), st.sampled_from([0, 3, 61]), st.integers(0, 2**64 - 1))
def test_keys_are_ordered_as_by_a_stable_sort(values, shift, other):
    keys = np.array(values, np.uint64) << np.uint64(shift) ^ np.uint64(
        other
    )  # alike in high bits, in low ones, in none
    assert stable_order(keys).tolist() == sorted(range(len(values)), key=lambda place: keys[place])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), max_size=30))
def test_star_edges_connect_what_shares_a_bucket(pairs):
    pairs = sorted(set(pairs))
    keys, index = np.array([k for k, _ in pairs], np.uint64), np.array([i for _, i in pairs], np.int64)
    found = star_edges(keys, index)
    buckets = [[i for k, i in pairs if k == key] for key in range(7)]
    expected = {(bucket[0], other) for bucket in buckets for other in bucket[1:]}
    assert {(int(e) >> 32, int(e) & 0xFFFFFFFF) for e in found.edges} == expected
    assert found.buckets == sum(len(bucket) > 1 for bucket in buckets)


def test_a_bucket_of_n_costs_n_minus_1_edges():
    found = star_edges(np.zeros(5000, np.uint64), np.arange(5000))
    assert found.edges.size == 4999
    assert found.giant.tolist() == [(5000, 0)]


def test_what_earlier_runs_kept_is_not_linked_with_itself():
    keys, index = np.array([1, 1, 2, 2, 2], np.uint64), np.array([7, 9, 3, 7, 9])
    assert star_edges(keys, index, own=5).edges.tolist() == [3 << 32 | 7, 3 << 32 | 9]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_components_are_named_after_their_smallest_document(pairs):
    pairs = {(min(p), max(p)) for p in pairs if p[0] != p[1]}
    label = list(range(13))
    for _ in range(13):
        for a, b in pairs:
            label[a] = label[b] = min(label[a], label[b])
    edges = np.unique(np.array([a << 32 | b for a, b in pairs], np.uint64))
    nodes, labels = components(edges)
    assert nodes.tolist() == sorted({node for pair in pairs for node in pair})
    assert labels.tolist() == [label[node] for node in nodes]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 300)), max_size=30))
def test_units_hold_whole_components_and_every_candidate_once(rows):
    labels = np.array([label for label, _ in rows], np.uint32)
    sizes = np.array([size for _, size in rows], np.int64)
    order, offsets = pack_units(labels, sizes, limit=500)
    assert sorted(order.tolist()) == list(range(len(rows)))
    units = [order[a:b] for a, b in itertools.pairwise(offsets)]
    assert all(unit.size and (np.diff(unit) > 0).all() for unit in units)
    assert sum(len(set(labels[unit].tolist())) for unit in units) == len(set(labels.tolist()))


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
def test_key_ranges_cover_all_keys_once(parts):
    keys = np.sort(np.random.default_rng(parts).integers(0, 2**64, 500, np.uint64))
    keys = np.concatenate([[np.uint64(0)], keys, [np.uint64(2**64 - 1)]])
    slices = [slice_of(keys, part, parts) for part in range(parts)]
    assert np.array_equal(np.concatenate([keys[inside] for inside in slices]), keys)
    assert key_range(parts - 1, parts)[1] == 2**64


def test_membership_in_an_ascending_array():
    assert is_member(np.array([0, 3, 9]), np.array([3, 5])).tolist() == [False, True, False]
    assert is_member(np.array([0, 3]), np.array([])).tolist() == [False, False]


def test_copies_of_a_removed_document_follow_it_to_its_kept_one():
    copies = np.array([(1, 0), (5, 4), (6, 4)], COPY)
    selected = np.array([(4, 2, 9, 10, 11, NEAR)], REMOVAL)
    removals = settle(copies, selected)
    assert removals["removed"].tolist() == [1, 4, 5, 6]
    assert removals["kept"].tolist() == [0, 2, 2, 2]
    assert removals["rule"].tolist() == [EXACT, NEAR, NEAR, NEAR]
    assert removals[2].tolist()[2:5] == (9, 10, 11)
    counts = multiplicities(removals, np.array([1, 1, 1, 1, 1, 1, 5], np.uint32))
    assert counts.tolist() == [2, 0, 8, 1, 0, 0, 0]


def test_signatures_of_sets_equal_those_of_texts_with_repeats():
    hashes = np.array([7, 7, 9, 7], np.uint64) << np.uint64(33)
    twice = signatures(Shingles(hashes, np.array([0, 4])), LSH)
    sketch = MinHash(num_perm=LSH.permutations, seed=1, scheme="affine32", hashfunc=lambda value: value)
    sketch.update_batch([14, 18])
    assert np.array_equal(twice[0], sketch.hashvalues)
