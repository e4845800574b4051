"""Results of tasks as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

from glm_data.evaluation.statistics import Estimate
from glm_data.evaluation.suite import TaskResult

HEADER = ("task", "prompt", "items", "score", "95 %", "by chance", "in the corpus", "on the rest")


def result_rows(results: Sequence[TaskResult]) -> list[tuple[str, ...]]:
    """A row for each prompt, and one over the prompts of a task that has several."""
    rows: list[tuple[str, ...]] = [HEADER]
    for result in results:
        for prompt in result.prompts:
            rows.append(
                (
                    _name(result),
                    prompt.name,
                    f"{prompt.score.items:,}",
                    _value(result, prompt.score.value),
                    _interval(result, prompt.score),
                    "" if result.chance is None else _value(result, result.chance),
                    "" if result.found is None else f"{result.found:,} of {result.items:,}",
                    "" if prompt.clean is None else _value(result, prompt.clean.value),
                )
            )
            if prompt.f1 is not None:
                f1 = _value(result, prompt.f1.value), _interval(result, prompt.f1)
                rows.append((_name(result), f"{prompt.name}, F1", f"{prompt.f1.items:,}", *f1, "", "", ""))
        if len(result.prompts) > 1:
            over = " / ".join(_value(result, value) for value in (result.maximum, result.median, result.mean))
            rows.append((_name(result), "max / median / mean", "", over, "", "", "", ""))
        if result.weighted is not None:
            value = _value(result, result.weighted.value)
            rows.append(
                (_name(result), "weighted by source", "", value, _interval(result, result.weighted), "", "", "")
            )
    return rows


def remarks(results: Sequence[TaskResult]) -> list[str]:
    """What a reader should know beside the table: items that were not asked, questions that were cut."""
    said = []
    for result in results:
        for prompt in result.prompts:
            where = f"{result.name}{f', {prompt.name}' if prompt.name else ''}"
            if prompt.refused:
                reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(prompt.refused.items()))
                said.append(f"{where}: {sum(prompt.refused.values()):,} items were not asked ({reasons}).")
            if prompt.cut:
                said.append(f"{where}: {prompt.cut:,} questions lost their beginning for want of room.")
    return said


def _name(result: TaskResult) -> str:
    return f"{result.name} ({result.shots} shots)" if result.shots else result.name


def _value(result: TaskResult, value: float) -> str:
    return f"{value:.1%}" if result.metric == "accuracy" else f"{value:.3f}"


def _interval(result: TaskResult, score: Estimate) -> str:
    return f"{_value(result, score.low)} to {_value(result, score.high)}"
