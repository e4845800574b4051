"""From rows, samples and steps back to documents and their text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from loading_packs import write_pack
from packs import make_pack, texts

from glm_data.cli.shell import run
from glm_data.config import to_mapping
from glm_data.errors import InputError
from glm_data.inputs import stage_files
from glm_data.loading import PackedRows, shuffled
from glm_data.loading.provenance import Documents, slices_of
from glm_data.stage import open_stage
from tokenizer import Tokenizer


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("stages"))


def rewound(capsys: pytest.CaptureFixture[str], pack: Path, *arguments: str) -> list[dict[str, Any]]:
    assert run(["rewind", str(pack), *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_slices_of_all_rows_are_the_documents_and_samples(pack: Path) -> None:
    rows, model = PackedRows.open(pack), Tokenizer.load(pack)
    found: dict[int, dict[int, list[int]]] = {}
    samples = set()
    for row in range(len(rows)):
        for item in slices_of(rows, row):
            if item.kind == "mip":
                samples.add(model.decode(item.ids.tolist()))
            else:
                found.setdefault(item.document, {})[item.offset] = item.ids.tolist()
    names = Documents(pack).named(found)
    restored = {names[document]["id"]: [parts[at] for at in sorted(parts)] for document, parts in found.items()}
    documents = texts(120)
    wanted = {f"in/{shard}#{n}": text for shard in (0, 1) for n, text in enumerate(documents[shard::2])}
    assert {
        name: model.decode([token for part in parts for token in part]) for name, parts in restored.items()
    } == wanted
    assert samples
    assert samples <= {f"{text} Is it true?yes it is" for text in texts(60, 1)}


def test_documents_are_read_by_number_from_any_row_group(pack: Path, tmp_path: Path) -> None:
    table = pq.read_table(pack / "documents.parquet")
    pq.write_table(table, tmp_path / "documents.parquet", row_group_size=7)
    documents, numbers = Documents(tmp_path), [150, 3, 6, 7, 3, len(table) - 1]
    assert documents.named(numbers) == {number: table.take([number]).to_pylist()[0] for number in set(numbers)}
    assert documents.named([]) == {}
    with pytest.raises(InputError, match=f"has {len(table)} documents, but a row names number {len(table)}"):
        documents.named([len(table)])


def test_rows_are_told_with_documents_and_text(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rewound(capsys, pack, "--rows", "2", "--characters", "0")
    assert row["row"] == 2
    documents = {f"in/{shard}#{n}": text for shard in (0, 1) for n, text in enumerate(texts(120)[shard::2])}
    for item in row["slices"]:
        assert item["characters"] == len(item["text"])
        if item["kind"] != "mip":
            assert item["text"].removesuffix("<eos>") in documents[item["id"]]
            assert (item["source"], item["lang"]) == ("test", "en")
        else:
            assert item["id"].startswith("copa/t#")
    (short,) = rewound(capsys, pack, "--rows", "2", "--characters", "5")
    assert [item["text"] for item in short["slices"]] == [item["text"][:5] for item in row["slices"]]
    assert [item["characters"] for item in short["slices"]] == [item["characters"] for item in row["slices"]]


def test_samples_are_the_loaders_order(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = len(PackedRows.open(pack))
    told = rewound(capsys, pack, "--samples", f"{count - 2}:{count + 3}", "--seed", "9", "--epoch", "4")
    order = [*shuffled(np.arange(count), count, 9, 4), *shuffled(np.arange(count), count, 9, 5)]
    assert [item["sample"] for item in told] == list(range(count - 2, count + 3))
    assert [item["row"] for item in told] == order[count - 2 : count + 3]


def train_folder(folder: Path, pack: Path, **options: Any) -> Any:
    """What a training run has written by its first step: its plan."""
    from glm_data.training.options import TrainOptions

    made = TrainOptions(batch_rows=3, steps=20, seed=5, held_out_rows=2, **options)
    with open_stage(folder, "train", to_mapping(made), stage_files(pack)):
        return made


def test_steps_are_those_of_the_run(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from glm_data.training.batches import rows_of_samples, split_rows

    train_folder(tmp_path / "train", pack)
    told = rewound(capsys, pack, "--run", str(tmp_path / "train"), "--steps", "19:21")
    training, held_out = split_rows(len(PackedRows.open(pack)), 2)
    wanted = [
        row for step in (18, 19) for row in rows_of_samples(3 * step, 3 * step + 3, training, 5, shuffled)[0].tolist()
    ]
    assert [item["row"] for item in told] == wanted
    assert not set(wanted) & set(held_out.tolist())
    assert [(item["step"], item["sample"]) for item in told] == [(19 + at // 3, 54 + at) for at in range(6)]


def test_a_run_on_another_pack_or_no_run_is_refused(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_pack(tmp_path / "other")
    train_folder(tmp_path / "train", other)
    for folder, sentence in (
        (tmp_path / "train", "was not trained on"),
        (pack, "is the folder of a 'pack' stage"),
        (tmp_path, "is not the folder of a train stage (no readable _plan.json)"),
    ):
        assert run(["rewind", str(pack), "--run", str(folder), "--steps", "1"]) == 2
        assert sentence in capsys.readouterr().err
    shutil.rmtree(tmp_path / "train")
    train_folder(tmp_path / "train", pack)
    assert run(["rewind", str(pack), "--run", str(tmp_path / "train"), "--steps", "20:22"]) == 2
    assert "--steps 20:22 leaves the run, whose steps are 1 to 20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "must be said in one way"),
        (["--rows", "1", "--samples", "2"], "must be said in one way"),
        (["--steps", "2"], "--run and --steps go together"),
        (["--rows", "1", "--run", "."], "--run and --steps go together"),
        (["--rows", "5:5"], "'5:5' is empty"),
        (["--rows", "5-7"], "'5-7' is no range; give FIRST:END"),
        (["--rows", "0:100000"], "--rows 0:100000 leaves"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    pack: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["rewind", str(pack), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_the_terminal_gets_no_control_characters_and_a_note_on_what_was_cut(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(pack, tmp_path / "pack")
    table = pq.read_table(copy / "documents.parquet")
    hostile = [f"\u202e\x1b[31m{name}" for name in table["id"].to_pylist()]
    pq.write_table(table.set_column(0, "id", [hostile]), copy / "documents.parquet")
    assert run(["rewind", str(copy), "--rows", "0:4", "--characters", "20"]) == 0
    said = capsys.readouterr().out
    assert not set(said) & {"\u202e", "\x1b", "\r"}
    assert "\\u202e\\u001b[31min/" in said
    assert "characters more" in said
    assert said.startswith("row 0: ")
    assert run(["rewind", str(copy), "--rows", "0", "-q"]) == 0
    assert capsys.readouterr().out == ""


def test_a_row_whose_origins_do_not_fit_its_pieces_is_told(tmp_path: Path) -> None:
    rows = PackedRows.open(write_pack(tmp_path / "pack", 30))
    several = [row for row in range(30) if len(rows.rows([row]).pieces) > 1]
    assert len(several) > 5
    for row in several:  # made-up packs name one origin a row
        with pytest.raises(InputError, match=rf"row {row} of .* is damaged"):
            slices_of(rows, row)
