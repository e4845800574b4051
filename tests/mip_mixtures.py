"""A toy mixture for tests of the mip stage, and the stage run without a runner."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glm_data.mip import MipOptions, render_stage
from glm_data.stage import ShardRecord, ShardTask, Stage, Success, write_shard_record

TEMPLATES = """
dataset: toy
templates:
  aaaa: !Template
    answer_choices: no ||| yes
    id: aaaa
    jinja: '{{text}}? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {languages: [en]}
    name: ask
    reference: ''
  bbbb: !Template
    answer_choices: null
    id: bbbb
    jinja: '{% if label == 1 %}{{ ["Say", "Write", "Tell"] | choice }} {{text}} ||| {{text}}{% endif %}'
    metadata: !TemplateMetadata {languages: [en]}
    name: copy
    reference: ''
  cccc: !Template
    answer_choices: null
    id: cccc
    jinja: '{{text}} ||| {{1 / number}}'
    metadata: !TemplateMetadata {languages: [en]}
    name: divide
    reference: ''
"""

ROWS: list[dict[str, Any]] = [
    {"text": "one", "label": 1, "number": 1},
    {"text": "two", "label": 0, "number": 2},
    {"text": "one", "label": 1, "number": 0},
    {"text": "four", "label": -1, "number": 4},
    {"text": "", "label": 1, "number": 5},
]


def write_mixture(folder: Path, lines: list[str] | None = None, **dataset: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "templates.yaml").write_text(TEMPLATES, encoding="utf-8")
    lines = [json.dumps(row) for row in ROWS] if lines is None else lines
    (folder / "rows.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    entry = {"name": "toy", "rows": "rows.jsonl", "templates": "templates.yaml", **dataset}
    path = folder / "mixture.yaml"
    path.write_text(json.dumps({"datasets": [entry]}), encoding="utf-8")
    return path


def run_here(manifest: Path, out: Path, options: MipOptions | None = None, *, backwards: bool = False) -> Success:
    """The stage without a runner, shard after shard."""

    def perform(stage: Stage, function: Callable[[ShardTask], ShardRecord], tasks: Sequence[ShardTask]) -> None:
        for task in reversed(tasks) if backwards else tasks:
            write_shard_record(out, function(task), 0.0)

    return render_stage(manifest, out, options or MipOptions(), perform)
