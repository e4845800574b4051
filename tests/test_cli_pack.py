"""``pack``, ``verify`` and ``inspect`` on small stages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from packs import make_inputs, make_pack

from glm_data.cli.inspect import text_of
from glm_data.cli.output import visible
from glm_data.cli.shell import run
from glm_data.loading.rows import PackedRows
from glm_data.packing.masking import invert
from glm_data.stage import read_success
from tokenizer import Tokenizer


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("stages"))


def test_pack_makes_the_same_as_the_stage_function(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tokenizer, ids, mip = make_inputs(tmp_path)
    arguments = ["pack", str(ids), "--tokenizer", str(tokenizer), "--mip", str(mip), "--out", str(tmp_path / "pack")]
    assert run([*arguments, "--seq-length", "256", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["digest"] == read_success(pack).digest == read_success(tmp_path / "pack").digest
    assert value["ok"] is True
    assert value["records"] == value["kept"] == read_success(pack).records


def test_the_table_says_what_came_of_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, tokenizer, ids, _ = make_inputs(tmp_path)
    out = tmp_path / "pack"
    assert run(["pack", str(ids), "--tokenizer", str(tokenizer), "--out", str(out), "--seq-length", "256"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"pack -> {out}\n")
    for name in ("records", "kept", "dropped", "unreadable", "read", "written", "time"):
        assert re.search(rf"^  {name} +\d", said, re.MULTILINE), name
    assert re.search(r"^  ok ", said, re.MULTILINE)


def test_other_options_are_refused_and_overwrite_starts_afresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tokenizer, ids, _ = make_inputs(tmp_path)
    arguments = ["pack", str(ids), "--tokenizer", str(tokenizer), "--out", str(tmp_path / "pack"), "-q"]
    assert run([*arguments, "--seq-length", "256"]) == 0
    assert run([*arguments, "--seq-length", "512"]) == 2
    assert "--seq-length 256 -> 512" in capsys.readouterr().err
    assert run([*arguments, "--seq-length", "512", "--overwrite"]) == 0
    assert read_success(tmp_path / "pack").facts["seq_length"] == 512
    assert capsys.readouterr() == ("", "")


def test_a_tripped_guard_rail_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, tokenizer, ids, mip = make_inputs(tmp_path, mip_rows=2)
    arguments = ["pack", str(ids), "--tokenizer", str(tokenizer), "--mip", str(mip), "--out", str(tmp_path / "pack")]
    assert run([*arguments, "--seq-length", "256", "--mip-ratio", "0.5", "--json"]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out)["ok"] is False
    assert "guard rail" in said.err


def test_verify_passes_a_pack_and_names_the_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = make_pack(tmp_path)
    assert run(["verify", str(pack)]) == 0
    assert "ok rows:" in capsys.readouterr().out
    shard = next(pack.glob("data-*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    assert run(["verify", str(pack), "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["ok"] is False
    assert f"{shard.name} has changed" in said.err


def test_inspect_shows_the_source_text_of_every_piece(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed, model = PackedRows.open(pack), Tokenizer.load(pack)
    assert run(["inspect", str(pack), "--rows", str(len(packed)), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown) == len(packed)
    for item in shown:
        rows = packed.rows([item["row"]])
        eop = model.special.eop
        sources, tails = invert(rows, 0, eop), iter(rows.row_tails(0).tolist())
        for piece, source in zip(item["pieces"], sources, strict=True):
            texts = {number: span["text"] for number, span in enumerate(piece["spans"], 1)}
            whole = "".join(texts[part] if isinstance(part, int) else part for part in piece["part_a"])
            if piece["kind"] == "gmask":
                tail = next(tails)
                assert tail in (source[-1], eop)
                source = source if tail == eop else source[:-1]
            assert whole == text_of(source, model) or "\ufffd" in whole, "a mask may cut a character of several bytes"
        assert sum(origin["tokens"] for origin in item["origins"]) >= sum(map(len, sources)) - len(sources)


def test_inspect_draws_masks_and_part_b(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = PackedRows.open(pack)
    kinds = {kind: row for row in range(len(packed)) for kind in packed.rows([row]).row_pieces(0)[:, 3].tolist()}
    for kind, words in {0: "[gMASK]1", 1: "[MASK]1", 2: "MIP"}.items():
        assert run(["inspect", str(pack), "--row", str(kinds[kind])]) == 0
        said = capsys.readouterr().out
        assert words in said
        assert "  B  1 " in said
        assert "at position" in said
        assert "\x1b[" not in said


def test_inspect_lists_places_with_their_targets(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(pack), "--row", "0", "--places"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("place"))
    packed = PackedRows.open(pack)
    batch = packed.batch([0])
    places = [line.split() for line in lines[head + 1 :]]
    assert [int(line[0]) for line in places] == list(range(len(places)))
    assert [int(line[2]) for line in places] == batch.position_ids[0, : len(places)].tolist()
    assert [int(line[3]) for line in places] == batch.tokens[0, : len(places)].tolist()


def test_inspect_refuses_a_row_outside_and_a_folder_that_is_no_pack(
    pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(pack), "--row", "99999"]) == 2
    assert "rows; the first is 0." in capsys.readouterr().err
    assert run(["inspect", str(pack.parent / "ids")]) == 2
    assert "not a pack" in capsys.readouterr().err


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    assert visible("a\x1b[31mb\u202ec\nd") == "a\\u001b[31mb\\u202ec⏎ d"
    assert visible("狐狸 👩‍🚀") == "狐狸 👩‍🚀"


def test_the_tokenizer_group_encodes_and_decodes(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(pack.parent / "tokenizer")
    assert run(["tokenizer", "encode", folder, "千里之行，始于足下。", "--json"]) == 0
    ids = json.loads(capsys.readouterr().out)["ids"]
    assert run(["tokenizer", "decode", folder, *map(str, ids)]) == 0
    assert capsys.readouterr().out == "千里之行，始于足下。\n"
    assert run(["tokenizer", "decode", folder, "seven"]) == 2
    assert "not a token id" in capsys.readouterr().err


def test_a_folder_without_a_tokenizer_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tokenizer", "encode", str(tmp_path), "text"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("glm-data: ")
    assert "Traceback" not in said
