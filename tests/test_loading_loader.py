"""One stream for every world size and number of workers, resumed exactly; mixes and skip lists as functions."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_packs import write_pack

from glm_data.config import from_mapping, to_mapping
from glm_data.errors import InputError, UsageError
from glm_data.loading import Loader, LoaderOptions, LoaderState, MixPoint, PackedRows, SkipRange, ramp, shuffled
from glm_data.loading.mixture import Mixture
from glm_data.loading.state import PackOrder

OPTIONS = LoaderOptions(batch_rows=8, seed=3)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[PackedRows]:
    folder = tmp_path_factory.mktemp("packs")
    return [PackedRows.open(write_pack(folder / str(rows), rows, seed=rows)) for rows in (37, 61, 20)]


def named(steps: Iterator[Any], count: int) -> list[tuple[list[int], list[int]]]:
    """(packs, rows) of the next ``count`` steps."""
    return [(step.packs.tolist(), step.rows.tolist()) for step in itertools.islice(steps, count)]


def mixed(packs: Sequence[PackedRows], **changes: Any) -> Loader:
    rank, world = changes.pop("rank", 0), changes.pop("world", 1)
    options = msgspec.structs.replace(OPTIONS, **changes)
    skip = [SkipRange(3, 9), SkipRange(50, 61, pack=1)]
    return Loader(packs, options, mix=ramp((1, 2, 0), (1, 0, 3), 40, 100), skip=skip, rank=rank, world=world)


# --- one pack ---------------------------------------------------------------------------------------------------------


def test_one_pack_is_given_out_in_the_shuffled_order(packs: list[PackedRows]) -> None:
    loader = Loader(packs[:1], OPTIONS)
    rows = [row for _, some in named(iter(loader), 13) for row in some]
    wanted = [
        *shuffled(np.arange(37), 37, 3, 0),
        *shuffled(np.arange(37), 37, 3, 1),
        *shuffled(np.arange(37), 37, 3, 2),
    ]
    assert rows == wanted[: 13 * 8]
    place = loader.state().packs[0]
    assert (loader.state().samples, place.epoch, place.position) == (104, 2, 30)


def test_a_step_holds_the_rows_that_it_names(packs: list[PackedRows]) -> None:
    for step in itertools.islice(mixed(packs), 12):
        for at, (pack, row) in enumerate(zip(step.packs, step.rows, strict=True)):
            alone = packs[pack].batch([row], epoch=step.epochs[at])
            for name in ("tokens", "targets", "position_ids", "loss_mask", "segments", "loss_weights"):
                assert np.array_equal(getattr(step.batch, name)[at], getattr(alone, name)[0]), name
            assert np.array_equal(step.batch.pieces[at], alone.pieces[0])


@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_end_before_a_row_comes_up_once_more(packs: list[PackedRows], epochs: int) -> None:
    rows = [row for step in Loader(packs[:1], LoaderOptions(batch_rows=5, epochs=epochs)) for row in step.rows.tolist()]
    assert len(rows) == 37 * epochs // 5 * 5
    assert max(rows.count(row) for row in rows) == epochs


# --- ranks, workers, resuming -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 4])
def test_any_world_size_has_the_same_global_batches(packs: list[PackedRows], world: int) -> None:
    alone = named(iter(mixed(packs)), 10)
    ranks = [named(iter(mixed(packs, rank=rank, world=world)), 10) for rank in range(world)]
    together = [
        tuple([n for part in parts for n in part[which]] for which in (0, 1)) for parts in zip(*ranks, strict=True)
    ]
    assert together == alone


def test_workers_that_take_turns_give_the_same_stream(packs: list[PackedRows]) -> None:
    loader = mixed(packs)
    workers = [loader.steps(loader.start(), worker, 3) for worker in range(3)]
    turns = (next(worker) for worker in itertools.cycle(workers))
    assert named(turns, 10) == named(loader.steps(loader.start()), 10)


@settings(deadline=None, max_examples=25)
@given(first=st.integers(0, 12), second=st.integers(0, 6), worlds=st.tuples(*[st.sampled_from([1, 2, 4])] * 3))
def test_resuming_twice_at_other_world_sizes_changes_nothing(
    packs: list[PackedRows], first: int, second: int, worlds: tuple[int, int, int]
) -> None:
    whole = named(iter(mixed(packs)), 22)
    loader = mixed(packs, world=worlds[0])
    named(iter(loader), first)
    for count, world in zip((second, 4), worlds[1:], strict=True):
        saved = msgspec.json.decode(msgspec.json.encode(to_mapping(loader.state())))
        loader = mixed(packs, world=world)
        loader.resume(from_mapping(saved, LoaderState, "the checkpoint"))
        share = slice(0, 8 // world)
        before = loader.state().samples // 8
        wanted = [(packed[share], rows[share]) for packed, rows in whole[before : before + count]]
        assert named(iter(loader), count) == wanted
    assert loader.state().samples == 8 * (first + second + 4)


def test_a_loader_sent_to_another_process_goes_on_where_it_stood(packs: list[PackedRows]) -> None:
    loader = mixed(packs)
    named(iter(loader), 3)
    sent = pickle.dumps(loader)
    assert len(sent) < 20_000
    assert named(iter(pickle.loads(sent)), 4) == named(iter(loader), 4)


def test_another_batch_size_goes_on_with_the_next_row(packs: list[PackedRows]) -> None:
    loader = mixed(packs)
    whole = [row for _, rows in named(loader.steps(loader.start()), 6) for row in rows]
    named(iter(loader), 2)
    other = mixed(packs, batch_rows=4)
    other.resume(loader.state())
    assert [row for _, rows in named(iter(other), 8) for row in rows] == whole[16:]


def test_a_state_is_a_few_numbers(packs: list[PackedRows]) -> None:
    loader = mixed(packs)
    named(iter(loader), 50)
    assert len(msgspec.json.encode(loader.state())) < 500
    with pytest.raises(Exception, match="position"):
        from_mapping({**to_mapping(loader.state()), "packs": [{"digest": "", "rows": 1, "epoch": 0}]}, LoaderState, "x")


def test_torch_workers_give_the_stream_of_numpy_without_copies(packs: list[PackedRows]) -> None:
    import torch
    from torch.utils.data import DataLoader

    from glm_data.loading.torch_adapter import TorchBatches, to_torch

    loader = mixed(packs, positions="glm-2d", weighting="per-sequence")
    wanted = list(itertools.islice(loader.steps(loader.start()), 7))
    for workers in (0, 2):
        data = DataLoader(TorchBatches(loader), batch_size=None, num_workers=workers)
        for batch, step in zip(data, wanted, strict=False):
            assert batch["state"] == step.state
            assert batch["rows"].tolist() == step.rows.tolist()
            assert torch.equal(batch["input_ids"], torch.from_numpy(step.batch.tokens))
            assert torch.equal(batch["loss_weights"], torch.from_numpy(step.batch.loss_weights))
            assert torch.equal(batch["pieces"], torch.from_numpy(step.batch.piece_table))
            assert batch["block_position_ids"].max() > 1
            assert (batch["segments"] == 1).sum() == (step.batch.segments == 1).sum() > 0
    tensors = to_torch(wanted[0])
    assert tensors["targets"].data_ptr() == wanted[0].batch.targets.ctypes.data
    assert {name: tensors[name].dtype for name in ("input_ids", "loss_mask", "loss_weights")} == {
        "input_ids": torch.int32,
        "loss_mask": torch.uint8,
        "loss_weights": torch.float32,
    }
    resumed = mixed(packs, positions="glm-2d", weighting="per-sequence")
    resumed.resume(tensors["state"])
    assert next(iter(TorchBatches(resumed)))["rows"].tolist() == wanted[1].rows.tolist()


# --- mixes and skip lists ---------------------------------------------------------------------------------------------

_WORD = (1 << 64) - 1


def split_mix(*key: int) -> int:
    """32 bits drawn from SplitMix64 at a chain of words, in plain integers."""

    def finish(word: int) -> int:
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _WORD
        return word ^ (word >> 31)

    state = 0
    for word in (*key, 0):
        state = finish((state ^ word) + 0x9E3779B97F4A7C15 & _WORD)
    return state >> 32


@settings(deadline=None, max_examples=20)
@given(
    weights=st.lists(st.tuples(*[st.integers(0, 9)] * 3).filter(any), min_size=1, max_size=4),
    gaps=st.lists(st.integers(1, 60), min_size=4, max_size=4),
    first=st.integers(0, 100),
    seed=st.integers(0, 2**62),
)
def test_the_pack_of_a_sample_is_what_the_plain_twin_draws(
    weights: list[tuple[int, ...]], gaps: list[int], first: int, seed: int
) -> None:
    places = np.cumsum(gaps).tolist()
    mix = Mixture([MixPoint(places[at], tuple(map(float, some))) for at, some in enumerate(weights)], 3, seed)
    shares = [[number / sum(some) for number in some] for some in weights]
    for sample, got in zip(range(first, first + 60), mix.packs_of(first, 60).tolist(), strict=True):
        here = [float(np.interp(sample, places[: len(weights)], [some[pack] for some in shares])) for pack in range(3)]
        assert np.allclose(mix.shares_at(sample), here)
        drawn = split_mix(seed, sample, 0, 101) / 2**32
        edges = np.cumsum([0.0, *here])
        assert here[got] > 0
        assert edges[got] - 1e-9 <= drawn <= edges[got + 1] + 1e-9


def test_a_ramp_goes_from_one_mix_to_the_other_in_a_line() -> None:
    mix = Mixture(ramp((3, 1), (1, 3), 1000, 8000), 2, 5)
    assert [mix.shares_at(sample)[0] for sample in (0, 1000, 5000, 9000, 10**9)] == [0.75, 0.75, 0.5, 0.25, 0.25]
    packs = mix.packs_of(0, 10_000)
    assert (packs[:1000] == 0).mean() == pytest.approx(0.75, abs=0.05)
    assert (packs[4500:5500] == 0).mean() == pytest.approx(0.5, abs=0.05)
    assert (packs[9000:] == 0).mean() == pytest.approx(0.25, abs=0.05)
    assert packs[100:200].tolist() == mix.packs_of(100, 100).tolist()


def test_without_a_mix_every_pack_comes_as_often_as_it_has_rows(packs: list[PackedRows]) -> None:
    loader = Loader(packs, OPTIONS)
    assert loader.mixture.shares_at(0).tolist() == pytest.approx([37 / 118, 61 / 118, 20 / 118])


SKIPS = st.lists(
    st.tuples(st.integers(0, 49), st.integers(1, 12)).map(lambda pair: (pair[0], min(50, sum(pair)))), max_size=5
)


@settings(deadline=None, max_examples=60)
@given(skips=SKIPS, seed=st.integers(0, 10**6), sizes=st.lists(st.integers(0, 30), max_size=8))
def test_skipped_rows_are_passed_over_and_nothing_else_moves(
    skips: list[tuple[int, int]], seed: int, sizes: list[int]
) -> None:
    gone = {row for first, end in skips for row in range(first, end)}
    if len(gone) == 50:
        return
    order, place, got = PackOrder(50, seed, [SkipRange(*pair) for pair in skips]), 0, []
    seen: list[int] = []
    for size in sizes:
        rows, epochs, place = order.take(place, size)
        got += rows.tolist()
        seen += epochs.tolist()
    endless = (int(row) for epoch in itertools.count() for row in shuffled(np.arange(50), 50, seed, epoch))
    kept = [(at, row) for at, row in enumerate(itertools.islice(endless, 50 * 250)) if row not in gone]
    assert got == [row for _, row in kept[: len(got)]]
    assert seen == [at // 50 for at, _ in kept[: len(got)]]
    assert place == (kept[len(got) - 1][0] + 1 if got else 0)


def test_a_skip_list_given_after_a_crash_leaves_the_rest_of_the_order(packs: list[PackedRows]) -> None:
    before = Loader(packs[:1], OPTIONS)
    named(iter(before), 2)
    bad = int(next(before.steps(before.state())).rows[3])
    after = Loader(packs[:1], OPTIONS, skip=[SkipRange(bad, bad + 1)])
    after.resume(before.state())
    plain = [row for _, rows in named(before.steps(before.state()), 3) for row in rows]
    assert [row for _, rows in named(iter(after), 2) for row in rows] == [row for row in plain if row != bad][:16]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_other_packs_are_refused_with_the_difference_or_allowed(packs: list[PackedRows]) -> None:
    saved = Loader(packs[:2], OPTIONS)
    named(iter(saved), 5)
    other = Loader([packs[0], packs[2]], OPTIONS)
    digests = packs[1].manifest.digest[:12], packs[2].manifest.digest[:12]
    with pytest.raises(UsageError, match=rf"pack 1 had digest {digests[0]}…, '.*20' has {digests[1]}…"):
        other.resume(saved.state())
    with pytest.raises(UsageError, match="the same ones in another order"):
        Loader(packs[1::-1], OPTIONS).resume(saved.state())
    with pytest.raises(UsageError, match="2 then, 1 now"):
        Loader(packs[:1], OPTIONS).resume(saved.state())
    other.resume(saved.state(), allow_other_packs=True)
    assert other.state().packs[0] == saved.state().packs[0]
    assert other.state().packs[1].position == 0
    assert other.state().samples == 40


def test_another_seed_is_refused(packs: list[PackedRows]) -> None:
    with pytest.raises(UsageError, match=r"saved with seed 3, this loader has 4.*give seed 3"):
        Loader(packs, msgspec.structs.replace(OPTIONS, seed=4)).resume(Loader(packs, OPTIONS).state())


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"world": 3}, "a batch of 8 rows cannot be shared by 3 ranks; give a multiple of 3"),
        ({"rank": 2, "world": 2}, "there is no rank 2 of 2"),
        ({"skip": [SkipRange(0, 5, pack=3)]}, "rows of pack 3 are to be skipped, but there are 3"),
        ({"skip": [SkipRange(5, 5)]}, "the rows 5:5 to skip are not in pack 0, which has 37 rows"),
        ({"skip": [SkipRange(0, 38)]}, "the rows 0:38 to skip are not in pack 0"),
        ({"skip": [SkipRange(0, 20), SkipRange(10, 37)]}, "all 37 rows of a pack are to be skipped"),
        ({"mix": [MixPoint(0, (1.0, 2.0))]}, "the mix at sample 0 has 2 weights for 3 packs"),
        ({"mix": [MixPoint(7, (0.0, 0.0, 0.0))]}, "the mix at sample 7 has the weights 0.0, 0.0, 0.0"),
        ({"mix": [MixPoint(0, (1.0, float("nan"), 0.0))]}, "give numbers from 0 up"),
        ({"mix": [MixPoint(-1, (1.0, 1.0, 1.0))]}, "a mix cannot begin at sample -1"),
        ({"mix": [MixPoint(5, (1.0, 1.0, 1.0))] * 2}, "rising sample numbers"),
        ({"options": LoaderOptions(batch_rows=0)}, "a batch of 0 rows"),
        ({"options": LoaderOptions(batch_rows=1, epochs=0)}, "epochs from 1 up"),
    ],
)
def test_what_cannot_be_meant_is_refused(packs: list[PackedRows], given_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        Loader(packs, **{"options": OPTIONS, **given_})
    assert sentence in str(refused.value)


def test_packs_that_cannot_go_together_are_refused(packs: list[PackedRows], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no pack to load"):
        Loader([], OPTIONS)
    longer = PackedRows.open(write_pack(tmp_path / "longer", 5, seq_length=80))
    with pytest.raises(UsageError, match="cannot be mixed: seq_length 64 and 80; pack them with one tokenizer"):
        Loader([packs[0], longer], OPTIONS)
    foreign = PackedRows.open(write_pack(tmp_path / "foreign", 5, fingerprint="another"))
    with pytest.raises(UsageError, match="cannot be mixed: fingerprint made up and another"):
        Loader([packs[0], foreign], OPTIONS)


def test_a_damaged_row_is_told_with_its_pack(packs: list[PackedRows], tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "hurt", 8)
    (shard,) = folder.glob("data-*.arrow")
    spans = PackedRows.open(folder).rows([5]).spans.astype(np.uint16)
    hurt = spans.copy()
    hurt[0, 2] = 0
    shard.write_bytes(shard.read_bytes().replace(spans.tobytes(), hurt.tobytes()))
    loader = Loader([packs[0], PackedRows.open(folder)], LoaderOptions(batch_rows=8), mix=[MixPoint(0, (1.0, 1.0))])
    with pytest.raises(InputError, match=r"row 5 of '.*hurt' is damaged"):
        named(iter(loader), 20)
