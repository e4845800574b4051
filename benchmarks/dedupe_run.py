"""De-duplication from compressed shard to finished output, one process: ours, two peers, and a script."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.contest import Contest, Contestant, Work, megabytes, read_texts

BANDS, ROWS = 14, 8
LANGUAGES = {"english": "eng", "chinese": "cmn"}
"""Our inputs by datatrove's codes."""


def _shard(texts: list[str], path: Path) -> Path:
    import zstandard

    lines = "".join(json.dumps({"text": text, "id": str(i)}, ensure_ascii=False) + "\n" for i, text in enumerate(texts))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(lines.encode(), 3))
    return path


def our_keys(language: str, folder: Path) -> tuple[Work, float]:
    """From the shard to sorted band keys in memory: what signing does but for the files that it leaves."""
    import numpy as np

    from glm_data.dedupe.signatures import Lsh, band_keys, signatures
    from glm_data.formats import read_blocks
    from glm_data.inputs import describe_input
    from glm_data.text.shingles import shingle_texts

    shard, amount = _larger_shard(language, folder)
    lsh, item = Lsh(BANDS, ROWS), describe_input(shard, shard.name)

    def work() -> None:
        texts = (block.documents.column("text") for block in read_blocks(item))
        np.sort(
            np.concatenate([band_keys(signatures(shingle_texts(t, unit="auto"), lsh), lsh) for t in texts]), axis=None
        )

    return work, amount


def _larger_shard(language: str, folder: Path) -> tuple[Path, float]:
    import pyarrow.parquet as pq

    texts = pq.read_table(folder / "documents" / f"{language}.parquet", columns=["text"])["text"].to_pylist()
    return _shard(texts, folder / "dedupe" / language / "in.jsonl.zst"), megabytes(texts)


def ours(language: str, folder: Path) -> tuple[Work, float]:
    """The pipeline on Beam's local runner, in this process; its first run, which is not timed, compiles."""
    from glm_data.dedupe import DedupeOptions
    from pipelines.dedupe import run
    from pipelines.runner import RunnerOptions

    shard, amount = _larger_shard(language, folder)
    options = DedupeOptions(bands=BANDS, rows=ROWS, max_source_loss=1.0)

    def work() -> None:
        shutil.rmtree(folder / "dedupe" / "out", ignore_errors=True)
        run([shard], folder / "dedupe" / "out", options, RunnerOptions(workers=1))

    return work, amount


def datatrove(language: str, folder: Path) -> tuple[Work, float]:
    """Signatures, buckets, clusters, filter, each a local executor; JSON lines in, JSON lines out."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    texts = read_texts(folder / f"{language}.jsonl")
    base = folder / "datatrove-run" / language
    _shard(texts, base / "in" / "in.jsonl.zst")
    config = MinhashConfig(num_buckets=BANDS, hashes_per_bucket=ROWS, hash_config=HashConfig(precision=64))

    def work() -> None:
        out = base / "out"
        shutil.rmtree(out, ignore_errors=True)
        logger.remove()
        reader = JsonlReader(str(base / "in"), compression="zstd")
        stages = (
            [reader, MinhashDedupSignature(str(out / "sign"), config, LANGUAGES[language])],
            [MinhashDedupBuckets(str(out / "sign"), str(out / "buckets"), config=config)],
            [MinhashDedupCluster(str(out / "buckets"), str(out / "ids"), config=config)],
            [reader, MinhashDedupFilter(str(out / "ids")), JsonlWriter(str(out / "kept"))],
        )
        for number, stage in enumerate(stages):
            tasks = BANDS if number == 1 else 1
            log = str(out / "logs" / str(number))
            LocalPipelineExecutor(pipeline=stage, tasks=tasks, workers=1, logging_dir=log).run()

    return work, megabytes(texts)


def datasketch(language: str, folder: Path) -> tuple[Work, float]:
    """The script people write: n-grams in Python, MinHashLSH, components by networkx, the first of each stays."""
    import networkx
    from datasketch import MinHash, MinHashLSH

    texts = read_texts(folder / f"{language}.jsonl")
    shard = _shard(texts, folder / "datasketch" / f"{language}.jsonl.zst")

    def sign(text: str) -> MinHash:
        tokens = text.lower().split() if language == "english" else [c for c in text if not c.isspace()]
        signature = MinHash(num_perm=BANDS * ROWS, scheme="affine32")
        signature.update_batch([" ".join(tokens[at : at + 5]).encode() for at in range(max(1, len(tokens) - 4))])
        return signature

    def work() -> None:
        import zstandard

        index, graph = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS)), networkx.Graph()
        lines = zstandard.decompress(shard.read_bytes()).decode().split("\n")[:-1]
        for number, line in enumerate(lines):
            signature = sign(json.loads(line)["text"])
            graph.add_edges_from((number, other) for other in index.query(signature))
            index.insert(number, signature)
        removed = {item for group in networkx.connected_components(graph) for item in sorted(group)[1:]}
        kept = "".join(line + "\n" for number, line in enumerate(lines) if number not in removed)
        (folder / "datasketch" / "kept.jsonl").write_text(kept, encoding="utf-8")

    return work, megabytes(texts)


def text_dedup(language: str, folder: Path) -> tuple[Work, float]:
    """text-dedup's MinHash command in this process, its defaults but for bands and rows."""
    from text_dedup.minhash import main

    texts = read_texts(folder / f"{language}.jsonl")
    base = folder / "text-dedup" / language
    shard = _shard(texts, base / "in.jsonl.zst")

    def work() -> None:
        shutil.rmtree(base / "cache", ignore_errors=True)
        shutil.rmtree(base / "out", ignore_errors=True)
        options = {
            "path": "json",
            "data_files": shard,
            "split": "train",
            "cache_dir": base / "cache",
            "output": base / "out",
            "column": "text",
            "b": BANDS,
            "r": ROWS,
            "num_perm": BANDS * ROWS,
            "ngram": 5,
            "num_proc": 1,
        }
        main([word for name, value in options.items() for word in (f"--{name}", str(value))], standalone_mode=False)

    return work, megabytes(texts)


def _contest(language: str) -> Contest:
    return Contest(
        name=f"De-duplication, whole, {language}",
        unit="MB/s",
        contestants=(
            Contestant(f"glm-data whole, {language}", lambda folder: ours(language, folder)),
            Contestant(f"glm-data to band keys, {language}", lambda folder: our_keys(language, folder)),
            Contestant(f"datatrove 0.10 whole, {language}", lambda folder: datatrove(language, folder), is_peer=True),
            Contestant(
                f"datasketch and networkx script, {language}", lambda folder: datasketch(language, folder), is_peer=True
            ),
            Contestant(f"text-dedup 0.4, {language}", lambda folder: text_dedup(language, folder), is_peer=True),
        ),
        note="Compressed JSON lines to the documents that stay, on disk, one process (the second line: to sorted keys "
        "in memory). Ours includes the start of Beam, "
        "the proof of every removal and the table of duplicates, and reads the larger sample, of like "
        "documents, as it would end too soon. text-dedup needs an environment of its own.",
    )


CONTESTS = tuple(_contest(language) for language in LANGUAGES)
