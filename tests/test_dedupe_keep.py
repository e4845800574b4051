import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_data.dedupe import DedupeOptions
from glm_data.dedupe.priority import OWN, priorities, quality_scores, rank_scores
from glm_data.documents import make_block
from glm_data.errors import ConfigError

ROWS = [
    ("short", "web", "en", '{"quality": 0.5}'),
    ("a longer one", "book", "zh-Hant", '{"quality": 2}'),
    ("a longer two", "book", "zh-Hans", '{"quality": "high"}'),
    ("the longest of all", "forum", "zh-Hant", '{"note": "no quality here"}'),
]


def block(rows=ROWS):
    texts, sources, langs, metas = zip(*rows, strict=True)
    return make_block([f"in#{i}" for i in range(len(rows))], texts, sources, langs, metas)


def order(**options):
    rank = priorities(block(), DedupeOptions(**options))
    assert (rank & OWN).all()
    return np.argsort(rank, kind="stable").tolist()


def test_each_rule_ranks_by_its_own_measure():
    assert order(keep=("id",)) == [0, 1, 2, 3]
    assert order(keep=("longest",)) == [3, 1, 2, 0]
    assert order(keep=("simplified",)) == [0, 2, 1, 3]
    assert order(keep=("quality",)) == [1, 0, 2, 3]
    assert order(keep=("source-order",), source_order=("forum", "book")) == [3, 1, 2, 0]


def test_the_first_rule_that_tells_two_apart_decides():
    assert order(keep=("source-order", "simplified"), source_order=("book",)) == [2, 1, 0, 3]
    assert order(keep=("simplified", "longest")) == [2, 0, 3, 1]
    assert order(keep=("source-order", "quality", "longest", "simplified", "id"), source_order=("web",)) == [0, 1, 3, 2]


def test_a_column_goes_before_meta_and_its_gaps_come_last():
    batch = block()
    scores = pa.array([None, 1.5, -2.0, 3.0], pa.float64())
    wide = pa.RecordBatch.from_arrays([*batch.columns, scores], schema=batch.schema.append(pa.field("q", pa.float64())))
    found = quality_scores(wide, "q")
    assert math.isnan(found[0])
    assert found[1:].tolist() == [1.5, -2.0, 3.0]
    assert np.argsort(rank_scores(found), kind="stable").tolist() == [3, 1, 2, 0]


@given(st.lists(st.integers(-(2**20), 2**20).map(lambda value: value / 64), min_size=2, max_size=8))
def test_higher_scores_never_rank_behind_lower_ones(scores):
    ranks = rank_scores(np.array(scores, np.float32))
    for score, rank in zip(scores, ranks, strict=True):
        for other, its in zip(scores, ranks, strict=True):
            if score > other:
                assert rank <= its
            if score > other + abs(other) / 1000:
                assert rank < its


@pytest.mark.parametrize("given", [("longest,id",), ("longest", "id"), (" longest , id ",)])
def test_rules_are_given_one_by_one_or_with_commas(given):
    assert DedupeOptions(keep=given).keep == ("longest", "id")


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (("longes",), "keep: there is no rule 'longes'. Did you mean 'longest'?"),
        (("zzz",), "Rules: source-order, quality, longest, simplified, id."),
        (("longest", "longest"), "the rule 'longest' is given twice"),
        (("id", "longest"), "nothing can come after 'id'"),
    ],
)
def test_policies_that_cannot_be_meant_are_refused(keep, said):
    with pytest.raises(ConfigError) as caught:
        DedupeOptions(keep=keep)
    assert said in str(caught.value)
