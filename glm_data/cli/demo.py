"""``glm-data demo``: the whole job on the bundled corpus, and what came of everything that was planted in it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from glm_data import recipe as recipes
from glm_data.cli.fields import FOLDER
from glm_data.cli.output import Output, output_options, show_checks, table
from glm_data.cli.run import Outcome, run_recipe, show_completions
from glm_data.cli.shell import GUARD_RAIL_EXIT_CODE, Command
from glm_data.stage import Check

DEFAULT_FOLDER = "glm-data-demo"
LEAST_UNIQUE_KEPT = 0.97
LEAST_COPIES_FOUND = 0.95
LEAST_NOISE_FOUND = 0.90
_NOISE = ("boilerplate_page", "spam", "garbage")
_TWINS = ("exact_copy", "traditional_twin", "full_width_twin")


@click.command(
    "demo",
    cls=Command,
    resumes=True,
    help="The whole job on the bundled corpus: raw Pile and WuDao shards, filtered, de-duplicated, tokenised, mixed "
    "with MIP, packed; a tiny GLM trained on them, quantised to INT4, and filling in blanks in English and Chinese.",
    example="glm-data demo my-demo",
)
@click.argument("folder", type=FOLDER, default=DEFAULT_FOLDER)
@click.option("--workers", type=int, help="Worker processes of corpus stages; 0 means as many as pay.")
@click.option("--overwrite", is_flag=True, help="Do again the stages whose options or inputs have changed.")
@output_options
def demo(folder: Path, workers: int | None, overwrite: bool, as_json: bool, quiet: bool) -> int:
    """Run the demo's recipe and tell what it shows."""
    import manifests
    from pipelines.lean import lean_imports

    output = Output(as_json=as_json, quiet=quiet)
    with lean_imports():
        loaded = recipes.load(manifests.path("demo.yaml"))
        outcome = run_recipe(loaded, folder, output, workers=workers, overwrite=overwrite)
    fates = find_fates(folder)
    checks = judge(fates)
    ok = outcome.ok and all(check.ok for check in checks)
    output.value(
        {
            "folder": str(folder),
            "ok": ok,
            "planted": {kind: {fate: counts[fate] for fate in FATES} for kind, counts in fates.items()},
            "training": outcome.stages["train"].facts,
            "completions": outcome.completions,
            "checks": msgspec.to_builtins(checks),
        }
    )
    _show(output, outcome, fates, checks)
    return 0 if ok else GUARD_RAIL_EXIT_CODE


# --- what became of what was planted ----------------------------------------------------------------------------------

FATES = ("planted", "filtered", "duplicates", "left")
Fates = dict[str, Counter[str]]
"""For each kind of planted record, near-duplicates together, counts of :data:`FATES`: ``filtered`` counts what the
filter dropped or could not read."""


def find_fates(folder: Path) -> Fates:
    """Follow every planted record through the filter and dedupe stages of a demo run."""
    from glm_data.demo_input import read_planted

    filtered, deduped = _document_ids(folder / "filter"), _document_ids(folder / "dedupe")
    counts: dict[str, Counter[str]] = {}
    for identity, (kind, _) in read_planted(folder / recipes.RAW).records.items():
        fate = "filtered" if identity not in filtered else "duplicates" if identity not in deduped else "left"
        counts.setdefault(kind.partition("/")[0], Counter()).update(("planted", fate))
    order = ("unique", "near_duplicate", *_TWINS, "mojibake", *_NOISE, "broken")
    return {kind: counts[kind] for kind in sorted(counts, key=order.index)}


def _document_ids(stage: Path) -> set[str]:
    from glm_data.formats.parquet import read_batches
    from glm_data.stage import find_inputs

    batches = (batch for item in find_inputs([stage]) for batch in read_batches(Path(item.path), ["id"]))
    return {identity for batch in batches for identity in batch.column("id").to_pylist()}


def judge(fates: Fates) -> list[Check]:
    """Whether the corpus stages did what they should: originals stay, copies and noise go."""
    copies = _sum(fates, ("near_duplicate", *_TWINS))
    noise = _sum(fates, _NOISE)
    unique = fates["unique"]
    gone = "of their copies, near-duplicates and twins are gone"
    return [
        _check(
            "originals", unique["left"], unique, "of the documents written for the demo are left", LEAST_UNIQUE_KEPT
        ),
        _check("copies", copies["planted"] - copies["left"], copies, gone, LEAST_COPIES_FOUND),
        _check("noise", noise["planted"] - noise["left"], noise, "of the noise pages are gone", LEAST_NOISE_FOUND),
    ]


def _sum(fates: Fates, kinds: Iterable[str]) -> Counter[str]:
    return sum((fates[kind] for kind in kinds if kind in fates), Counter())


def _check(name: str, part: int, fate: Counter[str], what: str, least: float) -> Check:
    sentence = f"{part:,} of {fate['planted']:,} {what}; at least {least:.0%} should be."
    return Check(name=name, ok=part >= least * fate["planted"], sentence=sentence)


# --- telling it -------------------------------------------------------------------------------------------------------


def _show(output: Output, outcome: Outcome, fates: Fates, checks: list[Check]) -> None:
    output.say("\nWhat was planted in the raw shards, and what became of it", bold=True)
    rows = [
        ("", *FATES),
        *((kind.replace("_", " "), *(str(counts[fate]) for fate in FATES)) for kind, counts in fates.items()),
    ]
    for line in table(rows):
        output.say("  " + line)
    show_checks(output, "demo", checks)
    _show_training(output, outcome.stages["train"].facts)
    output.say("\nWhat the INT4 model makes of it", bold=True)
    show_completions(output, outcome.completions)
    _show_next(output, outcome)


def _show_training(output: Output, facts: dict[str, Any]) -> None:
    output.say("\nWhat the model learnt", bold=True)
    first, last, entropy = facts["first_loss"], facts["last_loss"], facts["unigram_entropy"]
    output.say(f"  {facts['parameters'] / 1e6:.1f} M parameters, {facts['steps']} steps, {facts['epochs']:.1f} passes")
    output.say(f"  loss {first:.2f} -> {last:.2f} nats a token; guessing by frequency alone costs {entropy:.2f}")


def _show_next(output: Output, outcome: Outcome) -> None:
    place = shlex.quote(str(outcome.folder))
    output.say("\nLook at it", bold=True)
    output.say(f"  {outcome.page}")
    output.say(f"  glm-data view {place}")
    output.say(f"  glm-data inspect {place}/pack --row 0")
    output.say(f"  glm-data verify {place}/pack")
    output.say(f'  glm-data infill {place}/quantize "The quick brown fox [MASK] over the lazy dog."')
    output.say(f'  glm-data generate {place}/quantize "从前有座山，" --max-length 24')
    output.say("\nThen your own shards, in place of FOLDER", bold=True)
    output.say("  glm-data init FOLDER")
    output.say("  glm-data run recipe.yaml --out my-run")
