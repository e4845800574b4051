"""A collected report as one self-contained page of HTML in two languages: no script, no font, no request.

Languages and colours are switched by the style sheet alone, from radio buttons at the top.

Every value goes through :func:`_show` (control characters spelled out) and then through the template engine's escaping,
so that text of documents, file names and sources are shown and never run.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup, escape

from glm_data.hidden import sign_blanks, spell_hidden
from glm_data.report import charts, svg, text
from glm_data.report.chinese import LABELS, NAMES, translate, with_gaps
from glm_data.report.funnel import items_looked_for, part

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
_KIND_NAMES = {"gmask": "[gMASK]", "mask": "[MASK]", "smask": "[sMASK]", "mip": "MIP"}
_BLANKS = {**_KIND_NAMES, "mip": "[MASK]"}
_COUNTED = {"tokens": "packed tokens", "sequences": "rows", "loss-tokens": "targets"}


def render(report: Mapping[str, Any]) -> str:
    """The page of a report made by :func:`glm_data.report.collect`."""
    by_kind = {stage["stage"]: stage for stage in report["stages"].values()}
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            stages=report["stages"],
            run=report["run"],
            title=PurePath(report["run"]["folder"]).name,
            by_kind=by_kind,
            contents=contents(report, by_kind),
            headline=headline(report, by_kind),
            ratios=ratios(by_kind.get("pack", {}).get("facts", {})),
            verdict=verdict(report),
            versions=versions(report["run"]["stages"].values()),
            reproduce=[command_line(item) for item in report["run"]["commands"]],
            kind_names=_KIND_NAMES,
            blanks=_BLANKS,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("glm_data.report", "page"),
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
        "below": part,
        "by_count": by_count,
        "filled": filled,
        "items_looked_for": items_looked_for,
        "label": label,
        "space": sign_blanks,
    }
    environment.globals |= {
        "t": both,
        "sentence": sentence,
        "share": share,
        "heat": heat,
        "loss_curve": svg.loss_curve,
        "last_losses": last_losses,
        "funnel": charts.funnel,
        "span_lengths": charts.span_lengths,
        "suffixes": charts.suffixes,
    }
    return environment


def _show(value: Any) -> Any:
    return spell_hidden(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def contents(report: Mapping[str, Any], by_kind: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections of the page below the verdict: the name of each one's template, and its title."""
    filtering, benchmarks = report["filtering"], by_kind.get("decontaminate", {}).get("facts", {}).get("benchmarks")
    sections = (
        ("documents", "Documents", report["funnel"] or report["sources"]),
        ("filtering", "Filtering", filtering and (filtering["dropped"] or filtering["cleaned"])),
        ("duplicates", "Duplicates", report["duplicates"]),
        ("decontaminate", "Evaluation items", benchmarks),
        ("tokens", "Tokens", "tokenizer" in by_kind or "tokenize" in by_kind),
        ("mip", "Instruction data (MIP)", "mip" in by_kind),
        ("pack", "Packed rows", "pack" in by_kind),
        ("training", "Training", report["training"]),
        ("samples", "What the model fills in", report["samples"]),
        ("cost", "Time and memory", True),
        ("settings", "Settings", True),
    )
    return [(name, title) for name, title, there in sections if there]


def verdict(report: Mapping[str, Any]) -> tuple[str, Markup]:
    """The report in one word for its colour (``good``, ``bad``, ``open``) and one sentence."""
    count, failed = len(report["checks"]), sum(not check["ok"] for check in report["checks"])
    if failed:
        return "bad", both("{failed} of {count} checks failed.", failed=failed, count=count)
    if report["unfinished"]:
        going_on = "Not finished: {stages}. Run the same command again to go on."
        return "open", both(going_on, stages=", ".join(report["unfinished"]))
    return "good", both("All {count} checks hold.", count=count)


def headline(report: Mapping[str, Any], by_kind: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run in at most five numbers, each with its label."""
    steps, facts = report["funnel"], by_kind.get("pack", {}).get("facts", {})
    numbers = [(text.number(steps[0]["records"]), "records read")] if steps else []
    numbers += [(text.number(steps[-1]["kept"]), "documents left")] if steps else []
    numbers += [(text.number(step["tokens"]), "tokens") for step in steps if step["tokens"] is not None]
    numbers += [(text.number(facts["rows"]), "rows packed")] if "rows" in facts else []
    loss = by_kind.get("train", {}).get("facts", {}).get("last_loss")
    return numbers + ([(f"{loss:.2f}", "last loss, nats a token")] if loss is not None else [])


def ratios(facts: Mapping[str, Any]) -> list[tuple[Markup, str, str]]:
    """What a pack was asked for and what it got: label, wanted, got."""
    rows = []
    if mip := facts.get("mip_ratio"):
        label = both("MIP of the {what}", what=_COUNTED[mip["of"]])
        rows.append((label, text.percent(mip["wanted"], 1), text.percent(mip["got"], 1)))
    masks = facts.get("masks", {})
    if "mask_rate" in facts and "mask_rate" in masks:
        label = both("of [MASK] text is masked")
        rows.append((label, text.percent(masks["mask_rate"], 1), text.percent(facts["mask_rate"], 1)))
    for what in ("source", "language"):
        for name, found in facts.get(f"{what}s", {}).items():
            if "wanted" in found:
                label = both(f"{what} {{name}}", name=name)
                rows.append((label, text.percent(found["wanted"], 1), text.percent(found["share"], 1)))
    return rows


def versions(runs: Iterable[Mapping[str, Any]]) -> str:
    """The packages that the stages ran with, each version once."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run.get("packages", {}).items():
            found.setdefault(str(name), set()).add(str(version))
    return ", ".join(f"{name} {' / '.join(sorted(known))}" for name, known in sorted(found.items()))


# --- two languages ----------------------------------------------------------------------------------------------------


def both(english: str, **values: Any) -> Markup:
    """A label in both languages, of which the page shows one; a name that has no Chinese stands as it is."""
    chinese = LABELS.get(english, NAMES.get(english))
    if chinese is None or chinese == english:
        return Markup("<bdi>{}</bdi>").format(_show(english.format(**values) if values else english))
    named = {name: NAMES.get(value, LABELS.get(value, value)) for name, value in values.items()}
    return _pair(
        _fill(english, {name: _show(value) for name, value in values.items()}),
        _fill(with_gaps(chinese, named), {name: _show(value) for name, value in named.items()}),
    )


def _fill(template: str, values: Mapping[str, Any]) -> Markup:
    filled = {name: Markup("<bdi>{}</bdi>").format(value) for name, value in values.items()}
    return escape(template).format(**filled) if values else escape(template)


def sentence(english: str) -> Markup:
    """A check's sentence in both languages; in English alone if its Chinese is not known."""
    chinese = translate(english)
    shown = Markup("<bdi>{}</bdi>")
    return (
        _pair(shown.format(_show(english)), shown.format(_show(chinese))) if chinese else shown.format(_show(english))
    )


def _pair(english: Markup, chinese: Markup) -> Markup:
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-Hans">{}</span>').format(
        english, chinese
    )


# --- values -----------------------------------------------------------------------------------------------------------


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


def last_losses(curves: Mapping[str, svg.Points], prefix: str) -> list[tuple[str, float]]:
    """The last loss of each curve whose name begins with ``prefix``, the highest first."""
    found = [(name[len(prefix) :], points[-1][1]) for name, points in curves.items() if name.startswith(prefix)]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def share(part: float, whole: float) -> str:
    """A width in per cent for a bar, within its track whatever the numbers."""
    return f"{min(100.0, max(0.0, 100 * part / whole)):.2f}%" if whole else "0%"


def heat(part: float, whole: float) -> str:
    """How much colour a cell of a matrix has: from 12 to 85 per cent."""
    return f"{12 + 73 * part / whole:.0f}%" if whole else "0%"


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
