"""The demo's raw shards: bytes, kinds, ids that the readers give, and copies that are really near."""

from __future__ import annotations

import json
import random
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data import demo_noise
from glm_data.demo_input import PILE_SET_NAMES, WUDAO_DATA_TYPES, read_corpus, read_planted, write_demo_input
from glm_data.formats import read_blocks
from glm_data.stage import find_inputs

TEXTS = {
    "en": "The {0} fox ran over hill {1}. It met a dog of {1} years. They spoke of {0} weather for a while. "
    'Then the fox went home, tired and {0}. The dog said: "See you at {1} o\'clock, friend." Nobody knows the end.',
    "zh": "第{1}只{0}狐狸跑过山坡。它遇见一只{1}岁的狗。他们谈了一会儿{0}的天气。后来狐狸回家了，又累又{0}。"
    "狗说：“{1}点再见，朋友。”没有人知道结局，请多保重。",
}
WORDS = {
    "en": ["quick", "brown", "small", "happy", "lonely", "clever", "silent", "golden", "distant", "gentle"],
    "zh": ["敏捷", "棕色", "小小", "快乐", "孤独", "聪明", "安静", "金色", "遥远", "温柔"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for lang, words in WORDS.items():
        (folder / lang).mkdir()
        for register in ("news", "story", "code"):
            parts = []
            for number, word in enumerate(words):
                parts.append(
                    f"%%% {register} {word} {number}\n" + TEXTS[lang].format(word, number + 2) + f"\n{register}\n"
                )
            (folder / lang / f"{register}.txt").write_text("\n".join(parts), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def raw(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("run") / "raw"
    return folder, write_demo_input(folder, 5, corpus)


def _read(folder: Path) -> tuple[dict[str, tuple[str, str, str]], Counter[str]]:
    documents: dict[str, tuple[str, str, str]] = {}
    unreadable: Counter[str] = Counter()
    for item in find_inputs([folder / "pile", folder / "wudao"]):
        for block in read_blocks(item, "auto"):
            for row in block.documents.to_pylist():
                documents[row["id"]] = (row["text"], row["source"], row["meta"])
            for bad in block.unreadable:
                unreadable[f"{item.name}:{bad.reason}"] += bad.count
    return documents, unreadable


def test_the_corpus_reads_back_whole(corpus: Path) -> None:
    texts = read_corpus(corpus)
    assert len(texts) == 60
    assert len({text.key for text in texts}) == 60
    first = next(text for text in texts if text.key == ("en", "news", "news quick 0"))
    assert first.body == TEXTS["en"].format("quick", 2) + "\nnews"


def test_every_register_of_the_bundled_corpus_has_a_source_in_both_languages() -> None:
    from manifests import path

    texts = read_corpus(path("demo/corpus"))
    assert len({text.key for text in texts}) == len(texts)
    for lang in ("en", "zh"):
        registers = Counter(text.register for text in texts if text.lang == lang)
        assert registers.keys() <= PILE_SET_NAMES.keys() == WUDAO_DATA_TYPES.keys()
        assert len(registers) >= 8
        assert sum(registers.values()) >= 250
    assert all(text.title and text.body and "%%%" not in text.body for text in texts)


def test_every_planted_record_has_the_id_that_readers_give_it(raw: tuple[Path, dict[str, int]]) -> None:
    folder, summary = raw
    planted = read_planted(folder)
    documents, unreadable = _read(folder)
    assert planted.summary == summary == Counter(kind for kind, _ in planted.records.values())
    readable = {identity for identity, (kind, _) in planted.records.items() if not kind.startswith("broken/")}
    assert readable <= documents.keys()
    odd = {planted.records[identity][0] for identity in documents.keys() - readable}
    assert odd <= {"broken/empty_text"}, "an empty text can be read; it is the filter's to drop"
    assert len(planted.records) == len(documents) + sum(unreadable.values())


def test_originals_are_as_written_and_variants_name_them(raw: tuple[Path, dict[str, int]], corpus: Path) -> None:
    planted = read_planted(raw[0])
    documents, _ = _read(raw[0])
    bodies = {text.body for text in read_corpus(corpus)}
    originals = [identity for identity, (kind, _) in planted.records.items() if kind == "unique"]
    assert len(originals) == len(bodies)
    assert all(any(documents[identity][0].endswith(body) for body in bodies) for identity in originals)
    for identity, (kind, of) in planted.records.items():
        if kind == "exact_copy":
            assert documents[identity][0] == documents[of][0]
        if kind == "full_width_twin":
            assert unicodedata.normalize("NFKC", documents[identity][0]) == unicodedata.normalize(
                "NFKC", documents[of][0]
            )
            assert documents[identity][0] != documents[of][0]
        if kind == "traditional_twin":
            assert documents[identity][0] != documents[of][0]
            assert len(documents[identity][0]) == len(documents[of][0])


def test_near_duplicates_are_near(raw: tuple[Path, dict[str, int]]) -> None:
    planted = read_planted(raw[0])
    documents, _ = _read(raw[0])
    checked = 0
    for identity, (kind, of) in planted.records.items():
        if kind.startswith("near_duplicate/"):
            one, other = (_characters(documents[name][0]) for name in (identity, of))
            assert documents[identity][0] != documents[of][0]
            assert len(one & other) / min(len(one), len(other)) > 0.6
            checked += 1
    assert checked > 50


def _characters(text: str) -> set[str]:
    folded = "".join(unicodedata.normalize("NFKC", text).lower().split())
    return {folded[place : place + 5] for place in range(len(folded) - 4)}


def test_originals_come_before_what_is_made_from_them(raw: tuple[Path, dict[str, int]]) -> None:
    def place(identity: str) -> tuple[str, int]:
        name, _, record = identity.rpartition("#")
        return name, int(record)

    for identity, (_, of) in read_planted(raw[0]).records.items():
        assert not of or place(of) < place(identity)


def test_pile_shards_carry_components_and_string_metas(raw: tuple[Path, dict[str, int]]) -> None:
    import zstandard

    data = zstandard.ZstdDecompressor().stream_reader((raw[0] / "pile/00.jsonl.zst").read_bytes()).read()
    metas = [json.loads(line)["meta"] for line in data.splitlines()[:20]]
    assert {type(meta) for meta in metas} == {dict, str}
    documents, _ = _read(raw[0])
    assert {"Pile-CC", "BookCorpus2", "Github"} <= {source for _, source, _ in documents.values()}


def test_wudao_files_come_in_three_shapes(raw: tuple[Path, dict[str, int]]) -> None:
    compact, indented, wrapped = ((raw[0] / f"wudao/part-{number}.json").read_text("utf-8") for number in range(3))
    assert "\n" not in compact
    assert indented.startswith("[\n    {\n")
    assert json.loads(wrapped).keys() == {"RECORDS"}
    record = json.loads(compact)[0]
    assert record.keys() == {"id", "uniqueKey", "titleUkey", "dataType", "title", "content"}
    assert len(record["uniqueKey"]) == len(record["titleUkey"]) == 32
    with pytest.raises(json.JSONDecodeError):
        json.loads((raw[0] / "wudao/part-3-broken.json").read_text("utf-8", errors="replace"))


def test_broken_input_is_rare_and_of_every_kind(raw: tuple[Path, dict[str, int]]) -> None:
    _, unreadable = _read(raw[0])
    broken = {kind for kind in raw[1] if kind.startswith("broken/")}
    assert broken == {
        f"broken/{kind}"
        for kind in ("malformed_json", "invalid_utf8", "wrong_type", "empty_text", "truncated_zst", "array_ends_early")
    }
    assert any(name.startswith("pile/03-truncated.jsonl.zst:") for name in unreadable)
    assert any(name.startswith("wudao/part-3-broken.json:") for name in unreadable)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(corpus: Path, tmp_path: Path) -> None:
    def digest(name: str, seed: int) -> dict[str, bytes]:
        write_demo_input(tmp_path / name, seed, corpus)
        paths = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in paths}

    assert digest("one", 3) == digest("two", 3)
    assert digest("one", 3) != digest("three", 4)


@given(st.text(alphabet="abc .!?\n。！？”\"'", max_size=60), st.sampled_from(["en", "zh"]))
@settings(deadline=None)
def test_sentences_join_to_the_text(text: str, lang: str) -> None:
    assert "".join(demo_noise.sentences(text, lang)) == text


@pytest.mark.parametrize("name", demo_noise.CHANGES)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_change_changes_a_text_with_sentences_and_numbers(name: str, lang: str) -> None:
    body = TEXTS[lang].format(WORDS[lang][0], 7)
    assert demo_noise.CHANGES[name](body, lang, random.Random(1)) != body


def test_english_mojibake_can_be_repaired_and_chinese_not() -> None:
    import ftfy

    assert ftfy.fix_text(demo_noise.mojibake('She said "no" to John\'s cat.', "en")) == 'She said "no" to John\'s cat.'
    assert "狐狸" not in ftfy.fix_text(demo_noise.mojibake("敏捷的棕色狐狸", "zh"))
