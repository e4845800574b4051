"""What the default profile keeps and drops of pages that its bounds were not fitted on.

    python -m benchmarks.filter_quality TEXTS...

``TEXTS`` are files whose names say what they are: ``good-<language>-<name>.jsonl`` hold sound pages,
``items-<language>.jsonl`` short news items (``title`` and ``text``), of which eight kinds of bad page are made, fifty
pages of each. Prints a table of kept documents and first reasons.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.filters import columns
from benchmarks.harness import markdown

PAGES = 50
_FRAMES = {
    "en": ("Home | About | Contact | Sign in", "Share this page", "Copyright 2019 All rights reserved"),
    "zh": ("首页 | 关于我们 | 联系我们 | 登录", "分享到微信 微博", "版权所有 未经许可不得转载"),
}
_SHOP = {"en": ("Buy now", "Free shipping", "Add to cart", "$"), "zh": ("立即购买", "包邮", "加入购物车", "￥")}
_TAGS = {"en": "Tags: ", "zh": "标签："}

Item = tuple[str, str]
Make = Callable[[Sequence[Item], str, random.Random], list[str]]


def _headlines(items: Sequence[Item], language: str, random_: random.Random) -> list[str]:
    return [title for title, _ in items]


def _framed(items: Sequence[Item], language: str, random_: random.Random) -> list[str]:
    return [_FRAMES[language][0], *(title for title, _ in items), *_FRAMES[language][1:]]


def _teasers(items: Sequence[Item], language: str, random_: random.Random) -> list[str]:
    return [line for title, text in items for line in (title, text[: len(text) // 2].rstrip(" .。") + "...")]


def _tags(items: Sequence[Item], language: str, random_: random.Random) -> list[str]:
    words = [title.split()[0] if language == "en" else title[:4] for title, _ in items]
    return [_TAGS[language] + " ".join(words[at : at + 8]) for at in range(0, len(words), 8)]


def _dated_links(items: Sequence[Item], language: str, random_: random.Random) -> list[str]:
    return [f"· {title} 2019-{random_.randrange(1, 13):02}-{random_.randrange(1, 29):02}" for title, _ in items]


def _shop(items: Sequence[Item], language: str, random_: random.Random) -> list[str]:
    buy, ship, cart, sign = _SHOP[language]
    return [f"{title} {sign}{random_.randrange(9, 999)} {ship} {random_.choice((buy, cart))}" for title, _ in items]


def _numbers(items: Sequence[Item], language: str, random_: random.Random) -> list[str]:
    return [f"{title[:6]} " + " ".join(f"{random_.random() * 100:.2f}" for _ in range(8)) for title, _ in items]


def _repeated(items: Sequence[Item], language: str, random_: random.Random) -> list[str]:
    return [text for _, text in items[:2]] * 8


KINDS: dict[str, Make] = {
    "headlines": _headlines,
    "headlines in a frame": _framed,
    "teasers": _teasers,
    "tags": _tags,
    "dated links": _dated_links,
    "shop list": _shop,
    "numbers": _numbers,
    "repeated": _repeated,
}


def bad_pages(items: Sequence[Item], language: str, kind: str) -> list[str]:
    """``PAGES`` pages of a kind, of 20 to 40 items each; the same items give the same pages."""
    random_ = random.Random(f"{language} {kind}")
    chosen = (random_.sample(items, random_.randrange(20, 41)) for _ in range(PAGES))
    return ["\n".join(KINDS[kind](some, language, random_)) for some in chosen]


def reasons_of(texts: Sequence[str]) -> Counter[str]:
    """The first reason against each text under the default profile with the default cleaning; empty for kept ones."""
    from glm_data import documents
    from glm_data.filters import FilterOptions, filter_block, load_profile

    found: Counter[str] = Counter()
    for start in range(0, len(texts), 1000):
        part = list(texts[start : start + 1000])
        filtered = filter_block(documents.make_block(*columns(part)), FilterOptions(), load_profile("bilingual"))
        found.update(filtered.reasons)
        found[""] += filtered.kept.num_rows
    return found


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """The table."""
    yield "pages", "kept", "documents", "dropped for"
    for path in paths:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        if path.stem.startswith("good-"):
            yield _row(path.stem, [record["text"] for record in records])
            continue
        language, items = path.stem.split("-")[1], [(record["title"], record["text"]) for record in records]
        for kind in KINDS:
            yield _row(f"bad-{language}: {kind}", bad_pages(items, language, kind))


def _row(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    reasons = reasons_of(texts)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(5) if reason)
    return name, str(reasons[""]), str(len(texts)), why


if __name__ == "__main__":
    print(markdown(list(rows(list(map(Path, sys.argv[1:]))))))
