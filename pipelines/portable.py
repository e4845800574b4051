"""Refuses pipelines that a runner would run wrongly without saying so.

Beam's DaskRunner loses data silently for several common constructs; the rest of the graph model works. Our stages use
only what is right everywhere: one leaf, Create, Map and FlatMap, GroupByKey, side inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from glm_data.errors import UsageError
from pipelines.engines import Engine, find_engine


def check_portable(pipeline: Any, runner: str | Engine) -> None:
    """Raise :class:`UsageError` if ``runner`` would silently get ``pipeline`` (an ``apache_beam.Pipeline``) wrong.

    Only Dask has such constructs: more than one leaf, tagged outputs (exception handling has them too),
    ``finish_bundle`` (as in ``BatchElements`` and ``Top``), windows, ``beam.io`` reads and writes, ``WaitOn``. State
    and timers end in an error that says nothing. All found are named; a pipeline that went through Beam's protocol
    buffers and back, as it does on its way to this runner, is understood as well.
    """
    engine = find_engine(runner) if isinstance(runner, str) else runner
    if engine.name != "dask":
        return
    problems = list(dict.fromkeys(_find_problems(pipeline)))
    if problems:
        raise UsageError(
            f"the dask runner would silently get this wrong: {'; '.join(problems)}. "
            "Use --runner local, portable, flink, spark or dataflow, or build the pipeline without them."
        )


def _find_problems(pipeline: Any) -> Iterator[str]:
    nodes = _collect(pipeline)
    for node in nodes:
        problem = _problem_of(node)
        if problem:
            yield f"{problem} at '{node.full_label}'"
    leaves = _find_leaves(nodes)
    if len(leaves) > 1:
        yield f"{len(leaves)} leaves ({', '.join(repr(label) for label in leaves)}), of which only one would run"


def _collect(pipeline: Any) -> list[Any]:
    from apache_beam.pipeline import PipelineVisitor

    nodes: list[Any] = []

    class Collector(PipelineVisitor):  # type: ignore[misc]
        """Lists composite and primitive transforms in the order of the graph."""

        def enter_composite_transform(self, node: Any) -> None:
            """Note a composite."""
            nodes.append(node)

        def visit_transform(self, node: Any) -> None:
            """Note a primitive."""
            nodes.append(node)

    pipeline.visit(Collector())
    return [node for node in nodes if node.transform is not None and node.parent is not None]


def _problem_of(node: Any) -> str:
    """What is wrong with one node, or an empty string."""
    import apache_beam as beam
    from apache_beam.io.iobase import Read, Write
    from apache_beam.transforms.userstate import is_stateful_dofn
    from apache_beam.transforms.util import BatchElements, WaitOn
    from apache_beam.transforms.window import GlobalWindows

    transform = node.transform
    if isinstance(transform, BatchElements):
        return "BatchElements (its last batch vanishes)"
    if isinstance(transform, WaitOn) or re.search(r"/WaitOn\d+$", node.full_label):
        return "WaitOn (what is waited for never runs)"
    if isinstance(transform, beam.WindowInto) and not isinstance(transform.windowing.windowfn, GlobalWindows):
        return "windows (all elements are taken for one)"
    if isinstance(transform, (Read, Write)):
        return "a beam.io read or write (not translated)"
    if isinstance(transform, beam.ParDo):
        if any(tag is not None for tag in node.outputs) or getattr(transform, "output_tags", None):
            return "tagged outputs (every element goes to every output)"
        if _overrides_finish_bundle(transform.fn):
            return "finish_bundle (its outputs vanish)"
        if is_stateful_dofn(transform.fn):
            return "state or timers (not translated)"
    return ""


def _overrides_finish_bundle(function: Any) -> bool:
    import apache_beam as beam

    return type(function).finish_bundle is not beam.DoFn.finish_bundle


def _find_leaves(nodes: list[Any]) -> list[str]:
    """Labels of primitive transforms whose outputs nobody consumes."""
    primitives = [node for node in nodes if not node.parts]
    consumed = {value for node in primitives for value in (*node.inputs, *_side_values(node))}
    return [
        node.full_label
        for node in primitives
        if not any(value in consumed for value in node.outputs.values())
    ]  # fmt: skip


def _side_values(node: Any) -> Iterator[Any]:
    for side_input in node.side_inputs:
        yield side_input.pvalue
