"""``glm-data quantize``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, megabytes, table
from glm_data.cli.shell import require_torch
from glm_data.cli.stages import After, stage_command
from glm_data.errors import UsageError
from glm_data.recipe import Step


def _report(step: Step, given: Mapping[str, Any]) -> dict[str, Any]:
    if not given["report"] or step.pack is None:
        return {}
    from glm_data.evaluation.quantized import quantization_report

    return {"report": quantization_report(Path(step.inputs[0]), step.out, step.pack)}


def _show(output: Output, more: dict[str, Any]) -> None:
    """The report as tables: bits per byte by kind, then matrices."""
    report = more.get("report")
    if report is None:
        return
    output.say(f"held-out bits per byte, {report['rows']} rows", bold=True)
    rows = [("", "before", "after", "change")]
    for kind, change in report["bits_per_byte"].items():
        rows.append((kind, f"{change['before']:.4f}", f"{change['after']:.4f}", f"{change['rise']:+.2%}"))
    for line in table(rows):
        output.say(f"  {line}")
    sizes = (megabytes(report["bytes_before"]), megabytes(report["bytes_after"]))
    output.say(f"size {sizes[0]} -> {sizes[1]} ({report['size_ratio']:.3f} of it); relative errors", bold=True)
    for line in table([(name, f"{error:.4f}") for name, error in report["relative_error"].items()]):
        output.say(f"  {line}")


@stage_command(
    "quantize",
    "quantize",
    help="Quantise the weights of a trained model to INT4 or INT8. MODEL is a finished train or import stage.",
    example="""
        glm-data quantize run/train --out run/quantize
        glm-data quantize run/train --out run/quantize-32 --group 32 --calibration feedback --pack run/pack --report
    """,
    after=After(_report, _show),
)
@click.argument("model", type=EXISTING_FOLDER)
@click.option("--pack", type=EXISTING_FOLDER, help="A pack of the model's tokenizer, for --calibration and --report.")
@click.option(
    "--report", is_flag=True, help="Measure bits per byte before and after on rows of the pack that training held out."
)
def quantize(model: Path, pack: Path | None, report: bool) -> dict[str, Any]:
    """Name the step's inputs."""
    require_torch()
    if report and pack is None:
        raise UsageError("--report needs rows to measure on; give a pack with --pack.")
    return {"inputs": (str(model),), "pack": pack}
