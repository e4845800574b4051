from pathlib import Path

import pytest

from benchmarks import contest
from benchmarks.contest import Contest, Contestant, measure
from benchmarks.harness import Case, Score, contest_table, score


def test_one_setup_and_a_rate_for_each_of_its_works(monkeypatch):
    clock, setups = [0.0], []

    def setup(folder):
        setups.append(folder)
        first = iter([9.0, 1.0, 2.0, 40.0])  # what warms up does not count, nor does a run that was disturbed
        return [(lambda: clock.append(clock[-1] + next(first)), 4.0), (lambda: clock.append(clock[-1] + 8), 4.0)]

    monkeypatch.setattr(contest, "cpu_seconds", lambda: clock[-1])
    measured = measure(Contestant("x", setup), Path("inputs"), 3)
    assert measured["rates"] == [2.0, 0.5]
    assert measured["peak_bytes"] > 1e6
    alone = Contestant("x", lambda folder: setup(folder)[1])
    assert measure(alone, Path("more"), 1)["rates"] == [0.5]
    assert setups == [Path("inputs"), Path("more")]


def test_medians_over_rounds_and_ratios_within_them():
    ours = [
        {"rates": [10.0, 4.0], "peak_bytes": 5},
        {"rates": [20.0, 4.0], "peak_bytes": 9},
        {"rates": [30.0, 4.0], "peak_bytes": 7},
    ]
    its = [{"rates": [5.0], "peak_bytes": 1}, {"rates": [5.0], "peak_bytes": 1}, {"rates": [3.0], "peak_bytes": 1}]
    assert score("it", its, ours) == Score("it", (Case(5.0, (3.0, 5.0), 4.0),), 1)
    assert score("we", ours, ours).cases[0] == Case(20.0, (10.0, 30.0), 1.0)
    assert score("we", ours, ours).peak_bytes == 9


@pytest.mark.parametrize("cases", [("one", "many"), ()])
def test_tables(cases):
    case = Case(1500.0, (1000.0, 2000.0), 1.0)
    scores = [Score("we", (case, case), 10_000_000), Score("it", (Case(3.0, (2.5, 4.0), 500.0),), 2_000_000)]
    what = Contest("c", "things/s", (), "", time=("ms", 1e3), cases=cases)
    expected = {
        ("one", "many"): [
            ("", "one", "many", "peak MB"),
            ("we", "1,500 (1,000 - 2,000), 1 x", "1,500 (1,000 - 2,000), 1 x", "10"),
            ("it", "3 (2.5 - 4), 500 x", "", "2"),
        ],
        (): [
            ("", "things/s", "ms", "slowest - fastest round", "first to this", "peak MB"),
            ("we", "1,500", "0.667", "1,000 - 2,000", "1 x", "10"),
            ("it", "3", "333", "2.5 - 4", "500 x", "2"),
        ],
    }
    assert contest_table(what, scores) == expected[cases]
