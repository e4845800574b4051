"""The loaders of mosaicml-streaming and litdata, on what their own writers make of the rows of the run's pack.

Imports nothing but the standard library, so that it also runs in the environment of the peers. litdata's ``optimize``
is not used: it empties a folder named ``data`` among the system's temporary files, whoever's that is.
"""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import Work

BATCH, BATCHES = 8, 1000
CHUNK = "64MB"


def batches(rows: int) -> Any:
    """``int64[BATCHES, BATCH]``: the same random row numbers for every contestant."""
    import numpy as np

    return np.random.default_rng(0).integers(0, rows, (BATCHES, BATCH))


def drain(steps: Iterable[object]) -> None:
    """Take every step and keep none, as a training loop does."""
    for _ in steps:
        pass


def import_streaming() -> Any:
    """mosaicml-streaming without torchvision and transformers, which only its picture and text data sets use."""
    for name, attributes in _STAND_INS.items():
        module: Any = types.ModuleType(name)
        vars(module).update({attribute: type(attribute, (), {}) for attribute in attributes})
        sys.modules.setdefault(name, module)
    import streaming

    return streaming


_STAND_INS = {
    "torchvision": (),
    "torchvision.datasets": ("VisionDataset",),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("to_tensor",),
    "transformers": (),
    "transformers.models": (),
    "transformers.models.auto": (),
    "transformers.models.auto.tokenization_auto": ("AutoTokenizer",),
    "transformers.feature_extraction_utils": ("BatchFeature",),
    "transformers.tokenization_utils_base": ("BatchEncoding",),
}


def write_mds(folder: Path) -> None:
    """Prepares the tokens as MDS."""
    import numpy as np

    tokens = np.load(folder / "tokens.npy", mmap_mode="r")
    encoding = {"tokens": f"ndarray:int32:{tokens.shape[1]}"}
    with import_streaming().MDSWriter(out=str(folder / "mds-tokens"), columns=encoding, exist_ok=True) as writer:
        for row in tokens:
            writer.write({"tokens": row})


def mds_tokens(folder: Path) -> tuple[Work, float]:
    """Tokens alone, by number."""
    import numpy as np

    data = import_streaming().StreamingDataset(local=str(folder / "mds-tokens"), batch_size=BATCH)
    wanted = batches(len(data)).tolist()
    return lambda: drain(np.stack([data[row]["tokens"] for row in batch]) for batch in wanted), BATCH * BATCHES


def mds_dense(folder: Path) -> tuple[Work, float]:
    """The dense columns that ``glm-data export --to mds`` writes, by number."""
    data = import_streaming().StreamingDataset(local=str(folder / "export-mds"), batch_size=BATCH)
    wanted = batches(len(data)).tolist()
    return lambda: drain(stack([data[row] for row in batch]) for batch in wanted), BATCH * BATCHES


def stack(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch of the columns of equal length."""
    import numpy as np

    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0] if name != "pieces"}


def write_litdata(folder: Path) -> None:
    """Prepares the tokens for litdata's ``TokensLoader``."""
    import numpy as np
    import torch
    from litdata import TokensLoader
    from litdata.streaming.cache import Cache

    tokens, out = np.load(folder / "tokens.npy", mmap_mode="r"), folder / "litdata-tokens"
    shutil.rmtree(out, ignore_errors=True)
    cache = Cache(str(out), chunk_bytes=CHUNK, item_loader=TokensLoader(block_size=tokens.shape[1]))
    for number, row in enumerate(tokens):
        cache[number] = torch.from_numpy(row.copy())
    cache.done()
    cache.merge(1)


def write_litdata_dense(folder: Path) -> None:
    """Prepares the dense columns for litdata, out of those for mosaicml-streaming."""
    from litdata.streaming.cache import Cache

    data, out = import_streaming().StreamingDataset(local=str(folder / "export-mds")), folder / "litdata-dense"
    shutil.rmtree(out, ignore_errors=True)
    cache = Cache(str(out), chunk_bytes=CHUNK)
    for number in range(len(data)):
        cache[number] = {name: value for name, value in data[number].items() if name != "pieces"}
    cache.done()
    cache.merge(1)


def litdata_tokens(folder: Path) -> tuple[Work, float]:
    """Tokens alone, in its own order."""
    import numpy as np
    from litdata import StreamingDataset, TokensLoader

    length = int(np.load(folder / "tokens.npy", mmap_mode="r").shape[1])
    data = StreamingDataset(str(folder / "litdata-tokens"), item_loader=TokensLoader(length), shuffle=True)
    rows = endless(data)
    return lambda: drain(np.stack([next(rows).numpy() for _ in range(BATCH)]) for _ in range(BATCHES)), BATCH * BATCHES


def litdata_dense(folder: Path) -> tuple[Work, float]:
    """The dense columns, in its own order."""
    from litdata import StreamingDataset

    rows = endless(StreamingDataset(str(folder / "litdata-dense"), shuffle=True))
    return lambda: drain(stack([next(rows) for _ in range(BATCH)]) for _ in range(BATCHES)), BATCH * BATCHES


def endless(data: Iterable[Any]) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from data
