"""Lines (or paragraphs) that kept documents have in common: all but the best copy of each are cut.

After CCNet (Wenzek et al. 2020, section 3.2): a line's key is what is left of it without case, punctuation, white space
and the values of digits; here it is folded as documents are, so that full width and traditional characters count for
nothing either. A unit is a line with its line end, or a paragraph with the blank lines behind it.

::

    lines    a task an input       keys of the units of its kept documents, as sorted runs
    cuts     a task a key range    (document, unit) of every copy but the one in the best document
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glm_data.dedupe.spool import read_again
from glm_data.dedupe.work import Array, Context, Layout, concatenate, context, input_folder, load, save, slice_of
from glm_data.kernels import compiled
from glm_data.stage import ShardRecord, ShardTask, output_file
from glm_data.text.shingles import keyed_shingles, utf8_buffers

CUT = np.dtype([("document", "<u4"), ("unit", "<u4")])
_REST = np.dtype([("low", "<u8"), ("priority", "<u8"), ("row", "<u4"), ("unit", "<u4")])
_RUN_UNITS = 1 << 21
"""Units whose keys are sorted together: about 100 MB."""


class Units(NamedTuple):
    """The units of a block's texts: unit ``i`` is ``data[bounds[i]:bounds[i + 1]]``; they cover all of every text."""

    data: Array
    bounds: Array
    """``int64[units + 1]``."""
    first: Array
    """``int64[texts + 1]``: the first unit of each text."""


def split_units(texts: pa.Array, paragraphs: bool) -> Units:
    """Split texts into lines, or into paragraphs, which end before a line behind one or more blank ones."""
    data, offsets = utf8_buffers(texts)
    bounds = np.empty(int(_count_kernel(data, offsets)) + 1, np.int64)
    first = np.empty(offsets.size, np.int64)
    used = _split_kernel(data, offsets, paragraphs, bounds, first)
    return Units(data, bounds[: used + 1], first)


def unit_keys(units: Units) -> Array:
    """``uint64[units, 2]``: a 128-bit hash of the folded key of every unit."""
    first, last = int(units.bounds[0]), int(units.bounds[-1])
    data = pa.py_buffer(units.data[first:last])
    bounds = pa.py_buffer(units.bounds - first)
    texts = pa.Array.from_buffers(pa.large_string(), units.bounds.size - 1, [None, bounds, data])
    return keyed_shingles(texts, fold_digits=True)[1]


def cut_units(texts: pa.Array, rows: Array, numbers: Array, paragraphs: bool) -> pa.Array:
    """Texts without some of their units: unit ``numbers[i]`` of text ``rows[i]``.

    A text that did not end in a line end does not do so afterwards.
    """
    units = split_units(texts, paragraphs)
    is_cut = np.zeros(units.bounds.size - 1, np.bool_)
    is_cut[units.first[rows] + numbers] = True
    sizes = np.diff(units.bounds)
    data = np.empty(int(sizes.sum()), np.uint8)
    offsets = np.empty(units.first.size, np.int64)
    _cut_kernel(units.data, units.bounds, units.first, is_cut, data, offsets)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[: offsets[-1]])]
    return pc.cast(pa.Array.from_buffers(pa.large_string(), len(texts), buffers), pa.string())


def lines_shard(task: ShardTask) -> ShardRecord:
    """Shard function: the keys of the units of one input's kept documents."""
    given = context(task)
    folder = input_folder(given.work, "lines", task.shard)
    runs = _Runs(folder)
    priority = load(input_folder(given.work, "sign", task.shard) / "priority.npy")
    for rows, texts in _kept_texts(task, given):
        units = split_units(texts, given.options.lines == "paragraph")
        owner = np.repeat(np.arange(len(texts)), np.diff(units.first))
        entry = np.empty(owner.size, _REST)
        keys = unit_keys(units)
        entry["low"], entry["row"], entry["priority"] = keys[:, 1], rows[owner], priority[rows[owner]]
        entry["unit"] = np.arange(owner.size) - units.first[owner]
        is_long = _lengths(units) >= given.options.shortest_line
        runs.add(keys[is_long, 0], entry[is_long])
    files = tuple(output_file(Path(task.folder), f"{folder.name}/{name}") for name in runs.finish())
    return ShardRecord(shard=task.shard, input=task.input.name, counts={"lines": runs.units}, files=files)


def _kept_texts(task: ShardTask, given: Context) -> Any:
    start = int(given.layout.starts[task.shard])
    multiplicity = load(given.work / "copies_of.npy")
    row = 0
    for batch in read_again(given.work, task.shard, task.input, given.options):
        rows = row + np.flatnonzero(multiplicity[start + row : start + row + batch.num_rows])
        if rows.size:
            yield rows, batch.column("text").take(pa.array(rows - row))
        row += batch.num_rows


def _lengths(units: Units) -> Array:
    """``int64[units]``: characters of each, line ends included."""
    lengths = np.empty(units.bounds.size - 1, np.int64)
    _length_kernel(units.data, units.bounds, lengths)
    return lengths


class _Runs:
    """Collects keys and writes them as sorted runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: list[Array] = []
        self._rest: list[Array] = []
        self._held = 0
        self._names: list[str] = []
        self.units = 0

    def add(self, keys: Array, rest: Array) -> None:
        self._keys.append(keys)
        self._rest.append(rest)
        self._held += keys.size
        self.units += keys.size
        if self._held >= _RUN_UNITS:
            self._write()

    def finish(self) -> list[str]:
        if self._held or not self._names:
            self._write()
        return self._names

    def _write(self) -> None:
        keys, rest = concatenate(self._keys, np.uint64), concatenate(self._rest, _REST)
        order = np.argsort(keys, kind="stable")
        number = len(self._names) // 2
        for name, array in ((f"keys-{number:03d}.npy", keys[order]), (f"rest-{number:03d}.npy", rest[order])):
            save(self._folder / name, array)
            self._names.append(name)
        self._keys, self._rest, self._held = [], [], 0


def cuts_shard(task: ShardTask) -> ShardRecord:
    """Shard function: the copies of units in one range of keys."""
    given = context(task)
    keys, rest = [], []
    for shard, start in enumerate(given.layout.own_starts[:-1]):
        for path in sorted(input_folder(given.work, "lines", shard).glob("keys-*.npy")):
            run = load(path)
            inside = slice_of(run, task.shard, task.options["parts"])
            entry = np.array(load(path.with_name(path.name.replace("keys", "rest")))[inside])
            entry["row"] += np.uint32(start)
            keys.append(run[inside])
            rest.append(entry)
    cuts = find_cuts(concatenate(keys, np.uint64), concatenate(rest, _REST))
    name = f"{task.shard:05d}.npy"
    save(Path(task.folder) / name, cuts)
    files = (output_file(Path(task.folder), name, int(cuts.size)),)
    return ShardRecord(shard=task.shard, input=task.input.name, counts={"lines_cut": int(cuts.size)}, files=files)


def find_cuts(keys: Array, rest: Array) -> Array:
    """All units but the first of each key by priority, document and place (``CUT``, ascending)."""
    order = np.lexsort((rest["unit"], rest["row"], rest["priority"], rest["low"], keys))
    keys, rest = keys[order], rest[order]
    again = (keys[1:] == keys[:-1]) & (rest["low"][1:] == rest["low"][:-1])
    cuts = np.empty(int(again.sum()), CUT)
    cuts["document"], cuts["unit"] = rest["row"][1:][again], rest["unit"][1:][again]
    return np.sort(cuts, order=["document", "unit"])


def read_cuts(work: Path, layout: Layout, shard: int) -> Array:
    """The cuts of one input (``CUT``, ascending, documents as rows of the input); none if lines were left alone."""
    start, stop = layout.starts[shard : shard + 2]
    found = []
    for path in sorted((work / "cuts").glob("*.npy")):
        cuts = load(path)
        a, b = np.searchsorted(cuts["document"], [start, stop])
        found.append(np.array(cuts[a:b]))
    cuts = concatenate(found, CUT)
    cuts["document"] -= np.uint32(start)
    return np.sort(cuts, order=["document", "unit"])


@compiled
def _count_kernel(data: Any, offsets: Any) -> Any:
    """At most so many units: line ends, and one more for every text."""
    count = offsets.size - 1
    for at in range(offsets[0], offsets[-1]):
        count += data[at] == 0x0A
    return count


@compiled
def _split_kernel(data: Any, offsets: Any, paragraphs: bool, bounds: Any, first: Any) -> Any:
    used = 0
    bounds[0] = offsets[0]
    for text in range(offsets.size - 1):
        first[text] = used
        blank, was_blank = True, False  # whether the line so far, and the line before, hold nothing but white space
        start = offsets[text]
        for at in range(offsets[text], offsets[text + 1]):
            byte = data[at]
            if byte == 0x0A:
                if not paragraphs:
                    used += 1
                    bounds[used] = at + 1
                was_blank, blank, start = blank, True, at + 1
            elif blank and byte != 0x20 and not 0x09 <= byte <= 0x0D:
                blank = False
                if paragraphs and was_blank and start > bounds[used]:
                    used += 1
                    bounds[used] = start
                was_blank = False
        if offsets[text + 1] > bounds[used]:
            used += 1
            bounds[used] = offsets[text + 1]
    first[offsets.size - 1] = used
    return used


@compiled
def _length_kernel(data: Any, bounds: Any, lengths: Any) -> None:
    for unit in range(lengths.size):
        count = 0
        for at in range(bounds[unit], bounds[unit + 1]):
            count += (data[at] & 0xC0) != 0x80
        lengths[unit] = count


@compiled
def _cut_kernel(data: Any, bounds: Any, first: Any, is_cut: Any, out: Any, offsets: Any) -> None:
    used = 0
    offsets[0] = 0
    for text in range(first.size - 1):
        begin, end = first[text], first[text + 1]
        changed = False
        for unit in range(begin, end):
            if is_cut[unit]:
                changed = True
                continue
            for at in range(bounds[unit], bounds[unit + 1]):
                out[used] = data[at]
                used += 1
        if changed and data[bounds[end] - 1] != 0x0A:
            while used > offsets[text] and (out[used - 1] == 0x0A or out[used - 1] == 0x0D):
                used -= 1
        offsets[text + 1] = used
