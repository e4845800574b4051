"""The life of a document, told by the stages of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inspected_run import BROKEN, COPY, DROPPED, EN, NEAR, PILE, SHARED, ZH, make_run
from report_helpers import make_stage, shard

from glm_data.cli.shell import run
from glm_data.loading import PackedRows
from glm_data.loading.provenance import Documents, rows_with, slices_of
from tokenizer import Tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("job"))


def told(capsys: pytest.CaptureFixture[str], id: str, folder: Path) -> dict[str, Any]:
    assert run(["explain", id, str(folder), "--json", "--characters", "0"]) == 0
    return json.loads(capsys.readouterr().out)


def outcomes(life: dict[str, Any]) -> dict[str, str]:
    return {event["stage"]: event["outcome"] for event in life["events"]}


def details(life: dict[str, Any], stage: str) -> dict[str, Any]:
    return next(event["details"] for event in life["events"] if event["stage"] == stage)


def test_a_document_is_followed_from_the_record_to_its_tokens_in_rows(made: Path, capsys) -> None:
    life = told(capsys, SHARED, made)
    assert outcomes(life) == {"filter": "kept", "dedupe": "kept", "tokenize": "tokenized", "pack": "packed"}
    assert (life["source"], life["lang"], life["text"]) == ("Set 1", "en", EN[1])
    assert details(life, "dedupe")["duplicates"] == 2
    assert details(life, "dedupe")["removed_for_it"] == [COPY]
    place = details(life, "tokenize")
    ids = Tokenizer.load(made / "tokenizer").encode(EN[1])
    assert place["length"] == len(ids)
    found: dict[int, int] = {}
    pack, model = PackedRows.open(made / "pack"), Tokenizer.load(made / "pack")
    for item in details(life, "pack")["slices"]:
        (own,) = [s for s in slices_of(pack, item["row"]) if (s.piece, s.offset) == (item["piece"], item["offset"])]
        assert len(own.ids) == item["tokens"]
        text = model.decode(own.ids.tolist())
        assert text.strip() in EN[1] + "</s>"
        found.update((item["offset"] + n, token) for n, token in enumerate(own.ids.tolist()))
    assert details(life, "pack")["rows"] == len({item["row"] for item in details(life, "pack")["slices"]})
    assert [found[n] for n in range(len(ids))] == list(ids)


def test_rows_with_a_document_are_those_whose_slices_name_it(made: Path) -> None:
    pack = PackedRows.open(made / "pack")
    for document in range(len(Documents(made / "pack"))):
        plain = [row for row in range(len(pack)) if any(item.document == document for item in slices_of(pack, row))]
        assert rows_with(pack, document) == plain


def test_a_removed_document_names_the_kept_one_and_the_measured_similarity(made: Path, capsys) -> None:
    life = told(capsys, NEAR, made)
    assert outcomes(life) == {"filter": "kept", "dedupe": "removed"}
    removed = details(life, "dedupe")
    assert removed["kept"] == "pile/00.jsonl#2"
    assert removed["rule"] == "near"
    assert 0.8 <= removed["jaccard"] < 1
    assert f"similarity {removed['jaccard']:.4f}, 0.8 is enough" in life["events"][1]["sentence"]
    assert told(capsys, COPY, made)["events"][1]["sentence"].startswith("removed, an exact copy of 'pile/00.jsonl#1'")
    assert details(told(capsys, "wudao/00.json#12", made), "dedupe")["kept"] == "wudao/00.json#5"
    assert told(capsys, "wudao/00.json#5", made)["text"].endswith(ZH[5])


def test_dropped_and_unreadable_records_come_with_reason_and_value(made: Path, capsys) -> None:
    life = told(capsys, DROPPED, made)
    assert outcomes(life) == {"filter": "dropped"}
    dropped = details(life, "filter")
    (row,) = pq.read_table(made / "filter/dropped/part-00000.parquet").to_pylist()
    assert (dropped["reason"], dropped["value"]) == (row["reason"], row["value"])
    sentence = life["events"][0]["sentence"]
    assert sentence.startswith(f"dropped for {row['reason']}: {row['value']:.4g} (")
    assert sentence.endswith(" allowed)")
    life = told(capsys, BROKEN, made)
    assert outcomes(life) == {"filter": "unreadable"}
    assert life["text"] == '{"text": "cut'
    assert life["events"][0]["sentence"].startswith("could not be read: malformed_json at byte ")


def test_a_single_stage_and_a_stage_that_is_not_finished(made: Path, tmp_path: Path, capsys) -> None:
    assert outcomes(told(capsys, COPY, made / "dedupe")) == {"dedupe": "removed"}
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "run/dedupe/_SUCCESS.json").unlink()
    life = told(capsys, COPY, tmp_path / "run")
    assert life["unfinished"] == ["dedupe"]
    assert run(["explain", COPY, str(tmp_path / "run")]) == 0
    assert "not finished yet: dedupe" in capsys.readouterr().out
    for success in (tmp_path / "run").glob("*/_SUCCESS.json"):
        success.unlink()
    assert run(["explain", COPY, str(tmp_path / "run")]) == 2
    assert "holds no finished stage (begun: filter, dedupe" in capsys.readouterr().err


def test_documents_written_as_json_lines_are_found_too(made: Path, tmp_path: Path, capsys) -> None:
    raw = made.parent / "raw/pile"
    out = tmp_path / "filter"
    assert (
        run(["filter", str(raw), "--out", str(out), "--output-format", "jsonl.zst", "--max-bad-fraction", "1", "-q"])
        == 0
    )
    capsys.readouterr()
    assert told(capsys, SHARED, out)["text"] == EN[1]


@pytest.mark.parametrize(
    ("id", "hint"),
    [
        ("pile/0.jsonl#3", "Did you mean 'pile/00.jsonl#3'?"),
        ("00.json#3", "Did you mean 'wudao/00.json#3'?"),
        ("pile/00.jsonl#99", "'pile/00.jsonl' has 17 records, #0 to #16."),
        ("pile-00.jsonl-3", "Did you mean 'pile/00.jsonl#3'?"),
        ("\u202e", "Ids look like 'pile/00.jsonl#0'."),
    ],
)
def test_an_id_nobody_knows_is_answered_with_what_may_be_meant(made: Path, capsys, id: str, hint: str) -> None:
    assert run(["explain", id, str(made)]) == 2
    said = capsys.readouterr().err
    assert "no stage in" in said
    assert hint in said
    assert "\u202e" not in said


def test_what_is_printed_cannot_steer_a_terminal(made: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "dedupe"
    assert run(["dedupe", str(made.parent / "raw/pile"), "--out", str(out), "--max-bad-fraction", "1", "-q"]) == 0
    capsys.readouterr()
    assert told(capsys, "pile/00.jsonl#14", out)["text"] == PILE[14]
    for arguments in ([], ["--json"]):
        assert run(["explain", "pile/00.jsonl#14", str(out), *arguments]) == 0
        printed = capsys.readouterr().out
        assert not set(printed) & {"\u202e", "\u202c", "\x1b", "\u009b"}
        assert "\\u202e" in printed
    assert run(["explain", NEAR, str(made)]) == 0
    assert f"glm-data explain 'pile/00.jsonl#2' {made}" in capsys.readouterr().out.replace("\n", "")


def test_what_was_found_in_a_document_is_named(tmp_path: Path, capsys) -> None:
    kept = {"id": "in#1", "text": "what is left", "source": "web", "lang": "en", "meta": "{}"}
    found = {
        "id": "in#1",
        "benchmark": "quiz",
        "containment": 0.9,
        "start": 4,
        "bytes": 80,
        "text": "the",
        "action": "cut",
    }
    (tmp_path / "run").mkdir()
    for name, rows in (("data", [kept]), ("ledger", [{**found, "item": f"{n}"} for n in range(5)])):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    writes = {f"{name}/part-00000.parquet": (tmp_path / f"{name}.parquet").read_bytes() for name in ("data", "ledger")}
    make_stage(tmp_path / "run", "decontaminate", writes=writes, records=[shard(0, 1, {}, {})])
    (event,) = told(capsys, "in#1", tmp_path / "run")["events"]
    assert event["sentence"] == "kept, as en; 5 stretches of it hold quiz 0, quiz 1, quiz 2 and 2 more items"
    assert [row["item"] for row in event["details"]["found"]] == ["0", "1", "2", "3", "4"]


def test_ids_with_line_ends_and_escapes_are_shown(made: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(made / "dedupe", tmp_path / "dedupe")
    table = pq.read_table(tmp_path / "dedupe/duplicates.parquet").to_pylist()
    evil = "pile\x1b[2J\n#1"
    table[0] |= {"removed": evil, "kept": evil + "k", "earlier": "9f"}
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "dedupe/duplicates.parquet")
    assert run(["explain", evil, str(tmp_path / "dedupe")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "pile\\u001b[2J⏎ #1" in printed
    assert "of an earlier run (" in printed
    assert "to go on with" not in printed


def test_a_damaged_plan_is_a_sentence(made: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(made / "dedupe", tmp_path / "dedupe")
    (tmp_path / "dedupe/_plan.json").write_text("{")
    assert run(["explain", COPY, str(tmp_path / "dedupe")]) == 1
    assert "cannot be read" in capsys.readouterr().err
