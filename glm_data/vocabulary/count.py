"""Counting words by language and source: what each shard does, in two passes and a merge.

::

    survey   data/part-00000.characters.parquet   lang, point, count       and the bytes by language and source
             data/part-00000.pairs.parquet        pair, count              Han neighbours
    words    data/part-00000.arrow                word, lang, source, count; batch k holds words of partition k % parts
    merge    data/words-00000.parquet             the same, each word once a language and source, in order

A word is in the partition of its hash, so partitions are merged one by one, in the memory of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glm_data import files
from glm_data.formats import read_blocks
from glm_data.formats.parquet import parquet_writer
from glm_data.stage import ShardRecord, ShardTask, output_file
from tokenizer.counting import Survey, WordCounter, Words
from tokenizer.kernels import CODE_POINTS
from tokenizer.train import words_table

WORDS_SCHEMA = pa.schema(
    [
        pa.field("word", pa.binary(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
CHARACTERS_SCHEMA = pa.schema([("lang", pa.string()), ("point", pa.int32()), ("count", pa.int64())])
PAIRS_SCHEMA = pa.schema([("pair", pa.int64()), ("count", pa.int64())])

JOINED = "pairs.npy"
"""In the folder of the step ``survey``: the Han neighbours that stay together, ascending; missing if all do."""

_ROWS = 1 << 16
_CHINESE_BYTES = 1.6


class Groups:
    """Numbers, from 0, for the languages and sources of documents in the order they are met."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, ...], int] = {}

    def number(self, *columns: Sequence[str]) -> npt.NDArray[np.int32]:
        """The number of each document's names."""
        named = zip(*columns, strict=True)
        return np.array([self.names.setdefault(names, len(self.names)) for names in named], np.int32)


def languages_of(documents: pa.RecordBatch) -> list[str]:
    """The documents' languages; where no filter has named one, more than 1.6 bytes a character are taken for ``zh``
    and all else for ``en``."""
    text = documents.column("text")
    wide = pc.greater(pc.binary_length(text), pc.multiply(pc.utf8_length(text), _CHINESE_BYTES)).to_pylist()
    langs = zip(documents.column("lang").to_pylist(), wide, strict=True)
    return [lang or ("zh" if is_wide else "en") for lang, is_wide in langs]


def text_buffers(documents: pa.RecordBatch) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of the texts and where each begins and ends."""
    column = documents.column("text").cast(pa.large_binary())
    _, places, data = column.buffers()
    offsets = np.frombuffer(places, np.int64)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data or b"", np.uint8), offsets


def survey_shard(task: ShardTask) -> ShardRecord:
    """First pass over one input file. Task options: ``format``."""
    folder, name = Path(task.folder), f"data/part-{task.shard:05d}"
    survey, groups, languages = Survey(), Groups(), Groups()
    documents, sizes, unreadable = Counter[int](), Counter[int](), Counter[str]()
    for block in read_blocks(task.input, task.options["format"]):
        langs, sources = languages_of(block.documents), block.documents.column("source").to_pylist()
        text, offsets = text_buffers(block.documents)
        survey.add(text, offsets, languages.number(langs))
        numbers = groups.number(langs, sources)
        documents.update(numbers.tolist())
        for number, size in zip(numbers.tolist(), np.diff(offsets).tolist(), strict=True):
            sizes[number] += size
        for item in block.unreadable:
            unreadable[item.reason] += item.count
    _write_characters(folder / f"{name}.characters.parquet", survey, [lang for (lang,) in languages.names])
    pairs = pa.record_batch(dict(zip(("pair", "count"), survey.pairs(), strict=True)), PAIRS_SCHEMA)
    _write(folder / f"{name}.pairs.parquet", pairs)
    counts = {f"documents/{'/'.join(names)}": documents[number] for names, number in groups.names.items()}
    counts |= {f"bytes/{'/'.join(names)}": sizes[number] for names, number in groups.names.items()}
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=documents.total() + unreadable.total(),
        kept=documents.total(),
        unreadable=dict(unreadable),
        counts=counts,
        files=tuple(output_file(folder, f"{name}.{kind}.parquet") for kind in ("characters", "pairs")),
    )


def _write_characters(path: Path, survey: Survey, languages: Sequence[str]) -> None:
    places, points = np.nonzero(survey.characters[:, :CODE_POINTS])
    columns = (
        pa.array(languages, pa.string()).take(places),
        points.astype(np.int32),
        survey.characters[places, points],
    )
    _write(path, pa.record_batch(dict(zip(CHARACTERS_SCHEMA.names, columns, strict=True)), CHARACTERS_SCHEMA))


def _write(path: Path, batch: pa.RecordBatch) -> None:
    with parquet_writer(path, batch.schema) as writer:
        writer.write(batch)


def sum_pairs(paths: Iterable[Path]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All pairs of all shards, ascending, and their counts."""
    total = PAIRS_SCHEMA.empty_table()
    for path in paths:
        both = pa.concat_tables([total, pq.read_table(path)]).group_by("pair", use_threads=False)
        total = both.aggregate([("count", "sum")]).rename_columns(["pair", "count"])
    total = total.sort_by("pair")
    return total.column("pair").to_numpy(), total.column("count").to_numpy()


def sum_characters(paths: Iterable[Path]) -> pa.Table:
    """All characters of all shards by language, in order."""
    total = pa.concat_tables(pq.read_table(path) for path in paths)
    summed = total.group_by(["lang", "point"], use_threads=False).aggregate([("count", "sum")])
    return summed.rename_columns(CHARACTERS_SCHEMA.names).sort_by([("lang", "ascending"), ("point", "ascending")])


def words_shard(task: ShardTask) -> ShardRecord:
    """Second pass over one input file. Task options: ``format``, ``parts``, ``survey`` (folder of that step)."""
    folder, name = Path(task.folder), f"data/part-{task.shard:05d}.arrow"
    joined, groups = Path(task.options["survey"]) / JOINED, Groups()
    pairs = np.load(joined, allow_pickle=False) if joined.exists() else None
    rows = 0
    compressed = pa.ipc.IpcWriteOptions(compression="zstd")
    files.make_folder(folder / "data")
    with (
        files.atomic_path(folder / name) as temporary,
        pa.ipc.new_file(str(temporary), WORDS_SCHEMA, options=compressed) as writer,
    ):

        def hand_on(words: Words) -> None:
            for batch in _partitions(words, list(groups.names), task.options["parts"]):
                writer.write_batch(batch)

        counter = WordCounter(pairs, hand_on)
        for block in read_blocks(task.input, task.options["format"]):
            langs, sources = languages_of(block.documents), block.documents.column("source").to_pylist()
            counter.add(*text_buffers(block.documents), groups.number(langs, sources))
            rows += block.documents.num_rows
        counter.flush()
    return ShardRecord(
        shard=task.shard, input=task.input.name, records=rows, kept=rows, files=(output_file(folder, name),)
    )


def _partitions(words: Words, names: Sequence[tuple[str, ...]], parts: int) -> Iterator[pa.RecordBatch]:
    langs, sources = (pa.array([name[place] for name in names], pa.string()) for place in (0, 1))
    table = words_table(words)
    whole = pa.table(
        [table["word"], langs.take(words.groups), sources.take(words.groups), table["count"]], schema=WORDS_SCHEMA
    )
    part_of = words.hashes % np.uint64(parts)
    for part in range(parts):
        yield whole.take(np.flatnonzero(part_of == part)).combine_chunks().to_batches()[0]


def merge_shard(task: ShardTask) -> ShardRecord:
    """Sum up the partition of the shard's number. Task options: ``parts``, ``words`` (folder of that step)."""
    folder, name = Path(task.folder), f"data/words-{task.shard:05d}.parquet"
    paths = sorted((Path(task.options["words"]) / "data").glob("part-*.arrow"))
    batches = [batch for path in paths for batch in _batches(path, task.shard, task.options["parts"])]
    table = pa.Table.from_batches(batches, WORDS_SCHEMA)
    keys = ["word", "lang", "source"]
    merged = table.group_by(keys, use_threads=False).aggregate([("count", "sum")]).rename_columns(WORDS_SCHEMA.names)
    merged = merged.sort_by([(key, "ascending") for key in keys]).cast(WORDS_SCHEMA)
    with parquet_writer(folder / name, WORDS_SCHEMA) as writer:
        for batch in merged.combine_chunks().to_batches(max_chunksize=_ROWS):
            writer.write(batch)
    rows = merged.num_rows
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        counts={"occurrences": pc.sum(merged["count"]).as_py() or 0},
        files=(output_file(folder, name, rows),),
    )


def _batches(path: Path, part: int, parts: int) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_file(str(path)) as reader:
        for number in range(part, reader.num_record_batches, parts):
            yield reader.get_batch(number)
