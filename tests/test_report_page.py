"""The page: one file, verdict first, numbers shown, hostile text shown and never run."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_helpers import HOSTILE, MAKERS, make_filter, make_run, make_stage, shard

from glm_data import files
from glm_data.report import collect, render, svg, text
from glm_data.report.render import command_line, filled, verdict
from glm_data.stage import SUCCESS, Check, read_success

VOID = {"meta", "link", "img", "br", "hr", "input"}
SVG_VOID = {"line", "polyline"}
NUMBER = re.compile(r"-?\d+\.?\d*")


class Page(HTMLParser):
    """Tags in balance, every attribute, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in SVG_VOID
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.text += " " + " ".join(data.split())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return collect(make_run(tmp_path_factory.mktemp("report") / "run"))


def shown(report: dict[str, Any]) -> str:
    return re.sub(r"\s+", " ", Page(render(report)).text)


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
    assert text.visible(html) == html


def test_the_page_is_one_file_that_asks_for_nothing(report: dict[str, Any]) -> None:
    html = render(report)
    assert_harmless(html)
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
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
    assert verdict(report) == ("bad", "1 of 3 checks failed.")
    assert shown(report).index("Pile is gone.") < shown(report).index("Fine so far.")


def test_an_unfinished_run_is_neither_good_nor_bad(tmp_path: Path) -> None:
    make_filter(tmp_path, finish=False)
    report = collect(tmp_path)
    assert verdict(report) == ("open", "Not finished: filter. Run the same command again to go on.")
    assert "Not finished; 2 shards done." in shown(report)


@pytest.mark.parametrize(
    "expected",
    [
        "filter 20 13 6 1 1.6 MB",
        "dedupe 13 10 3 0 –",
        "language 3 15.0 %",
        "新闻 10 6 5 50.0 %",
        "zh 2 100 kB 300 3.00",
        "p#5 p#2 0.810 1.000 near",
        "0.8 – 0.9 2",
        "3.30 bytes of text a token",
        "1.0 % byte pieces",
        "4 rows of 2,048 tokens",
        "4.8 % of the tokens are MIP (5.0 % wanted)",
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
    html = render(report)
    funnel = html[html.index('id="documents"') : html.index("<h3>")]
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", funnel)]
    assert widths == [65.0, 30.0, 5.0, 50.0, 15.0, 0.0, 50.0, 0.0, 0.0]


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
    evil = {name: poison(report[name]) for name in ("checks", "sources", "languages", "duplicates", "samples")}
    stages = {HOSTILE: msgspec.structs.asdict(msgspec.convert(report["stages"]["filter"], _Any))}
    stages[HOSTILE]["options"] = {HOSTILE: HOSTILE, "list": [{HOSTILE: 1}]}
    funnel = [
        {**step, "stage": HOSTILE, "dropped": {HOSTILE: 3}, "unreadable": {HOSTILE: 1}} for step in report["funnel"]
    ]
    run = {"folder": f"/x/{HOSTILE}", "stages": {}, "commands": [{"command": ["glm-data", HOSTILE], "folder": HOSTILE}]}
    html = render({**report, **evil, "stages": stages | report["stages"], "funnel": funnel, "run": run})
    assert_harmless(html)
    assert html.count("&lt;script&gt;") >= 20
    assert "⟨U+202E⟩gnp.exe␛[31m⟨U+2066⟩" in html
    assert "alert(1)" in Page(html).text


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
def test_visible_hides_nothing_and_changes_nothing_else(value: str) -> None:
    made = text.visible(value)
    assert text.visible(made) == made
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", made)
    plain = "".join(character for character in value if text.visible(character) == character)
    assert text.visible(plain) == plain
    assert len(made) >= len(value)


@pytest.mark.parametrize(
    "value", ["The quick brown fox.\n\tTab", "“引号”——破折号……全角，空格\u3000。", "👩\u200d🔬 é मराठी"]
)
def test_ordinary_text_is_left_as_it_is(value: str) -> None:
    assert text.visible(value) == value


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
