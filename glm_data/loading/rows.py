"""The rows of a pack, mapped; opening reads the manifest and no row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from glm_data.errors import InputError, UsageError
from glm_data.loading.batch import Batch, Positions, Weighting, make_batch
from glm_data.loading.mapped import MappedShards, ShardFile
from glm_data.loading.order import Order, as_packed, shuffled
from glm_data.packing.masking import MaskRule, Specials, remask
from glm_data.packing.rows import MisfitRowError, Rows, check_fit
from glm_data.packing.sentences import sentence_table
from glm_data.stage import Success, read_success
from tokenizer import Tokenizer

Indices = Sequence[int] | range | np.ndarray


class PackedRows:
    """All rows of a pack, mapped. Use :meth:`open`.

    Time and memory to open it grow with its shards, memory to read it with the rows that are asked for. Copies to other
    processes carry the manifest alone and map the files anew.
    """

    def __init__(self, folder: Path, manifest: Success, epoch: int = 0) -> None:
        self.folder = folder
        self.manifest = manifest
        self.epoch = epoch
        facts = manifest.facts
        self.seq_length: int = facts["seq_length"]
        self.specials: dict[str, int] = facts["specials"]
        files = [ShardFile(folder / listed["file"], listed["rows"]) for listed in facts["shards"]]
        self.shards = MappedShards(files, self.seq_length)

    @classmethod
    def open(cls, folder: Path, epoch: int = 0) -> PackedRows:
        """Open a finished pack; :class:`UsageError` if it is not one, :class:`InputError` if a shard is cut.

        ``epoch`` is the mask set that rows are given in where none is asked for.
        """
        manifest = read_success(folder)
        if manifest.stage != "pack":
            raise UsageError(f"'{folder}' is a finished '{manifest.stage}' stage, not a pack; give the pack's folder.")
        sizes = {item.name: item.bytes for item in manifest.files}
        for name in dict.fromkeys(listed["file"] for listed in manifest.facts["shards"]):
            path = folder / name
            if not path.exists() or path.stat().st_size != sizes[name]:
                raise InputError(f"'{path}' is missing or cut; pack again with --overwrite or restore the file.")
        return cls(folder, manifest, epoch)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedRows, (self.folder, self.manifest, self.epoch)

    def __len__(self) -> int:
        return len(self.shards)

    def tokens(self, indices: Indices) -> np.ndarray:
        """``int32[B, L]``: the tokens of the rows ``indices``, and nothing else of them."""
        return self.shards.tokens(np.asarray(indices, np.int64))

    def rows(self, indices: Indices, epoch: int | np.ndarray | None = None) -> Rows:
        """The rows ``indices`` (``int64[B]``), copied from the maps, tokens as ``int32``, in the mask set of ``epoch``
        (one for all, or ``int64[B]``; that of the pack's opening if none is given).

        Raises :class:`InputError` if one of them is damaged and an ``epoch`` above 0 is asked for.
        """
        wanted = np.asarray(indices, np.int64)
        taken, epoch = self.shards.rows(wanted), self.epoch if epoch is None else epoch
        return self._masked_anew(taken, wanted, epoch) if np.any(epoch) else taken

    def whole_rows(self, indices: Indices, epoch: int | np.ndarray | None = None) -> Rows:
        """:meth:`rows`, but :class:`InputError` if the pieces, spans and tails of one of them do not fit together."""
        rows = self.rows(indices, epoch)
        try:
            check_fit(rows)
        except MisfitRowError as error:
            raise misfit(self, int(np.asarray(indices)[error.index])) from None
        return rows

    def keys(self, indices: Indices) -> np.ndarray:
        """``uint64[P]``: what the mask sets of the pieces of ``indices`` are drawn from."""
        return self.shards.column("keys", np.asarray(indices, np.int64))[1].view(np.uint64)

    def _masked_anew(self, rows: Rows, indices: np.ndarray, epoch: int | np.ndarray) -> Rows:
        try:
            return remask(rows, self.keys(indices), epoch, self.mask_rule, Specials(**self.specials))
        except MisfitRowError as error:
            raise misfit(self, int(indices[error.index])) from None

    @cached_property
    def mask_rule(self) -> MaskRule:
        """What mask sets are drawn by; reads the pack's tokenizer if they depend on where sentences end."""
        masks = self.manifest.facts["masks"]
        table = sentence_table(Tokenizer.load(self.folder)) if masks["sentences"] else np.zeros(0, np.uint8)
        return MaskRule(masks["gmask_least"], masks["mask_rate"], masks["in_sentences"], table)

    @property
    def order(self) -> Order:
        """The order that the pack asks for: shuffled, or as packed where it holds a ramp."""
        return as_packed if self.manifest.facts["mip_ramp"] else shuffled

    def origins(self, row: int) -> np.ndarray:
        """``int64[n, 3]``: the (document, offset, tokens) slices of a row; numbers of ``documents.parquet``."""
        _, values = self.shards.column("origin", np.array([row], np.int64))
        return values.view(np.uint32).astype(np.int64).reshape(-1, 3)

    def batch(
        self,
        indices: Indices,
        *,
        epoch: int | np.ndarray | None = None,
        weighting: Weighting = "per-token",
        positions: Positions = "glm-130b",
    ) -> Batch:
        """The rows ``indices`` assembled for a model; :class:`InputError` if one of them is damaged."""
        rows = self.rows(indices, epoch)
        try:
            return make_batch(rows, self.specials["eop"], weighting=weighting, positions=positions)
        except MisfitRowError as error:
            raise misfit(self, int(np.asarray(indices)[error.index])) from None


def misfit(pack: PackedRows, row: int) -> InputError:
    """The sentence about a row that no packer writes."""
    return InputError(
        f"row {row} of '{pack.folder}' is damaged: its pieces, spans and tails do not fit together; "
        f"run 'glm-data verify {pack.folder}'."
    )
