"""The mip stage: every row x template is accounted for, any source, the same bytes however it is run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mip_mixtures import ROWS, TEMPLATES, run_here, write_mixture

from glm_data.errors import ConfigError, InputError, UsageError
from glm_data.formats import Unreadable
from glm_data.formats.rows import read_rows
from glm_data.manifest import read_success
from glm_data.mip import MipOptions
from glm_data.mip.shard import SCHEMA
from pipelines import render_mip

DEMO = Path(__file__).parents[1] / "manifests" / "demo" / "mip" / "mixture.yaml"


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_and_template_is_accounted_for(tmp_path: Path) -> None:
    success = run_here(write_mixture(tmp_path / "in"), tmp_path / "out", MipOptions(max_error_fraction=0.5))
    assert success.records == len(ROWS) * 3 == success.kept + sum(success.dropped.values())
    assert success.dropped == {
        "duplicate": 1, "empty_prompt": 1, "empty_target": 1, "error": 1, "hidden_label": 2, "not_applicable": 1,
    }  # fmt: skip
    assert success.ok
    table = pq.read_table(tmp_path / "out" / "data" / "part-00000.parquet")
    assert table.schema == SCHEMA
    assert table["id"].to_pylist()[:2] == ["toy/train#0/aaaa", "toy/train#0/bbbb"]
    first = table.slice(0, 1).to_pylist()[0]
    assert first == {
        "id": "toy/train#0/aaaa", "dataset": "toy", "subset": "", "split": "train", "row": 0, "template": "aaaa",
        "template_name": "ask", "template_version": "", "lang": "en", "shots": 0, "options": "", "prompt": "one?",
        "target": "yes",
    }  # fmt: skip
    assert success.counts["template/toy/train/ask/hidden_label"] == 1
    assert success.facts["datasets"]["toy/train"]["kept"] == success.kept
    refused = read_lines(tmp_path / "out" / "refused" / "part-00000.jsonl")
    assert refused == [{"row": 2, "template": "divide", "reason": "ZeroDivisionError: division by zero"}]


def test_too_many_errors_trip_the_guard_rail(tmp_path: Path) -> None:
    arguments = [str(write_mixture(tmp_path / "in")), "--output", str(tmp_path / "out")]
    assert render_mip.main(arguments) == 3
    assert render_mip.main([*arguments, "--max-error-fraction", "0.1", "--overwrite"]) == 0


def test_bad_rows_are_counted_and_kept_aside(tmp_path: Path) -> None:
    lines = [json.dumps(ROWS[0]), "{broken", "[1]", json.dumps(ROWS[1])]
    success = run_here(write_mixture(tmp_path / "in", lines), tmp_path / "out", MipOptions(max_bad_fraction=0.0))
    assert success.records == 12
    assert success.unreadable == {"malformed_json": 3, "wrong_type": 3}
    assert not success.ok
    lost = read_lines(tmp_path / "out" / "unreadable" / "part-00000.jsonl")
    assert [item["record"] for item in lost] == [1, 2]


def test_hostile_rows_cost_themselves_and_nothing_else(tmp_path: Path) -> None:
    deep = '{"text": ' + "[" * 400 + "1" + "]" * 400 + ', "label": 1, "number": 1}'
    lines = [json.dumps(ROWS[0]), deep, '{"text": "\\ud800", "label": 1}', json.dumps(ROWS[1])]
    success = run_here(write_mixture(tmp_path / "in", lines), tmp_path / "out", MipOptions(max_bad_fraction=1))
    assert success.records == 12 == success.kept + sum(success.dropped.values()) + sum(success.unreadable.values())
    assert success.unreadable == {"too_deep": 3, "lone_surrogate": 3}


def test_cap_and_weight_choose_by_hash_and_say_so(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"row {i}", "label": 1, "number": 1}) for i in range(200)]

    def kept(name: str, **dataset: Any) -> set[str]:
        out = tmp_path / name
        success = run_here(write_mixture(tmp_path / f"in-{name}", lines, **dataset), out)
        assert success.records == 600 == success.kept + sum(success.dropped.values())
        return set(pq.read_table(out / "data" / "part-00000.parquet")["id"].to_pylist())

    whole, capped, less = kept("whole"), kept("capped", cap=100), kept("less", cap=40)
    assert len(whole) == 600
    assert (len(capped), len(less)) == (100, 40)
    assert less < capped < whole
    weighted = kept("weighted", weight=0.5)
    assert 240 < len(weighted) < 360
    assert kept("both", weight=0.5, cap=100) == capped


def test_another_seed_changes_only_what_is_random(tmp_path: Path) -> None:
    manifest = write_mixture(
        tmp_path / "in", [json.dumps({"text": f"row {i}", "label": 1, "number": 1}) for i in range(20)]
    )
    tables = []
    for seed in (0, 1):
        run_here(manifest, tmp_path / f"out{seed}", MipOptions(seed=seed))
        tables.append(pq.read_table(tmp_path / f"out{seed}" / "data" / "part-00000.parquet").to_pylist())
    different = [(a, b) for a, b in zip(*tables, strict=True) if a != b]
    assert different
    assert all(a["template_name"] == "copy" and a["target"] == b["target"] for a, b in different)


def test_the_demo_renders_whole_and_the_same_in_any_order(tmp_path: Path) -> None:
    one = render_mip.run(DEMO, tmp_path / "one")
    two = run_here(DEMO, tmp_path / "two", backwards=True)
    assert one.digest == two.digest
    assert one.ok
    assert set(one.dropped) == {"not_applicable"}
    assert not one.unreadable
    assert not [name for name in one.counts if name.startswith("not_in_choices")]
    languages = {name: count for name, count in one.counts.items() if name.startswith("lang/")}
    assert set(languages) == {"lang/en", "lang/zh-Hans"}
    assert min(languages.values()) > 400
    assert render_mip.run(DEMO, tmp_path / "one") == read_success(tmp_path / "one")


def test_the_demo_holds_the_lines_of_its_corpus() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (DEMO.parent / "data").glob("*.jsonl"))
    for line in (
        "Paris is the capital of France.",
        "The quick brown fox jumps over the lazy dog.",
        "北京是中国的首都。",
        "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    ):
        assert text.count(line) >= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "none.jsonl"}, "none.jsonl' does not exist"),
        ({"weight": 0}, "must be above 0"),
        ({"cap": 0}, "must be at least 1"),
        ({"name": "other"}, "templates of 'toy', not of 'other'"),
        ({"exclude": {"asks": "noisy"}}, "Did you mean 'ask'"),
        ({"exclude": dict.fromkeys(("ask", "copy", "divide"), "noisy")}, "leaves no template"),
        ({"exclude": {"ask": " "}}, "excluded without a reason"),
        ({"langage": "en"}, "Did you mean 'language'"),
    ],
)
def test_manifests_that_cannot_be_meant(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_here(write_mixture(tmp_path / "in", **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_hostile_template_stops_the_stage_before_it_begins(tmp_path: Path) -> None:
    manifest = write_mixture(tmp_path / "in")
    bad = TEMPLATES.replace("{{1 / number}}", "{{ text.__class__ }}")
    (manifest.parent / "templates.yaml").write_text(bad, encoding="utf-8")
    assert render_mip.main([str(manifest), "--output", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_one_manifest_at_a_time(tmp_path: Path) -> None:
    assert render_mip.main([str(DEMO), str(DEMO), "--output", str(tmp_path / "out")]) == UsageError.exit_code


def test_all_sources_give_the_same_rows(tmp_path: Path) -> None:
    import datasets

    rows = [{"text": 'a, b\n"c"', "label": 1}, {"text": "狐狸", "label": 0}]
    encoded = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(encoded), encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(encoded).encode()))
    (tmp_path / "a.json").write_text("[" + ",\n".join(encoded) + "]", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text('text,label\n"a, b\n""c""",1\n狐狸,0\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a, b\n""c"""\t1\n狐狸\t0\n', encoding="utf-8")
    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": whole.select([1, 0]), "test": whole}).save_to_disk(str(tmp_path / "splits"))
    for name in ("a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "a.csv", "a.tsv", "one"):
        assert list(read_rows(tmp_path / name)) == list(enumerate(rows)), name
    assert list(read_rows(tmp_path / "splits", "test")) == list(enumerate(rows))
    assert list(read_rows(tmp_path / "splits")) == list(enumerate(rows[::-1]))
    with pytest.raises(InputError, match="no 'dev'"):
        read_rows(tmp_path / "splits", "dev")


def test_sources_that_hold_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is plain text, which has no rows with fields; give JSON lines"):
        read_rows(tmp_path / "a.txt")
    with pytest.raises(InputError, match="save_to_disk"):
        read_rows(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n1,2,3\n")
    rows = list(read_rows(tmp_path / "a.csv"))
    assert rows[0] == (0, {"a": 1, "b": 2})
    assert isinstance(rows[1], Unreadable)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    assert [type(row) for row in read_rows(tmp_path / "a.parquet")] == [Unreadable]
