"""The pack stage: tokenised documents and rendered MIP samples to a folder of packed shards.

The plan is made once, from lengths alone, and written to ``_work``; then every shard is a function of it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data import stage as stages
from glm_data.bans import NONE, Bans, check_bans, load_bans
from glm_data.config import to_mapping
from glm_data.errors import InputError, UsageError
from glm_data.files import digest_file
from glm_data.formats.hf_folder import write_sidecars
from glm_data.formats.parquet import parquet_writer
from glm_data.inputs import stage_files
from glm_data.packing import shards
from glm_data.packing.job import WORK, Job, JobFacts, load_job, mask_rule, save_job, specials_of
from glm_data.packing.options import PackOptions, Recipe, resolve
from glm_data.packing.plan import add_mip, plan_text
from glm_data.packing.rows import KINDS
from glm_data.packing.samples import MipSamples, choose_samples, no_samples, read_mip
from glm_data.packing.sentences import sentence_table
from glm_data.packing.shard import DOCUMENTS, RATIO_COLUMNS, SIDE_FILES, pack_shard
from glm_data.packing.shares import language_shares, source_shares
from glm_data.packing.sources import DOCUMENTS_SUFFIX, TextStream, Tokenized, map_ids, read_tokenized, stream_order
from glm_data.packing.tokenized import load_tokenizer
from glm_data.stage import Check, InputFile, ShardRecord, ShardTask, Stage, Success
from tokenizer import Tokenizer

NAME = "pack"
DEFAULT_MIP_RATIO = 0.05
RATIO_TOLERANCE = 0.01

Perform = Callable[[Stage, Callable[[ShardTask], ShardRecord], Sequence[ShardTask]], None]
"""Runs those of the tasks that the stage has not finished."""


def in_turn(stage: Stage, function: Callable[[ShardTask], ShardRecord], tasks: Sequence[ShardTask]) -> None:
    """One task after the other, in this process."""
    for shard in stage.pending(len(tasks)):
        started = time.perf_counter()
        stages.write_shard_record(stage.folder, function(tasks[shard]), started)


@dataclass(frozen=True)
class _Inputs:
    """What is packed, checked."""

    tokenized: Path
    mip: Path | None
    model: Tokenizer
    recipe: Recipe
    files: tuple[InputFile, ...]
    bans: Bans
    allowed: Mapping[str, str]
    """Banned data sets that the mip stage was told to use, and why."""

    def names(self, prefix: str) -> list[str]:
        """The files of an input's ``data`` folder."""
        below = prefix + "/data/"
        return [item.name.removeprefix(prefix + "/") for item in self.files if item.name.startswith(below)]


def pack_stage(
    tokenized: Path,
    out: Path,
    options: PackOptions,
    *,
    tokenizer: Path,
    mip: Path | None = None,
    perform: Perform = in_turn,
    overwrite: bool = False,
) -> Success:
    """Pack a finished tokenize stage, and a finished mip stage if given, into ``out``.

    Raises :class:`UsageError` for options that cannot be meant or a tokenizer other than the one that made the ids.
    """
    recipe = resolve(options)
    if mip is None and (options.mip_ratio or options.mip_ramp):
        given = f"--mip-ratio {options.mip_ratio}" if options.mip_ratio else f"--mip-ramp {options.mip_ramp}"
        raise UsageError(f"{given} needs rendered MIP rows; give their stage folder with --mip.")
    model = load_tokenizer(tokenizer)
    _check_fingerprint(_finished(tokenized, "tokenize"), model, tokenized)
    bans, allowed = load_bans(recipe.bans if mip else NONE), {}
    if mip is not None:
        allowed = _finished(mip, "mip").facts.get("allowed", {})
    files = stage_files(tokenized, "tokenized/") + (stage_files(mip, "mip/") if mip else ())
    described = {**to_mapping(recipe), "tokenizer": model.fingerprint, "bans": bans.digest}
    if not overwrite and (done := stages.finished(out, NAME, described, files)):
        shutil.rmtree(out / WORK, ignore_errors=True)  # left where a run was killed behind its last step
        return done
    with stages.open_stage(out, NAME, described, files, overwrite=overwrite) as stage:
        job = load_job(out, tokenized, stage.key)
        if job is None:
            _check_inputs(files)
            made = _prepare(_Inputs(tokenized, mip, model, recipe, files, bans, allowed), stage)
            save_job(made, out, (DOCUMENTS, *SIDE_FILES))
            job = load_job(out, tokenized, stage.key)
        assert job is not None  # noqa: S101 - it was just written
        perform(stage, pack_shard, _tasks(job, out, tokenized, stage.key))
        success = _succeed(stage, job)
        shutil.rmtree(out / WORK)
        return success


def _tasks(job: Job, out: Path, tokenized: Path, key: str) -> list[ShardTask]:
    tables = job.described.documents + len(job.mip.offsets) // 2
    options = {"tokenized": str(tokenized.absolute()), "key": key, "tables": tables}
    size = job.recipe.rows_per_shard * job.recipe.seq_length * 2

    def task(shard: int) -> ShardTask:
        name = shards.shard_name(shard, job.shards)
        virtual = InputFile(name=name, path="", bytes=size, digest="")
        return ShardTask(shard=shard, folder=str(out), input=virtual, options=options)

    return [task(shard) for shard in range(job.shards)]


def _check_inputs(inputs: Sequence[InputFile]) -> None:
    """The plan names the inputs by their digests: they must still have them."""
    for item in inputs:
        if item.path and digest_file(Path(item.path)) != item.digest:
            raise InputError(f"'{item.path}' has changed since its stage finished; run that stage again.")


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


# --- the plan ---------------------------------------------------------------------------------------------------------


def _prepare(inputs: _Inputs, stage: Stage) -> Job:
    """Decide everything, and write what stands beside the shards."""
    recipe, model = inputs.recipe, inputs.model
    documents = read_tokenized(inputs.tokenized, inputs.names("tokenized"))
    order, starts, copies = stream_order(documents, recipe)
    samples = no_samples()
    if inputs.mip:
        samples = read_mip(inputs.mip, inputs.names("mip"), model, recipe.mip_window, recipe.seq_length)
        check_bans(samples.table["source"].unique().to_pylist(), inputs.bans, inputs.allowed, where=str(inputs.mip))
    ratio = (DEFAULT_MIP_RATIO if inputs.mip else 0.0) if recipe.mip_ratio is None else recipe.mip_ratio
    text = plan_text(starts, recipe)
    choice, wanted = choose_samples(text, samples, ratio, recipe)
    specials = specials_of(model.special)
    job = Job(
        described=JobFacts(
            key=stage.key,
            recipe=recipe,
            specials=specials,
            token_type=shards.token_type(model.vocab_size),
            stems=documents.stems,
            documents=len(documents.length),
            digests={},
            facts={
                "mip_ratio": {"wanted": round(wanted, 6), "of": recipe.mip_ratio_of, "after_ramp": ratio},
                "sources": source_shares(documents, copies, recipe),
                "languages": language_shares(documents, copies, recipe),
                "fingerprint": model.fingerprint,
                "vocab_size": model.vocab_size,
                "mip_samples": len(samples.lengths),
                "mip_prompts_cut": samples.cut,
                "mip_refused": samples.refused,
                "bans": {"list": inputs.bans.name, "allowed": dict(inputs.allowed)},
                "smallest": _smallest(samples, recipe),
            },
        ),
        plan=add_mip(text, samples.lengths, samples.targets, choice, recipe),
        stream=TextStream(
            map_ids(inputs.tokenized, documents.stems), documents.file, documents.offset, documents.length, order,
            starts, specials["eos"],
        ),
        mip=samples.tokens,
        rule=mask_rule(recipe, sentence_table(model) if recipe.needs_sentences else np.zeros(0, np.uint8)),
    )  # fmt: skip
    _write_tables(stage.folder, inputs, documents, samples)
    names = [shards.shard_name(shard, job.shards) for shard in range(job.shards)]
    features = shards.hf_features(recipe.seq_length, job.described.token_type, recipe.epochs)
    write_sidecars(stage.folder, names, features)
    model.save(stage.folder)
    return job


def _smallest(samples: MipSamples, recipe: Recipe) -> int:
    """The least that one more MIP sample adds to what the ratio counts; no ratio can be met more nearly."""
    if recipe.mip_ratio_of == "sequences":
        return 1
    amounts = samples.targets if recipe.mip_ratio_of == "loss-tokens" else samples.lengths
    return int(amounts[amounts > 0].min(initial=recipe.seq_length))


def _write_tables(out: Path, inputs: _Inputs, documents: Tokenized, samples: MipSamples) -> None:
    """``documents.parquet``: number -> id, source, lang, template; MIP samples stand after the documents."""
    schema = pa.schema([(name, pa.string()) for name in ("id", "source", "lang", "template")])
    with parquet_writer(out / DOCUMENTS, schema) as writer:
        for stem in documents.stems:
            table = pq.ParquetFile(inputs.tokenized / (stem + DOCUMENTS_SUFFIX))
            for batch in table.iter_batches(65_536, columns=["id", "source", "lang"]):
                nothing = pa.repeat(pa.scalar("", pa.string()), len(batch))
                writer.write(pa.RecordBatch.from_arrays([*batch.columns, nothing], schema=schema))
        for batch in samples.table.cast(schema).to_batches(max_chunksize=65_536):
            writer.write(batch)


# --- what came of it --------------------------------------------------------------------------------------------------


def _succeed(stage: Stage, job: Job) -> Success:
    total: dict[str, int] = {}
    for record in stage.records().values():
        for name, value in record.counts.items():
            total[name] = total.get(name, 0) + value
    facts = _facts(stage.folder, job, total)
    smallest = facts.pop("smallest")
    checks = [_ratio_check(facts, job.recipe, smallest, _counted(total, job.recipe))]
    checks += [
        _share_check(name, what, share)
        for what in ("sources", "languages")
        for name, share in facts[what].items()
        if "wanted" in share
    ]
    if not facts["rows"]:
        checks.append(Check(name="rows", ok=False, sentence="There is no row: the mix or the inputs leave no text."))
    return stage.succeed(job.shards, checks, facts)


def _counted(counts: Mapping[str, int], recipe: Recipe) -> dict[str, int]:
    """What the ratio counts, by kind."""
    return {name: counts[f"{RATIO_COLUMNS[recipe.mip_ratio_of]}/{name}"] for name in KINDS}


def _facts(folder: Path, job: Job, counts: Mapping[str, int]) -> dict[str, Any]:
    names = [shards.shard_name(shard, job.shards) for shard in range(job.shards)]
    recipe, rows = job.recipe, job.plan.rows
    used = sum(counts[f"tokens/{name}"] for name in KINDS)
    counted = _counted(counts, recipe)
    known = dict(job.described.facts)
    known["mip_ratio"] = {**known["mip_ratio"], "got": round(counted["mip"] / max(1, sum(counted.values())), 6)}
    return {
        "rows": rows,
        "seq_length": recipe.seq_length,
        "boundaries": recipe.boundaries,
        "token_type": job.described.token_type,
        "shards": [
            {
                "file": name,
                "rows": min(recipe.rows_per_shard, rows - index * recipe.rows_per_shard),
                "offset": shards.token_offset(folder / name),
            }
            for index, name in enumerate(names)
        ],
        "specials": job.described.specials,
        "documents": job.described.documents,
        "masks": {
            "epochs": recipe.epochs,
            "gmask_least": recipe.gmask_least,
            "mask_rate": recipe.mask_rate,
            "span_mean": recipe.span_mean,
            "span_longest": recipe.span_longest,
            "in_sentences": recipe.span_bounds == "sentences",
            "sentences": recipe.needs_sentences,
        },
        "mip_ramp": recipe.mip_ramp,
        "fill": round(used / max(1, rows * recipe.seq_length), 6),
        "mask_rate": round(counts["masked/mask"] / max(1, counts["source/mask"]), 6),
        "span_mean": round(counts["masked/mask"] / max(1, counts["spans/mask"]), 6),
        **known,
    }


def _ratio_check(facts: Mapping[str, Any], recipe: Recipe, smallest: int, counted: Mapping[str, int]) -> Check:
    """Within 1 %, or as near as whole samples allow in a small pack."""
    wanted, got = facts["mip_ratio"]["wanted"], facts["mip_ratio"]["got"]
    ok = abs(got - wanted) <= max(RATIO_TOLERANCE * wanted, smallest / max(1, sum(counted.values())))
    what = {"tokens": "packed tokens", "sequences": "rows", "loss-tokens": "targets"}[recipe.mip_ratio_of]
    sentence = f"MIP is {got:.4f} of the {what}, {wanted:.4f} wanted."
    if not ok:
        sentence += (
            f" There are {facts['mip_samples']} samples, each used at most {recipe.mip_repeats} times;"
            " render more, raise --mip-repeats or lower --mip-ratio."
        )
    return Check(name="mip_ratio", ok=ok, sentence=sentence)


def _share_check(name: str, what: str, share: Mapping[str, float]) -> Check:
    """Within 1 % of a wanted share, or of a hundredth of all text where a part is tiny."""
    wanted, got = share["wanted"], share["share"]
    ok = abs(got - wanted) <= RATIO_TOLERANCE * max(wanted, RATIO_TOLERANCE)
    sentence = f"'{name}' is {got:.4f} of the text tokens, {wanted:.4f} wanted."
    if not ok:
        sentence += f" Whole documents come no nearer; give '{name}' more documents or another share."
    return Check(name=f"{what}/{name}", ok=ok, sentence=sentence)
