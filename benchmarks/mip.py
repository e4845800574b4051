"""Rendering instruction data: templates compiled once and sandboxed, against promptsource's algorithm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contest import Contest, Contestant, Work

ROWS = 300
CHOICES = "True ||| Neither ||| False"
BODIES = {
    "claim": 'Suppose {{premise}} Can we say that "{{hypothesis}}"? {{answer_choices | join(", ")}}? '
    "||| {{answer_choices[label]}}",
    "question": "{{premise}}\nQuestion: does this mean that {{hypothesis}}? "
    "{% if label == 0 %}It should be clear.{% endif %} ||| {{answer_choices[label]}}",
    "options": "{{premise}} Choose:{% for choice in answer_choices %}\n- {{choice}}{% endfor %} "
    "||| {{answer_choices[label]}}",
}


def rows() -> list[dict[str, Any]]:
    """Rows of a made-up natural-language-inference set."""
    premise = "The ferry had left the harbour before the fog came in. " * 6
    return [{"premise": f"{n}. {premise}", "hypothesis": "it was foggy", "label": n % 3} for n in range(ROWS)]


def ours(folder: Path) -> tuple[Work, float]:
    """Our renderer: budgeted sandbox, seeded choices, templates compiled once."""
    from glm_data.mip import Renderer, Template, prepare_row

    templates = [Template(id=name, name=name, jinja=body, answer_choices=CHOICES) for name, body in BODIES.items()]
    renderer, data = Renderer(templates, dataset="made-up"), rows()

    def work() -> None:
        for number, row in enumerate(data):
            prepared = prepare_row(row)
            for place in range(len(templates)):
                renderer.render(place, prepared, number)

    return work, len(data) * len(BODIES)


def promptsource(folder: Path) -> tuple[Work, float]:
    """promptsource's own way, as :mod:`benchmarks.promptsource` has it: values cut, choices and body compiled a row."""
    from benchmarks.promptsource import Promptsource
    from glm_data.mip import Template

    templates = [Template(id=name, name=name, jinja=body, answer_choices=CHOICES) for name, body in BODIES.items()]
    twin, data = Promptsource(), rows()

    def work() -> None:
        for row in data:
            for template in templates:
                twin.apply(template, row)

    return work, len(data) * len(BODIES)


CONTESTS = (
    Contest(
        name="Rendering MIP",
        unit="samples/s",
        contestants=(Contestant("glm-data", ours), Contestant("promptsource's algorithm", promptsource)),
        note=f"{ROWS} rows through {len(BODIES)} templates with answer choices, one core.",
    ),
)
