"""Thresholds re-applied to kept signals give the verdicts of a run; samples, histograms, models, lists, addresses."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import raw_files as raw
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.cli.shell import run as command
from glm_data.errors import ConfigError, GlmDataError, InputError, UsageError
from glm_data.filters import FilterOptions, digest_files, load_profile, profile_names, quality
from glm_data.filters.border import Example
from glm_data.filters.rules import Rule
from glm_data.filters.tune import change_profile, histogram, read_kept, reasons_of, sample_border, tell_rules
from glm_data.filters.urls import make_url_rules
from glm_data.report.collect import collect
from glm_data.report.render import render
from glm_data.text.words import count_words, make_word_list
from pipelines.filter import run
from pipelines.runner import RunnerOptions

NOISE = random.Random(0)
WORDS = ("the", "rain", "fell", "on", "pond", "and", "frogs", "of", "that", "old", "castle", "were", "happy", "with")


def sentence(words: int) -> str:
    return " ".join(NOISE.choice(WORDS) for _ in range(words)).capitalize() + "."


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stage of two shards: prose with a growing share of repeated lines, and some lists of links."""
    folder = tmp_path_factory.mktemp("tune")
    texts = [
        "\n".join([sentence(12) for _ in range(10)] + ["The same line stands here again."] * (2 * (number % 20)))
        for number in range(60)
    ]
    texts += ["\n".join(f"http://www.example.org/{number}/{line}" for line in range(8)) for number in range(6)]
    records = [{"text": text, "meta": {"pile_set_name": f"set {n % 3}"}} for n, text in enumerate(texts)]
    raw.write(folder / "0.jsonl", raw.jsonl(records[::2]) + b"broken\n")
    raw.write(folder / "1.jsonl", raw.jsonl(records[1::2]))
    options = FilterOptions(max_bad_fraction=0.5)
    run([folder / "0.jsonl", folder / "1.jsonl"], folder / "out", options, RunnerOptions(workers=1))
    return folder / "out"


def test_kept_signals_give_the_verdicts_of_the_run_for_every_profile(stage: Path) -> None:
    kept = read_kept(stage)
    table = pa.concat_tables([pq.read_table(path) for path in sorted((stage / "signals").iterdir())])
    assert reasons_of(kept, kept.profile).tolist() == table.column("reason").to_pylist()
    assert kept.kept.sum() + sum(path.read_bytes().count(b"\n") for path in (stage / "unreadable").iterdir()) < 67
    for name in ("gopher", "data-juicer"):
        out = stage.parent / name
        success = run(
            [stage.parent / "0.jsonl", stage.parent / "1.jsonl"],
            out,
            FilterOptions(profile=name, max_bad_fraction=0.5),
            RunnerOptions(workers=1),
        )
        told = Counter(reason for reason in reasons_of(kept, load_profile(name)).tolist() if reason)
        assert dict(told) == success.dropped


def test_changes_make_another_profile() -> None:
    profile = change_profile(
        load_profile("bilingual"), ["digits.max=0.25", "links=off", "new:words.min=3", "short.max=9"]
    )
    rules = {rule.name: rule for rule in profile.rules}
    assert (rules["digits"].max, rules["short"].min, rules["short"].max) == (0.25, 10, 9)
    assert rules["new"] == Rule(name="new", signal="words", min=3)
    assert "links" not in rules
    for change, message in (
        ("digit.max=1", "Did you mean 'digits'"),
        ("digits.max=x", "is no change"),
        ("digits.max=1e", "is no number"),
        ("a:wrods.min=1", "Did you mean 'words'"),
    ):
        with pytest.raises(ConfigError, match=message):
            change_profile(load_profile("bilingual"), [change])


def test_samples_stand_on_both_sides_of_the_border_with_their_own_texts(stage: Path) -> None:
    kept = read_kept(stage)
    rule = Rule(name="again", signal="duplicate_lines", max=0.3)
    profile = change_profile(
        load_profile("bilingual"), ["again:duplicate_lines.max=0.3", "links=off", "repeated_lines=off"]
    )
    after = reasons_of(kept, profile)
    samples = sample_border(kept, rule, after, 8)
    assert [sample.kept for sample in samples] == [True] * 4 + [False] * 4
    assert [sample.value for sample in samples] == sorted(sample.value for sample in samples)
    assert max(s.value for s in samples if s.kept) <= 0.3 < min(s.value for s in samples if not s.kept)
    rows = [
        row
        for part in ("data", "dropped")
        for path in (stage / part).iterdir()
        for row in pq.read_table(path).to_pylist()
    ]
    texts = {row["id"]: " ".join(row["text"][:160].split()) for row in rows}
    assert all(sample.excerpt == texts[sample.id] for sample in samples)
    (told,) = tell_rules(kept, profile, reasons_of(kept, kept.profile), after, ["again"])
    assert (told.dropped_before, told.dropped) == (0, (after == "again").sum())
    assert sum(told.histogram.documents) == 66
    assert 0.3 in told.histogram.edges


@given(st.lists(st.floats(-10, 10) | st.just(float("nan")), max_size=40), st.lists(st.floats(-20, 20), max_size=2))
@settings(deadline=None, max_examples=60)
def test_a_histogram_counts_every_value_and_has_the_bounds_as_edges(values: list[float], bounds: list[float]) -> None:
    edges, counts = histogram(np.array(values, np.float64), bounds)
    finite = [value for value in values if value == value]
    assert sum(counts) == len(finite)
    if finite:
        assert len(edges) == len(counts) + 1
        assert edges == sorted(edges)
        assert set(bounds) <= set(edges) or len(set(edges)) == 1


def test_examples_of_a_stage_are_the_nearest_of_both_sides(stage: Path) -> None:
    lines = (stage / "border/part-00000.jsonl").read_bytes().splitlines()
    examples = [json.loads(line) for line in lines]
    assert set(examples[0]) == set(Example.__struct_fields__)
    sides = Counter((example["rule"], example["kept"]) for example in examples)
    assert max(sides.values()) <= 3
    again = [example for example in examples if example["rule"] == "repeated_lines"]
    assert {example["kept"] for example in again} == {True, False}
    assert all((example["value"] <= example["bound"]) == example["kept"] for example in again)


def test_the_report_tells_losses_and_borders(stage: Path) -> None:
    report = collect(stage)
    filtering = report["filtering"]
    assert sum(row["dropped"] for row in filtering["by_source"]) == sum(filtering["dropped"].values())
    assert sum(row["dropped"] for row in filtering["by_language"]) == sum(filtering["dropped"].values())
    assert {row["rule"] for row in filtering["border"]} == set(filtering["dropped"]) - {"language"}
    sides = [example["kept"] for example in filtering["border"][0]["examples"]]
    assert sides == sorted(sides, reverse=True)
    page = render(report)
    assert "At the border" in page
    assert "repeated_lines" in page


def test_the_command_shows_rules_then_border(stage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["filter", "tune", str(stage), "--set", "repeated_lines.max=0.1"]) == 0
    shown = capsys.readouterr().out
    assert "66 documents: " in shown
    assert "repeated_lines" in shown
    assert command(["filter", "tune", str(stage), "repeated_lines", "--samples", "4"]) == 0
    shown = capsys.readouterr().out
    assert "------------ 0.5 ---" in shown
    assert shown.count("in/") + shown.count(".jsonl#") >= 4
    assert command(["filter", "tune", str(stage), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["documents"] == 66
    assert {row["source"] for row in told["sources"]} == {"set 0", "set 1", "set 2"}
    assert command(["filter", "tune", str(stage), "repeated_line"]) == 2
    assert "Did you mean 'repeated_lines'?" in capsys.readouterr().err


def test_a_stage_without_signals_says_so(stage: Path) -> None:
    options = FilterOptions(keep_signals=False, max_bad_fraction=0.5)
    out = stage.parent / "without"
    success = run([stage.parent / "0.jsonl"], out, options, RunnerOptions(workers=1))
    assert not any(item.name.startswith("signals/") for item in success.files)
    with pytest.raises(UsageError, match="--keep-signals"):
        read_kept(out)
    (stage.parent / "damaged").mkdir()
    with pytest.raises(GlmDataError):
        read_kept(stage.parent / "damaged")


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_of_the_package_is_sound(name: str) -> None:
    profile = load_profile(name)
    assert profile.rules
    assert len(profile.description) > 60


def test_a_model_learns_what_is_good_and_is_stored_without_pickle(tmp_path: Path) -> None:
    good = [" ".join(sentence(10) for _ in range(3)) for _ in range(60)]
    bad = [
        " ".join(NOISE.choice(["buy", "cheap", "pills", "now", "the", "casino"]) for _ in range(30)) for _ in range(60)
    ]
    weights, scores = quality.train(good, bad)
    assert scores.auc > 0.95
    assert scores.good + scores.bad == 24
    quality.save(tmp_path / "a.npz", weights)
    quality.save(tmp_path / "b.npz", quality.train(good, bad)[0])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = quality.load(tmp_path / "a.npz")
    judged = quality.score(pa.array([good[0], bad[0], ""]), loaded)
    assert judged[0] > 0.5 > judged[1]
    with pytest.raises(UsageError, match="too few"):
        quality.train(good[:3], bad)
    np.savez(tmp_path / "c.npz", weights=np.array([object()]), format=np.array(1))
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    for name in ("c.npz", "d.npz", "missing.npz"):
        with pytest.raises(InputError, match="holds no quality model"):
            quality.load(tmp_path / name)


@given(
    st.lists(st.sampled_from(["he", "she", "hers", "his", "中国", "国", "国人", "A b", "é", "x"]), max_size=8),
    st.lists(st.sampled_from(["he", "s", "hers", "HIS", " ", "中国", "人", "a B", "é", "x", "1", "."]), max_size=12),
)
@settings(deadline=None, max_examples=100)
def test_words_of_a_list_are_found_as_by_looking_for_each(listed: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    lower = "".join(c.lower() if c.isascii() else c for c in text)

    def inside(at: int) -> bool:
        return 0 < at < len(lower) and all(c.isascii() and c.isalnum() for c in lower[at - 1 : at + 1])

    found = {
        word: sum(
            lower.startswith(word, at) and not inside(at) and not inside(at + len(word)) for at in range(len(lower))
        )
        for word in {word.lower() for word in listed}
    }
    counts = count_words(pa.array(["", text]), make_word_list(listed))
    assert counts.tolist() == [[0, 0], [sum(found.values()), sum(count > 0 for count in found.values())]]


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("http://www.spam.example/x", True),
        ("https://a.b.SPAM.example.:80/", True),
        ("spam.example", True),
        ("http://notspam.example/", False),
        ("http://ok.example/casino-online", True),
        ("http://ok.example/casinos", False),
        ("http://[broken", False),
        ("", False),
    ],
)
def test_addresses_are_refused_by_host_and_word(url: str, refused: bool) -> None:
    assert make_url_rules(["WWW.spam.example", " "], ["Casino"]).refuse(url) is refused


def test_lists_models_sources_and_meta_become_signals(tmp_path: Path) -> None:
    text = " ".join(sentence(12) for _ in range(4))
    records = [
        {"text": text, "meta": {"url": "http://spam.example/1", "pile_set_name": "a"}},
        {"text": text, "meta": {"url": "http://ok.example/1", "pile_set_name": "b/c"}},
        {"text": text + " Blasted weather!", "meta": {"pile_set_name": "a", "perplexity": 600.5}},
        {"text": text, "meta": {"pile_set_name": "a", "perplexity": "?", "url": 5}},
    ]
    raw.write(tmp_path / "in.jsonl", raw.jsonl(records))
    (tmp_path / "hosts").write_text("# bad\nspam.example\n")
    (tmp_path / "words").write_text("blasted\n")
    rules = "{name: listed, signal: listed_words, max: 0}, {name: ppl, signal: perplexity, max: 99}"
    (tmp_path / "p.yaml").write_text(f"description: x\nrules: [{rules}]")
    options = FilterOptions(
        profile=str(tmp_path / "p.yaml"),
        url_lists=(str(tmp_path / "hosts"),),
        word_lists=(str(tmp_path / "words"),),
        drop_sources=("b/*",),
    )
    success = run([tmp_path / "in.jsonl"], tmp_path / "out", options, RunnerOptions(workers=1))
    assert success.dropped == {"url": 1, "source": 1, "listed": 1}
    (row,) = [
        r for r in pq.read_table(tmp_path / "out/dropped/part-00000.parquet").to_pylist() if r["reason"] == "listed"
    ]
    assert json.loads(row["broken"]) == {"listed": 1, "ppl": 600.5}
    with pytest.raises(UsageError, match="is no file"):
        digest_files(FilterOptions(word_lists=(str(tmp_path / "none"),)))
