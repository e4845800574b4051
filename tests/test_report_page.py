"""The page: one file, verdict first, numbers shown, hostile text shown and never run."""

import importlib
import inspect
import itertools
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_helpers import HOSTILE, MAKERS, make_filter, make_run, make_stage, shard

from glm_data import files
from glm_data.decontaminate import cut
from glm_data.hidden import spell_hidden
from glm_data.report import charts, collect, render, svg, text
from glm_data.report.chinese import LABELS, NAMES, SENTENCES, translate
from glm_data.report.render import _FACT_LABELS, command_line, filled, last_losses, verdict
from glm_data.stage import SUCCESS, Check, read_success

VOID = {"meta", "link", "img", "br", "hr", "input"}
SVG_VOID = {"line", "polyline", "polygon", "rect", "circle"}
NUMBER = re.compile(r"-?\d+\.?\d*")


class Page(HTMLParser):
    """Tags in balance, every attribute, and the text that is visible in one of the two languages."""

    def __init__(self, html: str, language: str = "en") -> None:
        super().__init__()
        self.hidden = {"en": "zh", "zh": "en"}[language]
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            is_hidden = self.hidden in (dict(attributes).get("class") or "").split()
            self.open.append("hidden" if is_hidden else tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in SVG_VOID
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() in (tag, "hidden")

    def handle_data(self, data: str) -> None:
        if not {"style", "title", "hidden"} & set(self.open):
            self.text += " " + " ".join(data.split())


def test_no_rule_of_the_style_is_written_twice() -> None:
    style = (resources.files("glm_data.report") / "page" / "style.css").read_text(encoding="utf-8")
    rules = re.findall(r"^[^{}@]+\{[^{}]+\}", style, re.MULTILINE)
    assert len(rules) > 80
    assert len(set(rules)) == len(rules)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return collect(make_run(tmp_path_factory.mktemp("report") / "run"))


def shown(report: dict[str, Any], language: str = "en") -> str:
    return re.sub(r"\s+", " ", Page(render(report), language).text)


def words(markup: str) -> str:
    """The English of a label in both languages."""
    return " ".join(Page(markup).text.split())


def assert_harmless(html: str) -> None:
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "img", "link", "iframe", "object", "embed", "form", "base", "audio", "video"})
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "srcset", "xlink:href") for name in attributes), tag
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
        assert "url(" not in (attributes.get("style") or "")
    assert "@import" not in html
    assert "url(" not in html.split("</style>")[0]
    assert spell_hidden(html) == html


def test_the_page_is_one_file_that_asks_for_nothing(report: dict[str, Any]) -> None:
    html = render(report)
    assert_harmless(html)
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in html
    assert "color-scheme: light dark" in html
    assert len(html) < 100_000


def test_links_lead_to_sections_that_are_there(report: dict[str, Any]) -> None:
    tags = Page(render(report)).tags
    sections = {attributes["id"] for tag, attributes in tags if tag == "section"}
    assert {str(attributes["href"])[1:] for tag, attributes in tags if tag == "a"} <= sections
    assert {
        "verdict",
        "documents",
        "filtering",
        "duplicates",
        "tokens",
        "mip",
        "pack",
        "training",
        "samples",
        "cost",
        "settings",
    } == sections


def test_the_verdict_comes_first(report: dict[str, Any]) -> None:
    sections = [attributes for tag, attributes in Page(render(report)).tags if tag == "section"]
    assert sections[0] == {"class": "verdict good", "id": "verdict"}
    assert shown(report).index("All 6 checks hold.") < shown(report).index("No source lost much.")


def test_failed_checks_stand_before_the_others(tmp_path: Path) -> None:
    checks = [Check(name="a", ok=True, sentence="Fine so far."), Check(name="b", ok=False, sentence="Pile is gone.")]
    make_filter(tmp_path, checks=checks)
    report = collect(tmp_path)
    word, sentence = verdict(report)
    assert (word, words(sentence)) == ("bad", "1 of 3 checks failed.")
    assert shown(report).index("Pile is gone.") < shown(report).index("Fine so far.")


def test_an_unfinished_run_is_neither_good_nor_bad(tmp_path: Path) -> None:
    make_filter(tmp_path, finish=False)
    report = collect(tmp_path)
    word, sentence = verdict(report)
    assert (word, words(sentence)) == ("open", "Not finished: filter . Run the same command again to go on.")
    assert "Not finished; shards done: 2 ." in shown(report)


@pytest.mark.parametrize(
    "expected",
    [
        "filter 20 13 6 1 2.5 MB 1.6 MB –",
        "dedupe 13 10 3 0 – – –",
        "tokenize 10 10 0 0 – 1.32 kB 400",
        "Pile 9 7 5 55.6 % 200 400 2.00 40.0 % 41.0 %",
        "source Pile 41.0 % 40.0 %",
        "language 3 15.0 %",
        "新闻 10 6 5 50.0 %",
        "zh 2 100 kB 300 3.00",
        "0.810 1.000 near − p#5 + p#2",
        "3 p#1 0.830",
        "0.8 – 0.9 2",
        "3.30 bytes of text a token",
        "1.0 % byte pieces",
        "4 rows of 2,048 tokens",
        "MIP of the packed tokens 5.0 % 4.8 %",
        "[gMASK] text 6,000 73.2 %",
        "20 samples",
        "nli 12 60.0 % qa 8 40.0 %",
        "nli/plain/kept 12",
        "1.70 M parameters",
        "6.50 unigram entropy",
        "The 快 fox",
        "spans.mean 3",
        "kinds mask, gmask",
        "mip_ratio none",
    ],
)
def test_the_numbers_are_shown(report: dict[str, Any], expected: str) -> None:
    assert expected in shown(report)


def test_widths_of_the_funnel_are_shares_of_the_start(report: dict[str, Any]) -> None:
    picture = str(charts.funnel(report["funnel"]))
    widths = [float(width) for width in re.findall(r'<rect class="kept"[^>]* width="([\d.]+)"', picture)]
    assert [width / widths[0] for width in widths] == [1, 0.65, 0.5, 0.5]
    assert "13 · 65.0" in picture
    assert "· 1.6" in picture


def test_bars_and_dots_stand_at_the_height_of_their_numbers() -> None:
    picture = str(charts.span_lengths([30, 60, 10, 0, 0], [20.0, 55.0, 12.0, 0.6, 0.1]))
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', picture)]
    assert [height / heights[1] for height in heights] == pytest.approx([1 / 2, 1, 1 / 6, 0], abs=1e-3)
    floor = 210 - 28
    dots = [floor - float(y) for y in re.findall(r'cy="([\d.]+)"', picture)]
    assert [dot / heights[1] for dot in dots] == pytest.approx([20 / 60, 55 / 60, 12 / 60, 0.01], abs=2e-3)


# --- two languages ----------------------------------------------------------------------------------------------------


def labels() -> set[str]:
    """The texts that the templates and the code around them hand to ``t`` and ``both``."""
    pages = resources.files("glm_data.report") / "page"
    text = "".join(page.read_text(encoding="utf-8") for page in pages.iterdir())
    found = set(re.findall(r'\bt\("([^"]+)"', text))
    found |= {word for pair in re.findall(r'\bt\("(\w+)" if [\w.]+ else "(\w+)"\)', text) for word in pair}
    source = inspect.getsource(importlib.import_module("glm_data.report.render"))
    return found | set(re.findall(r'both\("([^"]+)"', source))


def test_every_label_has_its_chinese() -> None:
    missing = labels() - LABELS.keys() - NAMES.keys()
    assert len(labels()) > 100
    assert not missing


def test_no_chinese_is_left_over() -> None:
    known = labels() | set(_FACT_LABELS.values())
    code = "".join(
        inspect.getsource(importlib.import_module(f"glm_data.report.{name}"))
        for name in ("render", "charts", "svg", "origin")
    )
    pages = "".join(page.read_text("utf-8") for page in (resources.files("glm_data.report") / "page").iterdir())
    unused = {label for label in LABELS.keys() - known if f'"{label}"' not in code + pages}
    facts = {
        "bands",
        "buckets",
        "edges",
        "shingles",
        "crowded",
        "giant buckets",
        "source {name}",
        "language {name}",
        "unigram",
    }
    assert unused <= facts


@pytest.mark.parametrize("table", [LABELS, SENTENCES])
def test_both_languages_fill_in_the_same_things(table: dict[str, str]) -> None:
    for english, chinese in table.items():
        fields = sorted(name for _, name, _, _ in Formatter().parse(english) if name)
        assert sorted(name for _, name, _, _ in Formatter().parse(chinese) if name) == fields, english
        assert re.search("[\u4e00-\u9fff]", chinese) or chinese == english, english


def test_the_chinese_page_says_the_same_numbers_in_chinese(report: dict[str, Any]) -> None:
    page = shown(report, "zh")
    assert "项检查全部成立" in page
    assert "过滤：读入 20 条 = 保留 13 + 丢弃 6 + 无法读取 1。" in page
    assert "过滤 20 13 6 1 2.5 MB 1.6 MB –" in page
    assert not re.search("Packed rows|Dropped|wanted", page)
    assert sorted(re.findall(r"\d[\d,.]*", page)) == sorted(re.findall(r"\d[\d,.]*", shown(report)))


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("'Pile-CC' lost most, 36.6% of its 205 documents; the limit is 98.0%.",
         "“Pile-CC”损失最多，205 篇文档中的 36.6%；上限 98.0%。"),
        ("MIP is 0.0500 of the packed tokens, 0.0500 wanted.", "MIP 占打包词元的 0.0500，目标 0.0500。"),
        ("931 documents kept by dedupe, all read by tokenize.", "去重保留的 931 篇文档，分词全部读到。"),
        ("source '{x}{0}' loses 1% of its documents (limit 2%).", "来源“{x}{0}”失去 1% 的文档（上限 2%）。"),
        ("Nobody has said this before.", None),
    ],
)  # fmt: skip
def test_sentences_of_checks_are_translated(english: str, chinese: str | None) -> None:
    assert translate(english) == chinese


@settings(deadline=None, max_examples=12)
@given(st.sets(st.sampled_from(["filter", "tokenizer", "mip", "pack", "train"]), min_size=1))
def test_any_part_of_a_run_has_a_page(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    run = tmp_path_factory.mktemp("part")
    for name in names:
        MAKERS[name](run)
    assert_harmless(render(collect(run)))


def test_stages_without_counts_and_facts_have_a_page(tmp_path: Path) -> None:
    for name in ("filter", "tokenizer", "mip", "train", "quantize", "aardvark"):
        make_stage(tmp_path, name, records=[shard(0, 0, {}, {})])
    assert_harmless(render(collect(tmp_path)))


POISONED = ("checks", "languages", "filtering", "duplicates", "samples", "tokenizer", "unfinished")
ROWS = {
    "rows": 1, "lengths": [1, 2], "expected": [1.0, 2.0], "suffixes": [0] * 10,
    "fit": {"spans": 3, "mean": 1.0, "expected_mean": 1.0, "chi_square": 1.0, "degrees": 1, "p_value": 0.5},
    "examples": [{"kind": "mask", "places": 9, "part_a": ["a", 1], "part_b": [{"text": "b", "position": 1}]}],
}  # fmt: skip


def poison(value: Any) -> Any:
    """``value`` with hostile text in front of every string and key that a corpus can decide."""
    if isinstance(value, str):
        return HOSTILE + value
    if isinstance(value, list):
        return [poison(item) for item in value]
    if isinstance(value, dict):
        return {name: poison(item) for name, item in value.items()}
    return value


def test_hostile_text_is_shown_and_never_run(report: dict[str, Any]) -> None:
    evil = {name: poison(report[name]) for name in POISONED}
    evil["rows"] = {**poison(ROWS), "examples": [{**poison(ROWS["examples"][0]), "kind": "mask"}]}
    stages = {HOSTILE: msgspec.structs.asdict(msgspec.convert(report["stages"]["filter"], _Any))}
    stages[HOSTILE]["options"] = {HOSTILE: HOSTILE, "list": [{HOSTILE: 1}]}
    funnel = [
        {**step, "stage": HOSTILE, "dropped": {HOSTILE: 3}, "unreadable": {HOSTILE: 1}} for step in report["funnel"]
    ]
    lines = [{"option": HOSTILE, "value": HOSTILE, "origin": HOSTILE}]
    run = {"folder": f"/x/{HOSTILE}", "stages": {}, "origins": {HOSTILE: lines}, "commands": [COMMAND]}
    html = render({**report, **evil, "stages": stages | report["stages"], "funnel": funnel, "run": run})
    assert_harmless(html)
    assert html.count("&lt;script&gt;") >= 20
    assert "\\u202egnp.exe\\u001b[31m\\u2066" in html
    assert "alert(1)" in Page(html).text


COMMAND = {"command": ["glm-data", HOSTILE], "folder": HOSTILE}


class _Any(msgspec.Struct):
    stage: str
    version: str
    key: str
    digest: str
    shards: int
    records: int
    kept: int
    dropped: dict[str, int]
    unreadable: dict[str, int]
    counts: dict[str, int]
    facts: dict[str, Any]
    options: dict[str, Any]
    inputs: dict[str, int]
    outputs: dict[str, int]


def test_hostile_manifests_reach_the_page_escaped(tmp_path: Path) -> None:
    folder = make_filter(tmp_path, options={"path": HOSTILE})
    success = read_success(folder)
    changed = msgspec.structs.replace(
        success,
        counts={**success.counts, f"in/{HOSTILE}": 1, f"kept/{HOSTILE}": 0},
        dropped={HOSTILE: 6},
        checks=(Check(name="x", ok=True, sentence=HOSTILE),),
    )
    files.write_json(folder / SUCCESS, changed)
    files.write_json(tmp_path / "infill.json", [{"prompt": HOSTILE + "[MASK]", "filled": [HOSTILE]}, 7, {}])
    assert_harmless(render(collect(tmp_path)))


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_spelling_hides_nothing_and_changes_nothing_else(value: str) -> None:
    made = spell_hidden(value)
    assert spell_hidden(made) == made
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", made)
    plain = "".join(character for character in value if spell_hidden(character) == character)
    assert spell_hidden(plain) == plain
    assert len(made) >= len(value)


@pytest.mark.parametrize(
    "value", ["The quick brown fox.\n\tTab", "“引号”——破折号……全角，空格\u3000。", "👩\u200d🔬 é मराठी"]
)
def test_ordinary_text_is_left_as_it_is(value: str) -> None:
    assert spell_hidden(value) == value


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (text.number, (1234567,), "1,234,567"),
        (text.number, (0.123456,), "0.1235"),
        (text.number, ("x",), "x"),
        (text.size, (None,), "–"),
        (text.size, (999,), "999 B"),
        (text.size, (1000,), "1 kB"),
        (text.size, (999_499,), "999 kB"),
        (text.size, (999_900,), "1 MB"),
        (text.size, (12_345_678_901_234,), "12.3 TB"),
        (text.percent, (1, 8), "12.5 %"),
        (text.percent, (1, 10_000), "<0.1 %"),
        (text.percent, (0, 10), "0.0 %"),
        (text.percent, (9_999, 10_000), ">99.9 %"),
        (text.percent, (10_000, 10_000), "100.0 %"),
        (text.percent, (0, 0), "–"),
        (text.duration, (0.04,), "0.0 s"),
        (text.duration, (99.94,), "99.9 s"),
        (text.duration, (125.4,), "2 min 05 s"),
        (text.duration, (3 * 3600 + 119,), "3 h 01 min"),
    ],
)
def test_numbers_as_people_read_them(function: Any, arguments: tuple[Any, ...], expected: str) -> None:
    assert function(*arguments).replace(text.SPACE, " ") == expected


def test_nested_options_become_lines() -> None:
    options = {"a": 1, "b": {"c": None, "d": {}}, "e": [], "f": ["x", True], "g": [{"h": 1.5}, {"h": 2}]}
    assert text.flatten(options) == [
        ("a", "1"), ("b.c", "none"), ("b.d", "{}"), ("e", "none"), ("f", "x, yes"), ("g[0].h", "1.5"), ("g[1].h", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ({"prompt": "a [MASK] b", "filled": ["x"]}, [("a ", False), ("x", True), (" b", False)]),
        ({"prompt": "[MASK][MASK]!", "filled": ["x", "y"]}, [("x", True), ("y", True), ("!", False)]),
        ({"prompt": "从前[gMASK]", "filled": ["有山"]}, [("从前", False), ("有山", True)]),
        ({"prompt": "Once", "filled": [" upon"]}, [("Once", False), (" upon", True)]),
        ({"prompt": "a [MASK] b", "filled": []}, [("a [MASK] b", False)]),
        ({"prompt": "a [MASK]", "filled": ["[MASK]", "more"]}, [("a ", False), ("[MASK]", True), ("more", True)]),
        ({}, []),
    ],
)
def test_samples_show_what_the_model_wrote(sample: dict[str, Any], expected: list[tuple[str, bool]]) -> None:
    assert filled(sample) == expected


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"command": ["/venv/bin/glm-data", "run", "my recipe.yaml"], "folder": "/a b"},
         "cd '/a b'\nglm-data run 'my recipe.yaml'"),
        ({"command": ["pipelines/filter.py", "x"], "folder": None}, "python pipelines/filter.py x"),
        ({"command": ["-c"], "folder": None}, "python -c ..."),
    ],
)  # fmt: skip
def test_commands_can_be_pasted(item: dict[str, Any], expected: str) -> None:
    assert command_line(item) == expected


@settings(deadline=None)
@given(st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_reach_the_top(high: float) -> None:
    ticks = svg.nice_ticks(0.0, high)
    step = ticks[1] - ticks[0]
    assert ticks[0] == 0
    assert ticks[-1] >= high * (1 - 1e-9) > ticks[-2] - step * 1e-6
    assert 2 <= len(ticks) <= 7
    assert f"{step:.0e}"[0] in "125"


@settings(deadline=None)
@given(st.lists(st.floats(20, 260), min_size=1, max_size=5))
def test_labels_do_not_cover_each_other(places: list[float]) -> None:
    spread = [place for place, _, _ in svg.spread([(place, "css", "text") for place in places])]
    assert all(after - before >= 15 - 1e-6 for before, after in itertools.pairwise(spread))
    assert max(spread) <= svg.HEIGHT


def test_the_curve_lies_within_the_picture_and_falls_as_the_loss_does(report: dict[str, Any]) -> None:
    picture = str(svg.loss_curve(report["training"]["curves"], 6.5))
    lines = re.findall(r'<polyline class="curve ([\w-]+)" points="([^"]+)"', picture)
    assert {name for name, _ in lines} == {"c-all", "c-mask"}
    for _, points in lines:
        pairs = [tuple(map(float, point.split(","))) for point in points.split()]
        assert len(pairs) == 3
        assert all(0 <= x <= svg.WIDTH and 0 <= y <= svg.HEIGHT for x, y in pairs)
        assert pairs == sorted(pairs, key=lambda pair: pair[1])  # y grows downwards
    entropy = re.search(r'class="entropy" x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)"', picture)
    assert entropy
    assert entropy.group(1) == entropy.group(2)
    assert "unigram 6.50" in picture
    assert svg.loss_curve({}, None) == ""
    assert svg.loss_curve({"loss": [[0, 0.0]]}, None)


def test_what_decontamination_drops_for_is_said_in_chinese() -> None:
    assert {cut.CONTAMINATED, cut.NOTHING_LEFT, cut.TOO_MANY_CUTS} <= NAMES.keys()


def test_losses_by_language_and_source_stand_in_a_table_and_not_in_the_picture() -> None:
    curves = {"loss": [[1, 5.0]], "loss/lang/en": [[1, 6.0], [2, 4.0]], "loss/lang/zh-Hans": [[2, 4.5]]}
    assert len(re.findall("<polyline", str(svg.loss_curve(curves, None)))) == 1
    assert last_losses(curves, "loss/lang/") == [("zh-Hans", 4.5), ("en", 4.0)]
    assert last_losses(curves, "loss/source/") == []


def test_a_share_that_nothing_was_wanted_of_has_no_column(report: dict[str, Any]) -> None:
    assert "Share Wanted" in shown(report)
    packs = [row["packed"] and {"epochs": row["packed"]["epochs"]} for row in report["sources"]]
    sources = [row | {"packed": pack} for row, pack in zip(report["sources"], packs, strict=True)]
    assert "Share Wanted" not in shown(report | {"sources": sources, "languages": []})
