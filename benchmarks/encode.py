"""Encoding texts with one and the same SentencePiece model."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contest import Contest, Contestant, Work, megabytes, read_texts


def _texts(folder: Path) -> list[str]:
    return read_texts(folder / "english.jsonl") + read_texts(folder / "chinese.jsonl")


def ours(folder: Path) -> tuple[Work, float]:
    """Flat int32 ids and offsets, lossless."""
    import pyarrow as pa

    from tokenizer import Tokenizer

    model, texts = Tokenizer.load(folder / "run" / "tokenizer"), _texts(folder)
    batch = pa.array(texts, pa.string())
    return lambda: model.encode_batch(batch), megabytes(texts)


def sentencepiece(folder: Path) -> tuple[Work, float]:
    """``SentencePieceProcessor.encode`` of the list of texts, ids as lists."""
    from sentencepiece import SentencePieceProcessor

    model, texts = SentencePieceProcessor(str(folder / "run" / "tokenizer" / "tokenizer.model")), _texts(folder)
    return lambda: model.encode(texts, num_threads=1), megabytes(texts)


CONTESTS = (
    Contest(
        title="Encoding",
        unit="MB/s",
        contestants=(Contestant("glm-data", ours), Contestant("sentencepiece, lists", sentencepiece)),
        note="English and Chinese texts to ids with the model that the run trained, one core.",
    ),
)
