"""[MASK] rows: spans, part A and part B, targets, positions, loss mask; and whole packs out of token ids."""

from __future__ import annotations

import itertools
import math
import random
import shutil
from pathlib import Path
from typing import Any, Literal

from benchmarks.contest import Contest, Contestant, Work

ROWS, SEQ_LENGTH, WINDOWS, TOKENS, BATCH = 400, 2048, 4, 500, 50
MASK, SOP, EOP = 1, 2, 3
LENGTHS = range(1, 40)


def stream() -> Any:
    """Token ids for all rows, the same for every contestant."""
    import numpy as np

    return np.random.default_rng(0).integers(8, 30_000, ROWS * WINDOWS * TOKENS).astype(np.int32)


def ours(folder: Path) -> tuple[Work, float]:
    """Plan, fill and assemble, as the pack stage and the loader do between them; a batch of rows at a time, as read."""
    import numpy as np

    from glm_data.packing.fill import MipTokens, piece_texts
    from glm_data.packing.job import mask_rule
    from glm_data.packing.masking import Specials, lay_out
    from glm_data.packing.options import PackOptions, resolve
    from glm_data.packing.plan import add_mip, plan_text
    from glm_data.packing.rows import assemble

    recipe, text = resolve(PackOptions(preset="glm-130b", mask_share=1.0)), stream()
    specials = Specials(mask=MASK, gmask=4, smask=6, sop=SOP, eop=EOP, eos=5, pad=0)
    nothing = np.empty(0, np.int64)
    mip, rule = MipTokens(np.empty(0, np.int32), np.zeros(1, np.int64)), mask_rule(recipe, np.zeros(0, np.uint8))

    def work() -> int:
        plan = add_mip(plan_text(np.array([0, len(text)]), recipe), nothing, nothing, nothing, recipe)
        starts = np.append(plan.pieces.start, len(text))[plan.row_offsets]
        for first in range(0, plan.rows, BATCH):
            last = min(first + BATCH, plan.rows)
            texts = piece_texts(plan, first, last, text[starts[first] : starts[last]], mip)
            assemble(lay_out(texts, 0, rule, specials, recipe.seq_length), EOP)
        return plan.rows

    return work, work()


def reference(folder: Path) -> tuple[Work, float]:
    """The published algorithm of GLM-130B's collator, written anew from its description, a row at a time."""
    text = stream().reshape(ROWS, WINDOWS, TOKENS)

    def work() -> None:
        for number, row in enumerate(text):
            rng = random.Random(number)
            for piece in row:
                mask_piece(rng, piece, SEQ_LENGTH // WINDOWS)

    return work, ROWS


def mask_piece(rng: random.Random, piece: Any, window: int) -> tuple[Any, ...]:
    """One piece: (tokens, targets, positions, loss mask, sep), padded or, as the original does, cut to ``window``."""
    if rng.random() < 0.02:
        piece = piece[: rng.randrange(32, len(piece))]
    spans = _sample_spans(rng, _draw_lengths(rng, len(piece)), len(piece))
    return _lay_out(rng, piece, spans, window)


_WEIGHTS = list(itertools.accumulate(3.0**length / math.factorial(length) for length in LENGTHS))


def _draw_lengths(rng: random.Random, tokens: int) -> list[int]:
    lengths = rng.choices(LENGTHS, cum_weights=_WEIGHTS)
    masked, wanted = lengths[0], 1 if rng.random() < 0.02 else int(0.15 * tokens)
    while masked < wanted:
        lengths += rng.choices(LENGTHS, cum_weights=_WEIGHTS)
        masked += lengths[-1]
    rng.shuffle(lengths)
    return lengths


def _sample_spans(rng: random.Random, lengths: list[int], tokens: int) -> list[tuple[int, int]]:
    room = tokens - sum(lengths) - len(lengths) + 1
    places = sorted(rng.randrange(room + 1) for _ in lengths)
    spans, moved = [], 0
    for place, length in zip(places, lengths, strict=True):
        spans.append((place + moved, place + moved + length))
        moved += length + 1
    return spans


def _lay_out(rng: random.Random, piece: Any, spans: list[tuple[int, int]], window: int) -> tuple[Any, ...]:
    import numpy as np

    parts: list[Any] = []
    masks, last, place = [], 0, 0
    for start, end in spans:
        parts += [piece[last:start], [MASK]]
        place += start - last + 1
        masks.append(place - 1)
        last = end
    parts.append(piece[last:])
    part_a = np.concatenate(parts)
    order = list(range(len(spans)))
    rng.shuffle(order)
    tokens: list[Any] = [part_a]
    targets: list[Any] = [part_a]
    positions: list[Any] = [np.arange(len(part_a))]
    for index in order:
        start, end = spans[index]
        tokens += [[SOP], piece[start:end]]
        targets += [piece[start:end], [EOP]]
        positions.append(np.full(end - start + 1, masks[index]))
    columns = [np.concatenate(column) for column in (tokens, targets, positions)]
    loss = (np.arange(len(columns[0])) >= len(part_a)).astype(np.int64)
    return (*(_fit(column, window) for column in (*columns, loss)), len(part_a))


def _fit(column: Any, window: int) -> Any:
    import numpy as np

    fitted = np.zeros(window, np.int64)
    fitted[: len(column)] = column[:window]
    return fitted


def packed(preset: Literal["glm-130b", "documents"], folder: Path) -> tuple[Work, float]:
    """The whole pack stage on the ids of the run: plan, rows, shards, digests, manifest; no MIP."""
    from glm_data.packing.options import PackOptions
    from glm_data.packing.stage import pack_stage

    out, run = folder / f"packed-{preset}", folder / "run"

    def work() -> None:
        shutil.rmtree(out, ignore_errors=True)
        pack_stage(run / "tokenize", out, PackOptions(preset=preset), tokenizer=run / "tokenizer")

    return work, _tokens(folder) / 1e6


def cut(folder: Path) -> tuple[Work, float]:
    """The least that packing can be: documents in random order, one after the other, cut to rows and written."""
    import numpy as np

    def work() -> None:
        files = sorted((folder / "run" / "tokenize" / "data").glob("*.ids.npy"))
        documents = [part for path in files for part in _documents(path)]
        order = np.random.default_rng(0).permutation(len(documents))
        end = np.zeros(1, documents[0].dtype)
        stream = np.concatenate([part for number in order for part in (documents[number], end)])
        rows = stream[: len(stream) // SEQ_LENGTH * SEQ_LENGTH].reshape(-1, SEQ_LENGTH)
        np.save(folder / "cut.npy", rows)

    return work, _tokens(folder) / 1e6


def _documents(path: Path) -> Any:
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(path.with_name(path.name.replace(".ids.npy", ".documents.parquet")), columns=["offset"])
    return np.split(np.load(path), table["offset"].to_numpy()[1:])


def _tokens(folder: Path) -> int:
    from glm_data.stage import read_success

    return read_success(folder / "run" / "tokenize").counts["tokens"]


CONTESTS = (
    Contest(
        name="[MASK] rows",
        unit="rows/s",
        contestants=(Contestant("glm-data", ours), Contestant("reference algorithm, NumPy", reference)),
        note=f"{ROWS} text rows of {SEQ_LENGTH} places in {WINDOWS} windows, with targets, positions and loss mask, "
        "one core. The reference cuts what does not fit into a window; ours takes what fits and cuts nothing.",
        time=("microseconds a row", 1e6),
    ),
    Contest(
        name="From token ids to packed shards",
        unit="million tokens/s",
        contestants=(
            Contestant("glm-data, glm-130b", lambda folder: packed("glm-130b", folder)),
            Contestant("glm-data, documents", lambda folder: packed("documents", folder)),
            Contestant("NumPy: joined, cut, written; no spans", cut),
        ),
        note="The pack stage on the ids of the run, from reading them to the digests of finished shards, one core. "
        "The last line is no packer, but the least that any does: it holds everything in memory and masks nothing.",
    ),
)
