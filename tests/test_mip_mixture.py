"""Mixtures: caps by formula, mapped rows, parts, any order of data sets, worked examples from train, the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mip_mixtures import ROWS, TEMPLATES, run_here, write_mixture

from glm_data.errors import ConfigError, InputError, UsageError
from glm_data.mip import MipOptions, RowMap, load_mixture
from glm_data.mip.fetch import fetch
from glm_data.mip.mixture import SAMPLE_CAPS, DataSet
from glm_data.mip.shard import Chosen, cap_limit
from glm_data.stage import Success
from pipelines import render_mip


def write_datasets(folder: Path, datasets: list[dict[str, Any]], **mixture: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump({**mixture, "datasets": datasets}), encoding="utf-8")
    return path


def samples(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]


def two_sets(folder: Path, order: int = 1) -> Path:
    """Two data sets whose rows differ."""
    entries = []
    for name, offset in (("one", 0), ("two", 100)):
        lines = [json.dumps({"text": f"{name} {n}", "label": n % 2, "number": 1}) for n in range(offset, offset + 30)]
        write_mixture(folder / name, lines)
        (folder / name / "templates.yaml").write_text(TEMPLATES.replace("toy", name), encoding="utf-8")
        entries.append({"name": name, "rows": f"{name}/rows.jsonl", "templates": f"{name}/templates.yaml"})
    shots = {"zero": 0.4, "one": 0.2, "few": 0.4}
    return write_datasets(folder, entries[::order], shots=shots, options=0.5)


def test_caps_follow_the_formula_unless_a_data_set_has_its_own(tmp_path: Path) -> None:
    entries = [
        {"name": "a"}, {"name": "b", "side": "deepstruct"}, {"name": "kelm", "side": "deepstruct"},
        {"name": "c", "cap": 7},
    ]  # fmt: skip

    def caps(formula: str) -> list[int | None]:
        path = write_datasets(tmp_path, entries, caps=formula, templates="t")
        return [item.cap for item in load_mixture(path).datasets]  # by key: a, b, c, kelm

    assert caps("glm-130b") == [100_000, 200_000, 7, 500_000]
    assert caps("t0") == [500_000, 500_000, 7, 500_000]
    assert caps("flan") == [30_000, 30_000, 7, 30_000]
    assert caps("flan-2021") == [3_000, 3_000, 7, 3_000]
    assert caps("none") == [None, None, 7, None]
    with pytest.raises(ConfigError, match="Invalid enum value 't5'"):
        caps("t5")


def test_a_larger_set_never_weighs_less() -> None:
    """T0's own formula takes ten times as many of the set that just stays below its limit as of the one above it."""
    cap, kept = 1000, []
    for rows in (cap // 20, cap // 10, cap // 10 + 1, cap // 5):
        dataset = DataSet(name="d", cap=cap)
        chosen = Chosen(dataset, 0, 10, cap_limit(dataset, 0, 10, rows))
        reasons = [chosen.reasons(number) for number in range(rows)]
        kept.append(sum(10 if each is None else each.count("") for each in reasons))
    assert kept == [cap // 2, cap, cap, cap]


def test_a_cap_of_flans_greatest_rate_mixes_in_proportion_to_its_rates() -> None:
    """FLAN 2021: rates of min(examples, 3,000), of sets of 30,000 examples at most; another seed draws others."""

    def kept(rows: int, seed: int) -> set[int]:
        dataset = DataSet(name="d", cap=SAMPLE_CAPS["flan-2021"]["t0"])
        chosen = Chosen(dataset, seed, 1, cap_limit(dataset, seed, 1, rows))
        return {number for number in range(rows) if not any(chosen.reasons(number) or ())}

    for rows in (10, 2_999, 3_000, 3_001, 30_000):
        assert len(kept(rows, 0)) == min(min(rows, 30_000), 3_000)
    assert len(kept(30_000, 0) & kept(30_000, 1)) < 450  # 300 by chance


@given(rows=st.integers(1, 300), templates=st.integers(1, 4), cap=st.integers(1, 400), block=st.integers(1, 64))
def test_a_cap_takes_exactly_the_pairs_with_the_lowest_hashes(rows: int, templates: int, cap: int, block: int) -> None:
    dataset = DataSet(name="d", cap=cap)
    limit = cap_limit(dataset, 0, templates, rows, block)
    assert limit == cap_limit(dataset, 0, templates, rows)
    chosen = Chosen(dataset, 0, templates, limit)
    kept = sum(templates if (each := chosen.reasons(row)) is None else each.count("") for row in range(rows))
    assert kept == min(cap, rows * templates)


def test_rows_are_mapped_to_what_templates_read() -> None:
    convert = RowMap(
        {"text": "review-body", "noun": "target.span1"}, {"label": {"good": 1, "true": 2}, "kind": {"x": "y"}},
        {"labels": ["a", "b ||| c"]},
    )  # fmt: skip
    row = convert({"review-body": "r", "target": {"span1": "n"}, "label": "good", "kind": "z"})
    assert (row["text"], row["noun"], row["label"], row["kind"]) == ("r", "n", 1, "z")
    assert "|||" not in row["labels"][1]
    assert convert({"label": True})["label"] == 2
    assert convert({"label": "-"})["label"] == -1
    assert convert({"label": "good", "kind": "x"})["kind"] == "y"
    assert convert({"target": "no object"})["noun"] is None


def test_hidden_labels_and_missing_columns_give_no_sample(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"row {n}", "label": label}) for n, label in enumerate(["0", "1", "-", None])]
    manifest = write_mixture(tmp_path / "in", lines, values={"label": {"0": 0, "1": 1}}, exclude={"divide": "x"})
    success = run_here(manifest, tmp_path / "out")
    assert success.dropped["hidden_label"] == 4
    assert {row["row"] for row in samples(tmp_path / "out")} == {0, 1}


def test_the_order_of_data_sets_makes_no_difference(tmp_path: Path) -> None:
    one = run_here(two_sets(tmp_path / "in"), tmp_path / "one")
    two = run_here(two_sets(tmp_path / "in", -1), tmp_path / "two", backwards=True)
    assert (one.digest, one.key) == (two.digest, two.key)


def test_parts_hold_what_the_whole_holds(tmp_path: Path) -> None:
    manifest = two_sets(tmp_path / "in")
    whole = run_here(manifest, tmp_path / "whole")
    parts = render_mip.run(manifest, tmp_path / "parts", MipOptions(part_rows=7))
    assert parts.digest == run_here(manifest, tmp_path / "again", MipOptions(part_rows=7), backwards=True).digest
    assert (whole.shards, parts.shards) == (2, 10)
    assert samples(tmp_path / "whole") == samples(tmp_path / "parts")
    same = ("records", "kept", "dropped", "counts")
    assert [getattr(whole, name) for name in same] == [getattr(parts, name) for name in same]
    assert whole.facts == parts.facts


def test_a_folder_of_datasets_goes_through_the_pipeline(tmp_path: Path) -> None:
    import datasets

    manifest = write_mixture(tmp_path / "in", rows="saved", exclude={"divide": "x"})
    rows = [{"text": f"row {number}", "label": number % 2} for number in range(5)]
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "in" / "saved"))
    assert render_mip.run(manifest, tmp_path / "out", MipOptions(part_rows=2)).kept == 7
    assert {row["row"] for row in samples(tmp_path / "out")} == set(range(5))


def test_duplicates_are_found_within_a_part(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "again", "label": 0, "number": 1})] * 4
    exclude = {"divide": "x", "copy": "x"}
    assert run_here(write_mixture(tmp_path / "in", lines, exclude=exclude), tmp_path / "a").kept == 1
    halves = run_here(tmp_path / "in" / "mixture.yaml", tmp_path / "b", MipOptions(part_rows=2))
    assert (halves.kept, halves.dropped) == (2, {"duplicate": 2})


def test_worked_examples_come_from_train_alone(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"test {n}", "label": n % 2, "number": 1}) for n in range(20)]
    manifest = write_mixture(tmp_path / "in", lines, split="test", shots={"zero": 0, "few": 1})
    assert {row["shots"] for row in samples_of(manifest, tmp_path / "none")} == {0}  # no train, no example
    train = [json.dumps({"text": f"train {n}", "label": n % 2, "number": 1}) for n in range(20)]
    manifest = write_mixture(tmp_path / "in", lines, split="test", shots={"zero": 0, "few": 1}, train="train.jsonl")
    (tmp_path / "in" / "train.jsonl").write_text("\n".join(train), encoding="utf-8")
    made = samples_of(manifest, tmp_path / "out")
    assert {row["shots"] for row in made} >= {2, 3, 4, 5}
    for row in made:
        assert row["prompt"].count("test ") == 1
        assert row["prompt"].count("train ") >= row["shots"]


def samples_of(manifest: Path, out: Path) -> list[dict[str, Any]]:
    run_here(manifest, out)
    return samples(out)


def test_data_sets_that_are_not_there_stop_or_are_left_out_by_name(tmp_path: Path) -> None:
    manifest = write_mixture(tmp_path / "in")
    entry = yaml.safe_load(manifest.read_text(encoding="utf-8"))["datasets"][0]
    lacking = {"name": "far", "templates": "templates.yaml", "status": "own rows", "hub": "owner/far"}
    manifest = write_datasets(tmp_path / "in", [entry, lacking])
    with pytest.raises(ConfigError, match=r"'far/train'.*does not exist \(own rows\); `glm-data mip fetch` gets it"):
        run_here(manifest, tmp_path / "out")
    success: Success = run_here(manifest, tmp_path / "out", MipOptions(missing="skip", max_error_fraction=1))
    assert success.facts["missing"] == ["far/train"]
    assert success.records == 3 * len(ROWS)
    with pytest.raises(ConfigError, match="none of its 1 data sets is there"):
        run_here(write_datasets(tmp_path / "in", [lacking]), tmp_path / "no", MipOptions(missing="skip"))


def test_rows_and_templates_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    write_mixture(tmp_path / "rows" / "toy")
    (tmp_path / "rows" / "toy" / "rows.jsonl").rename(tmp_path / "rows" / "toy" / "train.jsonl")
    templates = tmp_path / "templates" / "toy"
    templates.mkdir(parents=True)
    (tmp_path / "rows" / "toy" / "templates.yaml").rename(templates / "templates.yaml")
    manifest = write_datasets(tmp_path / "in", [{"name": "toy"}])
    given = MipOptions(rows=str(tmp_path / "rows"), templates=str(tmp_path / "templates"), max_error_fraction=1)
    assert run_here(manifest, tmp_path / "out", given).records == 3 * len(ROWS)
    with pytest.raises(ConfigError, match="has no templates"):
        run_here(manifest, tmp_path / "no", MipOptions(rows=str(tmp_path / "rows")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shots": {"zero": 0}}, "shares of shots are all 0"),
        ({"shots": {"zero": -1}}, "shots.zero must be at least 0"),
        ({"options": 2}, "must be from 0 to 1"),
        ({"templates": "pack:zh/sentimant"}, "Did you mean 'zh/sentiment'"),
        ({"train": "none.jsonl"}, "none.jsonl' does not exist"),
    ],
)
def test_shares_and_packs_that_cannot_be_meant(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_here(write_mixture(tmp_path / "in", **change), tmp_path / "out")


def test_rows_are_fetched_once_and_whole(tmp_path: Path) -> None:
    import datasets

    asked = []

    def load(name: str, subset: str | None, split: str, revision: str | None) -> Any:
        asked.append((name, subset, split, revision))
        return datasets.Dataset.from_list([{"text": "a", "label": 1, "number": 1}])

    entry = {"name": "toy", "subset": "s", "hub": "owner/toy@v2", "templates": "t"}
    manifest = write_datasets(tmp_path, [entry, {"name": "own", "templates": "t"}], rows="rows")
    assert list(fetch(manifest, load=load)) == [("toy/s/train", "1 rows")]
    assert list(fetch(manifest, load=load)) == [("toy/s/train", "is there")]
    assert asked == [("owner/toy", "s", "train", "v2")]
    assert pq.read_table(tmp_path / "rows/toy/s/train.parquet").num_rows == 1


def test_what_the_hub_does_not_have_is_said_in_a_sentence(tmp_path: Path) -> None:
    def load(*_: Any) -> Any:
        raise ConnectionError("no\nnetwork")

    manifest = write_datasets(tmp_path, [{"name": "toy", "hub": "owner/toy", "templates": "t"}])
    with pytest.raises(InputError, match=r"'owner/toy' \(ConnectionError: no network\); check the name"):
        list(fetch(manifest, load=load))
    with pytest.raises(UsageError, match="names no 'hub'"):
        list(fetch(write_datasets(tmp_path, [{"name": "toy", "templates": "t"}])))
