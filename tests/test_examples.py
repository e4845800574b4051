"""The examples, each run on something small."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest

from glm_data.loading import PackedRows
from glm_data.packing.options import PackOptions

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(EXAMPLES))
    from pack_for_hf_trainer import TEXTS, make_pack

    sys.path.remove(str(EXAMPLES))
    return make_pack(TEXTS, tmp_path_factory.mktemp("packed") / "work", PackOptions(seq_length=256))


def test_a_data_set_keeps_its_columns_and_loses_its_twins(tmp_path: Path) -> None:
    from dedupe_hf_dataset import EXAMPLE, deduplicate

    rows = deduplicate(datasets.Dataset.from_dict(EXAMPLE), tmp_path / "work", threshold=0.7)
    assert rows["label"] == [0, 1, 3]
    assert rows["text"][0] == EXAMPLE["text"][0]


def test_a_trainer_gets_labels_where_something_is_predicted(pack: Path, tmp_path: Path) -> None:
    from pack_for_hf_trainer import for_trainer

    rows = for_trainer(pack, tmp_path / "dense")
    batch = PackedRows.open(pack).batch([0])
    assert set(rows.column_names) == {"input_ids", "labels", "position_ids", "segments"}
    assert rows[0]["input_ids"] == batch.tokens[0].tolist()
    labels = np.array(rows[0]["labels"])
    assert np.array_equal(labels != -100, batch.loss_mask[0] > 0)
    assert np.array_equal(labels[labels != -100], batch.targets[0][batch.loss_mask[0] > 0])


def test_a_row_is_taken_apart(pack: Path) -> None:
    from look_at_a_row import attention, describe

    lines = describe(pack, 0)
    assert lines[0].startswith("row 0 of ")
    assert sum(line.startswith("  B  ") for line in lines) == len(PackedRows.open(pack).rows([0]).row_spans(0))
    assert attention(np.array([10, 12, 15, 1])).astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_the_page_of_the_format_draws_who_sees_whom() -> None:
    from look_at_a_row import attention

    lines = re.findall(r"^  [AB]    ((?:[1.] ?){8})", (EXAMPLES.parent / "docs" / "format.md").read_text("utf-8"), re.M)
    drawn = [[int(cell == "1") for cell in line.split()] for line in lines]
    assert drawn == attention(np.array([0, 3, 8, 1])).astype(int).tolist()


def test_a_model_is_trained_and_fills_in(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from train_and_infill import train_and_infill

    filled = train_and_infill(pack, tmp_path, steps=6)
    assert filled.startswith("The quick brown fox")
    assert filled.endswith("over the lazy dog.")
    first, last = capsys.readouterr().out.split("loss ")[1].split(" nats")[0].split(" -> ")
    assert float(last) < float(first)
