"""A run to look at, with documents that would harm who shows them carelessly: a pack, duplicates, a filter, MIP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packs import make_mip, make_tokenized, make_tokenizer, texts
from test_filters_tune import sentence

from glm_data.cli.shell import run
from glm_data.packing.options import PackOptions
from glm_data.packing.stage import pack_stage

SCRIPT = "<script>window.harmed = 1</script><img src=x onerror='window.harmed = 2'>"
HOSTILE = f"{SCRIPT} Not \u202ereal\u202c \x1b[31mred\x07 \u2028 javascript:alert(1) \u3164 שלום 👩‍👩‍👧 "
ROWS = [
    {"text": f"{SCRIPT} bad ||| worse", "label": 0},
    {"text": "床前明月光", "label": 1},
    {"text": "A plain review.", "label": -1},
]
TEMPLATES = """
dataset: reviews
templates:
  a-1: !Template
    id: a-1
    name: like it
    jinja: "{{text}} Did they like it? ||| {{answer_choices[label]}}"
    answer_choices: "no ||| yes"
    metadata: !TemplateMetadata {languages: [en]}
    reference: ''
"""


def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of all tests of a process; nothing in it may be changed."""
    folder = tmp_path_factory.getbasetemp() / "viewer"
    if not folder.exists():
        make_run(folder)
    return folder / "run"


def make_run(folder: Path) -> Path:
    """``folder/run`` with pack, tokenizer, dedupe and filter; ``folder/mixture.yaml`` beside it."""
    out = folder / "run"
    tokenizer = make_tokenizer(out / "tokenizer")
    documents = [HOSTILE * 3, *texts(60)]
    make_tokenized(out / "ids", tokenizer, documents, shards=1)
    make_mip(folder / "mip", [(f"{HOSTILE}{text} Is it true?", "yes it is") for text in texts(20, 1)])
    pack_stage(out / "ids", out / "pack", PackOptions(seq_length=256), tokenizer=out / "tokenizer", mip=folder / "mip")
    _write_raw(folder / "raw")
    assert run(["filter", str(folder / "raw"), "--out", str(out / "filter"), "-q"]) == 0
    assert run(["dedupe", str(out / "filter"), "--out", str(out / "dedupe"), "-q"]) == 0
    write_mixture(folder)
    return out


def _write_raw(folder: Path) -> None:
    folder.mkdir(parents=True)
    prose = ["\n".join([sentence(12) for _ in range(8)] + ["The same line again."] * (n % 14)) for n in range(30)]
    near = [f"{prose[0]} {HOSTILE}", prose[0].replace("the", "The", 1), f"{prose[1]}\n{HOSTILE}"]
    lines = [json.dumps({"text": text, "meta": {"pile_set_name": SCRIPT}}) for text in [*prose, *near, prose[2]]]
    (folder / "0.jsonl").write_text("\n".join(lines), encoding="utf-8")


def write_mixture(folder: Path) -> Path:
    """``folder/mixture.yaml`` with one data set of :data:`ROWS`."""
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    (folder / "templates.yaml").write_text(TEMPLATES, encoding="utf-8")
    mixture = "datasets: [{name: reviews, rows: rows.jsonl, templates: templates.yaml}]\n"
    (folder / "mixture.yaml").write_text(mixture, encoding="utf-8")
    return folder / "mixture.yaml"
