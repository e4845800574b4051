"""Languages: by script, with pycld2's word on Latin script."""

from __future__ import annotations

import pyarrow as pa
import pytest

from glm_data.filters.language import LANGUAGES, detect
from glm_data.text import statistics

ENGLISH = "It rained all day, and the frogs in the pond of the castle have not been so happy for a good many years. "
GERMAN = "Es regnete den ganzen Tag, und die Frösche im Teich waren so glücklich wie seit vielen Jahren nicht. "
DUTCH = (
    "Het regende de hele dag, en de kikkers in de vijver van het kasteel zijn in jaren niet over iets zo blij geweest. "
)
PORTUGUESE = "Choveu o dia inteiro, e as rãs no lago do castelo não estavam tão felizes a ponto de me cantar há anos. "
CHINESE = "那天下了一整天的雨，城堡池塘里的青蛙好多年没有这么高兴过了。"
TRADITIONAL = "那天下了一整天的雨，城堡池塘裡的青蛙好多年沒有這麼高興過了。"
JAPANESE = "その日は一日中雨が降り、城の池の蛙たちは何年ぶりかの喜びようだった。"
KOREAN = "그날은 하루 종일 비가 와서 성의 연못에 사는 개구리들이 몇 년 만에 무척 기뻐했다."
CODE = "def add(first, second):\n    return first + second\n\nfor value in range(10):\n    print(add(value, 1))\n" * 4


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH * 3, "en"),
        ("Short words.", "en"),
        (CODE, "en"),
        (GERMAN * 3, "other"),
        (DUTCH * 3, "other"),
        (PORTUGUESE * 3, "other"),
        (CHINESE, "zh-Hans"),
        (TRADITIONAL, "zh-Hant"),
        ("床前明月光", "zh-Hans"),
        (CHINESE + "用 Python 和 CUDA 写。", "zh-Hans"),
        (CHINESE + ENGLISH * 2, "mixed"),
        (JAPANESE, "ja"),
        (JAPANESE + CHINESE * 9, "zh-Hans"),
        (KOREAN, "ko"),
        ("Весь день шёл дождь, и лягушки были рады.", "other"),
        ("1234 --- 5678", "other"),
        ("", "other"),
    ],
)
def test_languages(text: str, language: str) -> None:
    texts = pa.array([text])
    assert LANGUAGES[detect(texts, statistics.count(texts))[0]] == language


def test_a_block_is_named_document_by_document() -> None:
    texts = pa.array([CHINESE, GERMAN * 3, ENGLISH, JAPANESE] * 3).slice(2)
    found = [LANGUAGES[index] for index in detect(texts, statistics.count(texts))]
    assert found == ["en", "ja"] + ["zh-Hans", "other", "en", "ja"] * 2
