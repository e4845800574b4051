"""What a runner needs before a stage can run on it, checked one by one: each a sentence, with its cure.

``glm-data doctor --runner flink --flink_master=host:8081 ...`` shows them; the options are those of the run to come.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from glm_data import __version__, files
from glm_data.errors import GlmDataError, UsageError
from glm_data.inputs import describe_input
from glm_data.stage import Check, ShardRecord, ShardTask, open_stage, output_file
from pipelines.engines import Engine, check_address, create_beam_runner, parse_beam_options
from pipelines.quiet import import_beam
from pipelines.runner import RunnerOptions, run_tasks

_SECONDS = 4.0
"""How long an address may take to answer."""
_HERE = ("localhost", "127.0.0.1", "::1")
_PROBES = 4

Values = Mapping[str, Any]
"""Beam's options by name, defaults included."""


def preflight(engine: Engine, args: Sequence[str], shared: Path | None = None) -> tuple[Check, ...]:
    """Check what ``engine`` needs to run a stage with the Beam options ``args``.

    With ``shared``, a folder that the workers must see too, a small stage is run there once all else is in order.
    Raises :class:`UsageError` for options that Beam does not know.
    """
    import_beam()
    try:
        create_beam_runner(engine)  # first: it declares options of its own
    except GlmDataError as error:
        return (Check(name="client", ok=False, sentence=str(error)),)
    values = parse_beam_options(args, engine).get_all_options()
    try:
        check_address(engine, args)
        checks = list(_CHECKS[engine.name](values))
    except UsageError as error:
        checks = [Check(name="address", ok=False, sentence=str(error))]
    if all(check.ok for check in checks):
        checks.append(_check_storage(engine, args, shared))
    return tuple(checks)


def _check(name: str, trouble: str, fine: str) -> Check:
    return Check(name=name, ok=not trouble, sentence=trouble or fine)


# --- what each runner needs -------------------------------------------------------------------------------------------


def _check_local(values: Values) -> Iterator[Check]:
    yield _check("client", "", "Beam's FnApiRunner on this machine; it needs nothing else.")


def _check_portable(values: Values) -> Iterator[Check]:
    yield check_endpoint("job server", values["job_endpoint"])
    yield check_environment(values, values["job_endpoint"])


def _check_flink(values: Values) -> Iterator[Check]:
    yield check_flink(values["flink_master"], values["flink_version"])
    yield from _check_job_server("flink", values)
    yield check_environment(values, values["flink_master"])


def _check_spark(values: Values) -> Iterator[Check]:
    place = values["spark_rest_url"] if values["spark_submit_uber_jar"] else values["spark_master_url"]
    if place is None:
        raise UsageError("--spark_submit_uber_jar needs --spark_rest_url=http://HOST:6066 too.")
    yield check_endpoint("Spark master", place)
    yield from _check_job_server("spark", values)
    yield check_environment(values, place)


def _check_job_server(name: str, values: Values) -> Iterator[Check]:
    """Beam's job server for Flink or Spark: a jar, run here by Java or sent to the cluster as it is."""
    if not values[f"{name}_submit_uber_jar"]:
        yield check_java(f"--{name}_submit_uber_jar")
    option = f"{name}_job_server_jar"
    jar = values[option]
    if jar is None:
        cure = f"where there is no network, give --{option}=PATH"
        yield _check("job server jar", "", f"Beam fetches its job server from Maven when it first runs; {cure}.")
    else:
        missing = "" if "://" in jar or Path(jar).is_file() else f"there is no file '{jar}' (--{option})."
        yield _check("job server jar", missing, f"'{jar}' is there.")


def _check_dataflow(values: Values) -> Iterator[Check]:
    installed = _has_module("google.cloud.dataflow")
    trouble = "" if installed else "the client of Dataflow is not installed: pip install 'apache-beam[gcp]'."
    yield _check("client", trouble, "the client of Dataflow is installed.")
    missing = [f"--{name}" for name in ("project", "region", "temp_location") if not values.get(name)]
    yield _check(
        "project", f"not given: {', '.join(missing)}." if missing else "", "project, region and bucket are named."
    )
    image = values.get("sdk_container_image")
    trouble = (
        "Dataflow's own image does not hold glm-data: build docker/Dockerfile and give --sdk_container_image=IMAGE."
    )
    yield _check("environment", "" if image else trouble, f"workers run in '{image}'.")


def _check_dask(values: Values) -> Iterator[Check]:
    """Ask the scheduler, and every worker what is installed there."""
    place = values["address"] or values["scheduler_file"]
    if values["address"]:
        found = check_endpoint("Dask scheduler", values["address"])
        yield found
        if not found.ok:
            return
    from distributed import Client

    kind = {"address": values["address"]} if values["address"] else {"scheduler_file": values["scheduler_file"]}
    try:
        with Client(**kind, timeout=f"{_SECONDS:.0f}s") as client:
            told = client.run(about_this_process)
    except OSError as error:
        yield _check("scheduler", f"no Dask scheduler answers at '{place}' ({error}).", "")
    except ModuleNotFoundError as error:
        yield _check(
            "workers", f"a worker of '{place}' cannot import '{error.name}': install glm-data[dask] there.", ""
        )
    else:
        yield check_workers(place, list(told.values()))


_CHECKS: dict[str, Callable[[Values], Iterator[Check]]] = {
    "local": _check_local,
    "portable": _check_portable,
    "flink": _check_flink,
    "spark": _check_spark,
    "dataflow": _check_dataflow,
    "dask": _check_dask,
}
RUNNERS = tuple(_CHECKS)


# --- single things ----------------------------------------------------------------------------------------------------


def check_endpoint(what: str, address: str) -> Check:
    """Whether something listens at ``address``: ``HOST:PORT`` or a URL with both."""
    place = _host_and_port(address)
    if place is None:
        return _check("address", f"'{address}' is no address of a {what}; give HOST:PORT.", "")
    try:
        socket.create_connection(place, timeout=_SECONDS).close()
    except OSError as error:
        said = error.strerror or str(error)
        cure = f"start the {what}, or check host, port and firewall"
        return _check("address", f"nothing answers at {place[0]}:{place[1]} ({said}); {cure}.", "")
    return _check("address", "", f"something listens at {place[0]}:{place[1]}.")


def _host_and_port(address: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:\w+://)?(?:\[([0-9a-fA-F:]+)\]|([^/:\[\]]+)):(\d{1,5})/?", address)
    return (found.group(1) or found.group(2), int(found.group(3))) if found else None


def check_flink(address: str, version: str) -> Check:
    """Whether a Flink cluster of ``version`` with a task manager answers at ``address``."""
    found, place = check_endpoint("Flink cluster", address), _host_and_port(address)
    if not found.ok or place is None:
        return found
    try:
        connection = http.client.HTTPConnection(*place, timeout=_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/overview")
            told = json.loads(connection.getresponse().read())
        runs, managers, slots = told["flink-version"], told["taskmanagers"], told["slots-total"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return _check(
            "address", f"what answers at {place[0]}:{place[1]} is no Flink REST interface; give its port.", ""
        )
    if not str(runs).startswith(f"{version}."):
        ours = ".".join(str(runs).split(".")[:2])
        return _check("address", f"the cluster runs Flink {runs}, not {version}: give --flink_version={ours}.", "")
    if not managers:
        return _check("address", f"the Flink cluster at {place[0]}:{place[1]} has no task manager; start one.", "")
    return _check("address", "", f"Flink {runs} with {managers} task managers and {slots} slots answers.")


def check_java(without: str) -> Check:
    """Whether there is a Java to run Beam's job server with; ``without`` is the option that spares it."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        where = f"'{java}' (JAVA_HOME)" if java else "no 'java' on the PATH"
        cure = f"install Java 11 or newer, or submit with {without}"
        return _check("java", f"{where}, which Beam's job server runs on; {cure}.", "")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - the user's Java
    first = (said.stderr or said.stdout).strip().splitlines()[:1]
    return _check("java", "" if said.returncode == 0 else f"'{java} -version' fails.", f"{''.join(first)} ({java}).")


def check_environment(values: Values, place: str) -> Check:
    """How a cluster's workers come to our package: by an image, a pool, a process, or not at all."""
    kind, config = (values["environment_type"] or "").upper(), values["environment_config"]
    cure = (
        "build docker/Dockerfile and give --environment_type=DOCKER --environment_config=IMAGE, "
        "or run 'python -m pipelines.pool' on every machine and give --environment_type=EXTERNAL "
        "--environment_config=localhost:50000"
    )
    if kind in ("", "DOCKER") and not config:
        return _check(
            "environment", f"workers would run in Beam's own image, which does not hold glm-data; {cure}.", ""
        )
    if kind == "DOCKER":
        return _check(
            "environment", "", f"workers run in the image '{config}', which every machine must be able to pull."
        )
    if kind == "EXTERNAL":
        found = check_endpoint("pool of workers", config or "")
        sentence = f"a pool of workers listens at {config}; every machine of the cluster needs one there."
        return _check("environment", "" if found.ok else found.sentence, sentence)
    if kind == "LOOPBACK":
        host = (_host_and_port(place) or ("localhost", 0))[0]
        trouble = "" if host in _HERE else f"LOOPBACK is for a cluster on this machine, not on '{host}'; {cure}."
        return _check("environment", trouble, "workers run in the process that starts the stage.")
    return _check("environment", "", f"workers are started as {kind} {config}.")


def check_workers(place: str, told: Sequence[Mapping[str, str]]) -> Check:
    """Whether a cluster has workers, and all of them what is installed here."""
    if not told:
        return _check("workers", f"the cluster at '{place}' has no worker; start one with: dask worker {place}", "")
    mine = about_this_process()
    other = Counter(
        f"{name} {facts[name]} instead of {mine[name]}"
        for facts in told
        for name in ("glm-data", "apache-beam", "python")
        if facts[name] != mine[name]
    )
    differing = "; ".join(f"{what} ({count} of {len(told)})" for what, count in other.items())
    trouble = f"workers have something else installed than this process: {differing}." if differing else ""
    hosts = ", ".join(sorted({facts["host"] for facts in told}))
    workers = f"{len(told)} worker{'s' * (len(told) > 1)}"
    return _check("workers", trouble, f"{workers} on {hosts}, with the versions that are installed here.")


def about_this_process() -> dict[str, str]:
    """Versions that driver and workers must share, and the machine."""
    return {
        "glm-data": __version__,
        "apache-beam": importlib.metadata.version("apache-beam"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "host": platform.node(),
    }


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


# --- the shared folder ------------------------------------------------------------------------------------------------


def _check_storage(engine: Engine, args: Sequence[str], shared: Path | None) -> Check:
    if shared is None:
        hint = "workers must see inputs and output under the same paths as this process; try it with --shared FOLDER."
        return _check("storage", "", hint)
    try:
        told = probe(engine, args, shared)
    except GlmDataError as error:
        return _check("storage", f"a small stage in '{shared}' failed: {error}", "")
    found = check_workers(engine.name, told)
    hosts = ", ".join(sorted({facts["host"] for facts in told}))
    fine = f"a small stage was run in '{shared}' by workers on {hosts}."
    return _check("storage", "" if found.ok else found.sentence, fine)


def probe(engine: Engine, args: Sequence[str], shared: Path) -> list[dict[str, str]]:
    """Run a stage of a few shards below ``shared``, which is left as it was; returns what its workers are."""
    with tempfile.TemporaryDirectory(prefix=".glm-data-probe-", dir=shared) as place:
        folder = Path(place)
        for shard in range(_PROBES):
            files.write_bytes(folder / f"in/{shard}.txt", f"shard {shard}".encode())
        inputs = [describe_input(path, f"in/{path.name}") for path in sorted((folder / "in").iterdir())]
        with open_stage(folder / "out", "probe", {}, inputs) as stage:
            tasks = [ShardTask(shard=n, folder=str(stage.folder), input=item) for n, item in enumerate(inputs)]
            run_tasks(stage, probe_shard, tasks, RunnerOptions(runner=engine.name, beam_args=tuple(args)))
        return [msgspec.json.decode(path.read_bytes()) for path in sorted((folder / "out/data").iterdir())]


def probe_shard(task: ShardTask) -> ShardRecord:
    """Shard function: read the input, and write who did."""
    name, read = f"data/{task.shard}.json", Path(task.input.path).read_text(encoding="utf-8")
    files.write_json(Path(task.folder) / name, {**about_this_process(), "read": read})
    written = output_file(Path(task.folder), name, rows=1)
    return ShardRecord(shard=task.shard, input=task.input.name, records=1, kept=1, files=(written,))
