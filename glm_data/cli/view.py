"""``glm-data view``: a local page to look at anything that a run wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.output import Output
from glm_data.cli.shell import Command, require_extra


@click.command(
    "view",
    cls=Command,
    help="Open a local, read-only page on PATH: a run's folder, a stage's, a mixture.yaml or templates.yaml of "
    "instruction data, or a tokenizer.model. It shows packed rows, clusters of duplicates side by side, rules of a "
    "filter with thresholds to move, templates on real rows, tokenizers on a text, tables and the run report. Only "
    "this machine reaches it, and nothing is written but templates, to the file that --save names. Ctrl-C ends it.",
    example="""
        glm-data view my-run
        glm-data view my-run/pack --port 8765 --no-open
        glm-data view manifests/demo/mip/mixture.yaml --save my-templates.yaml
    """,
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port; 0 takes a free one.")
@click.option("--open/--no-open", "opens", default=True, help="Open the page in the browser.")
@click.option(
    "--beside", multiple=True, type=click.Path(exists=True, path_type=Path), help="A tokenizer to compare; repeatable."
)
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="File that changed templates may be written to."
)
@click.option("--inputs", multiple=True, help="Where inputs of the stages are now, if they have moved; repeatable.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def view(path: Path, port: int, opens: bool, quiet: bool, **given: Any) -> None:
    """Serve until told to stop."""
    import threading
    import webbrowser

    require_extra("web")
    from glm_data import web
    from glm_data.viewer.app import make_app
    from glm_data.viewer.desk import Desk
    from glm_data.viewer.opened import open_path

    desk = Desk(open_path(path, given["beside"], given["inputs"]), given["save"])
    server = web.Server(make_app(desk), web.listen("127.0.0.1", port))
    Output(quiet=quiet).note(f"{path} is shown at {server.url}  (Ctrl-C to stop)")
    threading.Thread(target=desk.warm, daemon=True).start()
    if opens:
        webbrowser.open(server.url)
    server.run()
