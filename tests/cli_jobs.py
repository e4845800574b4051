"""A very small job for tests of the command line: corpus, mixture, and a recipe that trains for a few steps."""

from __future__ import annotations

import json
from pathlib import Path

from glm_data.demo_input import read_corpus
from manifests import path as bundled

DOCUMENTS = {"encyclopaedia": 12, "story": 8}
RECIPE = """
inputs: [raw/pile, raw/wudao]
runner: {workers: 1}
filter: {max_bad_fraction: 0.1}
dedupe: {threshold: 0.6, max_bad_fraction: 0.1}
decontaminate: {evaluation: reported.yaml}
tokenizer: {vocab_size: 1024, character_coverage: 0.95}
tokenize: {}
mip: {manifest: mip/mixture.yaml}
pack: {seq_length: 128, mip_window: 64, rows_per_shard: 40, mip_ratio: 0.05}
train:
  {layers: 1, hidden: 32, heads: 2, ffn: 64, steps: 12, warmup_samples: 8, lr: 0.03, batch_rows: 4, checkpoint_every: 4,
   log_every: 4, threads: 1}
quantize: {}
infill: ["The quick brown [MASK] jumps over the lazy dog.", "从前有座山，[gMASK]"]
generation: {max_length: 8}
"""
TEMPLATE = """
dataset: small_talk
templates:
  6f1bb9cc-0f0f-4b3a-8a2e-111111111111: !Template
    answer_choices: No ||| Yes
    id: 6f1bb9cc-0f0f-4b3a-8a2e-111111111111
    jinja: "{{text}} Do you agree? ||| {{answer_choices[label]}}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages: [en]
      metrics: [Accuracy]
      original_task: true
    name: agree
    reference: ''
"""


def write_corpus(folder: Path) -> Path:
    """A few documents of the bundled corpus in each language, laid out as it is."""
    texts = read_corpus(bundled("demo/corpus"))
    for lang in ("en", "zh"):
        (folder / lang).mkdir(parents=True)
        for register, count in DOCUMENTS.items():
            own = [text for text in texts if (text.lang, text.register) == (lang, register)][:count]
            whole = "\n".join(f"%%% {text.title}\n{text.body}\n" for text in own)
            (folder / lang / f"{register}.txt").write_text(whole, encoding="utf-8")
    return folder


def write_mixture(folder: Path) -> Path:
    """A mixture of one data set with one template."""
    (folder / "templates" / "small_talk").mkdir(parents=True)
    (folder / "templates" / "small_talk" / "templates.yaml").write_text(TEMPLATE, encoding="utf-8")
    rows = [{"text": f"The weather on day {day} was fine.", "label": day % 2} for day in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    mixture = "datasets:\n  - {name: small_talk, rows: rows.jsonl, templates: templates, language: en}\n"
    (folder / "mixture.yaml").write_text(mixture, encoding="utf-8")
    return folder / "mixture.yaml"


def write_evaluation(folder: Path) -> Path:
    """An evaluation manifest with one item in each language that the corpus holds, and one that it does not."""
    texts = read_corpus(bundled("demo/corpus"))
    bodies = [
        next(text.body for text in texts if (text.lang, text.register) == (lang, "story")) for lang in ("en", "zh")
    ]
    rows = [{"question": body[:300]} for body in bodies] + [{"question": " ".join(map(str, range(40)))}]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    manifest = {"benchmarks": [{"name": "Stories", "files": ["items.jsonl"], "fields": ["question"]}]}
    (folder / "reported.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    return folder / "reported.yaml"
