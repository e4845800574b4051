"""Global batches of one pack or of several, in an order that any world size and any number of workers shares.

A sample's pack is a function of the seed and the sample's number, its row one of the running order of that pack. So a
:class:`~glm_data.loading.state.LoaderState` of a few numbers says what comes next, and it is resumed in O(1): no file
is read again, no rank or worker has a place of its own. Every step carries the state *behind* it; save that of the step
that was trained last, and prefetching cannot get ahead of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np

from glm_data.config import Config, Doc
from glm_data.errors import UsageError
from glm_data.loading.batch import Batch, Positions, Weighting, make_batch
from glm_data.loading.mapped import MappedShards
from glm_data.loading.mixture import MixPoint, Mixture
from glm_data.loading.order import as_packed, shuffled
from glm_data.loading.rows import PackedRows, misfit
from glm_data.loading.state import LoaderState, PackOrder, PackPlace, RowOrder, SkipRange
from glm_data.packing.masking import MaskRule, Specials, remask
from glm_data.packing.rows import MisfitRowError

Masks = Literal["fresh", "stored"]


class LoaderOptions(Config, frozen=True):
    """What a loader gives out."""

    batch_rows: Annotated[int, Doc("rows of a global batch, over all ranks together")]
    seed: Annotated[int, Doc("seed of the order and of the mix")] = 0
    epochs: Annotated[int | None, Doc("end before a row comes up more often; without it there is no end")] = None
    weighting: Annotated[Weighting, Doc("what a target weighs in loss_weights")] = "per-token"
    positions: Annotated[Positions, Doc("one row of positions, or the two of the original GLM")] = "glm-130b"
    masks: Annotated[Masks, Doc("fresh: every epoch has masks of its own; stored: the pack's mask sets in turn")] = (
        "fresh"
    )
    order: Annotated[RowOrder | None, Doc("shuffled, or packed: a pack with a ramp if nothing is said")] = None


@dataclass(frozen=True)
class Planned:
    """The rows of one global batch, not read yet."""

    packs: np.ndarray
    """``int64[B]``: the pack of each sample."""
    rows: np.ndarray
    """``int64[B]``: its row in that pack."""
    epochs: np.ndarray
    """``int64[B]``: how often that pack was read before."""
    state: LoaderState
    """Behind this batch."""


@dataclass(frozen=True)
class Step:
    """This rank's part of a global batch."""

    batch: Batch
    packs: np.ndarray
    rows: np.ndarray
    epochs: np.ndarray
    """``int64[B]``: how often the row's pack was read before; with fresh masks also the mask set."""
    state: LoaderState
    """Behind the whole global batch: what a checkpoint should keep."""


class Loader:
    """Iterates the steps of rank ``rank`` of ``world`` from where it stands, for ever or for ``options.epochs``.

    ``mix`` is the schedule of the packs' weights (default: each pack as often as it has rows), ``skip`` the rows never
    to be given out; all ranks need the same ones. What is left of a last epoch that does not fill a global batch is
    not given out. Raises :class:`UsageError` for packs that cannot go together and options that cannot be meant.
    """

    def __init__(
        self,
        packs: Sequence[PackedRows],
        options: LoaderOptions,
        *,
        mix: Sequence[MixPoint] = (),
        skip: Sequence[SkipRange] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check_packs(packs)
        _check_options(options, rank, world, len(packs), skip)
        self.packs, self.options, self.rank, self.world = tuple(packs), options, rank, world
        points = mix or (MixPoint(0, tuple(float(len(pack)) for pack in packs)),)
        self.mixture = Mixture(points, len(packs), options.seed)
        self._orders = [
            PackOrder(
                len(pack),
                options.seed,
                [item for item in skip if item.pack == number],
                as_packed if self._order_of(pack) == "packed" else shuffled,
            )
            for number, pack in enumerate(packs)
        ]
        self._shards = MappedShards([file for pack in packs for file in pack.shards.files], packs[0].seq_length)
        self._first = np.cumsum([0, *(len(pack) for pack in packs)])
        self._state = self.start()

    def start(self) -> LoaderState:
        """The state before the first sample."""
        return self._state_at(0, [0] * len(self.packs))

    def _order_of(self, pack: PackedRows) -> RowOrder:
        return self.options.order or ("packed" if pack.manifest.facts["mip_ramp"] else "shuffled")

    def state(self) -> LoaderState:
        """Where this loader stands: behind the last step that its own iteration gave out."""
        return self._state

    def resume(self, state: LoaderState, *, allow_other_packs: bool = False) -> None:
        """Go on from ``state``, whatever the world size, workers and batch size were when it was saved.

        Raises :class:`UsageError` naming what differs if it is of other packs or another seed. With
        ``allow_other_packs`` the packs that are still there go on where they stood, and new ones begin.
        """
        if state.seed != self.options.seed:
            raise UsageError(
                f"the state was saved with seed {state.seed}, this loader has {self.options.seed}: the order would be "
                f"another one; give seed {state.seed}."
            )
        for place in state.packs:
            if place.epoch < 0 or not 0 <= place.position < place.rows:
                raise UsageError(
                    f"the state stands at row {place.position} of {place.rows} in epoch {place.epoch}, where no loader "
                    "stands; give the state of an unharmed checkpoint."
                )
        for place, now in zip(state.packs, self.start().packs, strict=False):
            if place.digest == now.digest and place.order != now.order:
                raise UsageError(
                    f"the state was saved with order '{place.order}', this loader has '{now.order}'; "
                    f"give order '{place.order}'."
                )
        before, here = [place.digest for place in state.packs], [pack.manifest.digest for pack in self.packs]
        if before == here:
            self._state = state
            return
        if not allow_other_packs:
            raise UsageError(
                f"the state was saved with other packs ({self._difference(before, here)}); give those, in their order, "
                "or allow other packs."
            )
        known = {place.digest: place for place in state.packs}
        places = (known.get(place.digest, place) for place in self.start().packs)
        self._state = LoaderState(state.seed, state.samples, tuple(places))

    def _difference(self, before: Sequence[str], here: Sequence[str]) -> str:
        if sorted(before) == sorted(here):
            return "the same ones in another order"
        if len(before) != len(here):
            return f"{len(before)} then, {len(here)} now"
        number = next(at for at, digests in enumerate(zip(before, here, strict=True)) if len(set(digests)) > 1)
        folder = self.packs[number].folder
        return f"pack {number} had digest {before[number][:12]}…, '{folder}' has {here[number][:12]}…"

    def __iter__(self) -> Iterator[Step]:
        for step in self.steps(self._state):
            self._state = step.state
            yield step

    def steps(self, state: LoaderState, worker: int = 0, workers: int = 1) -> Iterator[Step]:
        """The steps behind ``state``: all, or those of one of ``workers`` that take turns. Moves nothing."""
        share = self.options.batch_rows // self.world
        own = slice(self.rank * share, (self.rank + 1) * share)
        for number, planned in enumerate(self.plan(state)):
            if number % workers == worker:
                packs, rows, epochs = planned.packs[own], planned.rows[own], planned.epochs[own]
                yield Step(self._read(packs, rows, epochs), packs, rows, epochs, planned.state)

    def plan(self, state: LoaderState) -> Iterator[Planned]:
        """The global batches behind ``state``, as rows that are not read."""
        places = [place.epoch * place.rows + place.position for place in state.packs]
        samples, size = state.samples, self.options.batch_rows
        while True:
            packs = self.mixture.packs_of(samples, size)
            rows, epochs = np.empty(size, np.int64), np.empty(size, np.int64)
            for number, order in enumerate(self._orders):
                own = packs == number
                rows[own], epochs[own], places[number] = order.take(places[number], int(np.count_nonzero(own)))
            if self._is_over(places):
                return
            samples += size
            yield Planned(packs, rows, epochs, self._state_at(samples, places))

    def _is_over(self, places: Sequence[int]) -> bool:
        epochs = self.options.epochs
        return epochs is not None and any(
            place > epochs * len(pack) for place, pack in zip(places, self.packs, strict=True)
        )

    def _state_at(self, samples: int, places: Sequence[int]) -> LoaderState:
        packs = (
            PackPlace(pack.manifest.digest, len(pack), *divmod(place, len(pack)), self._order_of(pack))
            for place, pack in zip(places, self.packs, strict=True)
        )
        return LoaderState(self.options.seed, samples, tuple(packs))

    def _read(self, packs: np.ndarray, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        options, specials = self.options, self.packs[0].specials
        if options.masks == "stored":
            epochs = epochs % self._stored[packs]
        taken = self._shards.rows(self._first[packs] + rows)
        try:
            if epochs.any():
                keys = self._shards.column("keys", self._first[packs] + rows)[1].view(np.uint64)
                taken = remask(taken, keys, epochs, self._rule(packs), Specials(**specials))
            return make_batch(taken, specials["eop"], weighting=options.weighting, positions=options.positions)
        except MisfitRowError as error:
            raise misfit(self.packs[packs[error.index]], int(rows[error.index])) from None

    @cached_property
    def _stored(self) -> np.ndarray:
        """``int64[packs]``: mask sets of each pack."""
        return np.array([pack.manifest.facts["masks"]["epochs"] for pack in self.packs], np.int64)

    def _rule(self, packs: np.ndarray) -> MaskRule:
        """The mask rules of a batch's packs, one a row; packs of one tokenizer end sentences alike."""
        least, rate, in_sentences = self._rules
        return MaskRule(least[packs], rate[packs], in_sentences[packs], self._sentences)

    @cached_property
    def _rules(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rules = [pack.mask_rule for pack in self.packs]
        return (
            np.array([rule.gmask_least for rule in rules]),
            np.array([rule.mask_rate for rule in rules]),
            np.array([rule.in_sentences for rule in rules]),
        )

    @cached_property
    def _sentences(self) -> np.ndarray:
        return max((pack.mask_rule.sentence_table for pack in self.packs), key=len)


def _check_packs(packs: Sequence[PackedRows]) -> None:
    """Raise :class:`UsageError` unless there are packs, none empty, of one row length and one tokenizer."""
    if not packs:
        raise UsageError("there is no pack to load; give one or more.")
    for pack in packs:
        if not len(pack):
            raise UsageError(f"'{pack.folder}' holds no rows; leave it out.")
        for name in ("seq_length", "fingerprint", "specials"):
            first, own = packs[0].manifest.facts[name], pack.manifest.facts[name]
            if first != own:
                raise UsageError(
                    f"'{packs[0].folder}' and '{pack.folder}' cannot be mixed: {name} {_short(first)} and "
                    f"{_short(own)}; pack them with one tokenizer and one row length."
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _check_options(options: LoaderOptions, rank: int, world: int, packs: int, skip: Sequence[SkipRange]) -> None:
    if world < 1 or not 0 <= rank < world:
        raise UsageError(f"there is no rank {rank} of {world}; ranks go from 0 to the number of ranks less 1.")
    if options.batch_rows < 1 or options.batch_rows % world:
        raise UsageError(
            f"a batch of {options.batch_rows} rows cannot be shared by {world} ranks; give a multiple of {world}."
        )
    if not 0 <= options.seed < 2**63 or (options.epochs is not None and options.epochs < 1):
        raise UsageError(
            f"seed {options.seed}, epochs {options.epochs}: give a seed from 0 to 2**63 - 1 and epochs from 1 up."
        )
    for item in skip:
        if not 0 <= item.pack < packs:
            raise UsageError(f"rows of pack {item.pack} are to be skipped, but there are {packs}; the first is 0.")
