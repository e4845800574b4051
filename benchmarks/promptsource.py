"""promptsource's way of rendering, written anew from its description: the baseline of speed and of meaning.

For every example: each ``}}`` of the source gets a filter that cuts values at 2,048 characters (its default), the
source is compiled, ``|||`` in top-level text is hidden and put back, choices are rendered first, the text is split at
``|||`` and its parts are stripped.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import BaseLoader, Environment

from glm_data.mip.templates import SEPARATOR, Template

_HIDDEN = "3ed2dface8203c4c9dfb1a5dc58e41e0"
_CUT = " | string | truncate(2048) }}"


def environment() -> Environment:
    """Jinja with what promptsource's templates call besides."""
    made = Environment(loader=BaseLoader())
    made.globals["zip"] = zip
    made.filters["choice"] = random.choice
    made.filters["most_frequent"] = _most_frequent
    return made


def _most_frequent(items: Any) -> list[Any]:
    counts = Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())]


class Promptsource:
    """Applies templates; ``compile`` may be given to keep compiled templates, which changes nothing but the time."""

    def __init__(self, compile: Callable[[str], Any] | None = None, *, truncate: bool = True) -> None:
        self._compile = compile or environment().from_string
        self._truncate = truncate

    def apply(self, template: Template, row: Mapping[str, Any]) -> list[str]:
        """The parts of the rendered text; raises whatever Jinja does."""
        values = {name: _hide(value) for name, value in copy.deepcopy(dict(row)).items()}
        if template.answer_choices is not None:
            listed = self._compile(template.answer_choices).render(**values).split(SEPARATOR)
            values["answer_choices"] = [_show(part.strip()) for part in listed]
        source = template.jinja.replace("}}", _CUT) if self._truncate else template.jinja
        text = self._compile(source).render(**values)
        return [_show(part.strip()) for part in text.split(SEPARATOR)]


def _hide(value: Any) -> Any:
    return value.replace(SEPARATOR, _HIDDEN) if isinstance(value, str) else value


def _show(text: str) -> str:
    return text.replace(_HIDDEN, SEPARATOR)
