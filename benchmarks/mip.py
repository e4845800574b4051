"""Rendering instruction data: templates compiled once and sandboxed, against compiled anew for every row."""

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
    from glm_data.mip import Renderer, prepare_row
    from glm_data.mip.templates import Template

    templates = [Template(id=name, name=name, jinja=body, answer_choices=CHOICES) for name, body in BODIES.items()]
    renderer, data = Renderer(templates, dataset="made-up"), rows()

    def work() -> None:
        for number, row in enumerate(data):
            prepared = prepare_row(row)
            for place in range(len(templates)):
                renderer.render(place, prepared, number)

    return work, len(data) * len(BODIES)


def compiled_per_row(folder: Path) -> tuple[Work, float]:
    """Jinja as it is commonly used with such templates: ``from_string`` for choices and body of every sample."""
    from jinja2 import BaseLoader, Environment

    environment, data = Environment(loader=BaseLoader()), rows()

    def work() -> None:
        for row in data:
            for body in BODIES.values():
                choices = [part.strip() for part in environment.from_string(CHOICES).render(**row).split("|||")]
                text = environment.from_string(body).render(**row, answer_choices=choices)
                [part.strip() for part in text.split("|||")]

    return work, len(data) * len(BODIES)


CONTESTS = (
    Contest(
        name="Rendering MIP",
        unit="samples/s",
        contestants=(Contestant("glm-data", ours), Contestant("Jinja, compiled for every sample", compiled_per_row)),
        note=f"{ROWS} rows through {len(BODIES)} templates with answer choices, one core.",
    ),
)
