"""The demo's raw shards: the bundled corpus, varied by a seeded script into what real shards are full of.

::

    FOLDER/pile/00.jsonl.zst ... 02          English, one JSON object a line, meta sometimes a JSON string
    FOLDER/pile/03-truncated.jsonl.zst       a transfer that broke off
    FOLDER/wudao/part-0.json ... part-2      Chinese arrays: compact, indented, wrapped in {"RECORDS": [...]}
    FOLDER/wudao/part-3-broken.json          an array that ends in the middle of an object
    FOLDER/_planted.json                     what was planted where: id -> kind and the document it is made from

Every bundled document appears once as it was written (``unique``), ahead of everything made from it. The same seed
gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zstandard

from glm_data import demo_noise, files

PILE_SET_NAMES = {
    "code": "Github",
    "copybook": "Gutenberg (PG-19)",
    "dialogue": "OpenSubtitles",
    "encyclopaedia": "Wikipedia (en)",
    "essay": "HackerNews",
    "forum": "StackExchange",
    "news": "Pile-CC",
    "recipe": "OpenWebText2",
    "story": "BookCorpus2",
}
WUDAO_DATA_TYPES = {
    "code": "科技",
    "copybook": "字帖",
    "dialogue": "对话",
    "encyclopaedia": "百科",
    "essay": "随笔",
    "forum": "论坛",
    "news": "新闻",
    "recipe": "美食",
    "story": "故事",
}
TITLE_MARK = "%%% "
PILE_SHARDS = WUDAO_SHARDS = 3
EXACT_SHARE, NEAR_SHARE, MOJIBAKE_SHARE = 0.4, 1.4, 0.04
"""Variants of each kind per bundled document."""
TRADITIONAL_SHARE, FULL_WIDTH_SHARE = 0.3, 0.15
"""Twins of each kind per Chinese document."""


@dataclass(frozen=True)
class Text:
    """One document before it becomes a record."""

    lang: str
    register: str
    title: str
    body: str
    kind: str = "unique"
    made_from: tuple[str, str, str] | None = None
    """:attr:`key` of the bundled document that a variant stands for."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What names a bundled document: language, register, title."""
        return self.lang, self.register, self.title


@dataclass(frozen=True)
class Planted:
    """What :func:`write_demo_input` put where."""

    summary: dict[str, int]
    """Records by kind."""
    records: dict[str, tuple[str, str]]
    """Document id (``pile/00.jsonl.zst#3``) -> (kind, id of the document it was made from or "")."""


def write_demo_input(folder: Path, seed: int, corpus: Path | None = None) -> dict[str, int]:
    """Write the demo's raw shards below ``folder``; returns the number of records by kind.

    ``corpus`` holds ``{en,zh}/<register>.txt``; the bundled one if not given.
    """
    texts = read_corpus(corpus or _bundled_corpus())
    written: list[tuple[str, Text]] = []
    for lang, write in (("en", _write_pile), ("zh", _write_wudao)):
        own = [text for text in texts if text.lang == lang]
        written += write(folder, own, random.Random(f"{seed}/{lang}"))
    places = {text.key: identity for identity, text in written if text.kind == "unique"}
    records = {identity: (text.kind, places[text.made_from] if text.made_from else "") for identity, text in written}
    summary = dict(sorted(Counter(text.kind for _, text in written).items()))
    files.write_json(folder / "_planted.json", {"seed": seed, "summary": summary, "records": records})
    return summary


def read_planted(folder: Path) -> Planted:
    """Read back what :func:`write_demo_input` planted in ``folder``."""
    value = files.read_json(folder / "_planted.json")
    return Planted(value["summary"], {identity: (kind, of) for identity, (kind, of) in value["records"].items()})


def read_corpus(folder: Path) -> list[Text]:
    """The documents of ``folder/{en,zh}/<register>.txt``; each begins with a line ``%%% title``."""
    texts: list[Text] = []
    for path in sorted(folder.glob("*/*.txt")):
        for part in re.split(rf"^{TITLE_MARK}", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            title, _, body = part.partition("\n")
            texts.append(Text(path.parent.name, path.stem, title.strip(), body.strip()))
    return texts


def _bundled_corpus() -> Path:
    import manifests

    return manifests.path("demo/corpus")


# --- variants ---------------------------------------------------------------------------------------------------------


def _vary(texts: Sequence[Text], rng: random.Random) -> list[Text]:
    """Originals in random order, then everything made from them and the noise, in random order too."""
    originals = list(texts)
    rng.shuffle(originals)
    makers: list[tuple[float, Callable[[Text, random.Random], Text]]] = [
        (EXACT_SHARE, _exact_copy),
        (NEAR_SHARE, _near_duplicate),
        (MOJIBAKE_SHARE, _mojibake),
    ]
    if texts and texts[0].lang == "zh":
        makers += [(TRADITIONAL_SHARE, _traditional), (FULL_WIDTH_SHARE, _full_width)]
    made = [
        make(text, rng) for share, make in makers for text in rng.choices(originals, k=round(share * len(originals)))
    ]
    rest = made + (_noise(texts[0].lang, len(texts), rng) if texts else [])
    rng.shuffle(rest)
    return originals + rest


def _noise(lang: str, documents: int, rng: random.Random) -> list[Text]:
    pages: list[Text] = []
    for kind, make in demo_noise.PAGES.items():
        for number in range(max(1, documents // 12)):
            title = demo_noise.title_of(kind, lang, number)
            pages.append(Text(lang, "news", title, make(lang, rng), kind))
    return pages


def _exact_copy(text: Text, rng: random.Random) -> Text:
    return replace(text, kind="exact_copy", made_from=text.key)


def _near_duplicate(text: Text, rng: random.Random) -> Text:
    name = rng.choice(demo_noise.CHANGES_OF_CODE if text.register == "code" else demo_noise.CHANGES_OF_PROSE)
    body = demo_noise.CHANGES[name](text.body, text.lang, rng)
    if body == text.body:
        name, body = "added_boilerplate", demo_noise.CHANGES["added_boilerplate"](text.body, text.lang, rng)
    return replace(text, body=body, kind=f"near_duplicate/{name}", made_from=text.key)


def _mojibake(text: Text, rng: random.Random) -> Text:
    return replace(text, body=demo_noise.mojibake(text.body, text.lang), kind="mojibake", made_from=text.key)


def _traditional(text: Text, rng: random.Random) -> Text:
    title, body = demo_noise.to_traditional(text.title), demo_noise.to_traditional(text.body)
    return replace(text, title=title, body=body, kind="traditional_twin", made_from=text.key)


def _full_width(text: Text, rng: random.Random) -> Text:
    title, body = demo_noise.to_full_width(text.title), demo_noise.to_full_width(text.body)
    return replace(text, title=title, body=body, kind="full_width_twin", made_from=text.key)


# --- Pile -------------------------------------------------------------------------------------------------------------


def _write_pile(folder: Path, texts: Sequence[Text], rng: random.Random) -> Iterator[tuple[str, Text]]:
    """Write the English shards; yields (document id, text) of every record, unreadable ones included."""
    varied = _vary(texts, rng)
    lines = [(text, _pile_line(text, index)) for index, text in enumerate(varied)]
    shards = _deal(lines, PILE_SHARDS)
    for shard, broken in zip(shards, _deal(_broken_lines(), PILE_SHARDS), strict=True):
        for item in broken:
            shard.insert(rng.randrange(len(shard) // 2, len(shard) + 1), item)
    for number, shard in enumerate(shards):
        name = f"pile/{number:02d}.jsonl.zst"
        data = zstandard.ZstdCompressor(level=9).compress(b"".join(line + b"\n" for _, line in shard))
        files.write_bytes(folder / name, data)
        yield from ((f"{name}#{record}", text) for record, (text, _) in enumerate(shard))
    yield from _write_truncated(folder, [line for line in lines if line[0].kind == "unique"][:4])


def _deal(items: Sequence[Any], hands: int) -> list[list[Any]]:
    """Split ``items`` into ``hands`` consecutive parts of nearly equal length, so that originals stay first."""
    return [list(items[len(items) * hand // hands : len(items) * (hand + 1) // hands]) for hand in range(hands)]


def _pile_line(text: Text, index: int) -> bytes:
    whole = text.body if text.register == "code" else f"{text.title}\n\n{text.body}"
    meta: Any = {"pile_set_name": PILE_SET_NAMES[text.register]}
    if index % 7 == 3:  # some published shards hold the object as a string
        meta = json.dumps(meta)
    return json.dumps({"text": whole, "meta": meta}, ensure_ascii=index % 2 == 0).encode()


def _broken_lines() -> list[tuple[Text, bytes]]:
    lines = {
        "malformed_json": b'{"text": "A line that was cut while it was being wr',
        "invalid_utf8": b'{"text": "The caf\xe9 by the harbour closed at noon.", "meta": {"pile_set_name": "Pile-CC"}}',
        "wrong_type": b'{"text": 42, "meta": {"pile_set_name": "Pile-CC"}}',
        "empty_text": b'{"text": "", "meta": {"pile_set_name": "Pile-CC"}}',
    }
    return [(Text("en", "news", "", "", f"broken/{kind}"), line) for kind, line in lines.items()]


def _write_truncated(folder: Path, lines: Sequence[tuple[Text, bytes]]) -> Iterator[tuple[str, Text]]:
    """Copies of ``lines``, one zstd block each, cut inside the last block: all but the last can be read."""
    name = f"pile/{PILE_SHARDS:02d}-truncated.jsonl.zst"
    compressor = zstandard.ZstdCompressor(level=9).compressobj()
    blocks = [
        compressor.compress(line + b"\n") + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for _, line in lines
    ]
    files.write_bytes(folder / name, b"".join(blocks)[: -max(1, len(blocks[-1]) // 2)] if blocks else b"")
    for record, (text, _) in enumerate(lines):
        kind = "exact_copy" if record < len(lines) - 1 else "broken/truncated_zst"
        yield f"{name}#{record}", replace(text, kind=kind, made_from=text.key)


# --- WuDao ------------------------------------------------------------------------------------------------------------


def _write_wudao(folder: Path, texts: Sequence[Text], rng: random.Random) -> Iterator[tuple[str, Text]]:
    """Write the Chinese shards; yields (document id, text) of every record, unreadable ones included."""
    varied = _vary(texts, rng)
    items = [(text, _wudao_record(text, index)) for index, text in enumerate(varied)]
    shards = _deal(items, WUDAO_SHARDS)
    if items:
        shards[-1] += _broken_items(len(items))
    for number, shard in enumerate(shards):
        name = f"wudao/part-{number}.json"
        files.write_bytes(folder / name, _wudao_file([item for _, item in shard], number))
        yield from ((f"{name}#{record}", text) for record, (text, _) in enumerate(shard))
    yield from _write_broken_array(folder, [item for item in items if item[0].kind == "unique"][:3])


def _wudao_record(text: Text, index: int) -> dict[str, Any]:
    unique = hashlib.md5(f"{text.kind}/{text.title}/{index}".encode(), usedforsecurity=False).hexdigest()
    title_key = hashlib.md5(text.title.encode(), usedforsecurity=False).hexdigest()
    return {
        "id": index,
        "uniqueKey": unique,
        "titleUkey": title_key,
        "dataType": WUDAO_DATA_TYPES[text.register],
        "title": text.title,
        "content": f"{text.title}\n{text.body}" if _repeats_title(text) else text.body,
    }


def _repeats_title(text: Text) -> bool:
    """Whether the content begins with the title once more; the same for a document and everything made from it."""
    return (text.made_from or text.key)[-1].encode()[-1] % 3 == 0


def _broken_items(index: int) -> list[tuple[Text, Any]]:
    def item(kind: str, value: Any) -> tuple[Text, Any]:
        return Text("zh", "news", "", "", f"broken/{kind}"), value

    record = _wudao_record(Text("zh", "news", "坏记录", ""), index)
    return [
        item("wrong_type", {**record, "content": ["一", "二"]}),
        item("wrong_type", "这不是一条记录"),
        item("empty_text", {**record, "title": "", "content": ""}),
    ]


def _wudao_file(items: Sequence[Any], number: int) -> bytes:
    """Number 0 compact, 1 indented, 2 wrapped in ``RECORDS``: all three occur in published files."""
    if number == 1:
        return json.dumps(items, ensure_ascii=False, indent=4).encode()
    if number == 2:
        return json.dumps({"RECORDS": items}, ensure_ascii=False, indent=1).encode()
    return json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode()


def _write_broken_array(folder: Path, items: Sequence[tuple[Text, Any]]) -> Iterator[tuple[str, Text]]:
    name = f"wudao/part-{WUDAO_SHARDS}-broken.json"
    whole = json.dumps([item for _, item in items], ensure_ascii=False).encode()
    last = json.dumps(items[-1][1], ensure_ascii=False).encode() if items else b""
    files.write_bytes(folder / name, whole[: len(whole) - len(last) // 2])
    for record, (text, _) in enumerate(items):
        kind = "exact_copy" if record < len(items) - 1 else "broken/array_ends_early"
        yield f"{name}#{record}", replace(text, kind=kind, made_from=text.key)
