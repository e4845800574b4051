"""Text to sorted band keys on disk: MinHash of 5-grams, 14 bands of 8, one core."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contest import Contest, Contestant, Work, megabytes, read_texts

BANDS, ROWS = 14, 8
LANGUAGES = {"english": "eng", "chinese": "cmn"}
"""Our inputs by datatrove's codes."""


def ours(language: str, folder: Path) -> tuple[Work, float]:
    """Folding, shingling, MinHash, band keys, and the sorted run that the dedupe stage writes."""
    import numpy as np
    import pyarrow as pa

    from glm_data.dedupe.signatures import Lsh, band_keys, signatures
    from glm_data.text.shingles import shingle_texts

    texts = read_texts(folder / f"{language}.jsonl")
    lsh = Lsh(BANDS, ROWS)

    def work() -> None:
        keys = band_keys(signatures(shingle_texts(pa.array(texts, pa.string())), lsh), lsh).ravel()
        np.save(folder / "keys.npy", keys[np.argsort(keys, kind="stable")])

    return work, megabytes(texts)


def datatrove(language: str, folder: Path) -> tuple[Work, float]:
    """Its first MinHash stage with 32-bit hashes: word tokenizer, 5-grams of words, sorted signature files."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    texts = read_texts(folder / f"{language}.jsonl")
    config = MinhashConfig(num_buckets=BANDS, hashes_per_bucket=ROWS, hash_config=HashConfig(precision=32))
    stage = MinhashDedupSignature(str(folder / "datatrove"), config, LANGUAGES[language])
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]

    def work() -> None:
        logger.remove()
        stage.run(iter(documents))

    return work, megabytes(texts)


def datasketch(language: str, folder: Path) -> tuple[Work, float]:
    """Plain Python n-grams (lower case; words, or characters of Chinese) into ``MinHash(scheme="affine32")``."""
    from datasketch import MinHash

    texts = read_texts(folder / f"{language}.jsonl")
    blank = MinHash(num_perm=BANDS * ROWS, scheme="affine32")

    def keys(text: str) -> list[bytes]:
        tokens = text.lower().split() if language == "english" else [c for c in text.lower() if not c.isspace()]
        grams = {" ".join(tokens[at : at + 5]).encode() for at in range(max(1, len(tokens) - 4))}
        signature = blank.copy()
        signature.update_batch(list(grams))
        return [signature.hashvalues[at : at + ROWS].tobytes() for at in range(0, BANDS * ROWS, ROWS)]

    return lambda: sorted(key for text in texts for key in keys(text)), megabytes(texts)


def _contest(language: str) -> Contest:
    return Contest(
        name=f"De-duplication keys, {language}",
        unit="MB/s",
        contestants=(
            Contestant(f"glm-data, {language}", lambda folder: ours(language, folder)),
            Contestant(f"datatrove 0.10, {language}", lambda folder: datatrove(language, folder), is_peer=True),
            Contestant(f"datasketch 2.0, {language}", lambda folder: datasketch(language, folder), is_peer=True),
        ),
        note=f"Text in memory to sorted band keys ({BANDS} bands of {ROWS} minima of 5-gram hashes), one core. "
        + {
            "english": "datatrove cuts words with spaCy.",
            "chinese": "datatrove cuts words with spaCy and jieba; ours and the datasketch script take characters.",
        }[language],
    )


CONTESTS = tuple(_contest(language) for language in LANGUAGES)
