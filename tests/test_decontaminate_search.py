"""Items are indexed as they should be, found in any spelling, and nothing else is; cutting leaves the rest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_twin import SALT, grams

from glm_data.decontaminate import DecontaminateOptions, Index, build_index, read_evaluation, search
from glm_data.decontaminate.cut import JOINT, NOTHING_LEFT, TOO_MANY_CUTS, apply_action, merge
from glm_data.decontaminate.index import COUNTS, load_index, save_index
from glm_data.decontaminate.items import read_items
from glm_data.errors import ConfigError, InputError
from glm_data.text.grams import Shape

QUESTION = (
    "A baker sells seven loaves on Monday, twice as many on Tuesday and five fewer on Wednesday; how many loaves does "
    "the baker sell in the three days, if nobody brings one back?"
)
RIDDLE = "城门外的老石桥下住着一位修伞的师傅，他每天清早挑着担子过河，傍晚又沿着原路回来，请问他一个月要过多少次桥？"
TRADITIONAL = (
    "城門外的老石橋下住著一位修傘的師傅，他每天清早挑著擔子過河，傍晚又沿著原路回來，請問他一個月要過多少次橋？"
)
FILLER = "Nothing of what is said here was ever asked of anybody, and no answer is wanted. "
GRAM = Shape()
FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})


def write_manifest(folder: Path, **benchmarks: list[dict[str, Any]]) -> Path:
    """A manifest whose benchmarks have one file each, with the field ``q``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in benchmarks.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    listed = [{"name": name, "files": [f"{name}.jsonl"], "fields": ["q"]} for name in benchmarks]
    path = folder / "evaluation.yaml"
    path.write_text(json.dumps({"benchmarks": listed}), encoding="utf-8")
    return path


def index_of(folder: Path, *, common_items: int = 10, shape: Shape = GRAM, **questions: list[Any]) -> Index:
    rows = {name: [{"q": question} for question in listed] for name, listed in questions.items()}
    return build_index(read_evaluation(write_manifest(folder, **rows)), shape, common_items)


def found_in(texts: list[str], index: Index, containment: float = 0.5) -> list[tuple[int, str]]:
    hits, _ = search(pa.array(texts, pa.string()), index, containment)
    pairs = zip(hits.texts[hits.is_hit].tolist(), hits.items[hits.is_hit].tolist(), strict=True)
    return [(text, str(index.ids[item])) for text, item in pairs]


def counts_of(index: Index, benchmark: int = 0) -> dict[str, int]:
    return dict(zip(COUNTS, index.counts[benchmark].tolist(), strict=True))


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return index_of(tmp_path_factory.mktemp("sets"), en=[QUESTION], zh=[RIDDLE])


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        QUESTION.upper(),
        QUESTION.translate(FULL_WIDTH),
        QUESTION.replace(" ", "\n  "),
        QUESTION.replace(",", "").replace(";", " --"),
        FILLER * 20 + QUESTION + FILLER * 20,
        QUESTION.replace("Tuesday", "Thursday"),
        RIDDLE,
        TRADITIONAL,
        RIDDLE.replace("，", ","),
        "\n".join(RIDDLE),
        f"{FILLER}{RIDDLE[:45]}",
    ],
)
def test_an_item_is_found_in_any_spelling_and_with_small_changes(text: str, index: Index) -> None:
    assert len(found_in([FILLER, text, ""], index)) == 1


@pytest.mark.parametrize("text", [FILLER * 3, QUESTION[:70], RIDDLE[:25], "", " ".join(reversed(QUESTION.split()))])
def test_what_shares_little_with_an_item_is_left_alone(text: str, index: Index) -> None:
    assert not found_in([text], index)


def test_regions_are_the_bytes_that_an_item_was_found_by(index: Index) -> None:
    text = f"前言。{FILLER}{RIDDLE}{FILLER}{RIDDLE}"
    _, regions = search(pa.array([text]), index)
    data = text.encode()
    quoted = [data[start:end].decode() for start, end in zip(regions.starts, regions.ends, strict=True)]
    assert quoted == [RIDDLE.rstrip("？")] * 2
    firsts = [data[start:end].decode() for start, end in zip(regions.starts, regions.firsts, strict=True)]
    assert all(len(first.replace("，", "")) == 24 for first in firsts)


WORDS = [f"w{number}" for number in range(6)]
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(SENTENCES, min_size=1, max_size=8), st.lists(SENTENCES, max_size=5), st.sampled_from([0.2, 0.5, 1.0]))
def test_hits_equal_a_plain_count(questions: list[str], texts: list[str], containment: float) -> None:
    import tempfile

    shape = Shape(3, 3, 0.6)
    if not any(questions):
        return
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(Path(folder), shape=shape, common_items=3, words=questions)
    sets, sharing = _plain_items(questions, shape), Counter[int]()
    for _, own in sets.values():
        sharing.update({gram[0] for gram in own})
    expected = []
    for row, text in enumerate(texts):
        there = {short: {gram[0] for gram in _grams(text, shape, short)} for short in (False, True)}
        for number, (is_short, own) in sets.items():
            usable = [gram for gram in own if sharing[gram[0]] <= 3]
            whole = _cover(usable)
            shown = _cover([gram for gram in usable if gram[0] in there[is_short]])
            if shown and len(shown) >= (1.0 if is_short else containment) * len(whole) - 1e-9:
                expected.append((row, f"{index.ids[0].partition('#')[0]}#{number}"))
    assert sorted(found_in(texts, index, containment)) == sorted(expected)


def _cover(own: list[tuple[int, int, int]]) -> set[int]:
    """The words that grams cover, by their first bytes (words are two bytes long here, with a space behind)."""
    return {at for _, start, end in own for at in range(start, end) if at % 3 == 0}


def _plain_items(questions: list[str], shape: Shape) -> dict[int, tuple[bool, list[tuple[int, int, int]]]]:
    """Number -> (known by short grams, grams) of the items that are left, copies left out."""
    kept: dict[int, tuple[bool, list[tuple[int, int, int]]]] = {}
    for number, question in enumerate(questions):
        full = _grams(question, shape, False)
        own = full or _grams(question, shape, True)
        if own and all({gram[0] for gram in own} != {gram[0] for gram in other} for _, other in kept.values()):
            kept[number] = (not full, own)
    return kept


def _grams(text: str, shape: Shape, short: bool) -> list[tuple[int, int, int]]:
    need, salt = (shape.least, SALT) if short else (shape.full, 0)
    return list(grams(text, shape.words, shape.characters, need, salt))


# --- the index --------------------------------------------------------------------------------------------------------


def test_short_items_must_be_there_whole_and_those_too_short_are_counted(tmp_path: Path) -> None:
    short = "who sells nine blue umbrellas beside the bridge today"
    index = index_of(tmp_path, en=[short, "who is it", "天下"], zh=["门外的老石桥下住着修伞师傅老王一家"])
    assert counts_of(index, 0) == {**dict.fromkeys(COUNTS, 0), "items": 3, "too_short": 2, "short": 1, "grams": 2}
    texts = [f"Well, {short}?", short[:50], "老石桥下住着修伞师傅", "门外的老石桥下住着修伞师傅老王一家"]
    assert found_in(texts, index) == [(0, index.ids[0]), (3, index.ids[1])]


def test_copies_are_one_item_and_an_instruction_before_every_question_is_none(tmp_path: Path) -> None:
    instruction = "Read the following question with care, think about it step by step and answer with one letter only. "
    questions = [f"{instruction}{QUESTION} {number} and then {number}" for number in range(12)]
    index = index_of(tmp_path, en=[*questions, questions[0], instruction])
    counts = counts_of(index)
    assert (counts["items"], counts["copies"], counts["common"]) == (14, 1, 1)
    assert counts["common_grams"] > 20
    assert not found_in([instruction + FILLER], index)
    assert found_in([questions[5]], index) == [(0, index.ids[5])]


def test_short_answers_beside_a_question_are_no_evidence(tmp_path: Path) -> None:
    answer = "all of the above are true of it today"
    path = write_manifest(tmp_path, en=[{"q": [QUESTION, answer]}])
    index = build_index(read_evaluation(path), Shape(), 10)
    assert not found_in([answer], index)
    assert found_in([QUESTION], index)


def test_an_index_comes_back_from_its_file_and_its_bytes_are_the_same(tmp_path: Path, index: Index) -> None:
    for name in ("a", "b"):
        save_index(tmp_path / f"{name}.npz", index)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = load_index(tmp_path / "a.npz", "key")
    assert again.shape == index.shape
    assert found_in([RIDDLE], again) == found_in([RIDDLE], index)
    assert load_index(tmp_path / "a.npz", "key") is again


# --- items ------------------------------------------------------------------------------------------------------------


def test_fields_go_into_objects_and_lists(tmp_path: Path) -> None:
    rows = [{"a": {"b": ["x", {"c": 1}, "y"]}, "t": "z", "n": 3}, {"a": None, "t": ""}]
    pq.write_table(pa.Table.from_pylist([{"a": {"b": ["x", "y"]}, "t": "z"}]), tmp_path / "two.parquet")
    (tmp_path / "one.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    manifest = {"benchmarks": [{"name": "E", "files": ["*.jsonl", "two.parquet"], "fields": ["a.b", "t"]}]}
    (tmp_path / "evaluation.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    items = [list(read_items(source)) for source in read_evaluation(tmp_path / "evaluation.yaml").sources]
    assert [[item.texts for item in listed] for listed in items] == [[("x", "y", "z"), ()], [("x", "y", "z")]]
    assert items[0][0].id == f"{tmp_path.name}/one.jsonl#0"


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        ({"name": "E"}, ConfigError, "no benchmark has 'files'"),
        ({"name": "E", "files": ["x.jsonl"]}, ConfigError, "has 'files' but no 'fields'"),
        ({"name": "E", "files": ["y.jsonl"], "fields": ["q"]}, ConfigError, "benchmark 'E': '"),
        ({"name": "E", "files": ["x.jsonl"], "fields": ["questoin"]}, ConfigError, "Did you mean 'question'?"),
        ({"name": "E", "files": ["bad.jsonl"], "fields": ["question"]}, InputError, "row 1: "),
    ],
)
def test_manifests_that_cannot_be_meant(
    entry: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "one"}\n', encoding="utf-8")
    (tmp_path / "bad.jsonl").write_text('{"question": "one"}\n{"question": \n', encoding="utf-8")
    (tmp_path / "evaluation.yaml").write_text(json.dumps({"benchmarks": [entry]}), encoding="utf-8")
    with pytest.raises(kind) as raised:
        build_index(read_evaluation(tmp_path / "evaluation.yaml"), Shape(), 10)
    assert message in str(raised.value)


# --- cutting ----------------------------------------------------------------------------------------------------------

OPTIONS = DecontaminateOptions(evaluation="e.yaml", margin=3, shortest_piece=4, most_cuts=2)


def cut(text: str, *spans: tuple[int, int], options: DecontaminateOptions = OPTIONS) -> tuple[str, str, int]:
    starts, ends = (np.array(side, np.int64) for side in zip(*spans, strict=True))
    return tuple(apply_action(text, starts, ends, options))  # type: ignore[return-value]


def test_a_cut_takes_a_margin_in_characters_and_joins_the_rest() -> None:
    assert cut("abcdefgh12345678ijklmnop", (8, 16)) == (f"abcde{JOINT}lmnop", "", 1)
    assert cut("天地玄黄宇宙洪荒日月盈昃", (12, 18)) == ("", NOTHING_LEFT, 1)
    assert cut("天地玄黄宇宙洪荒日月盈昃辰宿列张", (0, 6)) == ("宙洪荒日月盈昃辰宿列张", "", 1)
    assert cut("a" * 60, (5, 6), (30, 31), (50, 51)) == ("", TOO_MANY_CUTS, 3)
    assert cut("a" * 60, (5, 6), (10, 12), (13, 14))[2] == 1
    drop = msgspec.structs.replace(OPTIONS, action="drop")
    assert cut("abc", (0, 1), options=drop) == ("", "contaminated", 0)


@given(
    st.text(st.sampled_from("ab 天\n"), max_size=80),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), min_size=1, max_size=6),
)
def test_cut_text_is_what_no_widened_span_covers(text: str, spans: list[tuple[int, int]]) -> None:
    spans = sorted((min(*pair, len(text)), min(max(pair), len(text))) for pair in spans)
    edges = [len(text[:place].encode()) for place in range(len(text) + 1)]
    options = msgspec.structs.replace(OPTIONS, most_cuts=100, shortest_piece=1)
    got, _, _ = cut(text, *[(edges[first], edges[beyond]) for first, beyond in spans], options=options)
    covered = {at for first, beyond in spans for at in range(first - 3, beyond + 3)}
    left = "".join(" " if at in covered else character for at, character in enumerate(text))
    assert got.split() == "".join(left).split()


def test_spans_that_meet_are_one() -> None:
    assert merge(np.array([5, 9, 30]), np.array([7, 12, 31]), 2, 32) == [(3, 14), (28, 32)]


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="containment 0"):
        DecontaminateOptions(evaluation="e.yaml", containment=0)
