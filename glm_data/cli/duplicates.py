"""``glm-data duplicates``: what de-duplication removed and for what, looked at and audited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, table, visible
from glm_data.cli.shell import GUARD_RAIL_EXIT_CODE, Command
from glm_data.errors import InputError

if TYPE_CHECKING:
    from glm_data.inspection import Audit, Cluster, FinishedStage, Overlap

_CHARACTERS = 400
_MOST_SOURCES = 12
_SHOWN_FALSE = 10


@click.command(
    "duplicates",
    cls=Command,
    help="Look at what de-duplication removed. Shows the largest clusters, each with its least similar removal beside "
    "the document that stayed, and how many documents of one source went for those of another. With --audit it reads a "
    "seeded sample of removals again, compares their texts by a plain implementation of the definition, and states the "
    "share of false removals with its 95 % confidence interval; ends with 3 if it finds one. RUN is a run's folder or "
    "that of its dedupe stage.",
    example="""
        glm-data duplicates my-run
        glm-data duplicates my-run --clusters 20 --no-text
        glm-data duplicates my-run --audit 500
    """,
)
@click.argument("run", type=EXISTING_FOLDER)
@click.option("--clusters", type=click.IntRange(min=0), default=3, show_default=True, help="Clusters to show.")
@click.option("--text/--no-text", default=True, help="Show texts side by side, read again from the inputs.")
@click.option(
    "--characters",
    type=click.IntRange(min=1),
    default=_CHARACTERS,
    show_default=True,
    help="Characters to show of a passage that differs.",
)
@click.option("--audit", "audited", type=click.IntRange(min=1), help="Check so many removals against the texts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the audit's sample.")
@click.option("--inputs", multiple=True, help="Where the stage's inputs are now, if they have moved.")
@output_options
def duplicates(run: Path, as_json: bool, quiet: bool, **given: Any) -> int:
    """Print clusters and overlap, or the audit."""
    from glm_data.inspection import audit, locate_inputs, open_run

    output = Output(as_json=as_json, quiet=quiet)
    stage = open_run(run).only("dedupe")
    if given["audited"]:
        found = audit(stage, locate_inputs(stage, given["inputs"]), given["audited"], given["seed"])
        output.value(found)
        _print_audit(output, found)
        return GUARD_RAIL_EXIT_CODE if found.false else 0
    _look(output, stage, given)
    return 0


def _look(output: Output, stage: FinishedStage, given: dict[str, Any]) -> None:
    from glm_data.inspection import largest_clusters, source_overlap
    from glm_data.inspection.audit import TABLE

    clusters = largest_clusters(stage.folder / TABLE, given["clusters"])
    texts, overlap = {}, None
    try:
        overlap = source_overlap(stage.folder / "_work")
    except InputError as error:
        output.note(str(error), fg="yellow")
    if given["text"] and clusters:
        try:
            texts = _read_texts(stage, clusters, given["inputs"])
        except InputError as error:
            output.note(f"no texts: {error}", fg="yellow")
    removed = sum(stage.success.dropped.values())
    output.value({"removed": removed, "clusters": [_told(item, texts) for item in clusters], "overlap": overlap})
    if output.as_json or output.quiet:
        return
    rules = ", ".join(f"{rule} {count:,}" for rule, count in stage.success.dropped.items())
    output.say(
        f"{removed:,} of {stage.success.records:,} documents removed" + (f" ({rules})" if rules else ""), bold=True
    )
    for number, cluster in enumerate(clusters, 1):
        _print_cluster(output, number, cluster, texts, given["characters"])
    if overlap is not None and removed:
        _print_overlap(output, overlap)


def _read_texts(stage: FinishedStage, clusters: list[Cluster], inputs: tuple[str, ...]) -> dict[str, str]:
    from glm_data.inspection import locate_inputs
    from glm_data.inspection.lookup import find_documents

    ids = {id for cluster in clusters for id in (cluster.kept, cluster.removed[0].id)}
    found = find_documents(locate_inputs(stage, inputs), ids, stage.plan["options"]["format"])
    return {id: row["text"] for id, row in found.items()}


def _told(cluster: Cluster, texts: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(cluster)
    own = {id: texts[id] for id in (cluster.kept, *(item.id for item in cluster.removed)) if id in texts}
    return {**told, "texts": own}


# --- on the terminal --------------------------------------------------------------------------------------------------


def _print_cluster(output: Output, number: int, cluster: Cluster, texts: dict[str, str], characters: int) -> None:
    from glm_data.cli.paint import print_side_by_side
    from glm_data.viewer.differences import side_by_side

    rules = ", ".join(f"{rule} {count:,}" for rule, count in cluster.rules.items())
    output.say(f"\ncluster {number}: {cluster.documents:,} documents, kept is {visible(cluster.kept)}", bold=True)
    least = cluster.removed[0]
    output.say(f"  removed: {rules}; least similar {least.jaccard:.4f}, {least.containment:.1%} of it in the kept one")
    if least.id in texts and cluster.kept in texts:
        titles = (f"removed  {least.id}", f"kept  {cluster.kept}")
        print_side_by_side(side_by_side(texts[least.id], texts[cluster.kept], characters), titles)


def _print_overlap(output: Output, overlap: Overlap) -> None:
    """A matrix whose columns are the numbers of its lines: sources that lost documents or hold their partners."""
    moved = [sum(row) + sum(other[place] for other in overlap.removed) for place, row in enumerate(overlap.removed)]
    order = sorted((place for place, count in enumerate(moved) if count), key=lambda place: (-moved[place], place))
    shown = order[:_MOST_SOURCES]
    rows = [("", "source", "documents", "removed", *(str(number) for number in range(1, len(shown) + 1)))]
    for number, place in enumerate(shown, 1):
        row = overlap.removed[place]
        counts = (f"{row[other]:,}" if row[other] else "·" for other in shown)
        name = visible(overlap.sources[place])
        rows.append((str(number), name, f"{overlap.documents[place]:,}", f"{sum(row):,}", *counts))
    output.say("\nremoved of a source (line) for kept documents of a source (column)", bold=True)
    for line in table(rows):
        output.say(f"  {line}")
    if len(order) > len(shown):
        output.say(f"  and {len(order) - len(shown)} more sources; --json has them all", dim=True)


def _print_audit(output: Output, found: Audit) -> None:
    output.say(
        f"{found.sampled:,} of {found.removals:,} removals sampled (seed {found.seed}), {found.checked:,} compared"
    )
    if found.checked < found.sampled:
        output.say(f"  {found.sampled - found.checked:,} were removed for documents that are not among the inputs")
    for item in found.false[:_SHOWN_FALSE]:
        why = "" if item.kept_is_there else ", which is not among the kept"
        alike = f"found {item.jaccard:.4f} and {item.containment:.1%} inside, stated {item.stated:.4f}"
        output.say(f"  false: {visible(item.removed)} for {visible(item.kept)}{why} ({alike})", fg="red")
    style = "red" if found.false else "green"
    rate = f"{len(found.false):,} false removals of {found.checked:,}: {found.rate:.2%}"
    output.say(f"{rate} (95 % confidence: {found.low:.2%} to {found.high:.2%})", fg=style, bold=True)
    output.say(f"largest difference between a stated similarity and the one found: {found.largest_difference:.2g}")
