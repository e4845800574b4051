"""Sentence ends as a tokenizer's pieces show them."""

from __future__ import annotations

import numpy as np
import pytest
from packs import SENTENCES, make_tokenizer

from glm_data.packing.placing import HARD_END, SPACE_START, sentence_ends
from glm_data.packing.sentences import sentence_table
from tokenizer import Tokenizer, TrainOptions, train

MARKS = ("真的？", "是的！", "好…", "真的？是的！好……")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """One of small pieces, and one whose pieces hold several characters, marks among them."""
    folder = tmp_path_factory.mktemp("tokenizers")
    said = [
        'He said "no." She left.',
        "“对吗？”他问。",
        "版本 1.2.3，见 a.b.com。",
        "3.14 is pi; e is 2.718.",
        "真的？是的！好……",
    ]
    repeated = [text for text in (*SENTENCES, *said) for _ in range(60)]
    return make_tokenizer(folder / "small"), train(repeated, folder / "large", TrainOptions(vocab_size=625))


def sentences(tokenizer: Tokenizer, text: str) -> list[str]:
    """``text`` cut behind every token that ends a sentence."""
    ids = tokenizer.encode(text)
    before = np.zeros(len(ids) + 1, np.int32)
    sentence_ends(ids, sentence_table(tokenizer), before)
    cuts = [0, *(np.flatnonzero(np.diff(before)) + 1).tolist()]
    parts = [tokenizer.decode(ids[first:last]) for first, last in zip(cuts, [*cuts[1:], len(ids)], strict=True)]
    return [part for part in parts if part]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three", ["One.", " Two!", " Three"]),
        ("床前明月光，疑是地上霜。举头望明月。", ["床前明月光，疑是地上霜。", "举头望明月。"]),
        ("真的？是的！好", ["真的？", "是的！", "好"]),
        ("3.14 is pi; e is 2.718.", ["3.14 is pi;", " e is 2.718."]),
        ("see a.b.com for more", ["see a.b.com for more"]),
        ("a\nb\n", ["a\n", "b\n"]),
        ("千里之行，始于足下", ["千里之行，始于足下"]),
    ],
)
def test_sentences_end_where_a_reader_says(tokenizers, text, wanted):
    for tokenizer in tokenizers:
        if all(len(tokenizer.encode(mark)) == 1 for mark in "？！" if mark in text):
            assert sentences(tokenizer, text) == wanted
        else:
            assert sentences(tokenizer, text) == [text], "marks in bytes are not seen"


def test_closing_quotes_may_be_part_of_the_piece_that_ends(tokenizers):
    for tokenizer in tokenizers:
        found = sentences(tokenizer, "“对吗？”他问。")
        assert found[-1].endswith("他问。")
        assert "".join(found) == "“对吗？”他问。"
        assert any(part.startswith("“对吗？") for part in found)


def test_the_end_of_a_document_ends_a_sentence_and_other_task_tokens_do_not(tokenizers):
    table = sentence_table(tokenizers[0])
    special = tokenizers[0].special
    assert table[special.eos] == HARD_END | SPACE_START
    assert not table[[special.sop, special.eop, special.mask, special.pad]].any()
    assert len(table) == tokenizers[0].vocab_size
