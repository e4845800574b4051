"""Languages paragraph by paragraph, and models of fastText, read from a file made here."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_filters_language import CHINESE, ENGLISH, GERMAN, JAPANESE, TRADITIONAL

from glm_data import documents
from glm_data.errors import InputError
from glm_data.files import digest_file
from glm_data.filters import FilterOptions, filter_block, load_profile
from glm_data.filters.fasttext import features, load, predict, rows_of
from glm_data.filters.language import LANGUAGES, detect
from glm_data.filters.paragraphs import label_paragraphs
from glm_data.text import statistics

WORDS = ["the", "regen", "</s>", "tag", "und"]
LABELS = [("__label__de", 50), ("__label__en", 40), ("__label__fr", 3), ("__label__nl", 2)]
DIM, BUCKETS = 6, 50
SECOND = f"{CHINESE}它们在水里唱了一夜的歌，到第二天早上，太阳才从云后面出来。"


def blocks_of(rng: np.random.Generator, rows: int, quantised: bool) -> tuple[bytes, np.ndarray]:
    """A matrix as it is in a file, and its rows."""
    if not quantised:
        dense = rng.normal(size=(rows, DIM)).astype("<f4")
        return struct.pack("<qq", rows, DIM) + dense.tobytes(), dense
    codes = rng.integers(0, 256, (rows, 2), np.uint8)
    first, last = rng.normal(size=(256, 4)).astype("<f4"), rng.normal(size=(256, 2)).astype("<f4")
    norm_codes, norms = rng.integers(0, 256, rows, np.uint8), rng.normal(size=256).astype("<f4")
    data = struct.pack("<?qqi", True, rows, DIM, codes.size) + codes.tobytes()
    data += struct.pack("<iiii", DIM, 2, 4, 2) + first.tobytes() + last.tobytes()
    data += norm_codes.tobytes() + struct.pack("<iiii", 1, 1, 1, 1) + norms.tobytes()
    return data, np.concatenate([first[codes[:, 0]], last[codes[:, 1]]], axis=1) * norms[norm_codes][:, None]


def write_model(
    path: Path, *, loss: int = 3, quantised: bool = False, pruned: dict[int, int] | None = None
) -> np.ndarray:
    """A model of random numbers; returns its input. ``pruned``: the buckets that are left, and their rows."""
    rng = np.random.default_rng(1)
    head = struct.pack("<ii12id", 793712314, 12, DIM, 5, 1, 1, 5, 2, loss, 3, BUCKETS, 2, 4, 100, 1e-4)
    size = -1 if pruned is None else len(pruned)
    head += struct.pack("<iiiqq", len(WORDS) + len(LABELS), len(WORDS), len(LABELS), 99, size)
    for word in WORDS:
        head += word.encode() + b"\0" + struct.pack("<qb", 9, 0)
    for label, count in LABELS:
        head += label.encode() + b"\0" + struct.pack("<qb", count, 1)
    head += b"".join(struct.pack("<ii", *pair) for pair in (pruned or {}).items())
    rows = BUCKETS if pruned is None else len(pruned)
    data, matrix = blocks_of(rng, len(WORDS) + rows, quantised)
    output, _ = blocks_of(rng, len(LABELS), False)
    path.write_bytes(head + struct.pack("<?", quantised) + data + struct.pack("<?", False) + output)
    return matrix


def hash_of(text: str) -> int:
    value = 2166136261
    for byte in text.encode():
        value = ((value ^ (byte | 0xFFFFFF00 if byte > 127 else byte)) * 16777619) % 2**32
    return value


def features_of(text: str, pruned: dict[int, int] | None) -> list[int]:
    """What fastText makes of a line, in plain Python."""
    found, hashes = [], []
    kept = {number: number for number in range(BUCKETS)} if pruned is None else pruned

    def buckets(key: int) -> list[int]:
        return [len(WORDS) + kept[key % BUCKETS]] if key % BUCKETS in kept else []

    for word in [*text.split(), "</s>"]:
        found += [WORDS.index(word)] if word in WORDS else []
        framed = f"<{word}>"
        if word != "</s>":
            for first in range(len(framed)):
                for last in range(first + 2, min(first + 4, len(framed)) + 1):
                    found += buckets(hash_of(framed[first:last]))
        signed = hash_of(word)
        hashes.append(signed - 2**32 if signed >= 2**31 else signed)
    for first in range(len(hashes) - 1):
        key = (hashes[first] * 116049371 + hashes[first + 1]) % 2**64
        found += buckets(key)
    return found


texts = st.lists(st.sampled_from(["the", "Regen", "tag", "fällt", "中文", "a", "und", "</s", "x"]), max_size=8)


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("pruned", [None, {}, {number: place for place, number in enumerate(range(0, BUCKETS, 3))}])
@given(words=texts)
@settings(deadline=None, max_examples=15)
def test_a_line_becomes_the_rows_that_fasttext_takes(
    tmp_path_factory: pytest.TempPathFactory, quantised: bool, pruned: dict[int, int] | None, words: Sequence[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"{quantised}{pruned is None}{bool(pruned)}.bin"
    matrix = write_model(path, quantised=quantised, pruned=pruned)
    model, text = load(path), " ".join(words)
    line = np.frombuffer(f"{text} </s> ".encode(), np.uint8)
    ids = features(line, model.words)
    assert sorted(ids.tolist()) == sorted(features_of(text, pruned))
    assert rows_of(model.input, ids) == pytest.approx(matrix[ids], rel=1e-6)
    hidden = matrix[ids].mean(axis=0)
    scores = np.exp(model.output @ hidden)
    vote = predict(model, text.encode())
    assert vote.share == pytest.approx(max(scores) / sum(scores), rel=1e-4)
    assert vote.label == ("de", "en", "fr", "nl")[int(np.argmax(scores))]


def test_hierarchical_softmax_goes_down_huffmans_tree(tmp_path: Path) -> None:
    matrix = write_model(tmp_path / "a.bin", loss=1)
    model = load(tmp_path / "a.bin")
    hidden = matrix[features_of("the regen", None)].mean(axis=0)
    down = 1 / (1 + np.exp(-(model.output[:3] @ hidden)))
    # Of 50, 40, 3 and 2: node 4 is nl and fr, node 5 that and en, node 6 (the root) that and de.
    shares = {"nl": (1 - down[0]) * (1 - down[1]) * (1 - down[2]), "de": down[2], "en": down[1] * (1 - down[2])}
    shares["fr"] = 1 - sum(shares.values())
    vote = predict(model, b"the regen")
    assert vote.label == max(shares, key=lambda name: shares[name])
    assert vote.share == pytest.approx(shares[vote.label], rel=1e-4)


def test_what_is_no_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    write_model(tmp_path / "a.bin")
    whole = (tmp_path / "a.bin").read_bytes()
    broken = [b"", b"text", whole[:4] + b"\x0b" + whole[5:], *(whole[:end] for end in range(0, len(whole), 97))]
    for data in broken:
        (tmp_path / "b.bin").write_bytes(data)
        with pytest.raises(InputError, match="fastText"):
            load(tmp_path / "b.bin")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "nothing.bin")


def test_a_model_whose_rows_are_too_few_is_refused_before_a_text_asks_for_one(tmp_path: Path) -> None:
    write_model(tmp_path / "a.bin")
    whole, path = (tmp_path / "a.bin").read_bytes(), tmp_path / "b.bin"
    for buckets in (BUCKETS + 1, 0):
        path.write_bytes(whole[:40] + struct.pack("<i", buckets) + whole[44:])
        with pytest.raises(InputError, match="fastText"):
            load(path)
    write_model(path, pruned={3: 1})
    with pytest.raises(InputError, match="fastText"):
        load(path)


def test_a_model_that_is_sure_outvotes_pycld2(tmp_path: Path) -> None:
    text = pa.array([CODE := "total alpha beta gamma delta epsilon " * 9, CHINESE, ENGLISH * 3])
    counts = statistics.count(text)
    path = tmp_path / "a.bin"
    write_model(path)
    model = load(path)
    sure = model._replace(output=model.output * 1000)
    label = predict(sure, CODE.encode()).label
    for name, language in (("en", "en"), ("fr", "other")):
        renamed = sure._replace(labels=tuple(name if known == label else known for known in model.labels))
        assert [LANGUAGES[index] for index in detect(text, counts, renamed)] == [language, "zh-Hans", "en"]
    unsure = model._replace(output=model.output * 0)
    assert detect(text, counts, unsure).tolist() == detect(text, counts).tolist()


def test_paragraphs_are_labelled_and_shares_kept() -> None:
    texts = pa.array(["x", f"{CHINESE}\n\n{ENGLISH}\n12 - 34\n{TRADITIONAL}", "", f"{JAPANESE}\n", GERMAN * 3]).slice(1)
    labelled = label_paragraphs(texts)
    labels, shares = (column.to_pylist() for column in labelled.columns)
    assert labels == [["zh-Hans", "en", "other", "zh-Hant"], [], ["ja"], ["other"]]
    assert json.loads(shares[0]) == pytest.approx({"zh-Hans": 26 / 75, "zh-Hant": 26 / 75, "en": 23 / 75}, abs=0.03)
    assert shares[1:] == ["{}", '{"ja":1.0}', '{"other":1.0}']
    assert labelled.mixed.tolist() == [True, False, False, False]
    assert not labelled.kept
    assert not label_paragraphs(pa.array([f"{CHINESE}\n{TRADITIONAL}"])).mixed[0]


def test_unwanted_paragraphs_go_and_the_stage_says_so(tmp_path: Path) -> None:
    write_model(tmp_path / "a.bin")
    texts = [f"{CHINESE}\n{ENGLISH}\n\n{ENGLISH}\n——\n{CHINESE}", f"{SECOND}\n{ENGLISH}", CHINESE, ""]
    block = documents.make_block(list("abcd"), texts, ["s"] * 4, [""] * 4, ["{}"] * 4)
    model = str(tmp_path / "a.bin")
    options = FilterOptions(paragraph_languages=True, drop_paragraphs=("en",), language_model=model)
    found = filter_block(block, options, load_profile("bilingual"), {model: digest_file(Path(model))})
    assert found.kept.column("text").to_pylist() == [f"{CHINESE}\n\n——\n{CHINESE}", SECOND, CHINESE]
    assert found.kept.column("lang").to_pylist() == ["zh-Hans"] * 3
    assert found.kept.column("paragraph_languages").to_pylist()[0] == ["zh-Hans", "other", "zh-Hans"]
    assert found.counts["cleaned/paragraphs"] == 2
    labelled = filter_block(block, FilterOptions(paragraph_languages=True), load_profile("bilingual"))
    assert Counter(labelled.kept.column("lang").to_pylist()) == Counter({"mixed": 2, "zh-Hans": 1})
    plain = filter_block(block, FilterOptions(), load_profile("bilingual"))
    assert plain.kept.schema.names == block.schema.names
