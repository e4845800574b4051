"""What is exported, read back from the bytes by readers that know nothing of ours, is what the plain twin assembles."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from loading_packs import SPECIALS, assembled, read_rows, write_pack

from glm_data.cli.shell import run
from glm_data.errors import StageMismatchError, UsageError
from glm_data.exporting import mds, stage
from glm_data.exporting.stage import ExportOptions, export_stage
from glm_data.packing.rows import KINDS
from glm_data.stage import read_success

ROWS, LENGTH = 37, 64
COLUMNS = ("input_ids", "targets", "position_ids", "loss_mask", "segments")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack") / "pack", ROWS)


@pytest.fixture(scope="module")
def wanted(pack: Path) -> list[dict[str, Any]]:
    """Every row as the twin assembles it, and its pieces as ``[start, sep, end, kind]``."""
    rows = []
    for row in read_rows(pack):
        columns = {"input_ids": row["tokens"], **assembled(row, SPECIALS["eop"])}
        pieces = np.reshape(row["pieces"], (-1, 4)).tolist()
        rows.append({**{name: columns[name] for name in COLUMNS}, "pieces": pieces})
    return rows


def dense(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in COLUMNS} for row in rows]


@pytest.fixture(autouse=True)
def several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_ROWS_A_FILE", 10)
    monkeypatch.setattr(mds, "SHARD_BYTES", 15 * 64 * 10)


def test_json_lines(pack: Path, wanted: list[dict[str, Any]], tmp_path: Path) -> None:
    export_stage(pack, tmp_path / "out", ExportOptions("jsonl"))
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert len(files) == 4
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(ROWS))
    pieces = [[[p["start"], p["sep"], p["end"], KINDS.index(p["kind"])] for p in line["pieces"]] for line in lines]
    assert [{**columns, "pieces": some} for columns, some in zip(dense(lines), pieces, strict=True)] == wanted


def test_arrow_that_datasets_opens(pack: Path, wanted: list[dict[str, Any]], tmp_path: Path) -> None:
    import datasets

    export_stage(pack, tmp_path / "out", ExportOptions("hf-dense"))
    opened = datasets.load_from_disk(str(tmp_path / "out"))
    assert len(list((tmp_path / "out").glob("data-*-of-00004.arrow"))) == 4
    assert list(opened) == dense(wanted)
    types = {name: (feature.feature.dtype, feature.length) for name, feature in opened.features.items()}
    whole, narrow = ("int32", LENGTH), ("uint8", LENGTH)
    assert types == dict(zip(COLUMNS, (whole, whole, whole, narrow, ("uint16", LENGTH)), strict=True))


@pytest.mark.parametrize("kind", ["uint16", "int32"])
def test_megatrons_indexed_data_set(wanted: list[dict[str, Any]], tmp_path: Path, kind: str) -> None:
    export_stage(write_pack(tmp_path / "pack", ROWS, token_type=kind), tmp_path / "out", ExportOptions("megatron"))
    codes = {1: "B", 4: "i", 8: "H"}
    for name in COLUMNS:
        index, values = ((tmp_path / "out" / f"{name}.{suffix}").read_bytes() for suffix in ("idx", "bin"))
        assert index[:9] == b"MMIDIDX\0\0"
        version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
        assert (version, sequences, documents) == (1, ROWS, ROWS + 1)
        assert code == {"loss_mask": 1, "input_ids": 8 if kind == "uint16" else 4}.get(name, code)
        lengths = struct.unpack_from(f"<{ROWS}i", index, 34)
        starts = struct.unpack_from(f"<{ROWS}q", index, 34 + 4 * ROWS)
        ends = struct.unpack_from(f"<{ROWS + 1}q", index, 34 + 12 * ROWS)
        assert len(index) == 34 + 12 * ROWS + 8 * (ROWS + 1)
        assert ends == tuple(range(ROWS + 1))
        got = [
            list(struct.unpack_from(f"<{n}{codes[code]}", values, at)) for n, at in zip(lengths, starts, strict=True)
        ]
        assert got == [row[name] for row in wanted]
        assert starts[-1] + lengths[-1] * struct.calcsize(codes[code]) == len(values)


def read_mds(data: bytes) -> list[dict[str, list[Any]]]:
    """The samples of an MDS shard, by its description alone."""
    (count,) = struct.unpack_from("<I", data)
    begins = struct.unpack_from(f"<{count + 1}I", data, 4)
    about = json.loads(data[4 + 4 * (count + 1) : begins[0]])
    samples = []
    for begin, end in itertools.pairwise(begins):
        place, sizes, sample = begin, [], {}
        for size in about["column_sizes"]:
            sizes.append(size if size is not None else struct.unpack_from("<I", data, place)[0])
            place += 0 if size is not None else 4
        for name, kind, size in zip(about["column_names"], about["column_encodings"], sizes, strict=True):
            _, dtype, *shape = kind.split(":")
            value, place = data[place : place + size], place + size
            if not shape:
                assert value[0] == 2 << 2 | 1, "two dimensions, uint16 each"
                shape, value = struct.unpack_from("<HH", value, 1), value[5:]
            sample[name] = np.frombuffer(value, dtype).reshape([int(n) for n in shape]).tolist()
        assert place == end
        samples.append(sample)
    assert begins[-1] == len(data)
    return samples


def test_mosaics_mds(pack: Path, wanted: list[dict[str, Any]], tmp_path: Path) -> None:
    export_stage(pack, tmp_path / "out", ExportOptions("mds"))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["version"] == 2
    assert [shard["samples"] for shard in index["shards"]] == [10, 10, 10, 7]
    samples = []
    for shard in index["shards"]:
        data = (tmp_path / "out" / shard["raw_data"]["basename"]).read_bytes()
        assert shard["raw_data"]["bytes"] == len(data)
        assert shard["raw_data"]["hashes"] == {"xxh3_128": xxhash.xxh3_128_hexdigest(data)}
        assert (shard["format"], shard["version"], shard["compression"], shard["zip_data"]) == ("mds", 2, None, None)
        assert shard["column_names"] == sorted(shard["column_names"]), "readers take the columns in this order"
        samples += read_mds(data)
    assert samples == [dict(sorted(row.items())) for row in wanted]


@pytest.mark.parametrize("kind", ["jsonl", "hf-dense", "megatron", "mds"])
def test_a_stage_with_digests_that_goes_on_where_it_stopped(pack: Path, tmp_path: Path, kind: Any) -> None:
    success = export_stage(pack, tmp_path / "out", ExportOptions(kind))
    assert success.ok
    assert (success.records, success.facts["rows"], success.facts["format"]) == (ROWS, ROWS, kind)
    assert success.facts["pack"] == read_success(pack).digest
    whole = {item.name: (tmp_path / "out" / item.name).read_bytes() for item in success.files}
    assert {name: xxhash.xxh3_128_hexdigest(data) for name, data in whole.items()} == {
        item.name: item.digest for item in success.files
    }
    (tmp_path / "out" / "_SUCCESS.json").unlink()
    (tmp_path / "out" / "_shards" / "00001.json").unlink()
    (tmp_path / "out" / success.files[0].name).unlink()
    assert export_stage(pack, tmp_path / "out", ExportOptions(kind)) == success
    assert {name: (tmp_path / "out" / name).read_bytes() for name in whole} == whole
    other = ExportOptions("mds" if kind == "jsonl" else "jsonl")
    with pytest.raises(StageMismatchError, match=f"to '{kind}' -> '{other.to}'"):
        export_stage(pack, tmp_path / "out", other)


def test_targets_that_went_missing_trip_the_guard_rail(pack: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pack, tmp_path / "pack")
    manifest = json.loads((copy / "_SUCCESS.json").read_text())
    targets = manifest["counts"]["loss/mask"]
    manifest["counts"]["loss/mask"] += 1
    (copy / "_SUCCESS.json").write_text(json.dumps(manifest))
    (check,) = export_stage(copy, tmp_path / "out", ExportOptions("megatron")).checks
    assert not check.ok
    assert check.sentence == f"{targets} targets exported, {targets + 1} in the pack."


def test_what_is_no_pack_is_refused(pack: Path, tmp_path: Path) -> None:
    export_stage(pack, tmp_path / "out", ExportOptions("jsonl"))
    with pytest.raises(UsageError, match="is a finished 'export' stage, not a pack"):
        export_stage(tmp_path / "out", tmp_path / "again", ExportOptions("jsonl"))
    assert not (tmp_path / "again").exists()


def test_the_command_exports_and_says_what_it_did(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(pack), "--to", "jsonl", "--out", str(tmp_path / "a")]) == 0
    assert "targets exported" in capsys.readouterr().out
    assert run(["export", str(pack), "--to", "jsonl", "--out", str(tmp_path / "b"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["records"], said["digest"]) == (True, ROWS, read_success(tmp_path / "a").digest)
    assert run(["export", str(pack), "--out", str(tmp_path / "c")]) == 2
    assert "--to" in capsys.readouterr().err
    assert run(["export", str(pack), "--to", "parquet", "--out", str(tmp_path / "c")]) == 2
    assert "'hf-dense'" in capsys.readouterr().err
    assert run(["export", str(pack), "--to", "mds", "--out", str(tmp_path / "a")]) == 2
    assert "--overwrite" in capsys.readouterr().err
