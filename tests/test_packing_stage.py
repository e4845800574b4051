"""The pack stage from tokenised documents to shards that three readers open; the verifier finds any flipped byte."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from packs import make_inputs, make_mip, make_pack, make_tokenized, make_tokenizer, redigest, texts

from glm_data.errors import InputError, UsageError
from glm_data.loading import PackedRows
from glm_data.loading.verify import verify
from glm_data.packing.masking import invert
from glm_data.packing.mixing import SourceMix
from glm_data.packing.options import PackOptions
from glm_data.packing.rows import MIP
from glm_data.packing.stage import pack_stage
from glm_data.stage import read_success
from tokenizer import Tokenizer

SMALL = PackOptions(preset="glm-130b", seq_length=256, rows_per_shard=16)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return make_inputs(folder)


@pytest.fixture(scope="module", params=["glm-130b", "documents"])
def pack(request, tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack"), rows_per_shard=16, preset=request.param)


def test_three_readers_see_the_same_tokens(pack, recwarn):
    import datasets

    ours = PackedRows.open(pack).rows(range(len(PackedRows.open(pack)))).tokens
    hf = datasets.load_from_disk(str(pack)).with_format("numpy")
    assert np.array_equal(hf["tokens"][:], ours)
    facts = read_success(pack).facts
    mapped = [
        np.memmap(pack / s["file"], facts["token_type"], "r", s["offset"], (s["rows"], facts["seq_length"]))
        for s in facts["shards"]
    ]
    assert np.array_equal(np.concatenate(mapped), ours)


def test_every_document_comes_back_from_the_rows(pack):
    tokenizer = Tokenizer.load(pack.parent / "tokenizer")
    rows = PackedRows.open(pack)
    names = pq.read_table(pack / "documents.parquet")["id"].to_pylist()
    found: dict[int, dict[int, list[int]]] = {}
    for row in range(len(rows)):
        taken = rows.rows([row])
        slices = iter(rows.origins(row).tolist())
        texts_of = invert(taken, 0, tokenizer.special.eop)
        for ids, kind in zip(texts_of, taken.pieces[:, 3].tolist(), strict=True):
            left = ids.tolist()
            while left:
                document, offset, length = next(slices)
                if kind == MIP:
                    assert (offset, length) == (0, len(left))
                    break
                found.setdefault(document, {})[offset], left = left[:length], left[length:]
        assert next(slices, None) is None
    restored = {
        names[document]: tokenizer.decode([token for offset in sorted(parts) for token in parts[offset]])
        for document, parts in found.items()
    }
    documents = texts(120)
    wanted = {f"in/{shard}#{n}": text for shard in (0, 1) for n, text in enumerate(documents[shard::2])}
    assert restored == wanted


def test_mip_pieces_hold_prompt_and_target(pack):
    tokenizer = Tokenizer.load(pack.parent / "tokenizer")
    rows = PackedRows.open(pack)
    seen = set()
    for row in range(len(rows)):
        taken = rows.rows([row])
        for ids, (start, sep, end, kind) in zip(invert(taken, 0, 4), taken.pieces.tolist(), strict=True):
            if kind != MIP:
                continue
            assert tokenizer.decode(taken.tokens[0, sep:end]) == "yes it is"
            assert tokenizer.decode(taken.tokens[0, start:sep]).endswith("Is it true?")
            seen.add(tokenizer.decode(ids))
    assert len(seen) > 3


@pytest.mark.parametrize("ratio", [0.02, 0.05, 0.2])
def test_the_mip_ratio_is_met_in_tokens(inputs, tmp_path, ratio):
    _, tokenizer, ids, mip = inputs
    options = PackOptions(seq_length=256, mip_ratio=ratio, mip_repeats=10)
    success = pack_stage(ids, tmp_path / "out", options, tokenizer=tokenizer, mip=mip)
    counts = success.counts
    used = counts["tokens/mip"] + counts["tokens/mask"] + counts["tokens/gmask"]
    assert counts["tokens/mip"] / used == pytest.approx(ratio, abs=0.003)
    assert success.facts["mip_ratio"]["got"] == pytest.approx(counts["tokens/mip"] / used, abs=1e-6)
    assert used + counts["padding"] == success.facts["rows"] * 256


def test_a_ratio_that_cannot_be_met_trips_the_guard_rail(inputs, tmp_path):
    _, tokenizer, ids, mip = inputs
    options = PackOptions(seq_length=256, mip_ratio=0.9, mip_repeats=1)
    success = pack_stage(ids, tmp_path / "out", options, tokenizer=tokenizer, mip=mip)
    assert not success.ok
    assert "0.9000 wanted" in success.checks[0].sentence
    assert "--mip-repeats" in success.checks[0].sentence


def test_long_prompts_lose_their_end_and_targets_nothing(tmp_path):
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    make_tokenized(tmp_path / "ids", tokenizer, texts(200))
    target = "because it is"
    make_mip(tmp_path / "mip", [("a b " * 300, target), ("short", target), ("short", "x y z " * 300)])
    options = PackOptions(seq_length=256, mip_window=128, mip_ratio=0.01)
    success = pack_stage(
        tmp_path / "ids", tmp_path / "out", options, tokenizer=tmp_path / "tokenizer", mip=tmp_path / "mip"
    )
    assert success.facts["mip_prompts_cut"] == 1
    assert success.facts["mip_refused"] == 1
    rows = PackedRows.open(tmp_path / "out")
    whole = rows.rows(range(len(rows)))
    pieces = whole.pieces[whole.pieces[:, 3] == MIP]
    assert (pieces[:, 2] - pieces[:, 0]).max() == 128
    targets = whole.spans[:, 2][np.isin(whole.spans[:, 1], pieces[:, 1])]
    assert len(tokenizer.encode(target)) + 1 in targets


def outputs(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "_run" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_shard_size_moves_rows_but_does_not_change_them(inputs, tmp_path):
    _, tokenizer, ids, mip = inputs
    one = msgspec.structs.replace(SMALL, rows_per_shard=7)
    pack_stage(ids, tmp_path / "a", SMALL, tokenizer=tokenizer, mip=mip)
    pack_stage(ids, tmp_path / "b", one, tokenizer=tokenizer, mip=mip)
    first, second = PackedRows.open(tmp_path / "a"), PackedRows.open(tmp_path / "b")
    assert np.array_equal(first.rows(range(len(first))).tokens, second.rows(range(len(second))).tokens)
    assert [first.origins(i).tolist() for i in range(20)] == [second.origins(i).tolist() for i in range(20)]


def test_losing_shards_and_running_again_gives_the_same_bytes(inputs, tmp_path):
    _, tokenizer, ids, mip = inputs
    pack_stage(ids, tmp_path / "out", SMALL, tokenizer=tokenizer, mip=mip)
    whole = outputs(tmp_path / "out")
    for record in ("_shards/00000.json", "_shards/00002.json", "_SUCCESS.json"):
        (tmp_path / "out" / record).unlink()
    next((tmp_path / "out").glob("data-00001-*.arrow")).unlink()
    pack_stage(ids, tmp_path / "out", SMALL, tokenizer=tokenizer, mip=mip)
    assert outputs(tmp_path / "out") == whole


def test_killing_the_packer_and_running_again_gives_the_same_bytes(inputs, tmp_path):
    _, tokenizer, ids, mip = inputs
    tiny = msgspec.structs.replace(SMALL, rows_per_shard=1)
    pack_stage(ids, tmp_path / "whole", tiny, tokenizer=tokenizer, mip=mip)
    code = (
        "import sys; from pathlib import Path; from glm_data.packing.stage import pack_stage\n"
        "from glm_data.packing.options import PackOptions\n"
        "ids, out, tok, mip = map(Path, sys.argv[1:])\n"
        "options = PackOptions(preset='glm-130b', seq_length=256, rows_per_shard=1)\n"
        "pack_stage(ids, out, options, tokenizer=tok, mip=mip)\n"
    )
    out = tmp_path / "killed"
    command = [sys.executable, "-c", code, str(ids), str(out), str(tokenizer), str(mip)]
    for records in (1, 9):
        with subprocess.Popen(command) as process:
            while process.poll() is None and len(list(out.glob("_shards/*.json"))) < records:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it was killed at work, not after it"
    pack_stage(ids, out, tiny, tokenizer=tokenizer, mip=mip)
    assert outputs(out) == outputs(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_fill_the_same_bytes_as_one_process(inputs, tmp_path, workers):
    from pipelines import pack as pipeline
    from pipelines.runner import RunnerOptions

    _, tokenizer, ids, mip = inputs
    options = msgspec.structs.replace(SMALL, epochs=2, mip_ramp=20)
    given = {"tokenizer": tokenizer, "mip": mip}
    pack_stage(ids, tmp_path / "whole", options, **given)
    pipeline.run(ids, tmp_path / "out", options, RunnerOptions(workers=workers), **given)
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")
    assert not (tmp_path / "out/_work").exists()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "_work/job.json").write_bytes(b'{"key": "'),
        lambda out: (out / "_work/order.npy").unlink(),
        lambda out: (out / "_work/starts.npy").write_bytes(b"cut"),
        lambda out: flip(out / "_work/plan.start.npy"),
        lambda out: (out / "documents.parquet").unlink(),
    ],
    ids=["job", "missing", "cut", "flipped", "documents"],
)
def test_a_damaged_plan_is_made_again(inputs, tmp_path, damage):
    _, tokenizer, ids, mip = inputs
    pack_stage(ids, tmp_path / "whole", SMALL, tokenizer=tokenizer, mip=mip)
    calls = []

    def stop(stage, function, tasks):
        calls.append(len(tasks))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_stage(ids, tmp_path / "out", SMALL, tokenizer=tokenizer, mip=mip, perform=stop)
    damage(tmp_path / "out")
    pack_stage(ids, tmp_path / "out", SMALL, tokenizer=tokenizer, mip=mip)
    assert calls
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_the_command_line_of_the_pipeline_packs(inputs, tmp_path, capsys):
    from pipelines.pack import main

    _, tokenizer, ids, mip = inputs
    words = [str(ids), "--tokenizer", str(tokenizer), "--mip", str(mip), "--output", str(tmp_path / "out")]
    assert main([*words, "--seq_length", "256", "--mix", "test=epochs:2", "--languages", "en=1"]) == 0
    success = read_success(tmp_path / "out")
    assert success.facts["sources"]["test"]["epochs"] == 2
    assert success.facts["languages"]["en"]["wanted"] == 1
    assert main([*words, "--mix", "test=2"]) == 2
    assert "--mix 'test=2' cannot be read; write NAME=epochs:NUMBER or" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["part-00000.documents.parquet", "part-00001.ids.npy"])
def test_ids_that_changed_since_they_were_made_are_refused(inputs, tmp_path, name):
    _, tokenizer, ids, _ = inputs
    shutil.copytree(ids, tmp_path / "ids")
    flip(tmp_path / "ids/data" / name)
    with pytest.raises(InputError, match="has changed since its stage finished"):
        pack_stage(tmp_path / "ids", tmp_path / "out", SMALL, tokenizer=tokenizer)
    redigest(tmp_path / "ids", f"data/{name}")
    (tmp_path / "ids/data" / name).write_bytes(b"\x93NUMPY" + b"\0" * 90)
    redigest(tmp_path / "ids", f"data/{name}")
    with pytest.raises(InputError, match="cannot be read"):
        pack_stage(tmp_path / "ids", tmp_path / "out2", SMALL, tokenizer=tokenizer)


def test_documents_outside_of_their_ids_are_refused(inputs, tmp_path):
    _, tokenizer, ids, _ = inputs
    shutil.copytree(ids, tmp_path / "ids")
    path = tmp_path / "ids/data/part-00000.documents.parquet"
    table = pq.read_table(path)
    offsets = table["offset"].to_numpy().copy()
    offsets[5] = -900_000
    place = table.schema.get_field_index("offset")
    pq.write_table(table.set_column(place, "offset", [offsets]), path)
    redigest(tmp_path / "ids", "data/part-00000.documents.parquet")
    with pytest.raises(InputError, match="names ids that its shard has not"):
        pack_stage(tmp_path / "ids", tmp_path / "out", SMALL, tokenizer=tokenizer)


def test_a_mix_that_is_refused_leaves_the_folder_to_the_next_try(inputs, tmp_path):
    _, tokenizer, ids, _ = inputs
    with pytest.raises(UsageError, match="no source is left for 'books'"):
        pack_stage(ids, tmp_path / "out", PackOptions(mix={"books": SourceMix(epochs=2)}), tokenizer=tokenizer)
    mended = PackOptions(seq_length=256, mix={"te*": SourceMix(share=1.0)})
    success = pack_stage(ids, tmp_path / "out", mended, tokenizer=tokenizer)
    assert success.ok
    pattern, source = success.facts["sources"]["te*"], success.facts["sources"]["test"]
    assert {**source, "wanted": 1.0} == pattern
    assert (source["epochs"], source["available"]) == (1.0, source["tokens"])


def test_a_pack_without_a_row_trips_the_guard_rail(inputs, tmp_path):
    _, tokenizer, ids, _ = inputs
    options = PackOptions(seq_length=256, mix={"*": SourceMix(epochs=0)})
    success = pack_stage(ids, tmp_path / "out", options, tokenizer=tokenizer)
    assert (success.facts["rows"], success.ok) == (0, False)


def test_another_tokenizer_is_refused(inputs, tmp_path):
    _, _, ids, mip = inputs
    make_tokenizer(tmp_path / "other", vocab_size=540)
    with pytest.raises(UsageError, match="another tokenizer"):
        pack_stage(ids, tmp_path / "out", SMALL, tokenizer=tmp_path / "other", mip=mip)


def test_other_stages_in_the_place_of_ids_or_mip_are_named(inputs, tmp_path):
    _, tokenizer, ids, mip = inputs
    with pytest.raises(UsageError, match="is a finished 'mip' stage; give a 'tokenize' stage"):
        pack_stage(mip, tmp_path / "out", SMALL, tokenizer=tokenizer)
    with pytest.raises(UsageError, match="is a finished 'tokenize' stage; give a 'mip' stage"):
        pack_stage(ids, tmp_path / "out", SMALL, tokenizer=tokenizer, mip=ids)


def test_a_ratio_without_mip_rows_is_refused(inputs, tmp_path):
    _, tokenizer, ids, _ = inputs
    with pytest.raises(UsageError, match="--mip"):
        pack_stage(ids, tmp_path / "out", PackOptions(mip_ratio=0.05), tokenizer=tokenizer)


def test_verify_passes_a_good_pack(pack):
    found = verify(pack, pack.parent / "ids")
    names = ["manifest", "files", "tokenizer", "rows", "text", "masks", "source", "counts", "bans"]
    assert [(check.name, check.ok) for check in found.checks] == [(name, True) for name in names]


def test_verify_names_a_flipped_byte_a_cut_file_and_a_missing_one(pack, tmp_path):
    rng = np.random.default_rng(0)
    names = [item.name for item in read_success(pack).files]
    for name in names:
        copy = tmp_path / "copy"
        shutil.copytree(pack, copy)
        data = bytearray((copy / name).read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (copy / name).write_bytes(data)
        check = verify(copy).checks[-1]
        assert not check.ok
        assert f"{name} has changed" in check.sentence
        (copy / name).write_bytes(data[:-1])
        assert f"{name} has {len(data) - 1} bytes instead of {len(data)}" in verify(copy).checks[1].sentence
        (copy / name).unlink()
        assert f"{name} is missing" in verify(copy).checks[1].sentence
        shutil.rmtree(copy)


def rewrite(pack: Path, copy: Path, change) -> None:
    """Copy a pack with ``change(tokens of shard 0)`` applied and its digests made to match."""
    shutil.copytree(pack, copy)
    facts = read_success(copy).facts
    shard = facts["shards"][0]
    shape = (shard["rows"], facts["seq_length"])
    tokens = np.memmap(copy / shard["file"], facts["token_type"], "r+", shard["offset"], shape)
    change(tokens)
    tokens.flush()
    redigest(copy, shard["file"])


def test_verify_finds_broken_rows_behind_matching_digests(pack, tmp_path):
    rows = PackedRows.open(pack)
    mask_row = next(row for row in range(16) if rows.rows([row]).pieces[0, 3] == 1)
    span = rows.rows([mask_row]).spans[0]
    text = int(np.flatnonzero(rows.rows([mask_row]).tokens[0] > 8)[0])

    def lose_mask(tokens):
        tokens[mask_row, span[0]] = 99

    def lose_sop(tokens):
        tokens[mask_row, span[1]] = 99

    def outside(tokens):
        tokens[mask_row, text] = 60_000

    for number, (change, words) in enumerate(
        [(lose_mask, "does not point at its mask"), (lose_sop, "does not begin with <sop>"), (outside, "vocabulary")]
    ):
        rewrite(pack, tmp_path / str(number), change)
        checks = {check.name: check for check in verify(tmp_path / str(number)).checks}
        inside = checks["rows"]
        assert checks["files"].ok
        assert not inside.ok
        assert f"row {mask_row}" in inside.sentence
        assert words in inside.sentence


def test_the_loader_refuses_a_cut_shard_and_a_foreign_stage(pack, inputs, tmp_path):
    _, _, ids, _ = inputs
    with pytest.raises(UsageError, match="not a pack"):
        PackedRows.open(ids)
    shutil.copytree(pack, tmp_path / "copy")
    shard = next((tmp_path / "copy").glob("data-*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(InputError, match="cut"):
        PackedRows.open(tmp_path / "copy")


def test_batches_are_what_assemble_derives_in_any_order(pack):
    rows = PackedRows.open(pack)
    whole = rows.batch(range(len(rows)))
    picked = np.random.default_rng(1).integers(0, len(rows), 9)
    part = rows.batch(picked)
    for name in ("tokens", "targets", "position_ids", "loss_mask", "segments"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[picked]), name
    assert all(np.array_equal(part.pieces[i], whole.pieces[row]) for i, row in enumerate(picked))
    assert whole.loss_mask.sum() > 0
