"""A pack's plan on disk, so that any number of workers fill its shards from one decision.

::

    _work/plan.*.npy  order.npy  starts.npy  …     the plan and the stream as arrays, mapped by every worker
    _work/job.json                                 recipe, ids, facts; written last

The folder is a cache: a function of the stage's key, made again when it is not whole, gone when the pack is finished.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glm_data import files
from glm_data.packing.fill import MipTokens
from glm_data.packing.masking import MaskRule, Specials
from glm_data.packing.options import Recipe
from glm_data.packing.plan import Pieces, Plan
from glm_data.packing.sources import TextStream, map_ids

WORK = "_work"
_JOB = "job.json"


class JobFacts(msgspec.Struct, frozen=True):
    """What is known before a row is filled."""

    key: str
    """Of the stage's plan."""
    recipe: Recipe
    specials: dict[str, int]
    token_type: str
    stems: tuple[str, ...]
    documents: int
    digests: dict[str, str]
    """Of everything else that was written with the plan, by name below the stage's folder."""
    facts: dict[str, Any]
    """For the success manifest: wanted shares, sources, languages, what became of the MIP samples."""


@dataclass(frozen=True)
class Job:
    """Everything that filling a shard needs."""

    described: JobFacts
    plan: Plan
    stream: TextStream
    mip: MipTokens
    rule: MaskRule

    @property
    def recipe(self) -> Recipe:
        """The recipe of the rows."""
        return self.described.recipe

    @property
    def shards(self) -> int:
        """The number of shards; one at least, so that an empty pack has a file too."""
        return max(1, -(-self.plan.rows // self.recipe.rows_per_shard))

    @property
    def specials(self) -> Specials:
        """The ids that rows need beside text."""
        return Specials(**self.described.specials)


def mask_rule(recipe: Recipe, sentence_table: np.ndarray) -> MaskRule:
    """What the mask sets of a recipe's rows are drawn by."""
    return MaskRule(recipe.gmask_least, recipe.mask_rate, recipe.span_bounds == "sentences", sentence_table)


def save_job(job: Job, folder: Path, side_files: Sequence[str] = ()) -> None:
    """Write ``job`` into the stage folder's ``_work``; ``side_files`` were written there with it."""
    work = folder / WORK
    work.mkdir(exist_ok=True)
    (work / _JOB).unlink(missing_ok=True)
    arrays = {f"plan.{name}": values for name, values in vars(job.plan.pieces).items()}
    arrays |= {"plan.row_offsets": job.plan.row_offsets, "sentences": job.rule.sentence_table}
    arrays |= {name: getattr(job.stream, name) for name in _STREAM}
    arrays |= {"mip_ids": job.mip.ids, "mip_offsets": job.mip.offsets}
    for name, values in arrays.items():
        with files.atomic_path(work / f"{name}.npy") as temporary, temporary.open("wb") as handle:
            np.save(handle, values, allow_pickle=False)
    names = [*(f"{WORK}/{name}.npy" for name in arrays), *side_files]
    digests = {name: files.digest_file(folder / name) for name in names}
    files.write_json(work / _JOB, msgspec.structs.replace(job.described, digests=digests))


_STREAM = ("file", "offset", "length", "order", "starts")


def load_job(folder: Path, tokenized: Path, key: str) -> Job | None:
    """The job of a stage folder, mapped; None if it is not whole or of another key."""
    work = folder / WORK
    try:
        described = files.read_json(work / _JOB, JobFacts)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    if described.key != key or not all(_is_whole(folder / name, digest) for name, digest in described.digests.items()):
        return None

    def load(name: str) -> np.ndarray:
        array: np.ndarray = np.load(work / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
        return array

    pieces = Pieces(*(load(f"plan.{name}") for name in Pieces.__dataclass_fields__))
    columns = {name: load(name) for name in _STREAM}
    return Job(
        described=described,
        plan=Plan(load("plan.row_offsets"), pieces),
        stream=TextStream(files=map_ids(tokenized, described.stems), eos=described.specials["eos"], **columns),
        mip=MipTokens(load("mip_ids"), load("mip_offsets")),
        rule=mask_rule(described.recipe, load("sentences")),
    )


def _is_whole(path: Path, digest: str) -> bool:
    return path.is_file() and files.digest_file(path) == digest


@functools.lru_cache(maxsize=1)
def cached_job(folder: str, tokenized: str, key: str) -> Job:
    """:func:`load_job`, once in a worker process."""
    job = load_job(Path(folder), Path(tokenized), key)
    if job is None:
        raise AssertionError(f"the plan in '{folder}' is gone while its shards are filled")
    return job


def specials_of(special: Any) -> dict[str, int]:
    """The ids that rows need out of a tokenizer's task tokens."""
    return asdict(Specials(**{name: getattr(special, name) for name in Specials.__dataclass_fields__}))
