"""Rows from the Hugging Face hub, put where a mixture expects them: the one step that needs a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from glm_data.errors import InputError, UsageError
from glm_data.files import atomic_path
from glm_data.mip.mixture import DataSet, base_of, load_mixture, rows_path

Load = Callable[[str, str | None, str, str | None], Any]
"""``load(hub id, subset, split, revision)`` gives a ``datasets.Dataset``."""


def fetch(mixture: Path, rows: str = "", load: Load | None = None) -> Iterator[tuple[str, str]]:
    """Write the rows of all data sets that name a ``hub`` and are not there yet; yields (key, what was done).

    ``hub`` is ``owner/name`` or, to pin it, ``owner/name@revision``. The rows become ``<rows>.parquet``, whole or not
    at all. Raises :class:`UsageError` if no data set names a hub, :class:`InputError` for one that cannot be had.
    """
    datasets = [item for item in load_mixture(mixture, rows).datasets if item.hub]
    if not datasets:
        raise UsageError(f"'{mixture}' names no 'hub' for any data set; give one its place, such as 'hub: owner/name'.")
    base = base_of(mixture)
    for dataset in datasets:
        if rows_path(base, dataset.rows) is not None:
            yield dataset.key, "is there"
            continue
        loaded = _load(dataset, load or _from_hub)
        _write(loaded, base / f"{dataset.rows}.parquet")
        yield dataset.key, f"{loaded.num_rows:,} rows"


def _load(dataset: DataSet, load: Load) -> Any:
    name, _, revision = dataset.hub.partition("@")
    try:
        return load(name, dataset.subset, dataset.split, revision or None)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"data set '{dataset.key}' cannot be had from the hub as '{dataset.hub}' ({type(error).__name__}: {said}); "
            "check the name and the network, or put its rows there by hand."
        ) from None


def _from_hub(name: str, subset: str | None, split: str, revision: str | None) -> Any:
    import datasets

    return datasets.load_dataset(name, subset, split=split, revision=revision)


def _write(loaded: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        loaded.to_parquet(str(temporary))
