"""Verify a pack: its files, the format's rules for every row, the text behind the masks, and the masks themselves.

Nothing is taken on trust but the seal of the success manifest: digests are recomputed, rows are led back to their
source tokens and compared with the hash that the packer took of them before masking, every mask set is drawn again from
the rows' keys, and ratios are counted from the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glm_data import files
from glm_data.bans import ALL, DEFAULT, NONE, check_bans, load_bans
from glm_data.errors import UsageError
from glm_data.loading.row_checks import FAULTS, row_faults
from glm_data.loading.rows import PackedRows
from glm_data.loading.source_text import SourceText
from glm_data.loading.statistics import PackStatistics
from glm_data.packing.masking import Specials, lay_out, restore
from glm_data.packing.rows import KINDS, MisfitRowError, Rows
from glm_data.packing.shard import RATIO_COLUMNS, count, text_hashes
from glm_data.packing.shards import later_spans
from glm_data.stage import Check, OutputFile, Success, bookkeeping_fault, read_success
from tokenizer import Tokenizer, TokenizerError

_ROWS_AT_ONCE = 1024
_SHOWN = 3


@dataclass
class Verified:
    """What was found: one check a promise, and statistics if the rows could be read."""

    checks: list[Check]
    statistics: PackStatistics | None = None

    @property
    def ok(self) -> bool:
        """Whether every promise holds."""
        return all(check.ok for check in self.checks)


def verify(folder: Path, source: Path | None = None) -> Verified:
    """Check the pack in ``folder``, rows only if every file is as it was written.

    With ``source``, the folder of the tokenize stage that was packed, rows are compared with its ids as well. Raises as
    :func:`read_success` does, and :class:`UsageError` for another ``source``.
    """
    manifest = read_success(folder)
    heads = [_check_bookkeeping(folder), verify_files(folder, manifest)]
    if not all(check.ok for check in heads):
        return Verified(heads)
    pack = PackedRows.open(folder)
    text = SourceText(source, pack) if source else None
    statistics, findings = PackStatistics(folder, manifest.facts), _Findings(with_source=source is not None)
    for rows in _portions(pack):
        findings.add(pack, rows, statistics, text)
    checks = [*heads, _check_tokenizer(folder, manifest), *findings.checks(len(pack), manifest)]
    if findings.are_whole:
        checks += [_check_counts(findings.counts, manifest), _check_bans(statistics, manifest)]
    return Verified(checks, statistics if findings.are_whole else None)


def _check_bookkeeping(folder: Path) -> Check:
    """Plan, records and manifest are as they were written, and agree."""
    fault = bookkeeping_fault(folder)
    sentence = f"{fault}; pack again with --overwrite." if fault else "plan, records and manifest agree."
    return Check(name="manifest", ok=not fault, sentence=sentence)


def verify_files(folder: Path, manifest: Success) -> Check:
    """Recompute the digest of every file the success manifest lists; names those that are missing, cut or changed."""
    wrong = [f"{item.name} {what}" for item in manifest.files if (what := _what_is_wrong(folder, item))]
    sentence = f"{len(manifest.files)} files have the recorded digest."
    return Check(name="files", ok=not wrong, sentence=_first_of(wrong, "Damaged: ") if wrong else sentence)


def _first_of(faults: list[str], head: str = "") -> str:
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return head + "; ".join(faults[:_SHOWN]) + more + "."


def _what_is_wrong(folder: Path, item: OutputFile) -> str:
    path = folder / item.name
    if not path.exists():
        return "is missing"
    if path.stat().st_size != item.bytes:
        return f"has {path.stat().st_size} bytes instead of {item.bytes}"
    return "" if files.digest_file(path) == item.digest else "has changed"


def _check_tokenizer(folder: Path, manifest: Success) -> Check:
    """The tokenizer that lies in the pack is the one of its ids."""
    try:
        found = Tokenizer.load(folder).fingerprint
    except TokenizerError as error:
        return Check(name="tokenizer", ok=False, sentence=str(error))
    wanted = manifest.facts["fingerprint"]
    sentence = f"fingerprint {found[:12]}…" + (
        " as recorded." if found == wanted else f", but the rows were made with {wanted[:12]}…."
    )
    return Check(name="tokenizer", ok=found == wanted, sentence=sentence)


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Portion:
    """Some neighbouring rows with everything that is stored of them."""

    first: int
    rows: Rows
    origin_offsets: np.ndarray
    origins: np.ndarray
    keys: np.ndarray
    text_hash: np.ndarray
    later: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Offsets in spans and spans ``[n, 3]`` of each stored mask set after the first."""


def _portions(pack: PackedRows) -> Iterator[_Portion]:
    epochs = pack.manifest.facts["masks"]["epochs"]
    for number, start in enumerate(pack.shards.first[:-1].tolist()):
        batch = pack.shards.batch(number)
        for begin in range(0, batch.num_rows, _ROWS_AT_ONCE):
            part = batch.slice(begin, _ROWS_AT_ONCE)
            wanted = np.arange(start + begin, start + begin + part.num_rows)
            ends, origins = pack.shards.column("origin", wanted)
            yield _Portion(
                first=start + begin,
                rows=pack.rows(wanted),
                origin_offsets=ends // 3,
                origins=origins.view(np.uint32).astype(np.int64).reshape(-1, 3),
                keys=pack.keys(wanted),
                text_hash=part.column("text_hash").to_numpy(),
                later=tuple(_spans(part.column(later_spans(epoch))) for epoch in range(1, epochs)),
            )


def _spans(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy()[offsets[0] : offsets[-1]].astype(np.int32)
    return (offsets - offsets[0]) // 3, values[: len(values) // 3 * 3].reshape(-1, 3)


@dataclass
class _Findings:
    """Sentences about rows, by the promise that they break."""

    with_source: bool
    rules: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """What the packer counts of its rows, counted again."""

    @property
    def are_whole(self) -> bool:
        """Whether every row keeps the rules and names its documents."""
        return not self.rules and not self.text

    def add(self, pack: PackedRows, portion: _Portion, statistics: PackStatistics, source: SourceText | None) -> None:
        """Check some rows; only rows that keep the format's rules can be checked for more."""
        facts = pack.manifest.facts
        fault, place = row_faults(
            portion.rows, facts["specials"], facts["vocab_size"], one_kind=facts["boundaries"] == "stream"
        )
        for row in np.flatnonzero(fault).tolist():
            sentence = FAULTS[fault[row]].format(vocab=facts["vocab_size"], place=place[row])
            self.rules.append(f"row {portion.first + row}: {sentence}")
        if fault.any():
            return
        texts = restore(portion.rows, facts["specials"]["eop"], portion.keys)
        for row in np.flatnonzero(text_hashes(texts) != portion.text_hash).tolist():
            self.text.append(f"row {portion.first + row}: its masks undone give other text than was packed")
        lengths = np.add.reduceat(np.append(portion.origins[:, 2], 0), portion.origin_offsets[:-1])
        sizes = np.diff(texts.starts[texts.piece_offsets])
        named = portion.origins[:, 0].max(initial=0) < len(statistics.labels["sources"].codes)
        strangers = np.flatnonzero(lengths != sizes).tolist() if named else [0]
        for row in strangers:
            self.text.append(
                f"row {portion.first + row}: the documents that it names have other lengths or do not exist"
            )
        self._check_masks(pack, portion, texts)
        self.with_source &= not strangers  # rows that name other documents cannot be compared with them
        if self.are_whole:
            statistics.add(portion.rows, portion.origin_offsets, portion.origins)
            self.counts.update(count(portion.rows))
        if source is not None and self.with_source:
            wrong = source.differing_rows(texts, portion.origin_offsets, portion.origins)
            self.source += [f"row {portion.first + row}: other tokens than its documents have" for row in wrong]

    def _check_masks(self, pack: PackedRows, portion: _Portion, texts: Any) -> None:
        ids, length = Specials(**pack.specials), pack.seq_length
        stored = ((portion.rows.span_offsets, portion.rows.spans), *portion.later)
        for epoch, (offsets, spans) in enumerate(stored):
            try:
                drawn = lay_out(texts, epoch, pack.mask_rule, ids, length)
            except MisfitRowError as error:
                self.masks.append(f"row {portion.first + error.index}: there is no room for its masks of epoch {epoch}")
                continue
            same = np.array_equal(drawn.span_offsets, offsets) and np.array_equal(drawn.spans, spans)
            if not same or (epoch == 0 and not np.array_equal(drawn.tokens, portion.rows.tokens)):
                row = portion.first + _first_difference(drawn, offsets, spans)
                self.masks.append(f"row {row}: the masks of epoch {epoch} are not those that its keys give")

    def checks(self, rows: int, manifest: Success) -> list[Check]:
        """One check a promise."""
        epochs = manifest.facts["masks"]["epochs"]
        good = {
            "rows": (self.rules, f"{rows} rows: spans, separators, budgets and padding are as they must be."),
            "text": (self.text, "every row leads back to the text that was packed."),
            "masks": (self.masks, f"{epochs} mask set{'s' * (epochs > 1)} drawn again from the keys, the same."),
        }
        if self.with_source:
            good["source"] = (self.source, "every row holds the tokens of the documents that it names.")
        return [
            Check(name=name, ok=not faults, sentence=_first_of(faults) if faults else sentence)
            for name, (faults, sentence) in good.items()
        ]


def _first_difference(drawn: Rows, offsets: np.ndarray, spans: np.ndarray) -> int:
    """The first row whose spans are not those drawn; 0 if only tokens differ."""
    for row in range(len(drawn)):
        if not np.array_equal(drawn.row_spans(row), spans[offsets[row] : offsets[row + 1]]):
            return row
    return 0


# --- what the manifest says -------------------------------------------------------------------------------------------


def _check_counts(counted: Mapping[str, int], manifest: Success) -> Check:
    """The counters and the ratio of the manifest are those of the rows."""
    wrong = [
        f"{name} is {counted.get(name, 0)}, recorded {manifest.counts.get(name, 0)}"
        for name in sorted({*counted, *manifest.counts})
        if counted.get(name, 0) != manifest.counts.get(name, 0)
    ]
    ratio = manifest.facts["mip_ratio"]
    column = RATIO_COLUMNS[ratio["of"]]
    got = counted[f"{column}/mip"] / max(1, sum(counted[f"{column}/{kind}"] for kind in KINDS))
    if abs(got - ratio["got"]) > 1e-6:
        wrong.append(f"MIP is {got:.4f}, recorded {ratio['got']:.4f}")
    sentence = f"counts and the MIP ratio ({ratio['got']:.4f} of the {ratio['of']}) are those of the rows."
    return Check(name="counts", ok=not wrong, sentence=_first_of(wrong) if wrong else sentence)


def _check_bans(statistics: PackStatistics, manifest: Success) -> Check:
    """No instruction data of a banned data set; a list of the packer's own path is only named."""
    bans = manifest.facts["bans"]
    if bans["list"] not in (ALL, DEFAULT, NONE) and ("/" in bans["list"] or bans["list"].endswith((".yaml", ".yml"))):
        return Check(name="bans", ok=True, sentence=f"packed under the list '{bans['list']}', which is not at hand.")
    label, first = statistics.labels["sources"], manifest.facts["documents"]
    names = sorted({label.names[code] for code in np.unique(label.codes[first:]).tolist()})
    try:
        check_bans(names, load_bans(bans["list"]), bans["allowed"])
    except UsageError as error:
        return Check(name="bans", ok=False, sentence=str(error))
    return Check(name="bans", ok=True, sentence=f"none of {len(names)} MIP data sets is on the list '{bans['list']}'.")
