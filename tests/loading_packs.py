"""Packs of made-up rows, written in milliseconds, and plain Python twins of what loading does with them."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glm_data import files
from glm_data import stage as stages
from glm_data.packing import shards
from glm_data.packing.rows import GMASK, MASK, MIP, Rows
from glm_data.stage import ShardRecord

SPECIALS = {"mask": 1, "gmask": 2, "smask": 6, "sop": 3, "eop": 4, "eos": 5, "pad": 0}
MASKS = {"epochs": 1, "gmask_least": 0.2, "mask_rate": 0.15, "in_sentences": False, "sentences": False}
VOCAB, FIRST_TEXT = 500, 10


def write_pack(
    folder: Path, rows: int = 37, seq_length: int = 64, per_shard: int = 8, seed: int = 0, **facts: Any
) -> Path:
    """A finished pack of ``rows`` random rows; ``facts`` go before the usual ones."""
    rng = random.Random(seed)
    made = [make_row(rng, seq_length) for _ in range(rows)]
    kind = facts.get("token_type", "uint16")
    count = -(-rows // per_shard)
    with stages.open_stage(folder, "pack", {"seed": seed, "rows": rows}, []) as stage:
        listed = []
        for number in range(count):
            part, name = made[number * per_shard : (number + 1) * per_shard], shards.shard_name(number, count)
            origins = np.array([[row, 0, seq_length] for row in range(len(part))])
            rows_of = join(part)
            keys, hashes = np.arange(len(rows_of.pieces), dtype=np.uint64), np.zeros(len(part), np.uint64)
            shard = shards.ShardRows(rows_of, (), np.arange(len(part) + 1), origins, keys, hashes)
            shards.write_shard(folder / name, shards.to_batch(shard, kind))
            listed.append({"file": name, "rows": len(part), "offset": shards.token_offset(folder / name)})
            output = stages.output_file(folder, name, len(part))
            counts = {"loss/mask": sum(span[2] for row in part for span in row["spans"])}
            record = ShardRecord(
                shard=number, input=name, records=len(part), kept=len(part), counts=counts, files=(output,)
            )
            stages.write_shard_record(folder, record, time.perf_counter())
        usual = {"rows": rows, "seq_length": seq_length, "token_type": kind, "shards": listed, "specials": SPECIALS}
        usual |= {"masks": MASKS, "mip_ramp": 0}
        stage.succeed(count, facts={**usual, "fingerprint": "made up", "vocab_size": VOCAB, **facts})
    return folder


def make_row(rng: random.Random, length: int) -> dict[str, list[Any]]:
    """One row as lists: tokens, pieces, spans, tails."""
    row: dict[str, list[Any]] = {"tokens": [], "pieces": [], "spans": [], "tails": []}
    while (room := length - len(row["tokens"])) >= 16 and (not row["pieces"] or rng.random() < 0.8):
        _add_piece(row, rng, rng.choice([GMASK, MASK, MIP]), rng.randint(16, min(room, 40)))
    row["tokens"] += [SPECIALS["pad"]] * (length - len(row["tokens"]))
    return row


def _add_piece(row: dict[str, list[Any]], rng: random.Random, kind: int, size: int) -> None:
    start = len(row["tokens"])
    spans = [rng.randint(1, 2) for _ in range(rng.randint(1, 3) if kind == MASK else 1)]
    if kind != MASK:
        spans = [rng.randint(1, size - 3)]
    part_a = size - sum(spans) - len(spans)
    tokens = [rng.randrange(FIRST_TEXT, VOCAB) for _ in range(part_a)]
    places = sorted(rng.sample(range(0, part_a, 2), len(spans))) if kind == MASK else [part_a - 1]
    for place in places:
        tokens[place] = SPECIALS["gmask" if kind == GMASK else "mask"]
    rng.shuffle(places)
    row["pieces"].append([start, start + part_a, start + size, kind])
    for place, count in zip(places, spans, strict=True):
        row["spans"].append([start + place, start + len(tokens), count + 1])
        tokens += [SPECIALS["sop"], *(rng.randrange(FIRST_TEXT, VOCAB) for _ in range(count))]
    if kind == GMASK:
        row["tails"].append(rng.randrange(FIRST_TEXT, VOCAB))
    row["tokens"] += tokens


def join(rows: list[dict[str, list[Any]]]) -> Rows:
    def flat(name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.cumsum([0, *(len(row[name]) for row in rows)])
        values = np.array([item for row in rows for item in row[name]], np.int32)
        return offsets, values.reshape(-1, width) if width > 1 else values

    tokens = np.array([row["tokens"] for row in rows], np.int32)
    return Rows(tokens, *flat("pieces", 4), *flat("spans", 3), *flat("tails", 1))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Every row of a pack by pyarrow alone, as lists."""
    found = []
    for item in files.read_json(folder / "_SUCCESS.json")["facts"]["shards"]:
        with pa.OSFile(str(folder / item["file"])) as source:
            found += pa.ipc.open_stream(source).read_all().to_pylist()
    return found


def assembled(row: dict[str, Any], eop: int, *, two_rows: bool = False) -> dict[str, list[int]]:
    """Targets, positions, block positions, loss mask and segments of one row, one place after the other."""
    length = len(row["tokens"])
    out = {name: [0] * length for name in ("targets", "position_ids", "blocks", "loss_mask", "segments")}
    pieces = [row["pieces"][at : at + 4] for at in range(0, len(row["pieces"]), 4)]
    spans = [row["spans"][at : at + 3] for at in range(0, len(row["spans"]), 3)]
    tails = list(row["tails"])
    for number, (start, sep, end, kind) in enumerate(pieces, 1):
        for place in range(start, end):
            out["position_ids"][place], out["segments"][place] = place - start, number
        for mask, first, count in spans:
            if not sep <= first < end:
                continue
            for place in range(first, first + count):
                last = place == first + count - 1
                out["loss_mask"][place], out["blocks"][place] = 1, place - first + 1
                out["targets"][place] = row["tokens"][place + 1] if not last else eop
                if kind == MASK or two_rows:
                    out["position_ids"][place] = mask - start
            if kind == GMASK:
                out["targets"][first + count - 1] = tails.pop(0)
    return out
