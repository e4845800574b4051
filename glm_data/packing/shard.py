"""Filling one shard of a pack: a function of the job and the shard's number."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import xxhash

from glm_data.packing import shards
from glm_data.packing.fill import piece_texts, pieces_of
from glm_data.packing.job import Job, cached_job
from glm_data.packing.masking import PieceTexts, lay_out, spans_of
from glm_data.packing.rows import KINDS, MASK, MIP, SMASK, Rows
from glm_data.stage import OutputFile, ShardRecord, ShardTask, output_file

DOCUMENTS = "documents.parquet"
RATIO_COLUMNS = {"tokens": "tokens", "sequences": "rows", "loss-tokens": "loss"}
"""What of :func:`count` the MIP ratio is of."""
SIDE_FILES = ("state.json", "dataset_info.json", "tokenizer.model", "tokenizer.json")
"""Written with the plan, listed by the record of the first shard."""


def pack_shard(task: ShardTask) -> ShardRecord:
    """Shard function. Task options: ``tokenized`` (the folder of the ids), ``key`` of the stage, ``tables`` (rows of
    ``documents.parquet``)."""
    folder = Path(task.folder)
    job = cached_job(task.folder, task.options["tokenized"], task.options["key"])
    first = task.shard * job.recipe.rows_per_shard
    filled = fill_shard(job, first, min(first + job.recipe.rows_per_shard, job.plan.rows))
    name = shards.shard_name(task.shard, job.shards)
    shards.write_shard(folder / name, shards.to_batch(filled, job.described.token_type))
    rows = len(filled.rows)
    outputs = [output_file(folder, name, rows)]
    if task.shard == 0:
        outputs += _side_files(folder, task.options["tables"])
    return ShardRecord(
        shard=task.shard, input=name, records=rows, kept=rows, counts=count(filled.rows), files=tuple(outputs)
    )


def _side_files(folder: Path, documents: int) -> list[OutputFile]:
    return [output_file(folder, DOCUMENTS, documents), *(output_file(folder, name) for name in SIDE_FILES)]


def fill_shard(job: Job, first: int, last: int) -> shards.ShardRows:
    """Rows ``first`` to ``last - 1`` of a job with all their columns."""
    pieces, recipe = pieces_of(job.plan, first, last), job.recipe
    is_mip, tokens = pieces.kind == MIP, pieces.tokens.astype(np.int64)
    text_slices, counts = job.stream.slices(pieces.start[~is_mip], tokens[~is_mip])
    texts = piece_texts(job.plan, first, last, job.stream.gather(text_slices), job.mip)
    kind = shards.TOKEN_TYPES[job.described.token_type][0]
    rows, *later = (
        lay_out(texts, epoch, job.rule, job.specials, recipe.seq_length, kind) for epoch in range(recipe.epochs)
    )
    per_piece = np.ones(len(tokens), np.int64)
    per_piece[~is_mip] = counts
    origins = np.empty((int(per_piece.sum()), 3), np.int64)
    of_mip = np.repeat(is_mip, per_piece)
    origins[~of_mip] = text_slices
    number = job.described.documents + pieces.start[is_mip]
    origins[of_mip] = np.stack([number, np.zeros_like(number), tokens[is_mip] - 2], 1)
    ends = np.concatenate([[0], np.cumsum(per_piece)])
    return shards.ShardRows(rows, tuple(later), ends[texts.piece_offsets], origins, texts.key, text_hashes(texts))


def text_hashes(texts: PieceTexts) -> np.ndarray:
    """``uint64[R]``: xxh3 of the source tokens of each row."""
    ends, data = texts.starts[texts.piece_offsets] * texts.text.itemsize, texts.text.data.cast("B")
    digests = (xxhash.xxh3_64_intdigest(data[first:last]) for first, last in pairwise(ends.tolist()))
    return np.fromiter(digests, np.uint64, len(ends) - 1)


def count(rows: Rows) -> dict[str, int]:
    """Counters by kind: pieces, tokens (places taken), loss (targets), rows that begin with it; [MASK] and [sMASK]
    spans, their tokens and the text that they were taken from; padding."""
    kind_of_span = np.repeat(rows.pieces[:, 3], spans_of(rows))
    first = rows.pieces[rows.piece_offsets[:-1][np.diff(rows.piece_offsets) > 0], 3]
    counts: dict[str, int] = {}
    for kind, name in enumerate(KINDS):
        pieces, spans = rows.pieces[rows.pieces[:, 3] == kind], rows.spans[kind_of_span == kind]
        counts[f"pieces/{name}"] = len(pieces)
        counts[f"rows/{name}"] = int((first == kind).sum())
        counts[f"tokens/{name}"] = int((pieces[:, 2] - pieces[:, 0]).sum())
        counts[f"loss/{name}"] = int(spans[:, 2].sum())
        if kind in (MASK, SMASK):
            counts[f"spans/{name}"] = len(spans)
            counts[f"masked/{name}"] = counts[f"loss/{name}"] - len(spans)
            counts[f"source/{name}"] = counts[f"tokens/{name}"] - 2 * len(spans)
    used = sum(counts[f"tokens/{name}"] for name in KINDS)
    return {**counts, "padding": rows.tokens.size - used}
