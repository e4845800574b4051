"""What the benchmarks work on, in one folder: a run up to its pack, and samples of its texts that any peer can read.

::

    run/              filter, dedupe, tokenizer, tokenize, mip, pack of the input
    english.jsonl     one JSON string a line
    chinese.jsonl
    documents/        larger samples as document files: english.parquet, chinese.parquet
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from benchmarks.harness import environment

STAGES = ("filter", "dedupe", "tokenizer", "tokenize", "mip", "pack")
SAMPLE_BYTES, DOCUMENT_BYTES = 1_500_000, 20_000_000
LONGEST_BYTES = 50_000
VOCAB_SIZE = 32_000
MIP_RATIO = 0.001
"""As much instruction data as the demo's small sets hold for a few hundred MB of text."""


def write_recipe(path: Path, data: Sequence[Path]) -> None:
    """The demo's recipe without its model, and with ``data`` (if any) in place of the bundled corpus."""
    import manifests

    recipe = yaml.safe_load(manifests.path("demo.yaml").read_text(encoding="utf-8"))
    for section in ("train", "quantize", "infill"):
        recipe.pop(section, None)
    recipe["mip"]["manifest"] = str(manifests.path(recipe["mip"]["manifest"]))
    if data:
        recipe.pop("demo_input")
        recipe["inputs"] = [str(path.resolve()) for path in data]
        recipe["dedupe"] = {}
        recipe["pack"] = {"preset": "glm-130b", "mip_ratio": MIP_RATIO}
        recipe["tokenizer"] = {"vocab_size": VOCAB_SIZE}
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")


def run_stages(folder: Path, recipe: Path) -> None:
    """Run the recipe's stages into ``folder / "run"`` with one worker, each in a process of its own.

    A tripped guard rail (exit code 3) is no failure.
    """
    command = [sys.executable, "-m", "glm_data.cli", "run", str(recipe), "--out", str(folder / "run"), "--workers", "1"]
    for stage in STAGES:
        done = subprocess.run([*command, "--until", stage], stdout=subprocess.DEVNULL, env=environment(), check=False)
        if done.returncode not in (0, 3):
            raise SystemExit(f"'{' '.join(command)} --until {stage}' ended with {done.returncode}")


def write_samples(folder: Path) -> None:
    """Samples of the filtered texts, spread evenly over them, of at most ``SAMPLE_BYTES`` and ``DOCUMENT_BYTES`` a
    language."""
    for name, language in (("english", "en"), ("chinese", "zh")):
        texts = list(_texts(folder / "run" / "filter", language))
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            for text in _spread(texts, SAMPLE_BYTES):
                out.write(json.dumps(text, ensure_ascii=False) + "\n")
        _write_documents(folder / "documents" / f"{name}.parquet", _spread(texts, DOCUMENT_BYTES), language)


def _write_documents(path: Path, texts: Sequence[str], language: str) -> None:
    from glm_data import documents
    from glm_data.formats.parquet import parquet_writer

    path.parent.mkdir(exist_ok=True)
    with parquet_writer(path, documents.SCHEMA) as writer:
        for start in range(0, len(texts), 1000):
            part = texts[start : start + 1000]
            ids = [documents.document_id(path.name, start + number) for number in range(len(part))]
            same = [[value] * len(part) for value in (path.stem, language, "{}")]
            writer.write(documents.make_block(ids, part, *same))


def _texts(stage: Path, language: str) -> Iterator[str]:
    from glm_data.formats.parquet import read_batches
    from glm_data.stage import find_inputs

    for item in find_inputs([stage]):
        for batch in read_batches(Path(item.path), ["text", "lang"]):
            for text, lang in zip(batch.column("text").to_pylist(), batch.column("lang").to_pylist(), strict=True):
                if lang.startswith(language):
                    yield text


def _spread(texts: list[str], most: int) -> list[str]:
    sizes = [len(text.encode()) for text in texts]
    texts = [text for text, size in zip(texts, sizes, strict=True) if size <= LONGEST_BYTES]
    step = max(1, sum(size for size in sizes if size <= LONGEST_BYTES) // most)
    return texts[::step]
