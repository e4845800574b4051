"""What spoils real shards, made to order: changed copies, other scripts, mojibake, boilerplate and spam pages."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable
from typing import Any

Change = Callable[[str, str, random.Random], str]
"""``change(body, lang, rng)``: a text that a reader would call the same document."""

_SENTENCE = {
    "en": re.compile(r"[^.!?\n]+[.!?]+[\"')]*[ \n]*|[^.!?\n]+\n*|[.!?\n]+"),
    "zh": re.compile(r"[^。！？\n]+[。！？]*[”’」]*\n*|[^。！？\n]+\n*|[。！？\n]+"),
}
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}

_HEADERS = {
    "en": "Home | News | About us | Contact\n\n",
    "zh": "首页 > 频道 > 正文\n",
}
_FOOTERS = {
    "en": "\n\nShare this page. All rights reserved.",
    "zh": "\n分享到朋友圈 版权所有",
}
_CODE_HEADERS = {
    "en": (
        "# Licensed under the same terms as the rest of this collection.",
        "# Copied from the shared folder, unchanged.",
    ),
    "zh": ("# 与本集合其余部分使用同样的许可。", "# 从共享文件夹复制，未作修改。"),
}


def sentences(text: str, lang: str) -> list[str]:
    """Split ``text`` so that joining the parts gives it back."""
    return _SENTENCE[lang].findall(text)


def _drop_sentence(body: str, lang: str, rng: random.Random) -> str:
    """Leave out one of the shorter sentences."""
    parts = sentences(body, lang)
    if len(parts) < 4:
        return body
    short = sorted(range(1, len(parts)), key=lambda place: len(parts[place]))[: max(1, len(parts) // 3)]
    gone = rng.choice(short)
    return "".join(part for place, part in enumerate(parts) if place != gone).strip()


def _move_sentence(body: str, lang: str, rng: random.Random) -> str:
    """Swap two neighbours."""
    parts = sentences(body, lang)
    if len(parts) < 4:
        return body
    place = rng.randrange(1, len(parts) - 1)
    parts[place], parts[place + 1] = parts[place + 1], parts[place]
    return "".join(parts).strip()


def _change_numbers(body: str, lang: str, rng: random.Random) -> str:
    """Add a little to at most three numbers."""
    return re.sub(r"\d+", lambda match: str(int(match.group()) + rng.randrange(1, 4)), body, count=3)


def _add_boilerplate(body: str, lang: str, rng: random.Random) -> str:
    return (_HEADERS[lang] if rng.random() < 0.5 else "") + body + _FOOTERS[lang]


def _change_spacing(body: str, lang: str, rng: random.Random) -> str:
    """Other line ends and doubled spaces; English also in lower case, as some crawls have it."""
    spaced = body.replace("\n", " \n")
    return spaced.replace(". ", ".  ").lower() if lang == "en" else spaced.replace("，", "， ")


def _add_code_header(body: str, lang: str, rng: random.Random) -> str:
    return rng.choice(_CODE_HEADERS[lang]) + "\n\n" + body


CHANGES: dict[str, Change] = {
    "dropped_sentence": _drop_sentence,
    "moved_sentence": _move_sentence,
    "changed_numbers": _change_numbers,
    "added_boilerplate": _add_boilerplate,
    "changed_spacing": _change_spacing,
    "added_header": _add_code_header,
}
CHANGES_OF_PROSE = ("dropped_sentence", "moved_sentence", "changed_numbers", "added_boilerplate", "changed_spacing")
CHANGES_OF_CODE = ("changed_numbers", "added_header")


def to_full_width(text: str) -> str:
    """ASCII letters, digits, signs and spaces as their full-width twins; NFKC maps them back."""
    return text.translate(_FULL_WIDTH)


def to_traditional(text: str) -> str:
    """Simplified to traditional characters (OpenCC ``s2t``)."""
    converted: str = _converter().convert(text)
    return converted


@functools.cache
def _converter() -> Any:
    import opencc

    return opencc.OpenCC("s2t")


def mojibake(text: str, lang: str) -> str:
    """UTF-8 read as Windows-1252 (English, after typographic quotes: can be repaired) or as GBK (Chinese: cannot)."""
    if lang == "en":
        curly = re.sub(r'"([^"\n]*)"', "“\\1”", text).replace("'", "’")
        return "".join(map(_as_windows_1252, curly.encode()))
    return text.encode().decode("gbk", errors="replace")


def _as_windows_1252(byte: int) -> str:
    """A byte as browsers read it: the five that Windows-1252 leaves open stand for themselves."""
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


# --- pages that a filter should drop ----------------------------------------------------------------------------------

_MENUS = {
    "en": "Home|Shop|Sale|New in|My account|Basket ({0})|Sign in|Register|Help|Delivery|Returns|Sitemap",
    "zh": "首页|新闻|图片|视频|论坛|登录|注册|我的订单|购物车({0})|客服|帮助|网站地图",
}
_NOTICES = {
    "en": "We use cookies to make this page work. By staying here you agree to our terms. All rights reserved.",
    "zh": "本站使用小型文本文件以保证页面正常显示，继续浏览即表示同意。版权所有，未经许可不得转载。",
}
_OFFERS = {
    "en": ("BUY NOW", "best price", "click here", "limited offer", "free shipping", "order today", "save 70%"),
    "zh": ("点击领取", "限时优惠", "加微信", "免费送", "低价包邮", "立即购买", "全网最低", "代开发票"),
}
_TITLES = {"boilerplate_page": ("Page", "页面"), "spam": ("Great offer", "优惠信息"), "garbage": ("untitled", "无标题")}


def _boilerplate_page(lang: str, rng: random.Random) -> str:
    """A page of nothing but the site's menu, above and below its notice; only a number differs from the next one."""
    menu = "\n".join(f"| {entry} |" for entry in _MENUS[lang].format(rng.randrange(10)).split("|"))
    return f"{menu}\n\n{_NOTICES[lang]}\n\n{menu}"


def _spam(lang: str, rng: random.Random) -> str:
    offers = rng.sample(_OFFERS[lang], 3)
    mark = "!!! " if lang == "en" else "！！！"
    return "".join(rng.choice(offers) + mark for _ in range(rng.randrange(60, 120)))


def _garbage(lang: str, rng: random.Random) -> str:
    """Tables of figures and signs without words, as broken extraction leaves them."""
    signs = "0123456789|/\\#*=-+_.:;%&<>"
    lines = ("".join(rng.choice(signs) for _ in range(rng.randrange(20, 60))) for _ in range(rng.randrange(6, 14)))
    return "\n".join(lines)


PAGES: dict[str, Callable[[str, random.Random], str]] = {
    "boilerplate_page": _boilerplate_page,
    "spam": _spam,
    "garbage": _garbage,
}


def title_of(kind: str, lang: str, number: int) -> str:
    """A page's title."""
    english, chinese = _TITLES[kind]
    return f"{english} {number + 1}" if lang == "en" else f"{chinese}{number + 1}"
