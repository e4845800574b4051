"""A small run from raw records to packed rows, with every fate that a record can have."""

from __future__ import annotations

import json
from pathlib import Path

from dedupe_texts import PERTURBATIONS, write_documents

from glm_data import recipe as recipes
from glm_data.cli.output import Output
from glm_data.cli.run import run_recipe

RECIPE = """
inputs: [raw/pile, raw/wudao]
runner: {workers: 1}
filter: {max_bad_fraction: 0.2}
dedupe: {containment: 0.9, max_bad_fraction: 0.2}
tokenizer: {vocab_size: 1024, character_coverage: 0.95}
tokenize: {}
pack: {seq_length: 128, mip_window: 64, rows_per_shard: 12}
"""
HOSTILE = (
    "Not a word of this \u202eis real\u202c. \x1b[31mIt claims to be red\x1b[0m, and \u009b2J to clear the screen. "
)
EN, ZH = write_documents("en", 12), write_documents("zh", 12)
PILE = [
    *EN,
    PERTURBATIONS["case"](EN[1]),
    PERTURBATIONS["boilerplate"](EN[2]),
    HOSTILE + EN[3].replace("Item", "Entry"),
    "Buy cheap now, click here, best price. " * 60,
]
"""Records 12 and 13 are a copy and a near duplicate, 14 is hostile, 15 is dropped, 16 is broken."""
NEAR, COPY, SHARED, DROPPED, BROKEN = (f"pile/00.jsonl#{number}" for number in (13, 12, 1, 15, 16))


def write_raw(folder: Path) -> None:
    """Raw shards below ``folder/raw``."""
    lines = [json.dumps({"text": text, "meta": {"pile_set_name": f"Set {n % 2}"}}) for n, text in enumerate(PILE)]
    (folder / "raw/pile").mkdir(parents=True)
    (folder / "raw/pile/00.jsonl").write_text("\n".join([*lines, '{"text": "cut', ""]), encoding="utf-8")
    zh = [{"id": n, "title": f"第{n}篇", "content": text, "dataType": "故事"} for n, text in enumerate(ZH)]
    zh.append({"id": 12, "title": "又一篇", "content": PERTURBATIONS["traditional"](ZH[5]), "dataType": "新闻"})
    (folder / "raw/wudao").mkdir()
    (folder / "raw/wudao/00.json").write_text(json.dumps(zh, ensure_ascii=False), encoding="utf-8")


def make_run(folder: Path) -> Path:
    """Run the recipe in ``folder``; returns the run's folder."""
    write_raw(folder)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    run_recipe(recipes.load(folder / "recipe.yaml"), folder / "run", Output(quiet=True))
    return folder / "run"
