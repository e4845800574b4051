"""``glm-data verify``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, table, visible
from glm_data.cli.shell import Command

if TYPE_CHECKING:
    from glm_data.loading.statistics import SpanFit

_SHOWN = 12


@click.command(
    "verify",
    cls=Command,
    help="Check a pack: the digest of every file, the format's rules for every row, the text behind the masks, the "
    "masks themselves, counts, ratio and bans. Then say what is in it: fill, span lengths against the recipe's curve, "
    "targets by kind, language and source. Ends with 1 if a promise is broken.",
    example="""
        glm-data verify run/pack
        glm-data verify run/pack --source run/tokenize     # compare every row with the ids it was made of
    """,
)
@click.argument("pack", type=EXISTING_FOLDER)
@click.option("--source", type=EXISTING_FOLDER, help="The tokenize stage that was packed.")
@output_options
def verify(pack: Path, source: Path | None, as_json: bool, quiet: bool) -> int:
    """Print one line a check, then the statistics."""
    from glm_data.loading.verify import verify as verify_pack

    output = Output(as_json=as_json, quiet=quiet)
    found = verify_pack(pack, source)
    statistics, fit = found.statistics, found.statistics.span_fit() if found.statistics else None
    summary = statistics.summary() if statistics else None
    output.value({"folder": str(pack), "ok": found.ok, "checks": found.checks, "statistics": summary, "spans": fit})
    for check in found.checks:
        if check.ok:
            output.say(f"{click.style('ok', fg='green')} {check.name}: {check.sentence}")
        else:
            click.echo(f"{click.style('broken', fg='red', bold=True)} {check.name}: {check.sentence}", err=True)
    for line in _told(summary, fit) if summary else ():
        output.say(line)
    return 0 if found.ok else 1


def _told(summary: Mapping[str, Any], fit: SpanFit | None) -> Iterator[str]:
    yield ""
    yield f"{summary['rows']:,} rows, {summary['fill']:.2%} of their places used"
    yield from table([("kind", "pieces", "places", "share", "targets", "share", "masked"), *_kinds(summary["kinds"])])
    if fit:
        yield (
            f"[MASK] spans: {fit.spans:,}, mean length {fit.mean:.3f} ({fit.expected_mean:.3f} by the recipe); "
            f"chi-square {fit.chi_square:.1f} on {fit.degrees} degrees of freedom (p {fit.p_value:.2g}), "
            f"{fit.distance:.2%} of the spans would have to change"
        )
    if sum(summary["gmask_deciles"]):
        deciles = " ".join(f"{share:.3f}" for share in summary["gmask_deciles"])
        yield f"[gMASK] suffixes by tenths of their range: {deciles} (0.100 each if uniform)"
    for title in ("languages", "sources"):
        yield from table([(title[:-1], "tokens", "targets"), *_labels(summary[title])])


def _kinds(kinds: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for name, kind in kinds.items():
        shares = f"{kind['token_share']:.4f}", f"{kind['targets']:,}", f"{kind['target_share']:.4f}"
        masked = f"{kind['mask_rate']:.2%}" if "mask_rate" in kind else ""
        yield (name, f"{kind['pieces']:,}", f"{kind['tokens']:,}", *shares, masked)


def _labels(labels: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, ...]]:
    for name, sums in list(labels.items())[:_SHOWN]:
        yield (visible(name), f"{sums['tokens']:,}", f"{sums['targets']:,}")
    if len(labels) > _SHOWN:
        yield (f"and {len(labels) - _SHOWN} more", "", "")
