"""The verifier: every promise of a pack, broken one at a time behind digests that match; statistics against a twin."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loading_packs import SPECIALS, VOCAB, join, make_row
from packs import make_inputs, make_tokenized, make_tokenizer, redigest, reseal, texts

from glm_data.errors import InputError, UsageError
from glm_data.loading import PackedRows
from glm_data.loading.row_checks import FAULTS, row_faults
from glm_data.loading.statistics import PackStatistics
from glm_data.loading.verify import verify
from glm_data.packing.masking import invert
from glm_data.packing.options import PackOptions
from glm_data.packing.rows import GMASK, KINDS, MIP
from glm_data.packing.shards import write_shard
from glm_data.packing.stage import pack_stage
from glm_data.stage import read_success

PACKS = {
    "documents": {"epochs": 3, "span_bounds": "sentences"},
    "glm-130b": {"epochs": 2},
    "glm-10b": {"epochs": 2, "seq_length": 256},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module", params=list(PACKS))
def pack(request, inputs, tmp_path_factory):
    _, tokenizer, ids, mip = inputs
    out = tmp_path_factory.mktemp("packs") / request.param
    options = PackOptions(**{"preset": request.param, "seq_length": 256, "rows_per_shard": 16, **PACKS[request.param]})
    pack_stage(ids, out, options, tokenizer=tokenizer, mip=mip)
    return out


def checks(folder: Path, source: Path | None = None) -> dict[str, str]:
    """The promises that are broken, with what is said of them."""
    return {check.name: check.sentence for check in verify(folder, source).checks if not check.ok}


def rewrite(pack: Path, copy: Path, change) -> Path:
    """Copy a pack with ``change(columns of shard 0 as lists)`` applied and all digests made to match."""
    shutil.copytree(pack, copy)
    name = read_success(copy).facts["shards"][0]["file"]
    with pa.OSFile(str(copy / name)) as source:
        batch = pa.ipc.open_stream(source).read_next_batch()
    columns = {field.name: batch.column(field.name).to_pylist() for field in batch.schema}
    change(columns)
    arrays = [pa.array(columns[field.name], field.type) for field in batch.schema]
    write_shard(copy / name, pa.RecordBatch.from_arrays(arrays, schema=batch.schema))
    redigest(copy, name)
    return copy


def first_row(pack: Path, kind: int) -> int:
    rows = PackedRows.open(pack).rows(range(16))
    return next(row for row in range(16) if kind in rows.row_pieces(row)[:, 3])


def test_a_good_pack_keeps_every_promise(pack, inputs):
    found = verify(pack, inputs[2])
    assert found.ok
    assert [check.name for check in found.checks] == [
        "manifest", "files", "tokenizer", "rows", "text", "masks", "source", "counts", "bans"
    ]  # fmt: skip
    assert f"{read_success(pack).facts['masks']['epochs']} mask sets" in found.checks[5].sentence


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found(pack, tmp_path_factory, data):
    copy = tmp_path_factory.mktemp("flip") / "pack"
    shutil.copytree(pack, copy)
    names = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith("_run/")]
    path = copy / data.draw(st.sampled_from(names))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert not holds(copy)
    shutil.rmtree(copy)


def holds(folder: Path) -> bool:
    try:
        return verify(folder).ok
    except InputError:  # a manifest that cannot be read
        return False


def test_other_text_behind_whole_rows_is_named(pack, inputs, tmp_path):
    row = first_row(pack, GMASK)

    def change(columns):
        place = next(at for at, token in enumerate(columns["tokens"][row]) if token > 300)
        columns["tokens"][row][place] -= 1

    said = checks(rewrite(pack, tmp_path / "copy", change), inputs[2])
    assert said.keys() == {"text", "source"}
    assert said["text"].startswith(f"row {row}: its masks undone give other text than was packed")
    assert said["source"].startswith(f"row {row}: other tokens than its documents have")


def test_masks_that_the_keys_do_not_give_are_named(pack, tmp_path):
    row = first_row(pack, GMASK)

    def change(columns):
        columns["keys"][row] = [key ^ 1 for key in columns["keys"][row]]

    said = checks(rewrite(pack, tmp_path / "copy", change))
    assert said.keys() == {"masks"}
    assert f"row {row}: the masks of epoch 0 are not those" in said["masks"]


def test_a_stored_mask_set_of_a_later_epoch_is_checked_too(pack, tmp_path):
    row = first_row(pack, GMASK)

    def change(columns):
        columns["spans_1"][row][2] += 1

    said = checks(rewrite(pack, tmp_path / "copy", change))
    assert said.keys() == {"masks"}
    assert f"row {row}: the masks of epoch 1 are not those" in said["masks"]


def test_documents_of_other_lengths_are_named(pack, inputs, tmp_path):
    def change(columns):
        columns["origin"][3][2] += 1

    assert (
        "row 3: the documents that it names have other lengths"
        in checks(rewrite(pack, tmp_path / "copy", change))["text"]
    )


def test_counts_and_a_ratio_that_are_not_those_of_the_rows_are_named(pack, tmp_path):
    shutil.copytree(pack, tmp_path / "copy")

    def change(manifest):
        manifest["facts"]["mip_ratio"]["got"] = 0.0612

    reseal(tmp_path / "copy", change)
    said = checks(tmp_path / "copy")
    assert said.keys() == {"counts"}
    assert "recorded 0.0612" in said["counts"]


def test_a_banned_data_set_is_named(inputs, tmp_path):
    _, tokenizer, ids, mip = inputs
    options = PackOptions(seq_length=256, bans="none")
    pack_stage(ids, tmp_path / "pack", options, tokenizer=tokenizer, mip=mip)
    reseal(tmp_path / "pack", lambda manifest: manifest["facts"]["bans"].update(list="t0"))
    assert "data set 'copa' is banned" in checks(tmp_path / "pack")["bans"]


def test_packing_a_banned_data_set_is_refused_unless_allowed(inputs, tmp_path):
    _, tokenizer, ids, mip = inputs
    with pytest.raises(UsageError, match="data set 'copa' is banned"):
        pack_stage(ids, tmp_path / "a", PackOptions(seq_length=256, bans="t0"), tokenizer=tokenizer, mip=mip)
    shutil.copytree(mip, tmp_path / "mip")
    reseal(tmp_path / "mip", lambda manifest: manifest["facts"].update(allowed={"copa": "an ablation"}))
    options = PackOptions(seq_length=256, bans="t0")
    pack_stage(ids, tmp_path / "b", options, tokenizer=tokenizer, mip=tmp_path / "mip")
    assert verify(tmp_path / "b").ok


def test_a_foreign_tokenizer_in_the_pack_is_named(pack, tmp_path):
    shutil.copytree(pack, tmp_path / "copy")
    make_tokenizer(tmp_path / "other", vocab_size=540)
    for name in ("tokenizer.model", "tokenizer.json"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "copy" / name)
        redigest(tmp_path / "copy", name)
    assert "but the rows were made with" in checks(tmp_path / "copy")["tokenizer"]


def test_another_source_is_refused(pack, inputs, tmp_path):
    tokenizer, _, ids, mip = inputs
    make_tokenized(tmp_path / "ids", tokenizer, texts(7))
    with pytest.raises(UsageError, match="holds 7 documents and "):
        verify(pack, tmp_path / "ids")
    with pytest.raises(UsageError, match="is a finished 'mip' stage"):
        verify(pack, mip)
    make_tokenized(tmp_path / "changed", tokenizer, ["0: other text entirely", *texts(120)[1:]])
    assert "other tokens than its documents have" in checks(pack, tmp_path / "changed").get("source", "")
    assert ids.is_dir()


def test_the_page_says_how_to_use_a_stored_mask_set(pack):
    page = (Path(__file__).parents[1] / "docs/format.md").read_text(encoding="utf-8")
    (code,) = (body for body in page.split("```python\n") if body.startswith("def lay_out_again("))
    names: dict = {}
    exec(code.partition("```")[0], names)
    packed, special = PackedRows.open(pack), PackedRows.open(pack).specials
    blanks = [special[name] for name in ("gmask", "mask", "mask", "smask")]
    with pa.OSFile(str(pack / packed.manifest.facts["shards"][0]["file"])) as source:
        rows = pa.ipc.open_stream(source).read_all().to_pylist()
    for epoch in range(1, packed.manifest.facts["masks"]["epochs"]):
        wanted = packed.rows(range(len(rows)), epoch)
        for at, row in enumerate(rows):
            pieces, spans, later = (
                [tuple(values[n : n + width]) for n in range(0, len(values), width)]
                for values, width in ((row["pieces"], 4), (row["spans"], 3), (row[f"spans_{epoch}"], 3))
            )
            again = names["lay_out_again"](row["tokens"], pieces, spans, row["tails"], later, blanks)
            assert again == wanted.tokens[at].tolist()


# --- rules of rows ----------------------------------------------------------------------------------------------------


def naive_faults(row: dict, one_kind: bool) -> set[str]:
    """All rules that a row breaks, in plain Python; numbers of :data:`FAULTS` as words."""
    tokens, pieces, spans, found = row["tokens"], row["pieces"], row["spans"], set()
    if not all(0 <= token < VOCAB for token in tokens):
        found.add(FAULTS[1])
    if not pieces:
        return found | {FAULTS[2]}
    if one_kind and len({piece[3] for piece in pieces}) > 1:
        found.add(FAULTS[5])
    if len(row["tails"]) != sum(piece[3] == GMASK for piece in pieces):
        found.add(FAULTS[6])
    free = 0
    for start, sep, end, kind in pieces:
        if not free <= start < sep < end <= len(tokens):
            return found | {FAULTS[3]}
        if kind >= len(KINDS):
            found.add(FAULTS[4])
        if any(token != SPECIALS["pad"] for token in tokens[free:start]):
            found.add(FAULTS[7])
        free = end
    if any(token != SPECIALS["pad"] for token in tokens[free:]):
        found.add(FAULTS[7])
    for start, sep, end, kind in pieces:
        own = [span for span in spans if sep <= span[1] < end]
        found |= {FAULTS[number] for number in naive_piece(tokens, (start, sep, end, kind), own)}
    if sum(sep <= span[1] < end for span in spans for _, sep, end, _ in pieces) != len(spans):
        found.add(FAULTS[8])
    return found


def naive_piece(tokens: list[int], piece: tuple[int, ...], spans: list[list[int]]) -> set[int]:
    start, sep, end, kind = piece
    found = set()
    if not spans:
        return {8}  # do not fill part B
    at = sep
    for _, first, length in spans:
        if first != at or length < 1:
            found.add(8)
        at = first + length
    if at != end:
        found.add(8)
    blank = SPECIALS["gmask" if kind == GMASK else "smask" if kind == 3 else "mask"]
    if any(tokens[first] != SPECIALS["sop"] for _, first, _ in spans):
        found.add(9)
    if any(not start <= mask < sep or tokens[mask] != blank for mask, _, _ in spans):
        found.add(10)
    if kind in (GMASK, MIP):
        return found | ({11} if len(spans) != 1 or spans[0][0] != sep - 1 else set())
    places = [at for at in range(start, sep) if tokens[at] == blank]
    if any(second - first == 1 for first, second in pairwise(places)):
        found.add(12)
    return found | ({13} if len(places) != len(spans) else set())


@pytest.mark.parametrize("one_kind", [False, True])
def test_the_first_fault_of_a_row_is_one_that_the_plain_rules_find(one_kind):
    rng = random.Random(5)
    seen: Counter[str] = Counter()
    for _ in range(3000):
        row = make_row(rng, 64)
        for _ in range(rng.randint(0, 2)):
            table = rng.choice(["tokens", "pieces", "spans", "tails"])
            if table == "tokens":
                row["tokens"][rng.randrange(64)] = rng.choice([0, 1, 2, 3, 6, 99, VOCAB])
            elif table == "tails":
                row["tails"] = row["tails"][:-1] or [5]
            else:
                which = rng.choice(row[table])
                which[rng.randrange(len(which))] = rng.choice([0, 1, 2, 3, 4, 7, rng.randrange(70)])
        fault, _ = row_faults(join([row]), SPECIALS, VOCAB, one_kind=one_kind)
        wanted = naive_faults(row, one_kind)
        if FAULTS[8] in wanted:  # whose spans are whose is then a matter of reading
            wanted |= set(FAULTS[8:])
        assert (FAULTS[fault[0]] in wanted) if wanted else fault[0] == 0, (row, FAULTS[fault[0]], wanted)
        seen[FAULTS[fault[0]]] += 1
    reached = {FAULTS[5]} if one_kind else set(FAULTS) - {FAULTS[2], FAULTS[5]}
    assert set(seen) >= reached, reached - set(seen)


# --- statistics -------------------------------------------------------------------------------------------------------


def test_targets_by_source_equal_a_plain_count(pack):
    packed = PackedRows.open(pack)
    statistics = PackStatistics(pack, packed.manifest.facts)
    eop, wanted = packed.specials["eop"], Counter()
    names = statistics.labels["sources"].names
    for row in range(len(packed)):
        rows, origins = packed.rows([row]), packed.origins(row)
        statistics.add(rows, np.array([0, len(origins)]), origins)
        owners = [
            names[statistics.labels["sources"].codes[d]] for d, _, tokens in origins.tolist() for _ in range(tokens)
        ]
        at, tails = 0, iter(rows.row_tails(0).tolist())
        for text, (start, sep, end, kind) in zip(invert(rows, 0, eop), rows.row_pieces(0).tolist(), strict=True):
            tail = next(tails) if kind == GMASK else eop
            before = 0
            for mask, _, length in sorted(span for span in rows.row_spans(0).tolist() if sep <= span[1] < end):
                first = at + mask - start + before
                masked = length if kind == GMASK and tail != eop else length - 1
                wanted.update(owners[first : first + masked])
                wanted.update([owners[first + masked - 1]] * (length - masked))
                before += length - 2
            at += len(text)
    assert {name: sums["targets"] for name, sums in statistics.summary()["sources"].items()} == dict(wanted)


def test_the_summary_adds_up(pack):
    found = verify(pack)
    summary, success = found.statistics.summary(), read_success(pack)
    kinds = summary["kinds"]
    targets = sum(kind["targets"] for kind in kinds.values())
    for title in ("sources", "languages"):
        assert sum(label["targets"] for label in summary[title].values()) == targets
    assert sum(kind["token_share"] for kind in kinds.values()) == pytest.approx(1)
    assert summary["fill"] == pytest.approx(success.facts["fill"], abs=1e-6)
    assert sum(summary["gmask_deciles"]) == pytest.approx(1, abs=1e-3)
    if "mask" in kinds:
        assert kinds["mask"]["mask_rate"] == pytest.approx(success.facts["mask_rate"], abs=1e-6)


def test_span_lengths_of_the_published_recipe_fit_and_others_do_not(tmp_path):
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    make_tokenized(tmp_path / "ids", tokenizer, texts(6000))
    options = PackOptions(preset="glm-130b", mask_share=1.0)
    pack_stage(tmp_path / "ids", tmp_path / "pack", options, tokenizer=tmp_path / "tokenizer")
    statistics = verify(tmp_path / "pack").statistics
    fit = statistics.span_fit()
    assert fit.spans > 10_000
    assert fit.mean == pytest.approx(fit.expected_mean, rel=0.01)
    assert fit.distance < 0.01
    statistics.lengths[[2, 3]] = statistics.lengths[[3, 2]] + 600
    assert statistics.span_fit().p_value < 1e-6
