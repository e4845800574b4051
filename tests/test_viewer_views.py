"""What the views say of rows, rules, templates, tokenizers and tables, held against plain readings of the files."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from viewer_run import HOSTILE, ROWS, SCRIPT, shared_run, write_mixture

from glm_data.errors import UsageError
from glm_data.filters.rules import load_profile
from glm_data.filters.signals import SIGNALS
from glm_data.filters.tune import change_profile, read_kept, reasons_of
from glm_data.inspection import locate_inputs, open_run
from glm_data.loading import PackedRows
from glm_data.loading.provenance import Documents
from glm_data.mip import TemplateError, packs, read_templates
from glm_data.mip.subjects import subject, subjects_of
from glm_data.report.chinese import NAMES
from glm_data.viewer import chinese
from glm_data.viewer.clusters import view_clusters, view_pair
from glm_data.viewer.mip import DataSetDesk, dump_templates, mark_values
from glm_data.viewer.opened import open_path
from glm_data.viewer.packed import RowView, Vocabulary, view_row
from glm_data.viewer.rank import MEASURES, rank
from glm_data.viewer.records import PAGE_ROWS, Tables
from glm_data.viewer.styled import reveal
from glm_data.viewer.thresholds import BINS, Thresholds
from glm_data.viewer.tokenizers import Bench
from tokenizer import Tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_run(tmp_path_factory)


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def views(made: Path) -> list[RowView]:
    return [view(made, row) for row in range(len(PackedRows.open(made / "pack")))]


def view(made: Path, row: int, epoch: int = 0) -> RowView:
    words = Vocabulary(Tokenizer.load(made / "pack"))
    return view_row(PackedRows.open(made / "pack"), words, Documents(made / "pack"), row, epoch)


def cells_of(view: RowView) -> list[tuple[int, int, str]]:
    """Place, tokens and text of each cell of the row."""
    parts = [part for piece in view.pieces for part in (piece.part_a, *(blank.text for blank in piece.blanks))]
    return [
        (place + number * tokens, tokens, text)
        for part in parts
        for place, tokens, texts, _ in part
        for number, text in enumerate(texts)
    ]


def test_cells_are_the_tokens_of_the_row_and_their_text(made: Path, views: list[RowView]) -> None:
    model = Tokenizer.load(made / "pack")
    assert {piece.kind for view in views for piece in view.pieces} == {"gmask", "mask", "mip"}
    for view in views:
        cells = cells_of(view)
        covered = [place + at for place, tokens, _ in cells for at in range(tokens)]
        starts = [blank.start for piece in view.pieces for blank in piece.blanks]
        assert sorted(covered + starts) == [p for piece in view.pieces for p in range(piece.start, piece.end)]
        for place, tokens, shown in cells:
            text = model.decode(view.tokens[place : place + tokens], special=True)
            kinds = {"[MASK]", "[gMASK]"}
            assert shown == (text if text in kinds else "".join(span.text for span in reveal(text)))
        for piece in view.pieces:
            looks = [(tokens, style) for _, tokens, _, style in piece.part_a]
            assert all(one != next or one[0] > 1 or one[1] == "bytes" for one, next in pairwise(looks)), "one stretch"


def test_every_place_names_the_token_of_the_document_it_came_from(made: Path, views: list[RowView]) -> None:
    ids = np.load(made / "ids/data/part-00000.ids.npy")
    table = pq.read_table(made / "ids/data/part-00000.documents.parquet").to_pylist()
    starts = {row["id"]: row["offset"] for row in table}
    seen = 0
    for view in views:
        for place, (origin, offset) in enumerate(zip(view.origin_of, view.offset_of, strict=True)):
            if origin >= 0 and view.origins[origin].id in starts:
                assert ids[starts[view.origins[origin].id] + offset] == view.tokens[place]
                seen += 1
        text = sum(piece.end - piece.start for piece in view.pieces)
        masks = sum(2 * len(piece.blanks) for piece in view.pieces)
        assert sum(origin >= 0 for origin in view.origin_of) == text - masks
    assert seen > 1000


def test_positions_and_targets_are_those_that_a_model_gets(made: Path, views: list[RowView]) -> None:
    batch = PackedRows.open(made / "pack").batch(range(len(views)))
    for view in views:
        end = len(view.tokens)
        assert view.positions == batch.position_ids[view.row, :end].tolist()
        wanted = np.where(batch.loss_mask[view.row, :end] > 0, batch.targets[view.row, :end], -1)
        assert view.wanted == wanted.tolist()
        for piece in view.pieces:
            for blank in piece.blanks:
                assert blank.position == view.positions[blank.start]


def test_another_epoch_has_other_masks_over_the_same_text(made: Path, views: list[RowView]) -> None:
    row = next(found.row for found in views if found.pieces[0].kind == "mask")
    again = view(made, row, epoch=1)
    assert again.origins == views[row].origins
    assert [b.mask for b in again.pieces[0].blanks] != [b.mask for b in views[row].pieces[0].blanks]


@pytest.mark.parametrize("by", MEASURES)
def test_rankings_are_those_of_a_plain_count(made: Path, views: list[RowView], by: str) -> None:
    pack, model = PackedRows.open(made / "pack"), Tokenizer.load(made / "pack")
    length = pack.seq_length

    def measure(view: RowView) -> float:
        ids = view.tokens
        used = sum(piece.end - piece.start for piece in view.pieces)
        if by == "padding":
            return 1 - used / length
        if by == "targets":
            return 1 - sum(target >= 0 for target in view.wanted) / length
        if by == "bytes":
            return sum(model.piece(id).startswith("<0x") for id in ids) / used
        return 1 - len(set(ids)) / used

    values = [measure(view) for view in views]
    found = rank(pack, model, by)
    order = sorted(range(len(views)), key=lambda row: (-values[row], row))
    assert found.rows == order[:100]
    assert found.values == pytest.approx([values[row] for row in order[:100]])
    assert found.looked_at == len(views)


# --- duplicates, filter -----------------------------------------------------------------------------------------------


def test_every_signal_and_rule_of_ours_is_told_in_chinese(made: Path) -> None:
    for name, words in chinese.SIGNALS.items():
        assert re.search("[一-鿿]", words), name
    assert list(chinese.SIGNALS) == list(SIGNALS)
    for profile in files("glm_data.filters").joinpath("profiles").iterdir():
        for rule in load_profile(profile.name.removesuffix(".yaml")).rules:
            assert re.search("[一-鿿]", NAMES[rule.name]), rule.name
    rules = Thresholds(read_kept(made / "filter")).overview.rules
    assert {item.rule.name: item.chinese for item in rules}["few_letters"][0] == "文字太少"


def test_pairs_are_the_texts_of_the_two_documents(made: Path) -> None:
    stage = open_run(made).only("dedupe")
    view = view_clusters(stage)
    table = pq.read_table(made / "dedupe/duplicates.parquet").to_pylist()
    assert view.removed == len(table) > 0
    assert {cluster.kept for cluster in view.clusters} == {row["kept"] for row in table}
    files = (made / "filter/data").glob("*.parquet")
    texts = {row["id"]: row["text"] for path in files for row in pq.read_table(path).to_pylist()}
    for row in table:
        left, right = texts[row["removed"]], texts[row["kept"]]
        pair = view_pair(stage, row["removed"], row["kept"], locate_inputs(stage))
        assert pair.characters == (len(left), len(right))
        assert (pair.facing == []) == (left == right)
        assert "".join(span.text for span in pair.beginning).startswith(reveal(right)[0].text[:100])


def test_moved_thresholds_count_as_a_changed_profile_does(made: Path) -> None:
    kept = read_kept(made / "filter")
    thresholds = Thresholds(kept)
    before = reasons_of(kept, kept.profile)
    assert thresholds.overview.kept == int((before == "").sum())
    for line in thresholds.overview.rules:
        without = reasons_of(kept, change_profile(kept.profile, [f"{line.rule.name}=off"]))
        assert line.alone == int((without == "").sum()) - thresholds.overview.kept
        bars = thresholds.bars(line.rule.name)
        assert len(bars.edges) == BINS + 1
        assert sum(bars.documents) >= sum(bars.alone) >= line.alone
    counts = set()
    for bound in (0.0, 0.5, 0.7, 0.8, 1.0):
        changed = reasons_of(kept, change_profile(kept.profile, [f"few_letters.min={bound}"]))
        moved = thresholds.move("few_letters", bound, None, samples=6)
        assert (moved.kept, moved.gone) == (int((changed == "").sum()), int((changed == "few_letters").sum()))
        assert all(sample.kept == (sample.value >= bound) for sample in moved.samples)
        counts.add(moved.kept)
    assert len(counts) > 1
    assert moved.samples


# --- templates --------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> DataSetDesk:
    (found,) = subjects_of(write_mixture(tmp_path))
    return DataSetDesk(found, tmp_path / "mine.yaml")


def test_templates_are_rendered_on_rows_with_their_values_marked(desk: DataSetDesk) -> None:
    (template,) = desk.view().templates
    first, second, hidden, *none = desk.render(template, [0, 1, 2, 99])
    assert not none
    assert first.prompt[0] == (ROWS[0]["text"], "value")
    assert first.target == [("no", "")]
    assert second.target == [("yes", "")]
    assert [choice[0][0] for choice in second.choices] == ["no", "yes"]
    assert (hidden.prompt, hidden.reason) == ([], "hidden_label")
    assert {field.name: field.value[0][0] for field in first.fields} == {"text": ROWS[0]["text"], "label": "0"}


def test_only_the_named_file_is_written_and_it_reads_as_it_was_meant(desk: DataSetDesk, tmp_path: Path) -> None:
    (template,) = desk.view().templates
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    jinja = "好吗？\n  {{text}}\t\u202e 'x' \"y\": #{# no #} ||| {{answer_choices[label]}}\n"
    changed = msgspec.structs.replace(template, jinja=jinja, answer_choices="坏 ||| 好: #")
    desk.store(changed)
    found = read_templates(tmp_path / "mine.yaml")
    assert found.templates == {"a-1": changed}
    assert {path: path.read_bytes() for path in before} == before
    assert "!Template" in (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    again = DataSetDesk(*subjects_of(tmp_path / "mixture.yaml"), tmp_path / "mine.yaml")
    assert again.view().templates == [changed]


def test_what_is_refused_is_not_written(desk: DataSetDesk, tmp_path: Path) -> None:
    (template,) = desk.view().templates
    with pytest.raises(TemplateError, match="begins with an underscore"):
        desk.store(msgspec.structs.replace(template, jinja="{{ text.__class__ }} ||| x"))
    with pytest.raises(UsageError, match="is named 'like it'"):
        desk.store(msgspec.structs.replace(template, id="b-2"))
    assert not (tmp_path / "mine.yaml").exists()
    for content, said in (("dataset: another\ntemplates: {}\n", "'another', not of"), ("- a list\n", "does not fit")):
        (tmp_path / "mine.yaml").write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match=said):
            desk.store(template)
        assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == content
    desk.save = None
    with pytest.raises(UsageError, match="--save FILE"):
        desk.store(template)


def test_published_fields_of_templates_are_kept_when_written(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent / "manifests/demo/mip/templates"
    for path in sorted(root.glob("*/templates.yaml")):
        file = read_templates(path)
        (tmp_path / "copy.yaml").write_text(dump_templates(file), encoding="utf-8")
        assert read_templates(tmp_path / "copy.yaml") == file


def test_every_bundled_pack_can_be_looked_at_and_written(tmp_path: Path) -> None:
    for name in packs():
        found = subject(name)
        desk = DataSetDesk(found)
        for template in desk.view().templates:
            assert any(item.prompt and item.target for item in desk.render(template, range(20))), (name, template.name)
        (tmp_path / "copy.yaml").write_text(dump_templates(found.file), encoding="utf-8")
        assert read_templates(tmp_path / "copy.yaml") == found.file


def test_marked_values_join_to_the_text() -> None:
    row = {"a": "one", "b": "one two", "c": "x", "d": "", "e": 3}
    spans = mark_values("one two, one, two one two x", row)
    assert "".join(text for text, _ in spans) == "one two, one, two one two x"
    assert [text for text, style in spans if style == "value"] == ["one two", "one", "one two"]


# --- tokenizers, tables, paths ----------------------------------------------------------------------------------------


def test_a_text_in_pieces_is_the_text(made: Path) -> None:
    bench = Bench({"ours": made / "tokenizer"}, open_path(made).documents)
    view = bench.view()
    assert view.kinds["ours"].keys() == view.samples.keys() >= {"en"}
    (cut,) = bench.cut(f"千里之行 {HOSTILE}")
    assert cut.exact
    assert "".join(text for piece in cut.pieces for text, _ in piece) == "".join(
        span.text for span in reveal(f"千里之行 {HOSTILE}")
    )
    assert cut.tokens == len(Tokenizer.load(made / "tokenizer").encode(f"千里之行 {HOSTILE}"))
    with pytest.raises(UsageError, match="more than 20,000"):
        bench.cut("x" * 20_001)


def test_pages_of_a_table_are_its_rows(made: Path) -> None:
    tables = Tables(made / "filter", ["data/part-00000.parquet", "signals/part-00000.parquet", "other.jsonl"])
    table = next(item for item in tables.tables if item.name.startswith("data/"))
    rows = pq.read_table(made / "filter" / table.name).to_pylist()
    found = [item for first in range(0, table.rows, PAGE_ROWS) for item in tables.page(table.name, first)]
    assert [item.row for item in found] == list(range(len(rows)))
    assert ["".join(span.text for span in item.values["id"]) for item in found] == [row["id"] for row in rows]
    whole = tables.record(table.name, 0).values["text"]
    assert whole == reveal(rows[0]["text"])
    for name, row in ((table.name, table.rows), ("../secret.parquet", 0)):
        with pytest.raises(UsageError, match="has no"):
            tables.record(name, row)


def test_a_path_is_opened_as_what_it_is(made: Path, tmp_path: Path) -> None:
    assert [(item.view, item.name) for item in open_path(made).things] == [
        ("report", "report"),
        ("rows", "pack"),
        ("clusters", "dedupe"),
        ("filter", "filter"),
        ("tokenizers", "tokenizers"),
        ("records", "ids"),
        ("records", "dedupe"),
        ("records", "filter"),
    ]
    assert [item.view for item in open_path(write_mixture(tmp_path)).things] == ["mip"]
    assert [item.view for item in open_path(made / "tokenizer/tokenizer.model").things] == ["tokenizers"]
    assert [item.view for item in open_path(made / "pack").things] == ["report", "rows", "tokenizers"]
    assert list(open_path(tmp_path / "templates.yaml").datasets) == ["reviews"]
    for path in (tmp_path / "none", tmp_path / "rows.jsonl"):
        with pytest.raises(UsageError, match="nothing to look at"):
            open_path(path)
    with pytest.raises(UsageError, match="holds no stage"):
        open_path(tmp_path)
    assert SCRIPT in HOSTILE
