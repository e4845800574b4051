"""A collected report as one self-contained page of HTML: no script, no font, no request.

Every value goes through :func:`_show` (control characters spelled out) and then through the template engine's escaping,
so that text of documents, file names and sources are shown and never run.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup

from glm_data.report import svg, text
from glm_data.report.collect import part

_MASK = re.compile(r"\[(?:MASK|gMASK|sMASK)\]")
_FACT_LABELS = {
    "candidates": "documents with a possible twin",
    "comparisons": "pairs compared exactly",
    "largest_cluster": "documents in the largest cluster",
    "rows": "minima in a band",
    "pad_multiple": "vocabulary is a multiple of",
    "pieces": "pieces",
    "vocab_size": "vocabulary",
}


def render(report: Mapping[str, Any]) -> str:
    """The page of a report made by :func:`glm_data.report.collect`."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            stages=report["stages"],
            run=report["run"],
            title=PurePath(report["run"]["folder"]).name,
            by_kind={stage["stage"]: stage for stage in report["stages"].values()},
            verdict=verdict(report),
            reproduce=[command_line(item) for item in report["run"]["commands"]],
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("glm_data.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "size": text.size,
        "percent": text.percent,
        "duration": text.duration,
        "flatten": text.flatten,
        "below": part,
        "by_count": by_count,
        "filled": filled,
        "label": label,
    }
    environment.globals |= {"loss_curve": svg.loss_curve, "share": share}
    return environment


def _show(value: Any) -> Any:
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def verdict(report: Mapping[str, Any]) -> tuple[str, str]:
    """The report in one word for its colour (``good``, ``bad``, ``open``) and one sentence."""
    checks = report["checks"]
    failed = sum(not check["ok"] for check in checks)
    if failed:
        return "bad", f"{failed} of {len(checks)} checks failed."
    if report["unfinished"]:
        return "open", f"Not finished: {', '.join(report['unfinished'])}. Run the same command again to go on."
    return "good", f"All {len(checks)} checks hold."


def command_line(item: Mapping[str, Any]) -> str:
    """A recorded command as it can be pasted into a shell, from the directory it ran in."""
    words = [str(word) for word in item["command"]]
    program = PurePath(words[0])
    if program.suffix == ".py":
        start = ["python", str(program)]
    elif program.name == "-c":
        start = ["python", "-c", "..."]
    else:
        start = [program.name]
    line = shlex.join([*start, *words[1:]])
    return f"cd {shlex.quote(item['folder'])}\n{line}" if item.get("folder") else line


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counters, the largest first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def share(part: float, whole: float) -> str:
    """A width in per cent for a bar, within its track whatever the numbers."""
    return f"{min(100.0, max(0.0, 100 * part / whole)):.2f}%" if whole else "0%"


def label(name: str) -> str:
    """What to call a counted fact on the page."""
    return _FACT_LABELS.get(name, name.replace("_", " "))


def filled(sample: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """An infill sample as stretches of text, each with whether the model wrote it."""
    prompt, stretches = str(sample.get("prompt", "")), []
    for blank in sample.get("filled") or []:
        before, prompt = [*_MASK.split(prompt, maxsplit=1), ""][:2]
        stretches += [(before, False), (str(blank), True)]
    return [stretch for stretch in [*stretches, (prompt, False)] if stretch[0]]
