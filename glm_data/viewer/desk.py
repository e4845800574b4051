"""Everything that a page may ask for: requests as strict types, answers as plain values.

A thing is opened when it is first asked for, and read by one request at a time; rows of a pack do not wait for the
histogram of a filter. Nothing is written but by ``mip/save``, and that only to the file named when the viewer started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

import glm_data
from glm_data.errors import GlmDataError, UsageError
from glm_data.filters.tune import read_kept
from glm_data.inspection import FinishedStage, locate_inputs
from glm_data.loading.provenance import Documents
from glm_data.loading.rows import PackedRows
from glm_data.manifest import InputFile
from glm_data.mip import Template, TemplateError
from glm_data.packing.tokenized import load_tokenizer
from glm_data.viewer.clusters import PairView, view_clusters, view_pair
from glm_data.viewer.mip import DataSetDesk
from glm_data.viewer.opened import Opened, table_names
from glm_data.viewer.packed import RowView, Vocabulary, view_row
from glm_data.viewer.rank import MEASURES, Ranking, rank
from glm_data.viewer.records import Tables
from glm_data.viewer.thresholds import MovedView, Thresholds
from glm_data.viewer.tokenizers import Bench

_MOST_ROWS, _MOST_SAMPLES = 20, 50
"""Rows that are rendered through a template at a time, and documents shown around a threshold."""


class PackDesk:
    """A pack with its tokenizer and the names of its documents."""

    def __init__(self, folder: Path) -> None:
        self._rows, self._documents = PackedRows.open(folder), Documents(folder)
        self._rankings: dict[str, Ranking] = {}
        self._folder = folder

    @cached_property
    def _words(self) -> Vocabulary:
        return Vocabulary(load_tokenizer(self._folder))

    def row(self, number: int, epoch: int) -> RowView:
        """One row; :class:`UsageError` for one that there is not."""
        if not 0 <= number < len(self._rows):
            raise UsageError(f"there is no row {number}: '{self._folder}' has {len(self._rows):,}, from 0.")
        return view_row(self._rows, self._words, self._documents, number, epoch)

    def worst(self, by: str) -> dict[str, Any]:
        """A ranking, made once."""
        if by not in MEASURES:
            raise UsageError(f"rows are ranked by {', '.join(MEASURES)}, not by '{by}'.")
        if by not in self._rankings:
            self._rankings[by] = rank(self._rows, self._words.model, by)
        return self._rankings[by]._asdict()


class ClusterDesk:
    """A dedupe stage and the files that it read."""

    def __init__(self, stage: FinishedStage, given: tuple[str, ...]) -> None:
        self.stage, self._given = stage, given

    @cached_property
    def _inputs(self) -> tuple[InputFile, ...]:
        return locate_inputs(self.stage, self._given)

    def pair(self, removed: str, kept: str) -> PairView:
        """Two documents side by side; :class:`InputError` if the inputs have moved."""
        return view_pair(self.stage, removed, kept, self._inputs)


class Desk:
    """The things of an opened path. ``save`` is the file that changed templates may be written to."""

    def __init__(self, opened: Opened, save: Path | None = None) -> None:
        self.opened, self.save = opened, save
        self._held: dict[tuple[str, str], Any] = {}
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """What there is to look at."""
        return {
            "version": glm_data.__version__,
            "path": str(self.opened.path),
            "name": self.opened.path.absolute().name,
            "things": [{"view": item.view, "name": item.name, "size": item.size} for item in self.opened.things],
            "datasets": list(self.opened.datasets),
            "save": str(self.save or ""),
        }

    def warm(self) -> None:
        """Draw a row of the first pack, so that compiled code is loaded when the page asks for one."""
        for thing in self.opened.things:
            if thing.view == "rows":
                with suppress(GlmDataError), self.use("rows", thing.name) as pack:
                    msgspec.json.encode(pack.row(0, 0))
                return

    @contextmanager
    def use(self, view: str, name: str) -> Iterator[Any]:
        """The thing ``name`` of ``view``, for one user at a time; :class:`UsageError` if there is none."""
        key = (view, name)
        names = self.opened.datasets if view == "mip" else [i.name for i in self.opened.things if i.view == view]
        if name not in names:
            raise UsageError(f"'{self.opened.path}' has no '{name}' to be shown as {view}.")
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._held:
                self._held[key] = self._open(view, name)
            yield self._held[key]

    def answer(self, view: str, asked: Asked, give: Callable[[Any, Any], Any]) -> Any:
        """What ``give`` makes of the thing that is asked about, and of what is asked."""
        with self.use(view, asked.name) as thing:
            return give(thing, asked)

    def _open(self, view: str, name: str) -> Any:
        opened = self.opened
        if view == "mip":
            return DataSetDesk(opened.datasets[name], self.save)
        if view == "tokenizers":
            return Bench(opened.tokenizers, opened.documents)
        stage = opened.stages[name]
        if view == "rows":
            return PackDesk(stage.folder)
        if view == "filter":
            return Thresholds(read_kept(stage.folder))
        return Tables(stage.folder, table_names(stage)) if view == "records" else ClusterDesk(stage, opened.inputs)


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every request but the first says: the thing that it is about."""

    name: str


class RowAsked(Asked, frozen=True, kw_only=True):
    """A row of a pack in a mask set."""

    row: int
    epoch: Annotated[int, Meta(ge=0)] = 0


class RankingAsked(Asked, frozen=True, kw_only=True):
    """The worst rows of a pack."""

    by: str


class PairAsked(Asked, frozen=True, kw_only=True):
    """Two documents of a cluster."""

    removed: str
    kept: str


class RuleAsked(Asked, frozen=True, kw_only=True):
    """A rule's histogram."""

    rule: str


class MoveAsked(RuleAsked, frozen=True, kw_only=True):
    """A rule with other thresholds."""

    min: float | None = None
    max: float | None = None
    samples: int = 0


class TableAsked(Asked, frozen=True, kw_only=True):
    """Rows of a table."""

    table: str
    row: Annotated[int, Meta(ge=0)] = 0


class TextGiven(Asked, frozen=True, kw_only=True):
    """A text to be cut into pieces."""

    text: str


class TemplateGiven(Asked, frozen=True, kw_only=True):
    """A template, and which rows to render by it."""

    template: Template
    rows: tuple[int, ...] = ()


def _render(data_set: DataSetDesk, asked: TemplateGiven) -> dict[str, Any]:
    """While a template is being written, most of what comes is none yet: being refused is an answer like others."""
    try:
        return {"rendered": data_set.render(asked.template, asked.rows[:_MOST_ROWS]), "refused": ""}
    except TemplateError as error:
        return {"rendered": [], "refused": str(error)}


def _move(thresholds: Thresholds, asked: MoveAsked) -> MovedView:
    return thresholds.move(asked.rule, asked.min, asked.max, min(max(asked.samples, 0), _MOST_SAMPLES))


Answer = tuple[type[Asked], Callable[[Any, Any], Any]]
"""What a request says, and the answer as a function of the thing that it is about and of the request."""
READ: dict[str, Answer] = {
    "rows/row": (RowAsked, lambda pack, asked: pack.row(asked.row, asked.epoch)),
    "rows/worst": (RankingAsked, lambda pack, asked: pack.worst(asked.by)),
    "clusters/all": (Asked, lambda clusters, _: view_clusters(clusters.stage)),
    "clusters/pair": (PairAsked, lambda clusters, asked: clusters.pair(asked.removed, asked.kept)),
    "filter/rules": (Asked, lambda thresholds, _: thresholds.overview),
    "filter/bars": (RuleAsked, lambda thresholds, asked: thresholds.bars(asked.rule)),
    "filter/move": (MoveAsked, _move),
    "mip/data_set": (Asked, lambda data_set, _: data_set.view()),
    "tokenizers/all": (Asked, lambda bench, _: bench.view()),
    "records/tables": (Asked, lambda tables, _: tables.tables),
    "records/page": (TableAsked, lambda tables, asked: tables.page(asked.table, asked.row)),
    "records/record": (TableAsked, lambda tables, asked: tables.record(asked.table, asked.row)),
}
"""What is asked for with GET and a query, by view and action."""
GIVEN: dict[str, Answer] = {
    "mip/render": (TemplateGiven, _render),
    "mip/save": (TemplateGiven, lambda data_set, asked: {"saved": str(data_set.store(asked.template))}),
    "tokenizers/cut": (TextGiven, lambda bench, asked: bench.cut(asked.text)),
}
"""What is given with POST as JSON."""
