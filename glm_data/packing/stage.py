"""The pack stage: tokenised documents and rendered MIP samples to a folder of packed shards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glm_data import stage as stages
from glm_data.config import to_mapping
from glm_data.errors import UsageError
from glm_data.formats.parquet import parquet_writer
from glm_data.inputs import stage_files
from glm_data.packing import shards
from glm_data.packing.binning import choose_mip
from glm_data.packing.fill import MipTokens, Specials, fill_rows
from glm_data.packing.options import PackOptions, Recipe, resolve
from glm_data.packing.plan import Pieces, Plan, add_mip, plan_text
from glm_data.packing.rows import KINDS, MASK, MIP, Rows
from glm_data.packing.sources import MipSamples, TextStream, open_stream, read_mip
from glm_data.stage import Check, InputFile, ShardRecord, Success
from tokenizer import Tokenizer

DOCUMENTS = "documents.parquet"
DEFAULT_MIP_RATIO = 0.05
RATIO_TOLERANCE = 0.01
_NO_MIP = MipSamples(
    MipTokens(np.empty(0, np.int32), np.zeros(1, np.int64)),
    np.empty(0, np.int64),
    pa.table({name: pa.array([], pa.string()) for name in ("id", "source", "lang")}),
    0,
    0,
)


@dataclass(frozen=True)
class _Packing:
    """Everything that filling a shard needs; the same on every run with the same plan key."""

    stream: TextStream
    mip: MipSamples
    plan: Plan
    recipe: Recipe
    specials: Specials
    tokenizer: Tokenizer
    token_type: str
    shards: int


def pack_stage(
    tokenized: Path,
    out: Path,
    options: PackOptions,
    *,
    tokenizer: Path,
    mip: Path | None = None,
    overwrite: bool = False,
) -> Success:
    """Pack a finished tokenize stage, and a finished mip stage if given, into ``out``.

    Raises :class:`UsageError` for options that cannot be meant or a tokenizer other than the one that made the ids.
    """
    recipe = resolve(options)
    if mip is None and options.mip_ratio:
        raise UsageError(
            f"--mip-ratio {options.mip_ratio} needs rendered MIP rows; give their stage folder with --mip."
        )
    model = Tokenizer.load(tokenizer)
    _check_fingerprint(_finished(tokenized, "tokenize"), model, tokenized)
    if mip is not None:
        _finished(mip, "mip")
    inputs = stage_files(tokenized, "tokenized/") + (stage_files(mip, "mip/") if mip else ())
    described = {**to_mapping(recipe), "tokenizer": model.fingerprint}
    with stages.open_stage(out, "pack", described, inputs, overwrite=overwrite) as stage:
        packing = _prepare(tokenized, mip, model, recipe, inputs)
        for shard in stage.pending(packing.shards):
            started = time.perf_counter()
            stages.write_shard_record(out, _write_shard(out, shard, packing), started)
        return _succeed(stage, packing)


def _finished(folder: Path, wanted: str) -> Success:
    success = stages.read_success(folder)
    if success.stage != wanted:
        raise UsageError(f"'{folder}' is a finished '{success.stage}' stage; give a '{wanted}' stage here.")
    return success


def _check_fingerprint(tokenized: Success, model: Tokenizer, folder: Path) -> None:
    made_with = tokenized.facts.get("fingerprint")
    if made_with != model.fingerprint:
        raise UsageError(
            f"'{folder}' was tokenised with another tokenizer (fingerprint {str(made_with)[:12]}…, given "
            f"{model.fingerprint[:12]}…); give the one it was made with, or tokenise again."
        )


def _names(inputs: tuple[InputFile, ...], prefix: str) -> list[str]:
    below = prefix + "/data/"
    return [item.name.removeprefix(prefix + "/") for item in inputs if item.name.startswith(below)]


def _prepare(
    tokenized: Path, mip: Path | None, model: Tokenizer, recipe: Recipe, inputs: tuple[InputFile, ...]
) -> _Packing:
    special = model.special
    ids = Specials(
        mask=special.mask, gmask=special.gmask, sop=special.sop, eop=special.eop, eos=special.eos, pad=special.pad
    )
    stream = open_stream(tokenized, _names(inputs, "tokenized"), recipe, ids.eos)
    samples = read_mip(mip, _names(inputs, "mip"), model, min(recipe.mip_window, recipe.seq_length)) if mip else _NO_MIP
    plan = _plan(stream, samples, recipe, DEFAULT_MIP_RATIO if mip else 0.0)
    count = max(1, -(-plan.rows // recipe.rows_per_shard))
    return _Packing(stream, samples, plan, recipe, ids, model, shards.token_type(model.vocab_size), count)


def _plan(stream: TextStream, samples: MipSamples, recipe: Recipe, default_ratio: float) -> Plan:
    """Plan text first; its tokens and the ratio say how many MIP tokens are wanted: ``r / (1 - r)`` of them."""
    ratio = default_ratio if recipe.mip_ratio is None else recipe.mip_ratio
    text = plan_text(stream.starts, recipe)
    places = int((text if isinstance(text, Pieces) else text.pieces).size().sum())
    choice = choose_mip(samples.lengths, ratio / (1 - ratio) * places, recipe.mip_repeats, recipe.seed)
    return add_mip(text, samples.lengths, choice, recipe)


def _write_shard(out: Path, shard: int, packing: _Packing) -> ShardRecord:
    plan, per_shard = packing.plan, packing.recipe.rows_per_shard
    first, last = shard * per_shard, min((shard + 1) * per_shard, plan.rows)
    text, text_starts = _read_text(packing, first, last)
    mip = packing.mip.tokens
    rows = fill_rows(plan, first, last, text, text_starts, mip, packing.recipe, packing.specials)
    offsets, origins = _origins(packing, first, last)
    name = shards.shard_name(shard, packing.shards)
    shards.write_shard(out / name, shards.to_batch(rows, offsets, origins, packing.token_type))
    outputs = [stages.output_file(out, name, last - first)]
    if shard == 0:
        outputs += _write_tables(out, packing)
    counts = _count(rows)
    return ShardRecord(shard=shard, input=name, records=len(rows), kept=len(rows), counts=counts, files=tuple(outputs))


def _read_text(packing: _Packing, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The text of a shard's rows as ``int32``, and where in it each piece starts (MIP: the sample's number)."""
    pieces = _pieces_of(packing.plan, first, last)
    starts, is_text = pieces.start.copy(), pieces.kind != MIP
    lengths = pieces.tokens[is_text].astype(np.int64)
    starts[is_text] = np.cumsum(lengths) - lengths
    return packing.stream.gather(pieces.start[is_text], lengths), starts


def _pieces_of(plan: Plan, first: int, last: int) -> Pieces:
    return plan.pieces.take(np.arange(plan.row_offsets[first], plan.row_offsets[last]))


def _origins(packing: _Packing, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Provenance of rows: ``int64[n, 3]`` slices (document, offset, tokens) and their ``int64[R + 1]`` offsets."""
    plan, pieces = packing.plan, _pieces_of(packing.plan, first, last)
    is_mip, tokens = pieces.kind == MIP, pieces.tokens.astype(np.int64)
    text, counts = packing.stream.origins(pieces.start[~is_mip], tokens[~is_mip])
    per_piece = np.ones(len(tokens), np.int64)
    per_piece[~is_mip] = counts
    slices = np.empty((int(per_piece.sum()), 3), np.int64)
    of_mip = np.repeat(is_mip, per_piece)
    slices[~of_mip] = text
    number = len(packing.stream.documents) + pieces.start[is_mip]
    slices[of_mip] = np.stack([number, np.zeros_like(number), tokens[is_mip]], 1)
    ends = np.concatenate([[0], np.cumsum(per_piece)])
    return ends[plan.row_offsets[first : last + 1] - plan.row_offsets[first]], slices


def _write_tables(out: Path, packing: _Packing) -> list[stages.OutputFile]:
    """``documents.parquet`` (number -> id, source, lang; MIP samples after documents), HF sidecars, the tokenizer."""
    schema = pa.schema([(name, pa.string()) for name in ("id", "source", "lang")])
    both = (packing.stream.documents, packing.mip.table)
    table = pa.concat_tables([part.select(schema.names).cast(schema) for part in both])
    with parquet_writer(out / DOCUMENTS, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=65_536):
            writer.write(batch)
    names = [shards.shard_name(shard, packing.shards) for shard in range(packing.shards)]
    sidecars = shards.write_hf_sidecars(out, names, packing.recipe.seq_length, packing.token_type)
    packing.tokenizer.save(out)
    others = [*sidecars, "tokenizer.model", "tokenizer.json"]
    return [stages.output_file(out, DOCUMENTS, len(table)), *(stages.output_file(out, name) for name in others)]


def _count(rows: Rows) -> dict[str, int]:
    """Counters by kind: pieces, tokens (places taken), loss (targets), spans; and padding."""
    piece_of_span = np.searchsorted(
        _global_starts(rows, rows.pieces[:, 0], rows.piece_offsets),
        _global_starts(rows, rows.spans[:, 1], rows.span_offsets),
        "right",
    )
    span_kinds = rows.pieces[piece_of_span - 1, 3]
    counts: dict[str, int] = {}
    for kind, name in enumerate(KINDS):
        pieces = rows.pieces[rows.pieces[:, 3] == kind]
        counts[f"pieces/{name}"] = len(pieces)
        counts[f"tokens/{name}"] = int((pieces[:, 2] - pieces[:, 0]).sum())
        counts[f"loss/{name}"] = int(rows.spans[span_kinds == kind, 2].sum())
    mask = rows.pieces[:, 3] == MASK
    counts["spans/mask"] = int((span_kinds == MASK).sum())
    counts["masked/mask"] = counts["loss/mask"] - counts["spans/mask"]
    counts["source/mask"] = int((rows.pieces[mask, 2] - rows.pieces[mask, 0]).sum()) - 2 * counts["spans/mask"]
    used = sum(counts[f"tokens/{name}"] for name in KINDS)
    return {**counts, "padding": rows.tokens.size - used}


def _global_starts(rows: Rows, places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    row = np.repeat(np.arange(len(rows)), np.diff(offsets))
    return row * rows.tokens.shape[1] + places


def _succeed(stage: stages.Stage, packing: _Packing) -> Success:
    records = stage.records()
    total: dict[str, int] = {}
    for record in records.values():
        for name, value in record.counts.items():
            total[name] = total.get(name, 0) + value
    facts = _facts(stage.folder, packing, total)
    return stage.succeed(packing.shards, [_ratio_check(facts, packing)], facts)


def _facts(folder: Path, packing: _Packing, counts: Mapping[str, int]) -> dict[str, Any]:
    names = [shards.shard_name(shard, packing.shards) for shard in range(packing.shards)]
    per_shard, rows = packing.recipe.rows_per_shard, packing.plan.rows
    used = sum(counts[f"tokens/{name}"] for name in KINDS)
    wanted = packing.recipe.mip_ratio
    if wanted is None:
        wanted = DEFAULT_MIP_RATIO if len(packing.mip.table) else 0.0
    return {
        "rows": rows,
        "seq_length": packing.recipe.seq_length,
        "boundaries": packing.recipe.boundaries,
        "token_type": packing.token_type,
        "shards": [
            {
                "file": name,
                "rows": min(per_shard, rows - index * per_shard),
                "offset": shards.token_offset(folder / name),
            }
            for index, name in enumerate(names)
        ],
        "specials": asdict(packing.specials),
        "fingerprint": packing.tokenizer.fingerprint,
        "vocab_size": packing.tokenizer.vocab_size,
        "mip_ratio": {"wanted": wanted, "got": round(counts["tokens/mip"] / max(1, used), 6)},
        "fill": round(used / max(1, rows * packing.recipe.seq_length), 6),
        "mask_rate": round(counts["masked/mask"] / max(1, counts["source/mask"]), 6),
        "span_mean": round(counts["masked/mask"] / max(1, counts["spans/mask"]), 6),
        "mip_prompts_cut": packing.mip.cut,
        "mip_refused": packing.mip.refused,
        "documents": len(packing.stream.documents),
    }


def _ratio_check(facts: Mapping[str, Any], packing: _Packing) -> Check:
    """Within 1 %, or as near as whole samples allow in a small pack."""
    wanted, got = facts["mip_ratio"]["wanted"], facts["mip_ratio"]["got"]
    lengths = packing.mip.lengths[packing.mip.lengths > 0]
    used = max(1.0, facts["fill"] * facts["rows"] * facts["seq_length"])
    shortest = float(lengths.min()) / used if len(lengths) else 0.0
    ok = abs(got - wanted) <= max(RATIO_TOLERANCE * wanted, shortest)
    sentence = f"MIP is {got:.4f} of the packed tokens, {wanted:.4f} wanted."
    if not ok:
        supply = int(packing.mip.lengths.sum())
        sentence += (
            f" The samples hold {supply} tokens and may be used {packing.recipe.mip_repeats} times;"
            " render more, raise --mip-repeats or lower --mip-ratio."
        )
    return Check(name="mip_ratio", ok=ok, sentence=sentence)
