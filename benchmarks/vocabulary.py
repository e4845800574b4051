"""From texts to a vocabulary: counting words and training on the counts, beside SentencePiece's own reader."""

from __future__ import annotations

import io
from pathlib import Path

from benchmarks.contest import Contest, Contestant, Work, megabytes
from benchmarks.encode import _texts

VOCAB_SIZE = 8000


def ours(folder: Path) -> tuple[Work, float]:
    """Both passes of counting, and SentencePiece on the counts."""
    from tokenizer import TrainOptions
    from tokenizer.train import count_texts, train_counted

    texts = _texts(folder)
    return lambda: train_counted(count_texts(texts), TrainOptions(vocab_size=VOCAB_SIZE)), megabytes(texts)


def sentencepiece_reader(folder: Path) -> tuple[Work, float]:
    """``SentencePieceTrainer`` on the lines of the texts, with the same pieces for characters, bytes and digits."""
    from sentencepiece import SentencePieceTrainer

    texts = _texts(folder)

    def work() -> None:
        SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in text.split("\n")),
            model_writer=io.BytesIO(),
            vocab_size=VOCAB_SIZE,
            model_type="bpe",
            normalization_rule_name="identity",
            byte_fallback=True,
            split_digits=True,
            max_sentence_length=1 << 20,
            num_threads=1,
            minloglevel=2,
        )

    return work, megabytes(texts)


CONTESTS = (
    Contest(
        name="Training a vocabulary",
        unit="MB/s",
        contestants=(
            Contestant("glm-data, counts words", ours),
            Contestant("SentencePiece, reads lines", sentencepiece_reader),
        ),
        note=f"English and Chinese texts in memory to BPE of {VOCAB_SIZE:,} pieces, one core.",
    ),
)
