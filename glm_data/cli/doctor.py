"""``glm-data doctor``: what is installed, what the machine has, what may go wrong."""

from __future__ import annotations

import importlib.metadata as metadata
import importlib.util
import os
import platform
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

import glm_data
from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, megabytes, output_options, table
from glm_data.cli.shell import Command
from glm_data.errors import UsageError, did_you_mean
from glm_data.stage import Check

LEAST_MEMORY_BYTES = 2_000_000_000
LEAST_DISK_BYTES = 2_000_000_000
LEAST_TEMPORARY_BYTES = 500_000_000
LEAST_OPEN_FILES = 1024
_COMPILED = (
    "llvmlite.binding", "msgspec._core", "numba._dispatcher", "numpy._core._multiarray_umath", "opencc", "pyarrow.lib",
    "pycld2._pycld2", "sentencepiece._sentencepiece", "xxhash._xxhash", "zstandard.backend_c",
)  # fmt: skip
"""Modules of our dependencies that are compiled for one Python and one system."""


@click.command(
    "doctor",
    cls=Command,
    help="Say what is installed, what the machine has, and what may go wrong. With --runner it says what that runner "
    "needs, too: give the Beam options of the run to come behind it. Ends with 1 if something is missing.",
    example="""
        glm-data doctor
        glm-data doctor --runner flink --flink_master=host:8081 --environment_type=DOCKER --environment_config=IMAGE
        glm-data doctor --runner dask --dask_client_address=tcp://host:8786 --shared /mnt/corpus
    """,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--runner", help="A Beam runner: local, portable, flink, spark, dataflow or dask.")
@click.option(
    "--shared", type=EXISTING_FOLDER, help="Run a small stage on the runner in this folder, which workers must see too."
)
@click.option(
    "--compile",
    "compile_first",
    is_flag=True,
    help="First compile the kernels, which the first run would do otherwise (a minute or two, then cached).",
)
@output_options
def doctor(
    beam_options: tuple[str, ...],
    runner: str | None,
    shared: Path | None,
    compile_first: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Print versions, resources and checks."""
    output = Output(as_json=as_json, quiet=quiet)
    if runner is None and (beam_options or shared):
        word = (*beam_options, "--shared")[0].partition("=")[0]
        hint = did_you_mean(word, ("--runner", "--compile", "--quiet", "--json"))
        raise UsageError(
            f"there is no option '{word}'.{hint}" if hint else f"'{word}' is for a runner; name it with --runner."
        )
    if compile_first:
        from glm_data.cli.kernels import compile_kernels

        output.say(f"compiled the kernels in {compile_kernels():.0f} s")
    facts, packages, checks = machine_facts(), package_versions(), run_checks()
    if runner is not None:
        checks += runner_checks(runner, beam_options, shared)
    ok = all(check.ok for check in checks)
    output.value({"ok": ok, "machine": facts, "packages": packages, "checks": msgspec.to_builtins(checks)})
    rows = [(name, str(value)) for name, value in facts.items()]
    rows += [(name, version or f"not installed{_extra_of(name)}") for name, version in packages.items()]
    if not (as_json or quiet):
        for line in table(rows):
            output.say(line)
    for check in checks:
        mark = click.style("ok", fg="green") if check.ok else click.style("trouble", fg="red", bold=True)
        (output.say if check.ok else output.note)(f"{mark} {check.name}: {check.sentence}")
    return 0 if ok else 1


def machine_facts() -> dict[str, Any]:
    """Version, Python, system, cores, memory and the disk of the working directory."""
    disk = shutil.disk_usage(Path.cwd())
    return {
        "glm-data": glm_data.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": megabytes(memory_bytes()),
        "free disk": f"{megabytes(disk.free)} here ({Path.cwd()})",
    }


def memory_bytes() -> int:
    """The memory that this process may use: of the machine or of its control group, whichever is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        limit = "max"
    return min(machine, int(limit)) if limit.isdecimal() else machine


def package_versions() -> dict[str, str | None]:
    """Installed versions of what we depend on, extras for training included; None where not installed."""
    return {name: _version(name) for name, extra in _requirements() if extra in ("", "train")}


def _requirements() -> list[tuple[str, str]]:
    """Our dependencies as (name, extra or "")."""
    found = []
    for requirement in metadata.requires("glm-data") or []:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([^'\"]+)", requirement)
        found.append((name, extra.group(1) if extra else ""))
    return found


def _extra_of(name: str) -> str:
    extra = dict(_requirements()).get(name)
    return f" (extra '{extra}': pip install 'glm-data[{extra}]')" if extra else ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def run_checks() -> tuple[Check, ...]:
    """What may go wrong, each with its cure."""
    return (
        _check_packages(),
        _check_wheels(),
        _check_memory(),
        _check_disk(),
        _check_temporary(),
        _check_open_files(),
        _check_encoding(),
        _check_kernel_cache(),
        _check_beam(),
        _check_writable(),
    )


def runner_checks(name: str, beam_options: Sequence[str], shared: Path | None) -> tuple[Check, ...]:
    """What a Beam runner needs, each with its cure; the names begin with the runner's."""
    from pipelines.engines import find_engine
    from pipelines.preflight import RUNNERS, preflight

    engine = find_engine(name)
    if engine.name not in RUNNERS:
        raise UsageError(f"nothing is known of what '{name}' needs; known are {', '.join(RUNNERS)}.")
    checks = preflight(engine, beam_options, shared)
    return tuple(msgspec.structs.replace(check, name=f"{engine.name} {check.name}") for check in checks)


def _check_packages() -> Check:
    missing = [name for name, extra in _requirements() if not extra and _version(name) is None]
    sentence = "all required packages are installed."
    if missing:
        sentence = f"not installed: {', '.join(missing)}; install again with: pip install glm-data"
    return Check(name="packages", ok=not missing, sentence=sentence)


def _check_wheels() -> Check:
    """Compiled parts of packages are there and fit this Python; they are found, not loaded."""
    broken = [name for name in _COMPILED if importlib.util.find_spec(name) is None]
    sentence = "the compiled parts of all packages fit this Python and system."
    if broken:
        sentence = f"without a part that fits this Python: {', '.join(broken)}; use Python 3.11 on Linux or macOS, or "
        sentence += "install again with: pip install --force-reinstall --only-binary :all: glm-data"
    return Check(name="wheels", ok=not broken, sentence=sentence)


def _check_temporary() -> Check:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    ok = free >= LEAST_TEMPORARY_BYTES
    sentence = f"{megabytes(free)} free in {folder}"
    return Check(name="temporary", ok=ok, sentence=sentence + ("." if ok else "; point TMPDIR at a larger disk."))


def _check_open_files() -> Check:
    """Sorting and workers keep some hundred files open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = soft == resource.RLIM_INFINITY or soft >= LEAST_OPEN_FILES
    sentence = "no limit of open files." if soft == resource.RLIM_INFINITY else f"{soft:,} files may be open at once"
    cure = f"; raise it with: ulimit -n {LEAST_OPEN_FILES if hard < 0 else min(hard, 4096)}"
    return Check(name="open files", ok=ok, sentence=sentence if soft < 0 else sentence + ("." if ok else cure))


def _check_encoding() -> Check:
    found = (sys.getfilesystemencoding(), (sys.stdout.encoding or "utf-8"))
    ok = all(name.lower().replace("-", "") == "utf8" for name in found)
    sentence = "file names and output are UTF-8." if ok else f"file names are {found[0]}, output is {found[1]}; "
    return Check(name="encoding", ok=ok, sentence=sentence if ok else sentence + "set LANG=C.UTF-8 and PYTHONUTF8=1.")


def _check_kernel_cache() -> Check:
    """Compiled kernels are kept beside the source, or in a folder of the user's; otherwise every start compiles."""
    place = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(glm_data.__file__).parent)
    ok = os.access(place, os.W_OK) if place.exists() else os.access(place.parent, os.W_OK)
    sentence = "compiled kernels can be kept."
    if not ok:
        sentence = f"'{place}' cannot be written, so kernels are compiled at every start; set NUMBA_CACHE_DIR."
    return Check(name="kernels", ok=ok, sentence=sentence)


def _check_memory() -> Check:
    memory = memory_bytes()
    ok = memory >= LEAST_MEMORY_BYTES
    sentence = f"{megabytes(memory)}" + ("." if ok else "; stages want 2 GB: use --workers 1 and small shards.")
    return Check(name="memory", ok=ok, sentence=sentence)


def _check_disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    ok = free >= LEAST_DISK_BYTES
    sentence = f"{megabytes(free)} free here" + ("." if ok else "; a run needs about three times its input.")
    return Check(name="disk", ok=ok, sentence=sentence)


def beam_owners() -> list[str]:
    """The installed distributions that declare a command ``beam``; the one installed last owns the file."""
    points = metadata.entry_points(group="console_scripts", name="beam")
    return sorted({point.dist.name for point in points if point.dist is not None})


def _check_beam() -> Check:
    owners, place = beam_owners(), shutil.which("beam")
    others = [name for name in owners if name != "glm-data"]
    if others:
        sentence = f"'beam' is also a command of {', '.join(others)}; 'glm-beam' and 'glm-data beam' are always ours."
        return Check(name="beam", ok=True, sentence=sentence)
    if place is None:
        return Check(name="beam", ok=True, sentence="'beam' is not on the PATH; 'glm-data beam run' does the same.")
    return Check(name="beam", ok=True, sentence=f"'beam' is {place} and ours.")


def _check_writable() -> Check:
    ok = os.access(Path.cwd(), os.W_OK)
    sentence = "this folder can be written." if ok else f"'{Path.cwd()}' cannot be written; change to one that can."
    return Check(name="folder", ok=ok, sentence=sentence)
