"""``glm-data config``: the bundled recipes, profiles and lists; a stage's options in full; files checked."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import click

from glm_data.cli.fields import EXISTING_FILE
from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import GUARD_RAIL_EXIT_CODE, Command, LazyGroup
from glm_data.errors import ConfigError, UsageError, did_you_mean

config = LazyGroup(
    "config",
    lazy={
        "ls": ("glm_data.cli.config:ls", "List the bundled recipes, profiles and lists, and the stages."),
        "cat": ("glm_data.cli.config:cat", "Print one of them, or a stage's options with their defaults."),
        "validate": ("glm_data.cli.config:validate", "Check recipes, profiles and mixtures before anything runs."),
    },
    help="Look at the recipes, profiles and lists that come with glm-data, and check your own.",
    example="""
        glm-data config ls
        glm-data config cat pack                     # every option of a stage, with its default
        glm-data config validate my-recipe.yaml
    """,
)


@click.command(
    "ls",
    cls=Command,
    help="List what 'glm-data config cat' prints, by kind.",
    example="glm-data config ls",
)
@output_options
def ls(as_json: bool, quiet: bool) -> None:
    """Print the names."""
    output = Output(as_json=as_json, quiet=quiet)
    found = bundled()
    output.value({kind: sorted(names) for kind, names in found.items()})
    for kind, names in found.items():
        output.say(kind, bold=True)
        for name, about in names.items():
            output.say(f"  {name:<20} {about}".rstrip())


@click.command(
    "cat",
    cls=Command,
    help="Print NAME: a bundled recipe, profile or list as it stands, or for the name of a stage a section of a recipe "
    "with every option, its meaning and its default.",
    example="""
        glm-data config cat demo > my-recipe.yaml
        glm-data config cat gopher
        glm-data config cat dedupe
    """,
)
@click.argument("name")
def cat(name: str) -> None:
    """Print the file or the section."""
    from glm_data import recipe as recipes

    if name in recipes.STAGES:
        click.echo("\n".join(section_lines(name)))
        return
    click.echo(path_of(name).read_text(encoding="utf-8"), nl=False)


@click.command(
    "validate",
    cls=Command,
    help="Check FILES, each a recipe, a filter profile or a MIP mixture: unknown keys, wrong types, values out of "
    "range, files that are not there. Ends with 3 if one of them would be refused.",
    example="glm-data config validate my-recipe.yaml my-profile.yaml",
)
@click.argument("files", nargs=-1, required=True, type=EXISTING_FILE)
@output_options
def validate(files: tuple[Path, ...], as_json: bool, quiet: bool) -> int:
    """Check each file and say what it is."""
    output = Output(as_json=as_json, quiet=quiet)
    told = []
    for path in files:
        try:
            kind = check_file(path)
            told.append({"file": str(path), "ok": True, "kind": kind})
            output.say(f"{click.style('ok', fg='green')} {path} is a {kind}")
        except UsageError as error:
            told.append({"file": str(path), "ok": False, "error": str(error)})
            output.note(f"{click.style('refused', fg='red', bold=True)} {error}")
    output.value(told)
    return 0 if all(item["ok"] for item in told) else GUARD_RAIL_EXIT_CODE


@functools.cache
def bundled() -> dict[str, dict[str, str]]:
    """What can be printed, by kind: names with a few words about each."""
    import manifests
    from glm_data import recipe as recipes
    from glm_data.filters import load_profile, profile_names

    recipes_ = {name: _first_comment(manifests.path(f"{name}.yaml")) for name in manifests.names()}
    profiles = {name: _shorten(load_profile(name).description) for name in profile_names()}
    lists = {"evaluation": _first_comment(manifests.path("evaluation.yaml"))}
    return {"recipes": recipes_, "profiles": profiles, "lists": lists, "stages": dict.fromkeys(recipes.STAGES, "")}


def path_of(name: str) -> Path:
    """The bundled file called ``name``; :class:`UsageError` with the nearest name for another one."""
    import manifests

    found = bundled()
    if name in found["recipes"] or name in found["lists"]:
        return manifests.path(f"{name}.yaml")
    if name in found["profiles"]:
        return Path(str(resources.files("glm_data.filters"))) / "profiles" / f"{name}.yaml"
    known = [name for names in found.values() for name in names]
    hint = did_you_mean(name, known) or " 'glm-data config ls' lists what there is."
    raise UsageError(f"there is nothing called '{name}'.{hint}")


def section_lines(stage: str) -> Iterator[str]:
    """A recipe's section of a stage with every option at its default, its meaning as a comment above it."""
    import msgspec
    import yaml

    from glm_data import recipe as recipes
    from glm_data.config import options

    kind = recipes.options_type(stage)
    about = {option.name: option.help for option in options(kind)}
    yield f"{stage}:"
    for field in msgspec.structs.fields(kind):
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        yield f"  # {about.get(field.name) or field.name.replace('_', ' ')}"
        if default is msgspec.NODEFAULT:
            yield f"  # {field.name}: (has to be given)"
            continue
        line = yaml.safe_dump({field.name: msgspec.to_builtins(default)}, default_flow_style=True, allow_unicode=True)
        yield f"  {' '.join(line.split())[1:-1]}"


def check_file(path: Path) -> str:
    """What a YAML file is, after checking it in full; raises :class:`ConfigError` or another :class:`UsageError`."""
    from glm_data import recipe as recipes
    from glm_data.config import load_yaml
    from glm_data.filters import load_profile
    from glm_data.mip import read_mixture

    keys = set(load_yaml(path, dict))  # type: ignore[type-var]
    if "rules" in keys:
        load_profile(str(path.absolute()))
        return "filter profile"
    if "datasets" in keys:
        read_mixture(path)
        return "MIP mixture"
    if not keys & {*recipes.STAGES, "inputs", "demo_input"}:
        raise ConfigError(f"{path}: is no recipe, filter profile or MIP mixture; it has none of their keys.")
    recipes.load(path)
    return "recipe"


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return _shorten(" ".join(line.strip("# ") for line in lines[:3] if line.startswith("#")))


def _shorten(text: str) -> str:
    return textwrap.shorten(text, 88, placeholder=" …")
