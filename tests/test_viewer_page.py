"""The viewer's page: its JSON, what it refuses, and the page itself in a browser that harmful text cannot reach."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pyarrow.parquet as pq
import pytest
from viewer_run import SCRIPT, shared_run
from web_servers import browser_page, running

from glm_data.cli.shell import run as command
from glm_data.errors import InputError
from glm_data.inspection import locate_inputs, open_run
from glm_data.viewer.app import PAGE, make_app
from glm_data.viewer.clusters import view_pair
from glm_data.viewer.desk import ClusterDesk, Desk
from glm_data.viewer.opened import open_path

if TYPE_CHECKING:
    from playwright.sync_api import Page

get = partial(httpx.get, timeout=60)
"""Patient, as is ``post``: the first answer of a process may wait for kernels to be compiled."""
post = partial(httpx.post, timeout=60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def address(made: Path) -> Iterator[str]:
    with running(make_app(Desk(open_path(made)))) as found:
        yield found


@pytest.fixture(scope="module")
def mixture(made: Path) -> Iterator[str]:
    opened = open_path(made.parent / "mixture.yaml")
    with running(make_app(Desk(opened, made.parent / "mine.yaml"))) as found:
        yield found


def test_every_view_answers(address: str) -> None:
    about = get(f"{address}/api/about").json()
    assert {item["view"] for item in about["things"]} == {
        "report",
        "rows",
        "clusters",
        "filter",
        "tokenizers",
        "records",
    }
    row = get(f"{address}/api/rows/row", params={"name": "pack", "row": 1}).json()
    assert (row["row"], row["rows"]) == (1, next(item["size"] for item in about["things"] if item["view"] == "rows"))
    (cluster, *_) = get(f"{address}/api/clusters/all", params={"name": "dedupe"}).json()["clusters"]
    asked = {"name": "dedupe", "kept": cluster["kept"], "removed": cluster["removed"][0]["id"]}
    assert get(f"{address}/api/clusters/pair", params=asked).status_code == 200
    rules = get(f"{address}/api/filter/rules", params={"name": "filter"}).json()["rules"]
    asked = {"name": "filter", "rule": rules[0]["rule"]["name"]}
    assert get(f"{address}/api/filter/bars", params=asked).json()["edges"]
    assert get(f"{address}/api/filter/move", params={**asked, "max": "0.5", "samples": 4}).status_code == 200
    tables = get(f"{address}/api/records/tables", params={"name": "filter"}).json()
    page = get(f"{address}/api/records/page", params={"name": "filter", "table": tables[0]["name"]}).json()
    assert len(page) == min(50, tables[0]["rows"])
    report = get(f"{address}/report")
    assert (report.status_code, report.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src" not in report.headers["content-security-policy"]
    assert SCRIPT not in report.text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("rows/row?name=pack&row=100000", 400, "there is no row 100000"),
        ("rows/row?name=pack&row=-1", 400, "there is no row -1"),
        ("rows/row?name=pack&row=one", 400, "cannot be meant"),
        ("rows/row?name=pack", 400, "missing required field `row`"),
        ("rows/row?name=pack&row=1&shell=rm", 400, "unknown field `shell`"),
        ("rows/row?name=../pack&row=1", 400, "has no '../pack'"),
        ("rows/worst?name=pack&by=luck", 400, "not by 'luck'"),
        ("rows/nothing?name=pack", 404, "there is nothing at"),
        ("filter/bars?name=filter&rule=nothing", 400, "no rule 'nothing'"),
        ("records/page?name=filter&table=../../raw/0.jsonl", 400, "has no table"),
        ("clusters/pair?name=dedupe&removed=a&kept=b", 400, "hold no document 'a'"),
        ("mip/save?name=x", 404, "there is nothing at"),
        ("rows/row?name=pack&row=0&epoch=-1", 400, "`int` >= 0"),
        ("records/page?name=filter&table=data%2Fpart-00000.parquet&row=-5", 400, "`int` >= 0"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(address: str, path: str, status: int, said: str) -> None:
    answer = get(f"{address}/api/{path}")
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_inputs_that_have_moved_are_named_and_found_where_they_are_now(made: Path, tmp_path: Path) -> None:
    for name in ("filter", "dedupe"):
        shutil.copytree(made / name, tmp_path / name)
    inputs = tmp_path / "dedupe" / "_run" / "inputs.json"
    inputs.write_text("{}", encoding="utf-8")
    (tmp_path / "filter").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "_SUCCESS.json").rename(tmp_path / "elsewhere" / "gone.json")
    stage = open_path(tmp_path / "dedupe").stages["dedupe"]
    row = pq.read_table(made / "dedupe" / "duplicates.parquet").to_pylist()[0]
    with pytest.raises(InputError, match="say where they are now with --inputs"):
        ClusterDesk(stage, ()).pair(row["removed"], row["kept"])
    found = ClusterDesk(stage, (str(tmp_path / "elsewhere" / "data"),)).pair(row["removed"], row["kept"])
    assert found == view_pair(stage, row["removed"], row["kept"], locate_inputs(open_run(made).only("dedupe")))


def test_strangers_and_broken_requests_are_refused(address: str, mixture: str) -> None:
    assert get(f"{address}/api/about", headers={"host": "evil.example"}).status_code == 403
    assert post(f"{mixture}/api/mip/save", headers={"origin": "http://evil.example"}, content=b"{}").status_code == 403
    for content in (b"{", b"[]", b'{"name": "reviews/train"}', b'{"name": 1, "template": {}}', b"\xff"):
        assert post(f"{mixture}/api/mip/render", content=content).status_code == 400
    assert post(f"{address}/api/rows/row?name=pack&row=1").status_code == 404


def test_a_missing_path_and_a_bad_port_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["view", str(tmp_path / "none")]) == 2
    assert "is nothing to look at; give the folder of a run" in capsys.readouterr().err
    assert command(["view", str(tmp_path), "--port", "99999"]) == 2


def test_files_of_the_page_are_small_and_name_no_other_place() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 300, path
        assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), path
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert sink not in text, path


def test_both_languages_say_everything() -> None:
    lines = (PAGE / "words.js").read_text(encoding="utf-8").split("const WORDS = {")[1].split("\n};")[0].splitlines()
    words = {}
    for line in lines:
        key, _, value = line.strip().partition(": ")
        if value:
            words[key] = json.loads(value.removesuffix(","))
    for key, (english, chinese) in words.items():
        assert english, key
        assert chinese, key
        assert sorted(part[0] for part in english.split("{")[1:]) == sorted(part[0] for part in chinese.split("{")[1:])
    used = "".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.js") if path.name != "words.js")
    for key in used.replace('say("', "\0").split("\0")[1:]:
        assert key.split('"')[0] in words


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """One for all tests; whatever its console calls an error fails them."""
    with browser_page() as found:
        yield found


def at(page: Page, address: str, place: str) -> None:
    page.goto(f"{address}/{place}")
    drawn(page, place)


def drawn(page: Page, place: str) -> None:
    page.wait_for_selector(f'main[data-drawn="{place}"]')


def arrows(page: Page) -> int:
    """Curves that are drawn."""
    return sum(path.get_attribute("d").count("C") for path in page.locator(".arrows path").all())


POINTED = """async ([name, row]) => {
  const { Sheet } = await import("/sheet.js");
  const view = await (await fetch(`/api/rows/row?name=${name}&row=${row}`)).json();
  const sheet = new Sheet(view, false);
  document.getElementById("main").replaceChildren(sheet.node);
  const found = [];
  for (const [place, run] of sheet.runAt.entries()) {
    if (!run || (run.tokens > 1 && run.place !== place)) continue;
    scrollBy(0, sheet.boxesOf(place)[0].top - 300);
    for (const box of sheet.boxesOf(place).filter((box) => box.width > 4)) {
      const [x, y] = [box.left, box.top + box.height / 2];
      const at = [0.25, 0.5, 0.75].map((share) => x + share * box.width);
      found.push([place, at.map((x) => sheet.placeAt(document.elementFromPoint(x, y), x, y))]);
    }
  }
  return found;
}"""
"""Place of each cell of a row, and what the page finds at three points of it."""


@pytest.mark.parametrize("row", [0, 1])
def test_the_pointer_finds_every_token(page: Page, address: str, row: int) -> None:
    at(page, address, "#/rows/pack/0")
    found = page.evaluate(POINTED, ["pack", row])
    assert len(found) > 150
    assert [(place, there) for place, there in found if there != [place] * 3] == []


def test_the_pointer_tells_of_a_token(page: Page, address: str) -> None:
    at(page, address, "#/rows/pack/1")
    view = get(f"{address}/api/rows/row", params={"name": "pack", "row": 1}).json()
    page.locator(".c:not(.line)").nth(1).hover()
    told = dict(zip(*(page.locator(f"#tip {tag}").all_inner_texts() for tag in ("dt", "dd")), strict=True))
    assert told["piece"] == view["names"][str(view["tokens"][int(told["place"])])]
    frame, text = (page.locator(what).bounding_box() for what in (".box >> nth=0", ".c:not(.line) >> nth=1"))
    assert text["x"] - 1 <= frame["x"] <= text["x"] + text["width"]
    page.hover(".c.m >> nth=0")
    assert "hides span" in page.inner_text("#tip")
    assert arrows(page) == 1
    page.mouse.move(5, 5)
    page.locator("#tip").wait_for(state="hidden")
    assert arrows(page) == page.locator(".box").count() == 0


def test_rows_are_walked_by_keys_and_told_in_two_languages(page: Page, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    at(page, address, "#/rows/pack/0")
    page.keyboard.press("j")
    drawn(page, "#/rows/pack/1")
    page.keyboard.press("k")
    drawn(page, "#/rows/pack/0")
    page.keyboard.press("w")
    worst = get(f"{address}/api/rows/worst", params={"name": "pack", "by": "padding"}).json()["rows"]
    drawn(page, f"#/rows/pack/{worst[0]}")
    page.keyboard.press("ArrowRight")
    assert "position" in page.inner_text("#tip")
    page.keyboard.press("n")
    assert arrows(page) == 1
    page.keyboard.press("a")
    assert arrows(page) == page.locator("[data-blank]").count() > 1
    assert "Part A" in page.inner_text("main")
    page.keyboard.press("l")
    page.wait_for_selector("html[lang=zh-Hans]")
    page.wait_for_selector("main >> text=A 部分")
    page.keyboard.press("t")
    page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {urlsplit(address).netloc}


def test_harmful_text_is_shown_and_never_run(page: Page, address: str) -> None:
    rows = get(f"{address}/api/about").json()["things"][1]["size"]
    row = next(
        row for row in range(rows)
        if '"kind":"mip"' in get(f"{address}/api/rows/row", params={"name": "pack", "row": row}).text
    )  # fmt: skip
    table = get(f"{address}/api/records/tables", params={"name": "dedupe"}).json()[0]["name"].replace("/", "%2F")
    places = (
        f"#/rows/pack/{row}",
        "#/clusters/dedupe",
        "#/filter/filter",
        f"#/records/dedupe/{table}",
        "#/tokenizers/tokenizers",
    )
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    for place in places:
        at(page, address, place)
        page.wait_for_load_state("networkidle")
        assert page.locator("main script, main img").count() == 0
        assert page.evaluate("window.harmed") is None
        assert not set("\u202e\u202c\x1b\x07\u2028\u3164") & set(page.inner_text("main"))
        if place.startswith("#/rows"):
            assert SCRIPT in page.inner_text("main").replace("\n", "")
            assert "\\u202e" in page.inner_text("main")
    page.goto(f"{address}/report")
    assert page.evaluate("window.harmed") is None
    assert not dialogs


def test_a_threshold_is_moved_and_the_border_follows(page: Page, address: str) -> None:
    at(page, address, "#/filter/filter")
    before = page.inner_text(".verdict b")
    slider = page.locator(".sliders input[type=range]").first
    with page.expect_response(lambda answer: "samples=16" in answer.url):
        slider.evaluate("node => { node.value = node.min; node.dispatchEvent(new Event('input')) }")
    least = page.inner_text(".verdict b")
    with page.expect_response(lambda answer: "samples=16" in answer.url):
        slider.evaluate("node => { node.value = node.max; node.dispatchEvent(new Event('input')) }")
    assert len({before, least, page.inner_text(".verdict b")}) > 1
    assert page.locator(".samples li").count() > 0


def test_a_template_is_changed_rendered_and_saved(page: Page, mixture: str, made: Path) -> None:
    at(page, mixture, "#/mip/mip")
    assert "Did they like it?" in page.inner_text(".results")
    with page.expect_response("**/api/mip/render"):
        page.fill("textarea", "喜欢吗？{{text}} ||| {{answer_choices[label]}}")
    page.wait_for_selector(".results >> text=喜欢吗？")
    with page.expect_response("**/api/mip/save"):
        page.click("button.primary")
    page.wait_for_selector(".note >> text=mine.yaml")
    assert "喜欢吗？" in (made.parent / "mine.yaml").read_text(encoding="utf-8")
    page.fill("textarea", "{{ text.__class__ }} ||| x")
    page.wait_for_selector(".note.failed")
    assert page.evaluate("window.harmed") is None
