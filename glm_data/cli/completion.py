"""``glm-data completion``: commands, options and paths completed by the shell."""

from __future__ import annotations

import click

from glm_data.cli.shell import Command, cli

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    cls=Command,
    help="Print what makes a shell complete the commands and options of glm-data on the tab key.",
    example="""
        glm-data completion bash >> ~/.bashrc
        glm-data completion zsh >> ~/.zshrc
        glm-data completion fish > ~/.config/fish/completions/glm-data.fish
    """,
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell) or ShellComplete
    # Click's class for bash would first ask bash for its version.
    click.echo(ShellComplete.source(kind(cli, {}, "glm-data", "_GLM_DATA_COMPLETE")))
