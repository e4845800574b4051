"""Personal data: what is found, what is left alone, and that checksums are those of their standards."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data import documents
from glm_data.filters import ALL_STEPS
from glm_data.filters.clean_block import clean_block
from glm_data.filters.personal import is_bank_card, is_code, is_id_card, replace_personal

ID_CARD = "11010519491231002X"  # the example of GB 11643


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Write to bob.a+x@ex-ample.co.uk, please.", "Write to <email>, please."),
        ("联系zhang_san@163.com吧", "联系<email>吧"),
        (f"身份证号{ID_CARD}。", "身份证号<id-card>。"),
        ("卡号 4111 1111 1111 1111", "卡号 <bank-card>"),
        ("手机13812345678，或+86 138-1234-5678", "手机<phone>，或<phone>"),
        ("电话：010-62345678，(021)5555 6666，（0755）26001234", "电话：<phone>，<phone>，<phone>"),
        ("Call (415) 555-2671, 415-555-2671 or +44 20 7946 0958.", "Call <phone>, <phone> or <phone>."),
        ("from 114.114.114.114 and 2001:4860:4860::8888", "from <ip> and <ip>"),
        ("QQ：12345678，扣扣 654321，QQ群:87654321一起", "QQ：<qq>，扣扣 <qq>，QQ群:<qq>一起"),
    ],
)
def test_personal_data_becomes_a_typed_placeholder(before: str, after: str) -> None:
    assert replace_personal(before) == after
    assert replace_personal(after) == after


@pytest.mark.parametrize(
    "text",
    [
        "see http://bob@host.org/x?mail=a@b.com&t=13812345678 or www.x.cn/13812345678",
        "git@github.com:foo/bar.git, @someone, a @ b.c, a@-b.com, a@b-.-c.com",
        'send(to="bob@ex.org", 13812345678);',
        "    return '13812345678'  # call me {",
        "110105194912310020, 4111 1111 1111 1112 and 20201231123456789",
        "π = 3.14159265358979323846, 1998-2003, 2021-11-28 12:30:45",
        "192.168.0.1, 10.20.30.40, version 12.14.8.4, v11.22.33.44, section 9.2.1.10, 1.2.3.4.5",
        "fe80::1, a::b, std::vector, 00:1b:44:11:3a:b7",
        "QQ2010, qq, 123 4567, ISBN 978-7-111-12345-6",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert replace_personal(text) == text


CODE = re.compile(
    r"""[;{}]\s*$
    |^\s*(?:\#\s*(?:include|define)|//|/\*|\*|<[!/?A-Za-z]|>>>|\$\s|import\s|from\s\S+\simport|(?:def|class)\s.*:)
    |[=({\[,]\s*["'][^"']*["']\s*[,)}\];]|\)\s*\{|(?:->|=>|==|!=|&&|\|\|)""",
    re.VERBOSE,
)
CODE_PIECES = st.sampled_from(
    [
        *";{}#/*<>$=&|!()[],'\":a ",
        "include",
        "import ",
        "from x import",
        "def f",
        "class ",
        ">>>",
        "\t",
        "\u3000",
        "\x1f",
    ]
)


@given(st.lists(CODE_PIECES, max_size=8))
@settings(deadline=None)
def test_lines_of_code_are_those_of_one_expression(pieces: list[str]) -> None:
    line = "".join(pieces)
    assert is_code(line) == bool(CODE.search(line))


@given(st.integers(0, 16), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_a_wrong_digit_is_no_id_card(place: int, step: int) -> None:
    assert is_id_card(ID_CARD)
    digit = str((int(ID_CARD[place]) + step) % 10)
    assert not is_id_card(ID_CARD[:place] + digit + ID_CARD[place + 1 :])
    assert not is_id_card("110105194913310029")  # no thirteenth month


@given(st.integers(0, 15), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_a_wrong_digit_is_no_bank_card(place: int, step: int) -> None:
    number = "6222021000101236"
    assert [is_bank_card(number[:-1] + digit) for digit in "0123456789"].count(True) == 1
    sound = next(number[:-1] + digit for digit in "0123456789" if is_bank_card(number[:-1] + digit))
    assert not is_bank_card(sound[:place] + str((int(sound[place]) + step) % 10) + sound[place + 1 :])


def test_they_are_counted_by_kind() -> None:
    texts = ["a@b.cn c@d.cn 13812345678", "nothing here", "x@y.org"]
    block = documents.make_block(["1", "2", "3"], texts, ["s"] * 3, [""] * 3, ["{}"] * 3)
    cleaned, counts = clean_block(block, ALL_STEPS)
    assert cleaned.column("text").to_pylist() == ["<email> <email> <phone>", "nothing here", "<email>"]
    assert +counts == Counter({"personal": 2, "personal/email": 3, "personal/phone": 1})
    assert clean_block(block, ["control"])[0].column("text").to_pylist() == texts
