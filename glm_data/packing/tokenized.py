"""Documents as token ids: encoding whole shards.

::

    tokenize stage    data/part-00000.ids.npy              flat ids, one document after another, no <eos> between
                      data/part-00000.documents.parquet    DOCUMENTS_SCHEMA: where each document lies in the ids
                      unreadable/part-00000.jsonl          what could not be read, if anything
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from glm_data import files
from glm_data.config import Config, Doc, to_mapping
from glm_data.errors import InputError, UsageError
from glm_data.formats import Unreadable, read_blocks
from glm_data.formats.parquet import parquet_writer
from glm_data.stage import (
    OutputFile,
    ShardRecord,
    ShardTask,
    output_file,
)
from tokenizer import Tokenizer, TokenizerError

Format = Literal["auto", "pile", "wudao", "jsonl", "parquet", "text"]

DOCUMENTS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("duplicates", pa.uint32(), nullable=False),
    ]
)
"""``offset`` and ``length`` in tokens, ``bytes`` of UTF-8 text, ``duplicates``: copies that the document stands for."""


class TokenizeOptions(Config, frozen=True, kw_only=True):
    """How documents are encoded."""

    format: Annotated[Format, Doc("format of the inputs")] = "auto"
    max_bad_fraction: Annotated[float, Doc("share of unreadable records from which the exit code is 3", 0, 1)] = 0.01


def tokenize_stage_plan(
    tokenizer_folder: Path, options: TokenizeOptions
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """For a tokenize stage: the plan's options, what its tasks need, and the facts of its success manifest."""
    tokenizer = load_tokenizer(tokenizer_folder)
    plan = {**to_mapping(options), "tokenizer": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size}
    task = {"format": options.format, "tokenizer": tokenizer.fingerprint, "folder": str(tokenizer_folder.absolute())}
    facts = {"tokenizer": tokenizer.description(), "fingerprint": tokenizer.fingerprint}
    return plan, task, {**facts, "dtype": ids_type(tokenizer.vocab_size).name}


def load_tokenizer(folder: Path) -> Tokenizer:
    """Open a tokenizer for a stage; raises :class:`UsageError` if ``folder`` holds none."""
    try:
        return Tokenizer.load(folder)
    except TokenizerError as error:
        raise UsageError(str(error)) from None


def ids_type(vocab_size: int) -> np.dtype[Any]:
    """Type of stored ids: uint16 if every id of the padded vocabulary fits, else int32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.int32)


def tokenize_shard(task: ShardTask) -> ShardRecord:
    """Encode one input file. Task options: ``folder`` and ``tokenizer`` (fingerprint) of the tokenizer, ``format``."""
    tokenizer = _cached_tokenizer(task.options["folder"], task.options["tokenizer"])
    folder, name = Path(task.folder), f"part-{task.shard:05d}"
    ids_path, table_path = folder / f"data/{name}.ids.npy", folder / f"data/{name}.documents.parquet"
    counts: Counter[str] = Counter(tokens=0, text_bytes=0, byte_fallback=0)
    lost: list[Unreadable] = []
    rows = 0
    with (
        files.atomic_path(ids_path) as temporary,
        IdsWriter(temporary, ids_type(tokenizer.vocab_size)) as ids,
        parquet_writer(table_path, DOCUMENTS_SCHEMA) as table,
    ):
        for block in read_blocks(task.input, task.options["format"]):
            encoded, offsets = tokenizer.encode_batch(block.documents.column("text"))
            batch = documents_batch(block.documents, offsets, ids.length)
            _count(counts, batch, tokenizer.count_byte_pieces(encoded))
            ids.write(encoded)
            table.write(batch)
            lost.extend(block.unreadable)
            rows += batch.num_rows
    tokens = counts["tokens"]
    outputs = [
        output_file(folder, f"data/{name}.ids.npy", tokens),
        output_file(folder, f"data/{name}.documents.parquet", rows),
    ]
    unreadable = _keep_unreadable(folder, f"unreadable/{name}.jsonl", task.input.name, lost, outputs)
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=rows + sum(unreadable.values()),
        kept=rows,
        unreadable=unreadable,
        counts=dict(counts),
        files=tuple(outputs),
    )


@functools.lru_cache(maxsize=2)
def _cached_tokenizer(folder: str, fingerprint: str) -> Tokenizer:
    tokenizer = load_tokenizer(Path(folder))
    if tokenizer.fingerprint != fingerprint:
        raise InputError(f"the tokenizer in '{folder}' changed while the stage ran; run again with --overwrite.")
    return tokenizer


def documents_batch(documents: pa.RecordBatch, offsets: npt.NDArray[np.int64], start: int) -> pa.RecordBatch:
    """The rows of :data:`DOCUMENTS_SCHEMA` for a block whose ids begin at ``start`` of the file."""
    counted = [name for name in ("repeats", "duplicates") if name in documents.schema.names]
    if counted:  # how often to use a document, if that was decided, else how many it stands for
        duplicates = documents.column(counted[0]).cast(pa.uint32())
    else:
        duplicates = pa.array(np.ones(documents.num_rows, np.uint32))
    columns = [
        *(documents.column(name) for name in ("id", "source", "lang")),
        pa.array(start + offsets[:-1]),
        pa.array(np.diff(offsets)),
        pc.binary_length(documents.column("text")).cast(pa.int64()),
        duplicates,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS_SCHEMA)


def _count(counts: Counter[str], batch: pa.RecordBatch, byte_pieces: int) -> None:
    lengths, sizes = batch.column("length").to_numpy(), batch.column("bytes").to_numpy()
    counts["tokens"] += int(lengths.sum())
    counts["text_bytes"] += int(sizes.sum())
    counts["byte_fallback"] += byte_pieces
    encoded = batch.column("lang").dictionary_encode()
    places = encoded.indices.to_numpy()
    for place, lang in enumerate(encoded.dictionary.to_pylist()):
        own = places == place
        counts[f"tokens/{lang or 'unknown'}"] += int(lengths[own].sum())
        counts[f"bytes/{lang or 'unknown'}"] += int(sizes[own].sum())


def _keep_unreadable(
    folder: Path, name: str, source: str, lost: Sequence[Unreadable], outputs: list[OutputFile]
) -> dict[str, int]:
    """Write what could not be read, with its place, and count it by reason."""
    counts: Counter[str] = Counter()
    for item in lost:
        counts[item.reason] += item.count
    if lost:
        lines = [msgspec.json.encode({"input": source, **msgspec.structs.asdict(item)}) for item in lost]
        files.write_bytes(folder / name, b"\n".join(lines) + b"\n")
        outputs.append(output_file(folder, name, len(lines)))
    return dict(counts)


class IdsWriter:
    """Appends to a one-dimensional ``.npy`` file of unknown length; the header is written again at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype = path, dtype
        self.length = 0
        self._file: BinaryIO

    def __enter__(self) -> IdsWriter:
        self._file = self._path.open("wb")
        self._header()
        return self

    def write(self, ids: npt.NDArray[np.int32]) -> None:
        """Append ``ids``, which must fit the type."""
        self._file.write(ids.astype(self._dtype).tobytes())
        self.length += len(ids)

    def __exit__(self, *_: object) -> None:
        end = self._file.tell()
        self._file.seek(0)
        self._header()  # NumPy leaves room for any length, so the header keeps its size
        if self._file.tell() + self.length * self._dtype.itemsize != end:
            raise AssertionError("the header of an .npy file changed its size")
        self._file.close()

    def _header(self) -> None:
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, described)
