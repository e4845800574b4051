"""From texts to rows that a plain PyTorch or Hugging Face trainer takes.

    python examples/pack_for_hf_trainer.py

Texts -> tokenizer -> ids -> packed rows -> dense columns. ``targets`` are aligned: what is to be predicted at a place
stands at that place, so a trainer shifts nothing; places without loss become -100, as Hugging Face has it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np

from glm_data.exporting.stage import ExportOptions, export_stage
from glm_data.packing.options import PackOptions
from glm_data.packing.tokenized import TokenizeOptions
from pipelines import pack, tokenize_documents
from pipelines.runner import RunnerOptions
from tokenizer import Tokenizer, TrainOptions, train

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Beijing is the capital of China, and Paris is the capital of France.",
    "Water boils at one hundred degrees Celsius at the level of the sea.",
    "An apple a day keeps the doctor away, or so the gardener says.",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "一年有四季，春夏秋冬；千里之行，始于足下。",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
)
TEXTS = [f"{n}. {SENTENCES[0]} {SENTENCES[n % 7]} {SENTENCES[n * 3 % 7]} {SENTENCES[n // 7 % 7]}" for n in range(120)]


def make_pack(texts: Sequence[str], folder: Path, options: PackOptions, vocab_size: int = 600) -> Path:
    """Tokenise and pack ``texts`` below ``folder``; returns the pack's folder."""
    (folder / "raw").mkdir(parents=True)
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    (folder / "raw" / "texts.jsonl").write_text(lines, encoding="utf-8")
    train(texts, folder / "tokenizer", TrainOptions(vocab_size=vocab_size))
    ids, runner = folder / "ids", RunnerOptions()
    tokenize_documents.run([folder / "raw"], folder / "tokenizer", ids, TokenizeOptions(), runner)
    success = pack.run(ids, folder / "pack", options, runner, tokenizer=folder / "tokenizer")
    print(f"{success.facts['rows']} rows, {success.facts['fill']:.1%} filled, {success.facts['mask_rate']:.1%} masked")
    return folder / "pack"


def for_trainer(packed: Path, out: Path) -> datasets.Dataset:
    """The rows of a pack as a data set of ``input_ids``, ``labels``, ``position_ids`` and ``segments``."""
    export_stage(packed, out, ExportOptions(to="hf-dense"))

    def with_labels(batch: dict[str, list[list[int]]]) -> dict[str, np.ndarray]:
        return {"labels": np.where(np.asarray(batch["loss_mask"]) > 0, np.asarray(batch["targets"]), -100)}

    rows = datasets.load_from_disk(str(out))
    return rows.map(with_labels, batched=True, remove_columns=["targets", "loss_mask"])


def main() -> None:
    """Pack a hundred short texts and show the beginning of a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = for_trainer(make_pack(TEXTS, folder / "work", PackOptions(seq_length=256)), folder / "dense")
        model, row = Tokenizer.load(folder / "work" / "tokenizer"), rows[0]
        print(rows)
        print(model.decode([token for token in row["input_ids"] if token], special=True)[:400])
        print(f"{sum(label != -100 for label in row['labels'])} of {len(row['labels'])} places are predicted")


if __name__ == "__main__":
    main()
