"""``glm-data filter tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, visible
from glm_data.cli.shell import Command

if TYPE_CHECKING:
    from glm_data.filters.tune import Kept, RuleTold, Sample

_WIDTH = 40


@click.command(
    "tune",
    cls=Command,
    help="Say what other thresholds would keep, from the signals that a finished filter stage kept: no text is read. "
    "Without RULES it shows what each rule drops, before and after; with some, the histogram of each one's signal with "
    "its threshold drawn in, and documents around the border, half of each side. Nothing is changed: write the "
    "thresholds into a profile and filter again.",
    example="""
        glm-data filter tune run/filter
        glm-data filter tune run/filter headlines --set headlines.min=0.05 --set links=off
        glm-data filter tune run/filter --profile fineweb2-cmn
    """,
)
@click.argument("stage", type=EXISTING_FOLDER)
@click.argument("rules", nargs=-1)
@click.option("--profile", help="Another profile, by name or path; default: the one the stage was run with.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="CHANGE",
    help="RULE.min=NUMBER, RULE.max=NUMBER or RULE=off; NAME:SIGNAL.max=NUMBER for a new rule.",
)
@click.option("--samples", type=click.IntRange(0), default=20, show_default=True, help="Documents around the border.")
@output_options
def tune(stage: Path, rules: tuple[str, ...], as_json: bool, quiet: bool, **given: Any) -> int:
    """Print rules, or histograms and samples."""
    from glm_data.errors import UsageError, did_you_mean
    from glm_data.filters.rules import load_profile
    from glm_data.filters.tune import change_profile, read_kept, reasons_of, sample_border, tell_rules

    output = Output(as_json=as_json, quiet=quiet)
    kept = read_kept(stage)
    base = load_profile(given["profile"]) if given["profile"] else kept.profile
    profile = change_profile(base, given["changes"])
    known = {rule.name: rule for rule in profile.rules}
    for name in rules:
        if name not in known:
            raise UsageError(f"the profile has no rule '{name}'.{did_you_mean(name, known) or ''}")
    before, after = reasons_of(kept, kept.profile), reasons_of(kept, profile)
    told = list(tell_rules(kept, profile, before, after, rules))
    samples = {name: sample_border(kept, known[name], after, given["samples"]) for name in rules}
    output.value(
        {
            "documents": len(before),
            "kept_before": int((before == "").sum()),
            "kept": int((after == "").sum()),
            "sources": _by_source(kept, before, after),
            "rules": msgspec.to_builtins(told),
            "samples": msgspec.to_builtins(samples),
        }
    )
    if not as_json:
        _print(output, kept, before, after, told, samples)
    return 0


def _by_source(kept: Kept, before: Any, after: Any) -> list[dict[str, Any]]:
    rows = []
    for source in sorted(set(kept.sources.tolist())):
        mine = kept.sources == source
        counts = {"kept_before": int((before[mine] == "").sum()), "kept": int((after[mine] == "").sum())}
        rows.append({"source": source, "documents": int(mine.sum()), **counts})
    return sorted(rows, key=lambda row: (-row["documents"], row["source"]))


def _print(
    output: Output, kept: Kept, before: Any, after: Any, told: list[RuleTold], samples: dict[str, list[Sample]]
) -> None:
    was, now = int((before == "").sum()), int((after == "").sum())
    output.say(f"{len(before):,} documents: {was:,} kept before, {now:,} now ({now - was:+,})", bold=True)
    if not samples:
        for row in _by_source(kept, before, after)[:12]:
            change = row["kept"] - row["kept_before"]
            share = f"{row['kept']:>9,} of {row['documents']:>9,} kept {row['kept'] / row['documents']:7.2%}"
            output.say(f"  {share} {change:+8,}  {visible(row['source'])}")
        output.say("\nrule, its bounds, dropped for it before and now, all that break it", bold=True)
        for item in told:
            line = f"  {item.rule.name:<24} {_bounds(item):<38} {item.dropped_before:>9,} {item.dropped:>9,}"
            output.say(f"{line} {item.broken:>9,}")
        return
    for item in told:
        _print_histogram(output, item)
        for sample in samples[item.rule.name]:
            side = "kept   " if sample.kept else "dropped"
            output.say(f"  {side} {sample.value:>10.4g}  {visible(sample.id)}", fg=None if sample.kept else "red")
            output.say(f"      {visible(sample.excerpt)}", dim=True)


def _bounds(item: RuleTold) -> str:
    rule = item.rule
    low = f"{rule.min:g} <= " if rule.min is not None else ""
    high = f" <= {rule.max:g}" if rule.max is not None else ""
    return f"{low}{rule.signal}{high}"


def _print_histogram(output: Output, item: RuleTold) -> None:
    output.say(f"\n{item.rule.name}: {_bounds(item)}", bold=True)
    edges, counts = item.histogram
    most = max(counts, default=1) or 1
    for first, last, count in zip(edges, edges[1:], counts, strict=False):
        for bound in (item.rule.min, item.rule.max):
            if bound is not None and first == bound:
                output.say(f"  {'-' * 12} {bound:g} {'-' * _WIDTH}", fg="yellow")
        output.say(f"  {first:>10.4g} to {last:<10.4g} {'█' * round(count / most * _WIDTH):<{_WIDTH}} {count:>9,}")
