"""What a run would find, miss and cost, told from its options and a sample of its inputs before it starts."""

from __future__ import annotations

import gzip
import io
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from glm_data.dedupe.options import DedupeOptions
from glm_data.dedupe.select import count_shared
from glm_data.dedupe.sets import UNIT_HASHES
from glm_data.dedupe.sign import RUN_DOCUMENTS, sign_block
from glm_data.dedupe.signatures import Lsh
from glm_data.dedupe.work import Array, lsh_of
from glm_data.errors import UsageError
from glm_data.formats import read_blocks, sniff
from glm_data.inputs import describe_input
from glm_data.kernels import compiled
from glm_data.manifest import InputFile
from glm_data.text.shingles import Shingles, distinct_sorted, shingle_texts

SIMILARITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Where the S-curve is shown."""
SAMPLED_FILES, _SAMPLED_BYTES, _SAMPLED_PAIRS = 8, 2 << 20, 200_000
_ZSTD_MAGIC, _GZIP_MAGIC = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_READ_BYTES = 1 << 14
_KEYS_IN_PARTITION = 1 << 22
_BASE_MEMORY = 250e6
"""A worker process with all it imports."""
_WHOLE_BY_SIGNING = 1.9
"""CPU of a whole run by that of reading and signing (docs/lab-notes.md)."""
_SPOOLED, _WRITTEN, _CANDIDATES = 1.05, 0.45, 0.1
"""Bytes a byte of text in the parsed copy and in the output; share of documents that become candidates: 3 % of mixed
web text and books, 22 % of poems of few different characters (lab notes)."""
_CANDIDATE_BYTES = 9
"""Memory a document for what is known of candidates: 30 bytes each, were three in ten one."""


class Sample(NamedTuple):
    """What a sample of the inputs says of all of them."""

    documents: int
    """In all inputs, estimated."""
    text_bytes: int
    """In all inputs, estimated."""
    shingles: float
    """Distinct ones a document, on the average."""
    similarities: Array
    """``float64[pairs]``: exact similarities of random pairs of sampled documents."""
    seconds_per_byte: float
    """CPU for reading and signing a byte of text on this machine."""
    is_spooled: bool
    """Whether inputs are parsed once and kept parsed."""


class Costs(NamedTuple):
    """What a run of some size would take."""

    documents: int
    text_bytes: int
    memory_bytes: int
    """Peak of one worker process; the first process needs as much."""
    disk_bytes: int
    """Below the output folder at the fullest moment, the output included."""
    cpu_seconds: float


def curve(lsh: Lsh) -> list[tuple[float, float]]:
    """The S-curve: at each similarity, how likely two documents are compared."""
    return [(similarity, lsh.probability(similarity)) for similarity in SIMILARITIES]


def missed_share(lsh: Lsh, threshold: float) -> float:
    """Of pairs whose similarities lie evenly from the threshold to 1, the share that is never compared."""
    at = np.linspace(threshold, 1, 2001)
    return float(np.mean([1 - lsh.probability(similarity) for similarity in at]))


def false_share(lsh: Lsh, threshold: float) -> float:
    """Of pairs whose similarities lie evenly from 0 to the threshold, the share that is compared (and not removed)."""
    at = np.linspace(0, threshold, 2001)
    return float(np.mean([lsh.probability(similarity) for similarity in at]))


def false_candidates(similarities: Array, lsh: Lsh, threshold: float, documents: int) -> float:
    """How many pairs below the threshold would be compared among ``documents`` like the sampled ones."""
    below = similarities[similarities < threshold]
    if not similarities.size:
        return 0.0
    share = np.sum([lsh.probability(similarity) for similarity in below]) / similarities.size
    return float(share * documents * (documents - 1) / 2)


def costs(sample: Sample, options: DedupeOptions, documents: int) -> Costs:
    """What a run over ``documents`` like the sampled ones would take."""
    lsh, scale = lsh_of(options), documents / max(sample.documents, 1)
    text = sample.text_bytes * scale
    sets = documents * _CANDIDATES * (sample.shingles * 8 + lsh.permutations * 4)
    disk = documents * (lsh.bands * 12 + 60) + sets + text * _WRITTEN
    disk += text * _SPOOLED if options.spool and sample.is_spooled else 0
    disk += documents * (sample.shingles * 8 + lsh.permutations * 4 + 40) if options.export_index else 0
    sorting = max(RUN_DOCUMENTS * lsh.bands * 28, _KEYS_IN_PARTITION * 48, UNIT_HASHES * 16)
    memory = _BASE_MEMORY + sorting + documents * _CANDIDATE_BYTES
    return Costs(documents, int(text), int(memory), int(disk), text * sample.seconds_per_byte * _WHOLE_BY_SIGNING)


def take_sample(inputs: Sequence[InputFile], options: DedupeOptions) -> Sample:
    """Read the beginnings of some inputs, spread over all of them, and sign what they hold.

    Raises :class:`UsageError` if they hold no document.
    """
    chosen = [inputs[place] for place in np.unique(np.linspace(0, len(inputs) - 1, SAMPLED_FILES).astype(int))]
    lsh = lsh_of(options)
    blocks, _ = beginning(chosen[0], options)
    if blocks:
        sign_block(blocks[0], options, lsh)  # once unmeasured: kernels are loaded or compiled, and tables built
    blocks = []
    whole_documents = whole_bytes = seconds = 0.0
    for item in chosen:
        started = time.process_time()
        head, share = beginning(item, options)
        seconds += time.process_time() - started
        blocks += head
        whole_documents += sum(block.num_rows for block in head) / share
        whole_bytes += sum(_text_bytes(block) for block in head) / share
    if not blocks:
        raise UsageError("the inputs hold no document to plan with; check their format.")
    started = time.process_time()
    for block in blocks:
        sign_block(block, options, lsh)
    seconds += time.process_time() - started
    read = sum(_text_bytes(block) for block in blocks)
    scale = sum(item.bytes for item in inputs) / max(sum(item.bytes for item in chosen), 1)
    texts = pa.concat_arrays([block.column("text") for block in blocks])
    sets = distinct_sorted(shingle_texts(texts, **options.shingling))
    is_spooled = any(_format(item, options) != "parquet" for item in chosen)
    return Sample(
        documents=round(whole_documents * scale),
        text_bytes=round(whole_bytes * scale),
        shingles=sets.hashes.size / len(texts),
        similarities=random_similarities(sets),
        seconds_per_byte=seconds / max(read, 1),
        is_spooled=is_spooled,
    )


def _text_bytes(block: pa.RecordBatch) -> int:
    return int(pc.sum(pc.binary_length(block.column("text"))).as_py() or 0)


def _format(item: InputFile, options: DedupeOptions) -> str:
    return sniff(Path(item.path)) if options.format == "auto" else options.format


def beginning(item: InputFile, options: DedupeOptions) -> tuple[list[pa.RecordBatch], float]:
    """The first blocks of an input, about 2 MB of text, and what share of it they are."""
    path = Path(item.path)
    if _format(item, options) == "parquet":
        return _first_rows(item)
    data, share = _first_bytes(path)
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder) / "head"
        head.write_bytes(data)
        blocks = read_blocks(describe_input(head, item.name, digest=False), _format(item, options))
        return [block.documents for block in blocks if block.documents.num_rows], share


def _first_rows(item: InputFile) -> tuple[list[pa.RecordBatch], float]:
    rows, blocks, size = 0, [], 0
    for block in read_blocks(item, "parquet"):
        blocks.append(block.documents)
        rows += block.documents.num_rows
        size += _text_bytes(block.documents)
        if size >= _SAMPLED_BYTES:
            break
    return [block for block in blocks if block.num_rows], rows / max(pq.read_metadata(item.path).num_rows, 1)


def _first_bytes(path: Path) -> tuple[bytes, float]:
    """The first decompressed bytes of a file, and what share of the file they came from."""
    size = max(path.stat().st_size, 1)
    with path.open("rb", buffering=0) as file:
        head = file.read(4)
        file.seek(0)
        data = _read_up_to(_decompressed(file, head))
        return data, min(1.0, file.tell() / size) if len(data) >= _SAMPLED_BYTES else 1.0


def _decompressed(file: io.FileIO, head: bytes) -> Any:
    if head == _ZSTD_MAGIC:
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return decompressor.stream_reader(file, read_across_frames=True, read_size=_READ_BYTES)
    return gzip.GzipFile(fileobj=file) if head[:2] == _GZIP_MAGIC else file


def _read_up_to(stream: Any) -> bytes:
    data = bytearray()
    try:
        while len(data) < _SAMPLED_BYTES and (piece := stream.read(_READ_BYTES)):
            data += piece
    except (zstandard.ZstdError, EOFError, OSError, zlib.error):
        pass  # a run says what is wrong; the sample does with what comes before
    return bytes(data)


def random_similarities(sets: Shingles, pairs: int = _SAMPLED_PAIRS) -> Array:
    """``float64[pairs]``: exact similarities of random pairs of different documents, the same at every call."""
    count = sets.offsets.size - 1
    if count < 2:
        return np.empty(0)
    random = np.random.default_rng(0)
    first = random.integers(0, count, pairs)
    second = (first + random.integers(1, count, pairs)) % count
    found = np.empty(pairs)
    _similarity_kernel(sets.hashes, sets.offsets, first, second, found)
    return found


@compiled
def _similarity_kernel(hashes: Array, offsets: Array, first: Array, second: Array, found: Array) -> None:
    for pair in range(found.size):
        a, b = first[pair], second[pair]
        shared = count_shared(hashes, offsets[a], offsets[a + 1], offsets[b], offsets[b + 1])
        found[pair] = shared / (offsets[a + 1] - offsets[a] + offsets[b + 1] - offsets[b] - shared)
