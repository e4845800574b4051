"""The default profile: ordinary text of both languages stays, short forms and code too; obvious garbage goes."""

from __future__ import annotations

import base64
import random

import pytest

from glm_data import documents
from glm_data.filters import FilterOptions, filter_block, load_profile

NOISE = random.Random(0)
HEADLINES = "\n".join(
    f"{NOISE.choice(['最新', '热门', '独家'])}资讯第{number}期点击查看更多内容" for number in range(30)
)

KEPT = {
    "saying": "The early bird catches the worm, but the second mouse gets the cheese.",
    "couplet": "床前明月光，疑是地上霜。",
    "poem": "靜夜思\n牀前明月光，\n疑是地上霜。\n舉頭望明月，\n低頭思故鄉。",
    "code": "def add(first, second):\n    '''Add two numbers.'''\n    return first + second\n",
    "code in Chinese": "# 计算平均分\nscores = [90, 85, 77]\ntotal = sum(scores)\nprint('平均分', total / 3)\n",
    "table": "Planet | Moons\n-------|------\nEarth | one moon\nMars | two moons\nVenus | none at all\n",
    "title": "A title underlined\n==================\n\nAnd one short line of text below it.",
    "recipe": "红烧豆腐\n- 豆腐一块\n- 酱油两勺\n- 葱姜少许\n先把豆腐切块，再用小火煎黄，最后加酱油焖五分钟。",
    "mixed": "在 Linux 上用 Python 写脚本很方便。Run it with python main.py and look at the log files it leaves.",
    "dialogue": "“你好吗？”\n“很好！你呢？”\n“还行。”\n“那就好……”",
}
DROPPED = {
    "empty": ("", "language"),
    "tiny": ("好。", "short"),
    "digits": ("line " + " ".join(str(NOISE.random()) for _ in range(50)), "few_letters"),
    "base64": (base64.encodebytes(NOISE.randbytes(3000)).decode(), "no_spaces"),
    "long words": (" ".join(["counterdemonstrations"] * 8), "long_words"),
    "replacement": ("这是\ufffd\ufffd\ufffd乱码的一段文字\ufffd\ufffd，读不出\ufffd来。", "garbled"),
    "again and again": ("今天天气真好我们去公园玩吧，" * 60, "repeated_text"),
    "same lines": ("Click here to read more about it.\n" * 40, "repeated_lines"),
    "headlines": (HEADLINES, "no_sentences"),
    "drawing": ("  /\\_/\\  \n ( o.o ) \n  > ^ <  \n |/ \\| y", "few_letters"),
    "cut off": ("\n".join(f"The story of number {n} goes on and on..." for n in range(9)), "ellipses"),
    "Spanish": ("La lluvia cayó todo el día y las ranas del estanque estaban muy contentas. " * 4, "language"),
}


def reason_of(text: str) -> str:
    block = documents.make_block(["1"], [text], ["s"], [""], ["{}"])
    return next(iter(filter_block(block, FilterOptions(), load_profile("bilingual")).reasons), "")


@pytest.mark.parametrize("name", KEPT)
def test_ordinary_text_is_kept(name: str) -> None:
    assert reason_of(KEPT[name]) == ""


@pytest.mark.parametrize("name", DROPPED)
def test_garbage_is_dropped_for_its_reason(name: str) -> None:
    text, reason = DROPPED[name]
    assert reason_of(text) == reason
