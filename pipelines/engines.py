"""Where a pipeline can run: friendly names of Beam runners, and strict parsing of Beam options.

Nothing here imports apache_beam before a function that needs it is called.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from glm_data.errors import MissingExtraError, UsageError, did_you_mean
from pipelines.quiet import import_beam, quiet_beam

BEAM_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"
"""What users of Beam call its Dask runner; ours (:mod:`pipelines.dask`) stands before it."""


@dataclass(frozen=True)
class Engine:
    """One place to run: the friendly name, Beam's name for it, and what the user must bring."""

    name: str
    beam: str
    """A name of Beam's own list, or a dotted class."""
    needs: str
    package: str = ""
    """What pip is to install where its client side is missing."""
    address: tuple[str, ...] = ()
    """The Beam options of which one must say where it is; Beam would otherwise start something of its own."""

    @property
    def is_local(self) -> bool:
        """Whether it is Beam's in-process FnApiRunner, which we configure ourselves."""
        return self.name == "local"


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("local", "FnApiRunner", "nothing: this machine, in memory or with worker processes (--workers)"),
        Engine(
            "portable",
            "PortableRunner",
            "a job server: --job_endpoint=HOST:8099 --environment_type=...",
            address=("--job_endpoint",),
        ),
        Engine(
            "flink",
            "FlinkRunner",
            "Java and a cluster: --flink_master=HOST:8081 --environment_type=...",
            address=("--flink_master",),
        ),
        Engine(
            "spark",
            "SparkRunner",
            "Java and Spark 3: --spark_master_url=spark://HOST:7077 --environment_type=...",
            address=("--spark_master_url", "--spark_rest_url"),
        ),
        Engine(
            "dataflow",
            "DataflowRunner",
            "apache-beam[gcp]; --project=... --region=... --temp_location=gs://... --sdk_container_image=...",
            package="apache-beam[gcp]",
        ),
        Engine(
            "dask",
            "pipelines.dask.DaskRunner",
            "the extra dask; --dask_client_address=tcp://HOST:8786",
            package="glm-data[dask]",
            address=("--dask_client_address", "--dask_scheduler_file"),
        ),
    )
}

# Beam's own names. Its DirectRunner first tries to download another runner, so we take it to mean the local one.
_BEAM_NAMES = {
    BEAM_DASK_RUNNER: "dask",
    **{engine.beam.rsplit(".", 1)[-1]: engine.name for engine in ENGINES.values()},
    "DirectRunner": "local",
    "PrismRunner": "PrismRunner",
    "InteractiveRunner": "InteractiveRunner",
    "BundleBasedDirectRunner": "BundleBasedDirectRunner",
}
_ALIASES = {
    **{name: name for name in ENGINES},
    **{name.lower(): target for name, target in _BEAM_NAMES.items()},
    **{name.lower().removesuffix("runner"): target for name, target in _BEAM_NAMES.items()},
}


def find_engine(name: str) -> Engine:
    """The engine called ``name``: a friendly name, a Beam runner name (any case), or a dotted class."""
    target = _ALIASES.get(name.lower(), name)
    if target in ENGINES:
        return ENGINES[target]
    for engine in ENGINES.values():
        if target == engine.beam:
            return engine
    if "." in target or target in _BEAM_NAMES:
        return Engine(target, target, "")
    hint = did_you_mean(name.lower(), _ALIASES) or f" Known: {', '.join(ENGINES)}, or a dotted class."
    raise UsageError(f"there is no runner '{name}'.{hint}")


def check_address(engine: Engine, args: Sequence[str]) -> None:
    """Raise :class:`UsageError` if ``args`` do not say where a runner is that is not here."""
    given = {word.split("=", 1)[0] for word in args}
    if engine.address and not given.intersection(engine.address):
        options = " or ".join(engine.address)
        raise UsageError(f"the {engine.name} runner must be told where it is: give {options} (needed: {engine.needs}).")


def create_beam_runner(engine: Engine) -> Any:
    """An instance of the engine's Beam runner class; :class:`MissingExtraError` if its client side is not installed."""
    from apache_beam.runners.runner import create_runner

    try:
        return create_runner(engine.beam)
    except (ImportError, NameError) as error:
        if engine.package:
            message = f"the {engine.name} runner is not installed: pip install '{engine.package}' ({error})."
            raise MissingExtraError(message) from None
        raise UsageError(f"the runner '{engine.beam}' cannot be imported ({error}); check its dotted name.") from None
    except (AttributeError, ValueError) as error:
        raise UsageError(f"'{engine.beam}' is not a Beam runner ({error}); check its dotted name.") from None


class _StrictParser(argparse.ArgumentParser):
    """All options that Beam's loaded option classes declare; wrong values raise instead of exiting."""

    def add_value_provider_argument(self, *args: Any, **kwargs: Any) -> None:
        """Beam's option classes declare templated options through this; for checking they are plain ones."""
        self.add_argument(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before it leaves the program."""
        raise UsageError(f"Beam option: {message}.")


def split_pass_through(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split at the first ``--``: options that are checked, and options that go to the runner as they are."""
    if "--" not in args:
        return list(args), []
    place = list(args).index("--")
    return list(args[:place]), list(args[place + 1 :])


def parse_beam_options(args: Sequence[str], engine: Engine) -> Any:
    """Beam's ``PipelineOptions`` of ``args``; what stands after a ``--`` is passed on unchecked.

    An option no Beam class knows, a wrong value, ``--streaming`` (every stage is bounded) and ``--runner`` (which has
    a place of its own) are :class:`UsageError`.
    """
    import_beam()
    from apache_beam.options.pipeline_options import PipelineOptions

    checked, passed = split_pass_through(args)
    _refuse_misplaced([*checked, *passed])
    check_beam_options(checked)
    with quiet_beam():
        return PipelineOptions([*checked, *passed])


def check_beam_options(args: Sequence[str]) -> None:
    """Raise :class:`UsageError` unless Beam's loaded option classes know every word of ``args``."""
    import_beam()
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = _StrictParser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for kind in {str(kind): kind for kind in PipelineOptions.__subclasses__()}.values():
        kind._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(args))
    if unknown:
        word = unknown[0].split("=", 1)[0]
        hint = did_you_mean(word, parser._option_string_actions) or " Options for the runner alone go after '--'."
        raise UsageError(f"there is no Beam option '{word}'.{hint}")


def _refuse_misplaced(args: Sequence[str]) -> None:
    words = {word.split("=", 1)[0] for word in args}
    if "--streaming" in words:
        raise UsageError("--streaming: every stage reads bounded input; leave the option out.")
    if "--runner" in words:
        raise UsageError("--runner is given twice, or among the options for Beam; give it once, before any '--'.")
