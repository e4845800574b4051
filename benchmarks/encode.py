"""Encoding texts with one and the same SentencePiece model, and the way from texts to packed shards."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.contest import Contest, Contestant, Work, megabytes


def _texts(folder: Path) -> list[str]:
    from glm_data.formats.parquet import read_batches

    paths = sorted((folder / "documents").glob("*.parquet"))
    return [text for path in paths for batch in read_batches(path) for text in batch.column("text").to_pylist()]


def ours(folder: Path) -> tuple[Work, float]:
    """Flat int32 ids and offsets, lossless, from Arrow columns of 2 MB as the tokenize stage has them."""
    from glm_data.formats import read_blocks
    from glm_data.stage import find_inputs
    from tokenizer import Tokenizer

    files = find_inputs([folder / "documents"])
    columns = [block.documents.column("text") for file in files for block in read_blocks(file)]
    model = Tokenizer.load(folder / "run" / "tokenizer")

    def work() -> None:
        model._idle.clear()  # nothing is known from the run before
        for column in columns:
            model.encode_batch(column)

    return work, megabytes(_texts(folder))


def ours_on_two_threads(folder: Path) -> tuple[Work, float]:
    """The same as one batch of all texts, on two threads: CPU time of both together."""
    from tokenizer import Tokenizer

    model, texts = Tokenizer.load(folder / "run" / "tokenizer"), _texts(folder)
    return lambda: model.encode_batch(texts, threads=2), megabytes(texts)


def sentencepiece_lists(folder: Path) -> tuple[Work, float]:
    """``SentencePieceProcessor.encode`` of the list of texts, ids as lists."""
    from sentencepiece import SentencePieceProcessor

    model, texts = SentencePieceProcessor(str(folder / "run" / "tokenizer" / "tokenizer.model")), _texts(folder)
    return lambda: model.encode(texts, num_threads=1), megabytes(texts)


def sentencepiece_numpy(folder: Path) -> tuple[Work, float]:
    """Its fastest way: bytes in, NumPy arrays out."""
    from sentencepiece import SentencePieceProcessor

    model, texts = SentencePieceProcessor(str(folder / "run" / "tokenizer" / "tokenizer.model")), _texts(folder)
    data = [text.encode() for text in texts]
    return lambda: model.encode(data, return_type="numpy", num_threads=1), megabytes(texts)


def to_shards(folder: Path) -> tuple[Work, float]:
    """Document files to packed shards: the tokenize and the pack stage, in this process."""
    from glm_data.packing import tokenized
    from glm_data.packing.options import PackOptions
    from glm_data.packing.stage import pack_stage
    from pipelines.runner import RunnerOptions
    from pipelines.tokenize_documents import run

    out, model, runner = folder / "to-shards", folder / "run" / "tokenizer", RunnerOptions(workers=1)

    def work() -> None:
        shutil.rmtree(out, ignore_errors=True)
        tokenized._cached_tokenizer.cache_clear()
        run([folder / "documents"], model, out / "ids", runner=runner)
        pack_stage(out / "ids", out / "pack", PackOptions(preset="glm-130b"), tokenizer=model)

    return work, megabytes(_texts(folder))


CONTESTS = (
    Contest(
        name="Encoding",
        unit="MB/s",
        contestants=(
            Contestant("glm-data", ours),
            Contestant("glm-data, two threads", ours_on_two_threads),
            Contestant("SentencePiece, bytes to NumPy", sentencepiece_numpy),
            Contestant("SentencePiece, lists", sentencepiece_lists),
        ),
        note="English and Chinese texts to ids with the model that the run trained, one core: the same ids, but "
        "for U+2581, which SentencePiece takes for a space. Ours starts every run with no word remembered.",
    ),
    Contest(
        name="From texts to packed shards",
        unit="MB/s",
        contestants=(
            Contestant("glm-data, document files to shards", to_shards),
            Contestant("glm-data, encoding alone", ours),
            Contestant("SentencePiece, encoding alone", sentencepiece_numpy),
        ),
        note="The same texts from document files on disk to a finished pack (`glm-130b`), by the tokenize and pack "
        "stages with all their bookkeeping, beside encoding what is in memory already; one core.",
    ),
)
