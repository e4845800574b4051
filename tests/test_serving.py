"""The server: what it answers, side by side as alone, what it refuses, and how it stops; and its page in a browser."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
import torch
from small_model import write_small_model
from web_servers import browser_page, running

from glm_data import web
from glm_data.cli import shell
from glm_data.generation.glm import Glm
from glm_data.generation.options import GenerationOptions
from glm_data.generation.scoring import Query, losses
from glm_data.generation.texts import continuation
from glm_data.generation.write import Task
from glm_data.serving.answers import Answer, events
from glm_data.serving.app import make_app
from glm_data.serving.engine import Engine, Event, Limits
from glm_data.web import RequestError

if TYPE_CHECKING:
    from playwright.sync_api import Page

LIMITS = Limits(waiting=12, together=3, batches=2, max_tokens=40)
OPTIONS = GenerationOptions(max_length=8)
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def glm(folder: Path) -> Glm:
    return Glm.load(folder)


@pytest.fixture(scope="module")
def engine(glm: Glm) -> Iterator[Engine]:
    with Engine(glm, LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def address(engine: Engine) -> Iterator[str]:
    with running(make_app(engine, "small")) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as found:
        yield found


def ask(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def parts_of(client: httpx.Client, path: str, **body: Any) -> list[str]:
    with client.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = list(answer.iter_lines())
    assert all(line == "" or line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines if line]


def written(glm: Glm, text: str, **changes: Any) -> str:
    """What completions should be: no n-gram rule, and an answer may be empty."""
    options = msgspec.structs.replace(OPTIONS, min_length=0, no_repeat_ngram=0, **changes)
    return glm.generate(text, options)


def test_a_completion_is_what_the_model_writes(client: httpx.Client, glm: Glm) -> None:
    found = ask(client, model="small", prompt="the fox", **GREEDY)
    (choice,) = found["choices"]
    expected = written(glm, "the fox")
    assert (choice["text"], choice["index"], choice["logprobs"]) == (expected, 0, None)
    assert choice["finish_reason"] in ("stop", "length")
    context = len(glm.tokenizer.encode("the fox")) + 1
    assert found["usage"]["prompt_tokens"] == context
    assert found["usage"]["total_tokens"] == context + found["usage"]["completion_tokens"]
    assert (found["object"], found["model"]) == ("text_completion", "small")


def test_prompts_and_draws_come_in_order_and_a_seed_repeats_them(client: httpx.Client, glm: Glm) -> None:
    body = {"prompt": ["the fox", "床前明月光，"], "n": 2, "temperature": 1.5, "max_tokens": 8}
    first = ask(client, **body)
    again = ask(client, **body, seed=first["seed"])
    texts = [choice["text"] for choice in first["choices"]]
    assert texts == [choice["text"] for choice in again["choices"]]
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2, 3]
    seed = first["seed"]
    assert texts == [
        written(glm, prompt, temperature=1.5, seed=seed + draw)
        for prompt in ("the fox", "床前明月光，")
        for draw in (0, 1)
    ]
    assert ask(client, **body)["seed"] != seed


def test_a_suffix_has_the_middle_filled_in(client: httpx.Client, glm: Glm) -> None:
    (choice,) = ask(client, prompt="the fox ", suffix=" the", **GREEDY)["choices"]
    options = msgspec.structs.replace(OPTIONS, min_length=0, no_repeat_ngram=0)
    assert choice["text"].strip() == glm.infill("the fox [MASK] the", options).answers[0]


def test_streamed_parts_add_up_to_the_whole(client: httpx.Client) -> None:
    body = {"prompt": ["床前明月光", "the fox"], "temperature": 2.0, "seed": 4, "max_tokens": 30, "logprobs": 2}
    whole = ask(client, **body)
    *parts, last = parts_of(client, "/v1/completions", **body)
    assert last == "[DONE]"
    decoded = [json.loads(part)["choices"][0] for part in parts]
    for choice in whole["choices"]:
        own = [part for part in decoded if part["index"] == choice["index"]]
        assert len(own) > 5
        assert "".join(part["text"] for part in own) == choice["text"]
        assert [part["finish_reason"] for part in own] == [None] * (len(own) - 1) + [choice["finish_reason"]]
        for name, values in choice["logprobs"].items():
            assert [value for part in own for value in part["logprobs"][name]] == values


def test_logprobs_are_the_models_own_whatever_the_temperature(client: httpx.Client, glm: Glm, engine: Engine) -> None:
    job = glm.job(task_of(glm), GenerationOptions(temperature=3.0, top_k=50, seed=1, max_length=12, no_repeat_ngram=2))
    heard: list[Any] = []
    engine.submit([job], heard.append, 3)
    until(lambda: heard and heard[-1].ended)
    ids = [event.token for event in heard if event.token is not None]
    for end in range(1, len(ids) + 1):
        ((nats,),) = losses(glm.model, [Query(job.task.context, job.task.blanks[0], True, (ids[:end],))])
        assert sum(event.logprob for event in heard[:end]) == pytest.approx(-nats, abs=1e-3)
    body = {"prompt": "the fox", "temperature": 3.0, "seed": 1, "max_tokens": 12, "logprobs": 3}
    said = ask(client, **body)["choices"][0]["logprobs"]
    assert {len(values) for values in said.values()} == {len(said["tokens"])}
    lengths = [0 if token.startswith(("bytes:", "<|")) else len(token) for token in said["tokens"]]
    assert said["text_offset"] == [sum(lengths[:place]) for place in range(len(lengths))]
    for own, top in zip(said["token_logprobs"], said["top_logprobs"], strict=True):
        assert len(top) == 3
        assert max(top.values()) >= own - 1e-9
        assert sum(math.exp(value) for value in top.values()) <= 1 + 1e-9


def test_stop_texts_are_left_out_and_named_as_the_reason(client: httpx.Client, glm: Glm) -> None:
    free = written(glm, "the fox")
    stop = free[2:4]
    (choice,) = ask(client, prompt="the fox", stop=[stop, "never"], **GREEDY)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (free[: free.index(stop)], "stop")
    parts = parts_of(client, "/v1/completions", prompt="the fox", stop=stop, **GREEDY)[:-1]
    assert "".join(json.loads(part)["choices"][0]["text"] for part in parts) == choice["text"]


TEXTS = ["the [MASK] fox", "床前[MASK]", "the fox [MASK] the[MASK]。 the fox the fox [MASK]", "the[gMASK]"]


@pytest.mark.parametrize("parallel", [False, True])
def test_blanks_are_filled_as_the_model_fills_them(client: httpx.Client, glm: Glm, parallel: bool) -> None:
    for text in TEXTS:
        found = client.post("/infill", json={"text": text, "max_length": 8, "parallel": parallel}).json()
        options = msgspec.structs.replace(OPTIONS, parallel=parallel)
        if text.endswith("[gMASK]"):
            assert found["answers"] == [glm.generate(text, options)]
            assert found["text"] == "the" + found["answers"][0]
            continue
        expected = glm.infill(text, options)
        assert found["text"] == expected.text
        assert [answer.strip(" ") for answer in found["answers"]] == list(expected.answers)
        for answer, pieces in zip(found["answers"], found["pieces"], strict=True):
            assert "".join(piece["text"] for piece in pieces) == answer


def test_pieces_come_as_they_are_written_with_honest_probabilities(client: httpx.Client, glm: Glm) -> None:
    body = {"text": "the [MASK] fox", "max_length": 8, "alternatives": 4}
    *parts, done = map(json.loads, parts_of(client, "/infill", **body))
    assert done["done"]
    assert [{key: part[key] for key in ("text", "probability")} for part in parts] == [
        {key: piece[key] for key in ("text", "probability")} for piece in done["pieces"][0]
    ]
    for part in parts:
        assert 0 < part["probability"] <= 1
        shares = [other["probability"] for other in part.get("alternatives", [])]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1 + 1e-9
    product = math.prod(part["probability"] for part in parts)
    if done["ended"] == ["end"]:
        assert product >= math.exp(glm.score("the [MASK] fox", ["".join(done["answers"]).strip()])[0]) - 1e-6


def test_pieces_of_a_split_character_are_one_with_the_product_of_their_probabilities(glm: Glm) -> None:
    ids = glm.tokenizer.encode("aЖ").tolist()
    answer = Answer(glm.tokenizer, ())
    pieces = [
        piece
        for place, token in enumerate(ids)
        for piece in answer.add(Event(0, 0, token, "length" if place == len(ids) - 1 else "", -1.0, ((token, -1.0),)))
    ]
    assert "".join(piece["text"] for piece in pieces) == "aЖ"
    assert pieces[-1]["text"].endswith("Ж")
    assert sum(round(-math.log(piece["probability"])) for piece in pieces) == len(ids)
    assert "alternatives" not in pieces[-1]
    assert answer.text == "aЖ"


def test_many_at_once_get_what_each_gets_alone(address: str, glm: Glm) -> None:
    """More than fit in a batch, with options of their own."""
    asked = [
        ("the fox", 0.0, 3),
        ("床前明月光，", 1.5, 9),
        ("", 2.0, 17),
        ("the", 0.7, 5),
        ("fox the fox", 0.0, 30),
    ] * 2

    async def all_of_them() -> list[str]:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            bodies = [
                {"prompt": prompt, "temperature": heat, "max_tokens": length, "seed": length}
                for prompt, heat, length in asked
            ]
            answers = await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
            return [answer.json()["choices"][0]["text"] for answer in answers]

    expected = [
        written(glm, prompt, temperature=heat, max_length=length, seed=length) for prompt, heat, length in asked
    ]
    assert asyncio.run(all_of_them()) == expected


REFUSED = {
    "no json": (b"{", "is no JSON"),
    "no object": (b"[1]", "no JSON object"),
    "nested": (b"[" * 100_000, "JSON"),
    "not utf-8": (b'{"prompt": "\xff"}', "is no JSON"),
    "nothing": ({}, "missing required field `prompt`"),
    "a typing mistake": ({"prompt": "a", "max_token": 3}, "Did you mean 'max_tokens'?"),
    "a wrong type": ({"prompt": 3}, "Expected `str | array`"),
    "too many tokens": ({"prompt": "a", "max_tokens": 41}, "max_tokens is 41; give 1 to 40."),
    "no tokens": ({"prompt": "a", "max_tokens": 0}, "give 1 to 40"),
    "heat": ({"prompt": "a", "temperature": -1}, "temperature is -1"),
    "much heat": ({"prompt": "a", "temperature": 1e308}, "give 0 to 100"),
    "share": ({"prompt": "a", "top_p": 0}, "top_p is 0"),
    "draws": ({"prompt": "a", "n": 17}, "n is 17"),
    "answers": ({"prompt": ["a"] * 7, "n": 2}, "14 answers are asked for (prompts times n); ask for 1 to 12."),
    "no prompts": ({"prompt": []}, "0 answers"),
    "logprobs": ({"prompt": "a", "logprobs": 6}, "give 0 to 5"),
    "echo": ({"prompt": "a", "echo": True}, "echo is not served"),
    "penalty": ({"prompt": "a", "presence_penalty": 0.5}, "presence_penalty is not served"),
    "best of": ({"prompt": "a", "best_of": 3}, "best_of is not served"),
    "blanks": ({"prompt": "a [MASK]"}, "fill them with infill"),
    "blanks around": ({"prompt": "a [MASK]", "suffix": "b"}, "fill several blanks with /infill"),
    "stops": ({"prompt": "a", "stop": ["x"] * 17}, "stop holds 17 texts; give at most 16."),
    "half a character": (b'{"prompt": "\\ud800"}', "is no JSON"),
    "empty stop": ({"prompt": "a", "stop": [""]}, "stop holds an empty text"),
    "too long": ({"prompt": "the fox " * 3000}, "2048 fit"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_requests_are_refused_in_one_sentence(client: httpx.Client, what: str) -> None:
    body, said = REFUSED[what]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    for stream in (False, True):
        if stream and isinstance(body, dict):
            content = json.dumps({**body, "stream": True}).encode()
        answer = client.post("/v1/completions", content=content)
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert said in message
        assert "\n" not in message
        assert "Traceback" not in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": "no blank"}, "or [gMASK] at its end to have it continued"),
        ({"text": "a [MASK] b [gMASK]"}, "fill the blanks first"),
        ({"text": "[MASK]", "beams": 4}, "beams are not served"),
        ({"text": "[MASK]", "max_length": 41}, "give at most 40"),
        ({"text": "[MASK]", "alternatives": 11}, "give 0 to 10"),
        ({"text": "[MASK]", "seed": 2**70}, "seed"),
        ({"text": "[MASK]", "stop": ["x"] * 17}, "stop holds 17 texts"),
        ({"text": "[MASK]", "temprature": 1}, "Did you mean 'temperature'?"),
        ({"text": "[MASK]" * 13, "parallel": True, "max_length": 2}, "13 blanks"),
        ({"max_length": 4}, "missing required field `text`"),
    ],
)
def test_bad_infill_requests_are_refused_in_one_sentence(client: httpx.Client, body: Any, said: str) -> None:
    answer = client.post("/infill", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_health_and_models_name_the_model(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": "small", "waiting": 0, "running": 0}
    assert client.get("/v1/models").json()["data"][0]["id"] == "small"


class Held:
    """A model's forward that waits until it is let go."""

    def __init__(self, glm: Glm, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        whole = glm.model.forward

        def slow(*args: Any, **kwargs: Any) -> torch.Tensor:
            self.entered.set()
            assert self.go.wait(20)
            return whole(*args, **kwargs)

        monkeypatch.setattr(glm.model, "forward", slow)


def until(is_so: Any) -> None:
    for _ in range(400):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be so")


def test_a_full_queue_refuses_with_429_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glm = Glm.load(folder)
    held = Held(glm, monkeypatch)
    with (
        Engine(glm, Limits(waiting=2, together=1, batches=1, max_tokens=8)) as engine,
        running(make_app(engine, "m")) as address,
    ):
        answers: list[httpx.Response] = []

        def one(n: int) -> None:
            answers.append(httpx.post(f"{address}/v1/completions", json={"prompt": ["a"] * n, **GREEDY}, timeout=30))

        first = threading.Thread(target=one, args=(1,))
        first.start()
        held.entered.wait(10)
        second = threading.Thread(target=one, args=(2,))
        second.start()
        until(lambda: engine.load() == (2, 1))
        refused = httpx.post(f"{address}/v1/completions", json={"prompt": "b", **GREEDY}, timeout=30)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["message"] == "2 texts wait already and 2 may; ask again in a moment."
        assert httpx.get(f"{address}/health").json()["waiting"] == 2
        held.go.set()
        first.join()
        second.join()
        assert [answer.status_code for answer in answers] == [200, 200]


def test_nothing_is_written_for_somebody_who_has_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glm = Glm.load(folder)
    held = Held(glm, monkeypatch)
    with Engine(glm, LIMITS) as engine, running(make_app(engine, "m")) as address:
        for stream in (False, True):
            held.go.clear()
            body = {"prompt": "the fox", "max_tokens": 40, "temperature": 0, "stream": stream}
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/completions", json=body, timeout=0.3)
            time.sleep(0.1)
            steps = count_steps(glm, monkeypatch)
            held.go.set()
            until(lambda: engine.load() == (0, 0))
            assert len(steps) < 10


def count_steps(glm: Glm, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    steps: list[int] = []
    inner = glm.model.forward

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        steps.append(1)
        return inner(*args, **kwargs)

    monkeypatch.setattr(glm.model, "forward", counted)
    return steps


def test_a_short_request_does_not_wait_for_a_long_one(glm: Glm) -> None:
    async def both() -> list[str]:
        order: list[str] = []

        async def one(name: str, length: int) -> None:
            options = msgspec.structs.replace(OPTIONS, min_length=length, max_length=length, no_repeat_ngram=0)
            with_task = glm.job(task_of(glm), options)
            async for _ in events(engine, [with_task]):
                pass
            order.append(name)

        with Engine(glm, LIMITS) as engine:
            long = asyncio.create_task(one("long", 300))
            await asyncio.sleep(0.05)
            await one("short", 2)
            await long
        return order

    assert asyncio.run(both()) == ["short", "long"]


def task_of(glm: Glm) -> Task:
    return continuation("the fox", glm.tokenizer)


def test_no_more_batches_are_under_way_than_may_be(glm: Glm) -> None:
    under_way: list[int] = []
    done = threading.Event()
    with Engine(glm, Limits(together=2, batches=2)) as engine:

        def hear(event: Any) -> None:
            under_way.append(engine.load()[1])
            if event.ended and event.job == 8:
                done.set()

        engine.submit([glm.job(task_of(glm), OPTIONS) for _ in range(9)], hear)
        assert done.wait(20)
    assert max(under_way) == 4


def test_a_failing_batch_is_an_error_for_its_own_and_the_engine_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    glm = Glm.load(folder)
    with Engine(glm, LIMITS) as engine, running(make_app(engine, "m")) as address:
        whole = glm.model.forward
        monkeypatch.setattr(glm.model, "forward", lambda *args, **kwargs: 1 / 0)
        answer = httpx.post(f"{address}/v1/completions", json={"prompt": "a", **GREEDY})
        assert answer.status_code == 500
        assert "bug of glm-data" in answer.json()["error"]["message"]
        assert "division" not in answer.text
        monkeypatch.setattr(glm.model, "forward", whole)
        assert httpx.post(f"{address}/v1/completions", json={"prompt": "a", **GREEDY}).status_code == 200
    assert "a batch of 1 texts failed" in caplog.text


def test_what_is_under_way_when_the_engine_stops_is_told_so(glm: Glm) -> None:
    heard: list[Any] = []
    options = msgspec.structs.replace(OPTIONS, min_length=300, max_length=300, no_repeat_ngram=0)
    with Engine(glm, Limits(together=1, batches=1)) as engine:
        for _ in range(2):
            engine.submit([glm.job(task_of(glm), options)], heard.append)
        until(lambda: heard)
    errors = [item for item in heard if isinstance(item, RequestError)]
    assert [error.status for error in errors] == [503, 503]
    with pytest.raises(RequestError, match="is stopping"):
        engine.submit([glm.job(task_of(glm), options)], heard.append)


def test_the_command_serves_and_ends_in_0(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}

    def instead(server: web.Server) -> None:
        thread = threading.Timer(0.2, lambda: (found.update(httpx.get(f"{server.url}health").json()), server.stop()))
        thread.start()
        whole(server)
        thread.join()

    whole = web.Server.run
    monkeypatch.setattr(web.Server, "run", instead)
    assert shell.run(["serve", str(folder), "--port", "0"]) == 0
    assert found["model"] == folder.name
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert shell.run(["serve", str(folder), "--host", "0.0.0.0"]) == 2
    assert "--remote" in capsys.readouterr().err


def test_the_page_in_a_real_browser(address: str, glm: Glm) -> None:
    from playwright.sync_api import expect

    with browser_page(expected=("400",)) as page:
        page.goto(address)
        expect(page.locator("#model")).to_have_text("small")
        fill_and_look(page, glm)
        page.click("#language")
        assert page.get_attribute("html", "lang") == "zh"
        assert page.text_content("#fill") == "填空"
        page.fill("#text", "没有空")
        page.click("#fill")
        expect(page.locator("#status.bad")).to_contain_text("no [MASK]")
        page.fill("#text", "")
        page.click("#blank")
        assert page.input_value("#text") == "[MASK]"
        assert page.context.browser is not None
        chinese = page.context.browser.new_page(locale="zh-CN")
        chinese.goto(address)
        assert chinese.text_content("#fill") == "填空"
        assert "床前明月光" in chinese.input_value("#text")


def fill_and_look(page: Page, glm: Glm) -> None:
    """The page shows what the model writes, markup as text, and what else a piece could have been."""
    from playwright.sync_api import expect

    text = "the <b>[MASK]</b> fox [MASK]"
    page.fill("#text", text)
    page.click("#fill")
    expect(page.locator("#status")).to_have_text("Done.")
    assert page.text_content("#result") == glm.infill(text, msgspec.structs.replace(OPTIONS, max_length=24)).text
    assert page.locator("#result b").count() == 0
    page.hover(".piece >> nth=0")
    assert page.is_visible("#tip")
    assert "%" in (page.text_content("#tip") or "")
    assert page.locator("#tip div").count() == 5
