"""Rows gathered from mapped shards are those that pyarrow reads; damage is told and never read outside of a file."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_packs import SPECIALS, assembled, read_rows, write_pack

from glm_data.errors import InputError, UsageError
from glm_data.loading import PackedRows
from glm_data.loading.batch import make_batch
from glm_data.packing.rows import GMASK, MASK, MIP, Rows

ROWS = 37


@pytest.fixture(scope="module", params=["uint16", "int32"])
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack") / "pack", ROWS, token_type=request.param)


@settings(deadline=None, max_examples=40)
@given(wanted=st.lists(st.integers(0, ROWS - 1), max_size=20))
def test_rows_are_those_that_pyarrow_reads(pack: Path, wanted: list[int]) -> None:
    rows, twin = PackedRows.open(pack).rows(wanted), [read_rows(pack)[row] for row in wanted]
    assert rows.tokens.dtype == np.int32
    assert rows.tokens.tolist() == [row["tokens"] for row in twin]
    assert [rows.row_pieces(at).ravel().tolist() for at in range(len(wanted))] == [row["pieces"] for row in twin]
    assert [rows.row_spans(at).ravel().tolist() for at in range(len(wanted))] == [row["spans"] for row in twin]
    assert [rows.row_tails(at).tolist() for at in range(len(wanted))] == [row["tails"] for row in twin]
    assert np.array_equal(PackedRows.open(pack).tokens(wanted), rows.tokens)


def test_origins_are_those_that_pyarrow_reads(pack: Path) -> None:
    rows = PackedRows.open(pack)
    assert [rows.origins(row).ravel().tolist() for row in range(ROWS)] == [row["origin"] for row in read_rows(pack)]


@pytest.mark.parametrize("positions", ["glm-130b", "glm-2d"])
def test_batches_are_what_the_plain_twin_assembles(pack: Path, positions: Any) -> None:
    wanted = np.random.default_rng(0).permutation(ROWS)
    batch = PackedRows.open(pack).batch(wanted, positions=positions)
    whole = read_rows(pack)
    for at, row in enumerate(wanted.tolist()):
        twin = assembled(whole[row], SPECIALS["eop"], two_rows=positions == "glm-2d")
        blocks = twin.pop("blocks")
        for name, values in twin.items():
            assert getattr(batch, name)[at].tolist() == values, (row, name)
        assert batch.pieces[at].ravel().tolist() == whole[row]["pieces"]
        if positions == "glm-2d":
            assert batch.block_position_ids is not None
            assert batch.block_position_ids[at].tolist() == blocks
        else:
            assert batch.block_position_ids is None


def test_weights_are_one_a_target_or_one_a_row(pack: Path) -> None:
    rows = PackedRows.open(pack)
    each, shared = rows.batch(range(ROWS)), rows.batch(range(ROWS), weighting="per-sequence")
    assert each.loss_weights.dtype == shared.loss_weights.dtype == np.float32
    assert np.array_equal(each.loss_weights, each.loss_mask)
    assert np.allclose(shared.loss_weights.sum(1, dtype=np.float64), 1, atol=1e-6)
    for mask, weights in zip(shared.loss_mask, shared.loss_weights, strict=True):
        assert len(np.unique(weights[mask == 1])) == 1
        assert not weights[mask == 0].any()


def test_the_two_rows_of_positions_are_those_of_the_published_collator() -> None:
    tokens = [11, 12, 1, 15, 16, 17, 1, 21, 22, 3, 18, 19, 20, 3, 13, 14]
    offsets = (np.array([0, count]) for count in (1, 2, 0))
    pieces, spans = np.array([[0, 9, 16, MASK]], np.int32), np.array([[6, 9, 4], [2, 13, 3]], np.int32)
    first, second, third = offsets
    rows = Rows(np.array([tokens], np.int32), first, pieces, second, spans, third, np.empty(0, np.int32))
    batch = make_batch(rows, 4, positions="glm-2d")
    assert batch.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 6, 6, 6, 2, 2, 2]
    assert batch.block_position_ids is not None
    assert batch.block_position_ids[0].tolist() == [0] * 9 + [1, 2, 3, 4, 1, 2, 3]


def test_a_row_of_many_small_pieces_numbers_them_all() -> None:
    pieces = np.array([[at, at + 1, at + 2, MIP] for at in range(0, 800, 2)], np.int32)
    spans = np.array([[at, at + 1, 1] for at in range(0, 800, 2)], np.int32)
    offsets = np.array([0, 400])
    tokens = np.tile(np.array([1, 3], np.int32), 400).reshape(1, -1)
    batch = make_batch(Rows(tokens, offsets, pieces, offsets, spans, np.zeros(2, np.int64), np.empty(0, np.int32)), 4)
    assert batch.segments[0].tolist() == [number for number in range(1, 401) for _ in range(2)]


@pytest.mark.parametrize("row", [-1, ROWS, 10**12])
def test_rows_outside_of_the_pack_are_an_index_error(pack: Path, row: int) -> None:
    with pytest.raises(IndexError, match=f"outside a pack of {ROWS} rows"):
        PackedRows.open(pack).rows([0, row])


@pytest.mark.parametrize(("name", "value"), [("weighting", "token"), ("positions", "rotary")])
def test_unknown_choices_are_refused(pack: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} '{value}' is not known; give .* or "):
        PackedRows.open(pack).batch([0], **{name: value})


def test_another_process_gets_the_manifest_and_maps_anew(pack: Path) -> None:
    rows = PackedRows.open(pack)
    wanted = rows.batch(range(ROWS)).targets
    sent = pickle.dumps(rows)
    assert len(sent) < 5000
    assert np.array_equal(pickle.loads(sent).batch(range(ROWS)).targets, wanted)


# --- size -------------------------------------------------------------------------------------------------------------


def repeat_shards(pack: Path, times: int) -> int:
    """Make the manifest name every shard ``times`` times; returns the rows that makes."""
    manifest = json.loads((pack / "_SUCCESS.json").read_text())
    manifest["facts"]["shards"] *= times
    (pack / "_SUCCESS.json").write_text(json.dumps(manifest))
    return sum(item["rows"] for item in manifest["facts"]["shards"])


def anonymous_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_ten_million_rows_take_no_memory_and_no_open_files(tmp_path: Path) -> None:
    base, per_shard = 2000, 1000
    folder = write_pack(tmp_path / "pack", base, per_shard=per_shard)
    small = PackedRows.open(folder)
    small.batch([0])
    total = repeat_shards(folder, 5000)
    handles = open_files()
    rows = PackedRows.open(folder)
    assert len(rows) == total == 10_000_000
    before = anonymous_bytes()
    wanted = np.random.default_rng(0).integers(0, total, 400)
    for batch in wanted.reshape(-1, 20):
        assert np.array_equal(rows.tokens(batch), small.tokens(batch % base))
    assert open_files() == handles
    assert anonymous_bytes() - before < 60_000_000


# --- damage -----------------------------------------------------------------------------------------------------------


def copy_of(pack: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pack, tmp_path / "copy")


def first_shard(pack: Path) -> Path:
    return sorted(pack.glob("data-*.arrow"))[0]


def test_a_missing_and_a_cut_shard_are_told_on_opening(pack: Path, tmp_path: Path) -> None:
    copy = copy_of(pack, tmp_path)
    shard = first_shard(copy)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{shard.name}' is missing or cut"):
        PackedRows.open(copy)
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}' is missing or cut"):
        PackedRows.open(copy)


def test_a_manifest_that_says_other_rows_is_told(pack: Path, tmp_path: Path) -> None:
    copy = copy_of(pack, tmp_path)
    manifest = json.loads((copy / "_SUCCESS.json").read_text())
    manifest["facts"]["shards"][0]["rows"] += 1
    (copy / "_SUCCESS.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"cannot be read as a shard of 9 rows of 64 tokens \(it holds 8 rows"):
        PackedRows.open(copy).rows([0])


@pytest.mark.parametrize("column", ["pieces", "spans", "tails"])
def test_rows_that_no_packer_writes_are_told_with_their_number(pack: Path, tmp_path: Path, column: str) -> None:
    copy = copy_of(pack, tmp_path)
    rows = PackedRows.open(copy)
    whole = rows.rows(range(ROWS))
    gmask = next(at for at in range(8) if GMASK in whole.row_pieces(at)[:, 3])
    if column == "tails":  # one [gMASK] piece too many
        kinds = whole.row_pieces(gmask)[:, 3]
        other = next(at for at in range(8) if (whole.row_pieces(at)[:, 3] == MIP).any() and at != gmask)
        assert len(kinds)
        value = whole.row_pieces(other).copy()
        value[value[:, 3] == MIP, 3] = GMASK
        row, old, new = other, whole.row_pieces(other), value
    else:
        row = gmask
        old = whole.row_pieces(row) if column == "pieces" else whole.row_spans(row)
        new = old.copy()
        new[0, 2] = 60_000  # an end, or a length, behind the row
    shard = first_shard(copy)
    data = shard.read_bytes()
    before = old.astype(np.uint16).tobytes()
    assert data.count(before) == 1
    shard.write_bytes(data.replace(before, new.astype(np.uint16).tobytes()))
    with pytest.raises(InputError, match=rf"row {row} of '.*copy' is damaged.*glm-data verify"):
        PackedRows.open(copy).batch([0, row] if row else [row])


def test_no_flipped_bytes_lead_out_of_the_file(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "pack", 8)
    shard, rng, unnoticed = first_shard(pack), random.Random(0), 0
    whole = shard.read_bytes()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        shard.write_bytes(data)
        with contextlib.suppress(InputError):
            assert PackedRows.open(pack).batch(range(8)).tokens.shape == (8, 64)
            unnoticed += 1
    assert 50 < unnoticed < 380, "most bytes are tokens; the others are checked"
