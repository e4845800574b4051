"""``glm-data serve``."""

from __future__ import annotations

from pathlib import Path

import click

from glm_data.cli.fields import EXISTING_FOLDER, device_option
from glm_data.cli.output import Output
from glm_data.cli.shell import Command, require_extra, require_torch


@click.command(
    "serve",
    cls=Command,
    help="Serve the model in the folder MODEL over HTTP: OpenAI-style POST /v1/completions, POST /infill for texts "
    "with [MASK] blanks, GET /health, and a page at / to type a text and watch its blanks filled. Only this machine "
    "can reach it unless --remote is given. Needs the extras 'train' and 'web'. Ends with Ctrl-C.",
    example="""
        glm-data serve run/quantize
        glm-data serve run/quantize --port 9000 --max-tokens 256
    """,
)
@click.argument("model", type=EXISTING_FOLDER)
@click.option("--host", default="127.0.0.1", show_default=True, help="IP address to listen on.")
@click.option("--port", type=int, default=8000, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--remote", is_flag=True, help="Allow a --host that other machines reach; anyone who does may use the model."
)
@click.option("--name", "names", multiple=True, help="A further host name under which browsers reach the server.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1, max=2000), default=512, show_default=True, help="Tokens of an answer."
)
@click.option(
    "--max-waiting", type=click.IntRange(min=1), default=64, show_default=True, help="Texts that may wait for others."
)
@device_option
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def serve(
    model: Path,
    host: str,
    port: int,
    remote: bool,
    names: tuple[str, ...],
    max_tokens: int,
    max_waiting: int,
    device: str,
    quiet: bool,
) -> int:
    """Listen first, so that a taken port is known before the model is loaded; serve until told to stop."""
    require_extra("web")
    require_torch()
    from glm_data import web

    listener = web.listen(host, port, remote=remote)
    with listener:
        from glm_data.generation.glm import Glm
        from glm_data.serving.app import make_app
        from glm_data.serving.engine import Engine, Limits

        output = Output(quiet=quiet)
        with Engine(Glm.load(model, device), Limits(max_tokens=max_tokens, waiting=max_waiting)) as engine:
            server = web.Server(make_app(engine, model.resolve().name, remote=remote, names=names), listener)
            output.say(f"{server.url} serves {model}; Ctrl-C ends it.")
            server.run()
            output.note("stopped.")
    return 0
