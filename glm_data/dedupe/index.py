"""What a run leaves for later ones, and for datasketch: keys, signatures and shingle sets of the documents it kept.

::

    OUT/index/part-00000.parquet    a row a kept document of input 0
        id          string
        high, low   uint64                         the exact key of its folded text
        signature   fixed_size_list<uint32>[K]     MinHash, scheme affine32
        shingles    list<uint64>                   its shingle set, ascending

A later run that is given ``against`` these folders compares with all of it and reads no old text. How shingles and
signatures were made stands in the schema's metadata (:class:`Sketch`); only runs that agree on it can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.dedupe.options import DedupeOptions
from glm_data.dedupe.signatures import Lsh, permutations, signatures
from glm_data.dedupe.work import Array, lsh_of
from glm_data.errors import InputError, UsageError
from glm_data.manifest import InputFile, Success, is_in_place, read_success
from glm_data.text.shingles import distinct_sorted, keyed_shingles, shingle_texts

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

INDEX = "index"
_METADATA = b"glm_data.sketch"


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """How shingles and signatures of an index were made."""

    ngram: int
    fold_digits: bool
    unit: str
    bands: int
    rows: int
    seed: int
    scheme: str = "affine32"

    @property
    def lsh(self) -> Lsh:
        """The shape of the signatures."""
        return Lsh(self.bands, self.rows, self.seed)

    def is_comparable(self, other: Sketch) -> bool:
        """Whether signatures and sets of both can be compared; bands may be cut differently."""
        same = (self.shingling, self.seed, self.scheme, self.lsh.permutations)
        return same == (other.shingling, other.seed, other.scheme, other.lsh.permutations)

    @property
    def shingling(self) -> dict[str, Any]:
        """How shingles are made, as arguments of :func:`glm_data.text.shingles.shingle_texts`."""
        return {"ngram": self.ngram, "fold_digits": self.fold_digits, "unit": self.unit}


def sketch_of(options: DedupeOptions) -> Sketch:
    """How a run with these options makes shingles and signatures."""
    lsh = lsh_of(options)
    return Sketch(**options.shingling, bands=lsh.bands, rows=lsh.rows, seed=lsh.seed)


def index_schema(sketch: Sketch) -> pa.Schema:
    """The schema of an index file, with the sketch in its metadata."""
    fields = [
        ("id", pa.string()),
        ("high", pa.uint64()),
        ("low", pa.uint64()),
        ("signature", pa.list_(pa.uint32(), sketch.lsh.permutations)),
        ("shingles", pa.list_(pa.uint64())),
    ]
    return pa.schema(fields, {_METADATA: msgspec.json.encode(sketch)})


def index_rows(ids: pa.Array, texts: pa.Array, sketch: Sketch) -> pa.RecordBatch:
    """The rows of some documents."""
    shingles, keys = keyed_shingles(texts, **sketch.shingling)
    sets = distinct_sorted(shingles)
    minima = pa.array(signatures(sets, sketch.lsh).ravel())
    columns = [
        ids,
        pa.array(keys[:, 0]),
        pa.array(keys[:, 1]),
        pa.FixedSizeListArray.from_arrays(minima, sketch.lsh.permutations),
        pa.ListArray.from_arrays(pa.array(sets.offsets.astype(np.int32)), pa.array(sets.hashes)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=index_schema(sketch))


class IndexBlock(NamedTuple):
    """A row group of an index file; ``sets`` are read on demand only."""

    ids: pa.Array
    keys: Array
    """``uint64[documents, 2]``."""
    signatures: Array
    """``uint32[documents, permutations]``."""


def read_sketch(path: Path) -> Sketch:
    """How an index file was made; raises :class:`InputError` if it is none."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        return msgspec.json.decode(metadata[_METADATA], type=Sketch)
    except (pa.ArrowException, OSError, KeyError, msgspec.DecodeError) as error:
        raise InputError(f"'{path}' is no index of a de-duplication ({error}); run that stage again.") from None


def read_index(path: Path) -> Iterator[IndexBlock]:
    """Yield keys and signatures of an index file, in blocks."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["id", "high", "low", "signature"], use_threads=False)
            ids, high, low, minima = (table.column(name).combine_chunks() for name in table.column_names)
            yield IndexBlock(ids, np.stack([np.asarray(high), np.asarray(low)], axis=1), _minima(minima))


def _minima(column: pa.FixedSizeListArray) -> Array:
    return np.asarray(column.flatten()).reshape(len(column), column.type.list_size)


def read_sets(path: Path, rows: Array) -> Iterator[tuple[pa.ListArray, Array]]:
    """Yield shingle sets and signatures of some rows (ascending) of an index file; reads only their row groups."""
    first = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            a, b = np.searchsorted(rows, [first, first + count])
            if b > a:
                table = file.read_row_group(group, columns=["signature", "shingles"], use_threads=False)
                taken = table.take(pa.array(rows[a:b] - first)).combine_chunks()
                yield taken.column("shingles").combine_chunks(), _minima(taken.column("signature").combine_chunks())
            first += count


def find_indexes(folders: Sequence[str], options: DedupeOptions) -> tuple[tuple[InputFile, ...], tuple[str, ...]]:
    """The index files of earlier runs, as inputs, and the keys of those runs.

    Raises :class:`UsageError` for a folder that is no finished run, has no index, or was made in a way that cannot be
    compared, and if a run that one of them was itself de-duplicated against is not among them.
    """
    runs = [(Path(folder), read_success(Path(folder))) for folder in folders]
    keys = tuple(success.key for _, success in runs)
    found: list[InputFile] = []
    for folder, success in runs:
        missing = [key for key in success.facts.get("against", ()) if key not in keys]
        if missing:
            raise UsageError(
                f"'{folder}' was itself de-duplicated against an earlier run (key {missing[0][:8]}), which is not "
                "given; give both: --against EARLIER --against LATER."
            )
        found += _index_files(folder, success, options)
    if len(set(keys)) < len(keys):
        raise UsageError("--against: the same run is given twice; give each once.")
    return tuple(found), keys


def _index_files(folder: Path, success: Success, options: DedupeOptions) -> list[InputFile]:
    files = [item for item in success.files if item.name.startswith(f"{INDEX}/")]
    if not files:
        raise UsageError(
            f"'{folder}' has no index to compare with; make one with --export-index "
            f"(glm-data dedupe {folder} --out DIR --export-index is enough), then give that folder."
        )
    for item in files:
        if not is_in_place(folder, item):
            raise InputError(f"'{folder / item.name}' is not as its stage left it; run that stage again.")
    sketch, ours = read_sketch(folder / files[0].name), sketch_of(options)
    if not sketch.is_comparable(ours):
        raise UsageError(
            f"'{folder}' cannot be compared: its index has {_say(sketch)}, this run {_say(ours)}; use the same."
        )
    return [
        InputFile(
            name=f"against/{success.key[:8]}/{item.name.removeprefix(f'{INDEX}/')}",
            path=str((folder / item.name).absolute()),
            bytes=item.bytes,
            digest=item.digest,
        )
        for item in files
    ]


def _say(sketch: Sketch) -> str:
    digits = "on" if sketch.fold_digits else "off"
    made = f"ngram {sketch.ngram}, unit {sketch.unit}, fold_digits {digits}"
    return f"{made}, seed {sketch.seed}, {sketch.lsh.permutations} permutations"


def load_minhash_lsh(run: Path, threshold: float | None = None) -> MinHashLSH:
    """A ``datasketch.MinHashLSH`` that holds the documents a run kept, by id.

    Args:
        run: a finished ``dedupe`` stage that was run with ``export_index``.
        threshold: lets datasketch choose bands and rows; without it they are the run's.
    """
    from datasketch import MinHash, MinHashLSH

    files = sorted((run / INDEX).glob("part-*.parquet"))
    if not files:
        raise UsageError(f"'{run}' has no index; run its stage with --export-index.")
    sketch = read_sketch(files[0])
    count = sketch.lsh.permutations
    shape = {"params": (sketch.bands, sketch.rows)} if threshold is None else {"threshold": threshold}
    index = MinHashLSH(num_perm=count, **shape)
    shared = permutations(count, sketch.seed)
    with index.insertion_session() as session:
        for block in (block for path in files for block in read_index(path)):
            for key, minima in zip(block.ids.to_pylist(), block.signatures, strict=True):
                given = {"seed": sketch.seed, "permutations": shared, "scheme": sketch.scheme}
                session.insert(key, MinHash(num_perm=count, hashvalues=minima, **given))
    return index


def minhash_of(text: str, run: Path) -> MinHash:
    """The ``datasketch.MinHash`` of a text, made as the index of ``run`` was, to query :func:`load_minhash_lsh`."""
    from datasketch import MinHash

    sketch = read_sketch(next(iter(sorted((run / INDEX).glob("part-*.parquet")))))
    shingles = shingle_texts(pa.array([text], pa.string()), **sketch.shingling)
    (minima,) = signatures(shingles, sketch.lsh)
    return MinHash(num_perm=minima.size, seed=sketch.seed, hashvalues=minima, scheme=sketch.scheme)
