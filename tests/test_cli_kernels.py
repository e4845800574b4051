import itertools
from pathlib import Path

import pytest

import manifests
from glm_data import recipe as recipes
from glm_data.cli import kernels


def test_every_stage_up_to_the_pack_is_compiled_for_once() -> None:
    stages = list(recipes.load(manifests.path("demo.yaml")).options)
    chains = list(itertools.chain.from_iterable(kernels._CHAINS))
    assert chains == stages[: stages.index("pack") + 1]


def test_a_chain_runs_alone_from_the_raw_shards_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kernels._run(("tokenizer", "tokenize", "mip", "pack"))
    assert not list(tmp_path.iterdir())
