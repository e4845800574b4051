"""``glm-data init``: a recipe with comments for somebody's own shards."""

from __future__ import annotations

from pathlib import Path

import click

from glm_data.cli.fields import FILE
from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import Command
from glm_data.errors import UsageError

DEFAULT_NAME = "recipe.yaml"


@click.command(
    "init",
    cls=Command,
    help="Look at INPUTS (files, folders, patterns) and write a recipe for them, with comments: formats, languages, "
    "what the filter would drop, a vocabulary of fitting size.",
    example="""
        glm-data init shards
        glm-data init '/data/pile/*.jsonl.zst' /data/wudao --out mine.yaml
    """,
)
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "--out", "--output", "-o", type=FILE, default=DEFAULT_NAME, show_default=True, help="The recipe to write."
)
@click.option("--overwrite", is_flag=True, help="Replace a recipe that is there.")
@output_options
def init(inputs: tuple[str, ...], out: Path, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Write the recipe and say what comes next."""
    from glm_data import files
    from glm_data.filters import FilterOptions
    from glm_data.planning import look_at, write_recipe

    output = Output(as_json=as_json, quiet=quiet)
    if out.exists() and not overwrite:
        raise UsageError(f"'{out}' is there already; give another --out, or --overwrite to replace it.")
    if any(out.absolute().is_relative_to(Path(path).absolute()) for path in inputs):
        raise UsageError(f"'{out}' would lie among the inputs and be read as one of them; give another --out.")
    look = look_at(inputs, FilterOptions())
    placed = [str(Path(path).absolute()) if out.parent != Path() else path for path in inputs]
    text = write_recipe(look, placed, str(out))
    try:
        files.write_bytes(out, text.encode())
    except OSError as error:
        raise files.output_error(out, error, goes_on=False) from error
    output.value({"recipe": str(out), "files": look.files, "documents": round(look.documents), "kept": look.kept})
    languages = dict.fromkeys(part.lang for part in look.kept[:6])
    output.say(
        f"{look.files:,} files, about {look.documents:,.0f} documents, in {', '.join(languages) or 'no language'}"
    )
    output.say(f"wrote {out}", bold=True)
    output.say(f"  glm-data plan {out}")
    output.say(f"  glm-data run {out} --out my-run")
