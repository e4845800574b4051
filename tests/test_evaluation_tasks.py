"""Tasks: their files, their items, what is asked, what it costs, and the scores."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from small_model import write_small_model

import manifests
from glm_data.cli import shell
from glm_data.errors import ConfigError, InputError, UsageError
from glm_data.evaluation.contamination import find_in_corpus
from glm_data.evaluation.encode import encode_question, encode_windows
from glm_data.evaluation.items import Question, ask, read_items
from glm_data.evaluation.show import remarks, result_rows
from glm_data.evaluation.statistics import accuracy, bits_per_byte, weighted_bits_per_byte
from glm_data.evaluation.suite import Setup, run_task
from glm_data.evaluation.tasks import Kind, Prompt, Task, bundled_tasks, load_tasks, with_shots
from glm_data.generation.glm import Glm
from glm_data.generation.options import GenerationOptions
from glm_data.generation.scoring import Query, losses
from glm_data.mip import Renderer, Template
from glm_data.model.attention import PieceAttention, lay_out
from tokenizer import SPECIAL

WORDS = Prompt(name="words", answer_choices="the ||| fox", jinja="{{q}} [MASK] ||| {{answer_choices[label]}}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def glm(folder: Path) -> Glm:
    return Glm.load(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind that tasks lie in."""
    path = tmp_path_factory.mktemp("data")
    rows = [{"q": f"the fox {'ab' * n}", "label": n % 2} for n in range(12)]
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (path / "dev").mkdir()
    for subject in ("one", "two"):
        (path / f"{subject}_test.csv").write_text(
            'question,choice0,choice1,answer\n"a, b",007,True,1\nc,1.50,"x\ny",A\n', encoding="utf-8-sig"
        )
        (path / "dev" / f"{subject}_dev.csv").write_text(f"{subject} shot,yes,no,B\nanother,1,2,0\n", encoding="utf-8")
    task = {"prefix": "Say: ", "examples": [{"input": "a", "target_scores": {"b": 1, "c": 0}}, {"input": "d"}]}
    (path / "task.json").write_text(json.dumps(task), encoding="utf-8")
    (path / "bad.jsonl").write_text('{"q": 1}\n{"q"\n', encoding="utf-8")
    return path


def task(**changes: object) -> Task:
    values: dict[str, object] = {"name": "T", "kind": "choice", "files": ("rows.jsonl",), "prompts": (WORDS,)}
    return Task(**{**values, **changes})  # type: ignore[arg-type]


LETTERS = Prompt(
    name="letters",
    answer_choices="A ||| B",
    jinja="{{question}} (A) {{choice0}} (B) {{choice1}}\nAnswer: ([MASK]) ||| "
    "{{ answer if answer in ['A', 'B'] else answer_choices[answer | int] }}",
)
SUBJECTS = {
    "files": ("*_test.csv",),
    "examples": ("dev/*.csv",),
    "columns": ("question", "choice0", "choice1", "answer"),
    "group": "([^/]+)_(?:dev|test)",
    "shots": 1,
    "prompts": (LETTERS,),
}


def test_bundled_tasks_are_of_the_form_and_their_prompts_of_the_dialect() -> None:
    assert set(bundled_tasks()) >= {"lambada", "mmlu", "cmmlu", "fewclue", "clue", "bigbench-lite", "pile"}
    for name in bundled_tasks():
        assert f"{name}," in shell.load_command("glm_data.cli.evaluate:evaluate").help
        for each in load_tasks(name):
            prompts = [
                Template(id=one.name, name=one.name, jinja=one.jinja, answer_choices=one.answer_choices)
                for one in each.prompts
            ]
            Renderer(prompts, dataset=each.name)
    assert {"eval"} == {path.parent.name for path in manifests.path("eval").glob("*")}


CLUE = {
    "afqmc": '{"sentence1": "甲", "sentence2": "乙", "label": "1"}',
    "cmnli": '{"sentence1": "甲", "sentence2": "乙", "label": "contradiction"}',
    "ocnli": '{"level": "hard", "sentence1": "甲", "sentence2": "乙", "label": "neutral"}',
    "cluewsc2020": '{"target": {"span1_text": "甲", "span2_text": "它"}, "label": "false", "text": "甲说它"}',
}
READING = {
    "c3/d-dev.json": '[[["男：走吗？", "女：走。"], [{"question": "他们做什么？", "choice": ["走", "吃"], '
    '"answer": "走"}], "1"]]',
    "c3/m-dev.json": '[[["文。"], [{"question": "问？", "choice": ["是", "不"], "answer": "不"}, '
    '{"question": "几？", "choice": ["一", "二"], "answer": "一"}], "2"]]',
    "drcd/dev.json": '{"version": "1.3", "data": [{"title": "書", "id": "1", "paragraphs": [{"id": "1-1", '
    '"context": "他在1990年出生。", "qas": [{"id": "1-1-1", "question": "何時？", '
    '"answers": [{"id": "1", "text": "1990年", "answer_start": 2}]}]}]}]}',
    "cmrc2018/dev.json": '{"version": "v1.0", "data": [{"title": "书", "id": "D", "paragraphs": [{"id": "D", '
    '"context": "甲乙丙。", "qas": [{"id": "Q0", "question": "谁？", "answers": [{"text": "甲", "answer_start": 0}, '
    '{"text": "甲乙", "answer_start": 0}]}, '
    '{"id": "Q1", "question": "还有谁？", "answers": [{"text": "丙", "answer_start": 2}]}]}]}]}',
}
FEW_CLUE = {
    "eprstmt": '{"id": 0, "sentence": "很好", "label": "Negative"}',
    "bustm": '{"id": 0, "sentence1": "甲", "sentence2": "乙", "label": "0"}',
    "ocnli": CLUE["ocnli"],
    "csl": '{"id": 1, "abst": "文", "keyword": ["甲", "乙"], "label": "1"}',
    "chid": '{"id": 1, "candidates": ["甲甲甲甲", "乙乙乙乙"], "content": "他#idiom#。", "answer": 1}',
    "cluewsc": CLUE["cluewsc2020"],
    "tnews": '{"label": 104, "label_desc": "news_finance", "sentence": "句", "keywords": "", "id": 1}',
    "csldcp": '{"content": "文", "label": "药学", "id": 3}',
    "iflytek": '{"label": 56, "label_des": "英语", "sentence": "文", "id": 4}',
}
LAID_OUT = {
    "mmlu/test/anatomy_test.csv": '"Which, of these?",one,"two, or",3,TRUE,C\n',
    "mmlu/dev/anatomy_dev.csv": "question,choice0,choice1,choice2,choice3,answer\nq,a,b,c,d,1\n",
    "cmmlu/test/agronomy.csv": ",Question,A,B,C,D,Answer\n0,题,甲,乙,丙,丁,B\n",
    "cmmlu/dev/agronomy.csv": ",Question,A,B,C,D,Answer\n0,例,1,2,3,4,A\n",
    **{f"clue/{name}/dev.json": row + "\n" for name, row in CLUE.items()},
    **{f"clue/{name}": content for name, content in READING.items()},
    **{f"fewclue/{name}/test_public.json": row + "\n" for name, row in FEW_CLUE.items()},
    "llm-foundry/language_understanding/lambada_openai.jsonl": '{"context": "He saw the", "continuation": "signs"}\n',
    "bigbench_lite/operators/task.json": '{"task_prefix": "P", "example_input_prefix": "\\n", '
    '"example_output_prefix": " = ", "examples": [{"input": "op 1", "target": "1"}]}',
}
ANSWERS = {
    "MMLU": "C", "CMMLU": "B", "LAMBADA": "signs", "BIG-bench-lite, strings": "1",
    "AFQMC": "相同", "CMNLI": "不是", "OCNLI 50k": "也许", "CLUEWSC 2020": "不是",
    "C3": "走", "DRCD": "1990年", "CMRC 2018": "甲",
    "EPRSTMT": "差", "BUSTM": "不同", "OCNLI": "也许", "CSL": "是", "CHID": "乙乙乙乙", "CLUEWSC": "不是",
    "TNEWS": "财经", "CSLDCP": "药学", "IFLYTEK": "英语",
}  # fmt: skip


def test_bundled_tasks_read_files_as_their_publishers_lay_them_out(tmp_path: Path) -> None:
    for name, content in LAID_OUT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    found, counts = {}, {}
    for name in ("mmlu", "cmmlu", "clue", "fewclue", "lambada", "bigbench-lite"):
        for each in load_tasks(name):
            if each.name == "BIG-bench-lite, choices":
                continue
            items = read_items(each, tmp_path, each.files)
            examples = read_items(each, tmp_path, each.examples) if each.shots else []
            asked = [ask(each, prompt, items, examples) for prompt in each.prompts]
            assert not any(one.refused for one in asked), (each.name, [one.refused for one in asked])
            found[each.name] = asked[0].questions[0]
            counts[each.name] = len(asked[0].questions)
    assert {name: question.target for name, question in found.items()} == ANSWERS
    assert found["MMLU"].text == "Which, of these?\n(A) one (B) two, or (C) 3 (D) TRUE\nAnswer: ([MASK])"
    assert found["MMLU"].shots == ("q\n(A) a (B) b (C) c (D) d\nAnswer: (B)",)
    assert found["CMMLU"].shots == ("题目：例\nA. 1\nB. 2\nC. 3\nD. 4\n答案是：A",)
    assert found["CHID"].text == "他[MASK]。"
    assert (found["C3"].text, found["C3"].choices) == (
        "男：走吗？\n女：走。\n问：他们做什么？\n答：[MASK]",
        ("走", "吃"),
    )
    assert found["DRCD"].text == "他在1990年出生。\n问：何時？\n答：[MASK]"
    assert found["CMRC 2018"].accepted == ("甲", "甲", "甲乙")
    assert (counts["C3"], counts["DRCD"], counts["CMRC 2018"]) == (3, 1, 2)
    assert len(found["CSLDCP"].choices) == 67
    assert len(found["IFLYTEK"].choices) == 119


def test_csv_items_are_texts_as_written_with_or_without_a_header(data: Path) -> None:
    each = task(**SUBJECTS)
    items = read_items(each, data, each.files)
    assert [(item.group, item.number) for item in items] == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    assert items[0].row == {"question": "a, b", "choice0": "007", "choice1": "True", "answer": "1"}
    asked = ask(each, LETTERS, items, read_items(each, data, each.examples))
    assert [question.label for question in asked.questions] == [1, 0, 1, 0]
    assert asked.questions[1].text == "c (A) 1.50 (B) x\ny\nAnswer: ([MASK])"
    assert asked.questions[2].shots == ("two shot (A) yes (B) no\nAnswer: (B)",)


def test_rows_in_an_object_come_with_its_plain_fields(data: Path) -> None:
    prompt = Prompt(
        name="p",
        answer_choices="{{target_scores.keys() | join(' ||| ')}}",
        jinja="{{file.prefix}}{{input}} [MASK] ||| "
        "{% for c, s in target_scores.items() %}{% if s %}{{c}}{% endif %}{% endfor %}",
    )
    each = task(files=("task.json",), rows="examples", prompts=(prompt,))
    asked = ask(each, prompt, read_items(each, data, each.files), [])
    assert asked.questions == [Question(0, "Say: a [MASK]", "b", ("b", "c"), 0)]
    assert asked.refused == {"error": 1}
    with pytest.raises(InputError, match="has no list at 'rows'"):
        read_items(task(files=("task.json",), rows="rows"), data, ("task.json",))


def test_an_item_is_never_its_own_example(data: Path) -> None:
    each = task(examples=("rows.jsonl",), shots=2)
    items = read_items(each, data, each.files)
    asked = ask(each, WORDS, items, items)
    assert [len(question.shots) for question in asked.questions] == [2] * 12
    assert asked.questions[0].shots == ("the fox ab fox", "the fox abab the")
    assert asked.questions[5].shots == ("the fox  the", "the fox ab fox")
    assert with_shots(each, 0).shots == 0
    assert with_shots(task(), 3).shots == 0


def test_what_cannot_be_asked_is_counted_by_reason(data: Path) -> None:
    items = read_items(task(), data, ("rows.jsonl",))
    for jinja, choices, reason in (
        ("{{q}} [MASK] [MASK] ||| the", "the ||| fox", "several_masks"),
        ("{{q}} ||| the", None, "no_choices"),
        ("{{q}} ||| dog", "the ||| fox", "target_is_no_choice"),
        ("{% if label == 1 %}{{q}} ||| the{% endif %}", "the ||| fox", "not_applicable"),
    ):
        prompt = Prompt(name="p", jinja=jinja, answer_choices=choices)
        asked = ask(task(prompts=(prompt,)), prompt, items, [])
        assert asked.refused[reason] >= 6
        assert len(asked.questions) + asked.refused.total() == 12
    with pytest.raises(InputError, match=r"bad\.jsonl', row 1: .*mend or remove"):
        read_items(task(), data, ("bad.jsonl",))


def test_a_group_that_a_path_passes_over_is_none(data: Path) -> None:
    each = task(group="(one_)?test[.]csv", files=("*_test.csv",))
    assert [item.group for item in read_items(each, data, each.files)] == ["one_", "one_", "", ""]


def test_a_task_whose_files_hold_no_item_says_so(glm: Glm, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("q,label\n", encoding="utf-8")
    with pytest.raises(InputError, match="its files hold no item; check 'files'"):
        run_task(glm, task(files=("none.csv",)), Setup(data=tmp_path))


def forward_nats(glm: Glm, query: Query, choice: list[int]) -> float:
    """The trainer's forward of one choice alone."""
    part_b = [SPECIAL.sop, *choice[:-1]]
    ids = torch.tensor([*query.context, *part_b])
    places = [*range(len(query.context)), *(query.blank + query.running * (1 + i) for i in range(len(part_b)))]
    layout = lay_out([np.array([[0, len(query.context), len(ids), 1]])], len(ids))
    with torch.inference_mode():
        logits = glm.model(ids, torch.tensor(places), PieceAttention(layout.groups))[len(query.context) :]
    chances = logits.double().log_softmax(-1)
    return -sum(chances[i, token].item() for i, token in enumerate(choice))


@pytest.mark.parametrize("batch_tokens", [1, 60, 4096])
def test_choices_cost_what_the_trainers_forward_says_of_each_alone(glm: Glm, batch_tokens: int) -> None:
    rng = np.random.default_rng(2)
    queries = []
    for size in (12, 5, 12, 1):
        choices = tuple(rng.integers(8, 500, n).tolist() for n in (1, 4, 2))
        queries.append(Query(rng.integers(8, 500, size).tolist(), size // 2, size == 5, choices))
    found = losses(glm.model, queries, batch_tokens)
    expected = [[forward_nats(glm, query, choice) for choice in query.choices] for query in queries]
    assert np.allclose(np.array(found), np.array(expected), atol=1e-3)
    assert np.std(expected) > 1


def test_a_question_keeps_its_end_and_loses_its_shots_first(glm: Glm) -> None:
    ids = lambda text: glm.tokenizer.encode(text).tolist()  # noqa: E731
    question = Question(0, "the fox [MASK] the", "a", ("the fox", "床"), 0, ("fox fox fox", "the the"))
    whole, cut = encode_question(task(separator="\n"), question, glm.tokenizer, 200, 1)
    before = ids("fox fox fox\nthe the\nthe fox")
    choices = (ids(" the fox"), ids(" 床"))
    assert whole == Query([*before, SPECIAL.mask, *ids(" the")], len(before), False, choices)
    assert not cut
    longest_choice = max(len(ids(" the fox")), len(ids(" 床")))
    behind = 1 + len(ids(" the")) + longest_choice
    one, cut = encode_question(task(separator="\n"), question, glm.tokenizer, len(before) - 1 + behind, 1)
    assert cut
    assert list(one.context[: one.blank]) == ids("the the\nthe fox")
    short, cut = encode_question(task(separator="\n"), question, glm.tokenizer, 2 + behind, 1)
    assert list(short.context[:2]) == ids("the fox")[-2:]
    assert encode_question(task(), question, glm.tokenizer, behind - 1, 1) is None
    ended, _ = encode_question(task(end=True), question, glm.tokenizer, 200, 1)
    assert [choice[-1] for choice in ended.choices] == [SPECIAL.eop] * 2


def test_windows_predict_every_token_once_with_what_went_before(glm: Glm) -> None:
    text = "the fox 床前明月光，" * 9
    ids = glm.tokenizer.encode(text).tolist()
    windows = encode_windows(text, glm.tokenizer, 16)
    assert [token for window in windows for token in window.choices[0]] == ids
    for number, window in enumerate(windows):
        assert window.size <= 16
        assert window.running
        assert window.context[-1] == SPECIAL.gmask
        assert list(window.context[:-1]) == ids[max(0, number * 8 - 7) : number * 8]


def test_intervals_against_simulation_and_closed_forms() -> None:
    assert accuracy([True] * 5 + [False] * 5).value == 0.5
    assert accuracy([]).high == 1.0
    for right, n in ((300, 400), (0, 7), (50, 50)):
        score = accuracy(np.arange(n) < right)
        wilson = binomtest(right, n).proportion_ci(method="wilson")
        assert (score.low, score.high) == (pytest.approx(wilson.low), pytest.approx(wilson.high))
    rng = np.random.default_rng(3)
    inside = sum(found.low <= 0.3 <= found.high for found in (accuracy(rng.random(80) < 0.3) for _ in range(400)))
    assert 365 <= inside <= 395
    sizes = rng.integers(50, 150, 200).astype(float)
    nats = sizes * rng.normal(1.0, 0.2, 200) * math.log(2)
    found = bits_per_byte(nats, sizes)
    deviation = np.std(nats / math.log(2) - found.value * sizes) / sizes.mean() / math.sqrt(200)
    assert found.value == pytest.approx((nats.sum() / sizes.sum()) / math.log(2))
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    both = weighted_bits_per_byte({"a": (nats, sizes), "b": (2 * nats, sizes)}, {"a": 3.0, "b": 1.0, "c": 9.0})
    assert both.value == pytest.approx(found.value * 1.25)
    assert both.low < both.value < both.high


def test_a_task_of_choices_counts_the_likeliest(glm: Glm, data: Path) -> None:
    other = Prompt(name="other", answer_choices="the ||| fox", jinja="{{q}}[MASK] ||| {{answer_choices[label]}}")
    each = task(prompts=(WORDS, other))
    found = run_task(glm, each, Setup(data=data))
    assert found == run_task(glm, each, Setup(data=data))
    for prompt, result in zip(each.prompts, found.prompts, strict=True):
        right = 0
        for n in range(12):
            space = " " if prompt is WORDS else ""
            context = f"the fox {'ab' * n}".strip()
            nats = []
            for choice in ("the", "fox"):
                before = glm.tokenizer.encode(context).tolist()
                query = Query([*before, SPECIAL.mask], len(before), False, ())
                nats.append(forward_nats(glm, query, glm.tokenizer.encode(space + choice).tolist()))
            right += int(np.argmin(nats)) == n % 2
        assert result.score == accuracy([True] * right + [False] * (12 - right))
    values = [result.score.value for result in found.prompts]
    assert (found.maximum, found.mean, found.chance) == (max(values), pytest.approx(np.mean(values)), 0.5)
    limited = run_task(glm, each, Setup(data=data, limit=5))
    assert limited.items == 5
    rows = result_rows([found])
    assert [row[1] for row in rows[1:]] == ["words", "other", "max / median / mean"]
    assert not remarks([found])


def test_a_written_answer_is_right_if_it_is_the_target(glm: Glm, data: Path, tmp_path: Path) -> None:
    said = glm.generate("the fox", GenerationOptions(beams=3, max_length=4, no_repeat_ngram=0))
    rows = [{"q": "the fox", "a": said}, {"q": "the fox", "a": said + "x"}]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prompt = Prompt(name="p", jinja="{{q}} ||| {{a}}")
    each = task(kind="complete", files=("said.jsonl",), prompts=(prompt,), beams=3, max_length=4)
    assert run_task(glm, each, Setup(data=tmp_path)).prompts[0].score == accuracy([True, False])


def test_the_first_word_is_compared_whole(glm: Glm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"a": ' signs, and"', "b": "don't you", "c": "sign", "d": "..."}
    targets = {"a": "signs", "b": "don't", "c": "signs", "d": "x"}
    rows = [{"q": key, "a": target} for key, target in targets.items()]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(
        Glm, "write", lambda self, tasks, options, words_first: [[answers["abcd"[n]]] for n in range(len(tasks))]
    )
    monkeypatch.setattr("glm_data.evaluation.suite.text_of", lambda tokenizer, answer: answer)
    each = task(
        kind="complete",
        files=("words.jsonl",),
        prompts=(Prompt(name="p", jinja="{{q}} ||| {{a}}"),),
        match="first-word",
    )
    assert run_task(glm, each, Setup(data=tmp_path)).prompts[0].score == accuracy([True, True, False, False])


def test_texts_are_measured_by_source_and_weight(glm: Glm, tmp_path: Path) -> None:
    texts = {"A": ["the fox " * 5, "床前明月光，" * 4], "B": ["abcdef " * 3]}
    rows = [{"text": text, "meta": {"pile_set_name": source}} for source, own in texts.items() for text in own]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    each = Task(name="P", kind="text", files=("docs.jsonl",), weights={"A": 1.0, "B": 3.0})
    said: list[str] = []
    found = run_task(glm, each, Setup(data=tmp_path, longest=16), said.append)
    assert said == ["P: 3 documents of 133 bytes"]
    bits = {
        source: sum(
            forward_nats(glm, window, list(window.choices[0]))
            for text in own
            for window in encode_windows(text, glm.tokenizer, 16)
        )
        / math.log(2)
        for source, own in texts.items()
    }
    sizes = {source: sum(len(text.encode()) for text in own) for source, own in texts.items()}
    each_bits = {source: bits[source] / sizes[source] for source in texts}
    assert found.prompts[0].score.value == pytest.approx(sum(bits.values()) / sum(sizes.values()), rel=1e-4)
    assert {name: score.value for name, score in found.prompts[0].groups.items()} == pytest.approx(each_bits, rel=1e-4)
    assert found.weighted is not None
    assert found.weighted.value == pytest.approx((each_bits["A"] + 3 * each_bits["B"]) / 4, rel=1e-4)


def test_how_far_a_task_is_is_said_and_changes_nothing(
    glm: Glm, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long.txt").write_text("the fox " * 40, encoding="utf-8")
    text = Task(name="Text", kind="text", files=("long.txt",))
    plain = [run_task(glm, text, Setup(data=tmp_path, longest=16)), run_task(glm, task(), Setup(data=data))]
    for name, value in {"LOG_SECONDS": 0.0, "_WINDOWS": 2, "_QUESTIONS": 3}.items():
        monkeypatch.setattr(f"glm_data.evaluation.suite.{name}", value)
    said: list[str] = []
    told = [
        run_task(glm, text, Setup(data=tmp_path, longest=16), said.append),
        run_task(glm, task(), Setup(data=data), said.append),
    ]
    shares = [int(line[6:].removesuffix("% done")) for line in said if line.startswith("Text: ") and "done" in line]
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert said[-4:] == [f"T: {share}% done" for share in (25, 50, 75, 100)]
    for before, after in zip(plain, told, strict=True):
        assert after.median == pytest.approx(before.median, rel=1e-5)


@pytest.mark.parametrize("given", ["", "**x"])
def test_an_entry_that_is_no_pattern_is_one_sentence(given: str, glm: Glm, data: Path) -> None:
    for each in (task(files=(given,)), Task(name="T", kind="text", files=(given,)), task(examples=(given,), shots=1)):
        with pytest.raises(UsageError, match=r"is no file or pattern .* mend its files"):
            run_task(glm, each, Setup(data=data))


def test_items_that_stand_in_the_corpus_are_found_and_the_rest_is_scored_apart(
    glm: Glm, data: Path, tmp_path: Path
) -> None:
    passage = " ".join(f"word{n} of the long passage{n}" for n in range(12))
    other = " ".join(f"other{n} things entirely{n * 7}" for n in range(20))
    documents = [{"text": f"Before it. {passage} After it."}, {"text": "nothing of interest " * 30}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents), encoding="utf-8")
    corpus = (tmp_path / "corpus.jsonl",)
    assert find_in_corpus([passage, other, "short", passage], corpus).tolist() == [True, False, False, True]
    rows = [{"q": passage, "label": 0}, {"q": other, "label": 1}, {"q": passage, "label": 0}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = run_task(glm, task(), Setup(data=tmp_path, corpus=corpus))
    assert found.found == 2
    assert found.prompts[0].clean is not None
    assert found.prompts[0].clean.items == 1
    assert [row[6] for row in result_rows([found])] == ["in the corpus", "2 of 3"]
    partly = Prompt(name="one", answer_choices="the ||| fox", jinja="{% if label %}{{q}} ||| fox{% endif %}")
    both = run_task(glm, task(prompts=(partly, WORDS)), Setup(data=tmp_path, corpus=corpus))
    assert both.found == 2  # by the second prompt, as the first does not fit these items


def test_what_cannot_be_meant_is_one_sentence(tmp_path: Path) -> None:
    for changes, said in (
        ({"kind": "text"}, "takes no prompts"),
        ({"prompts": ()}, "needs at least one prompt"),
        ({"prompts": (WORDS, WORDS)}, "two prompts are called 'words'"),
        ({"shots": 2}, "2 shots, but no files of 'examples'"),
        ({"group": "("}, "no regular expression"),
        ({"group": "x"}, "one pair of parentheses"),
    ):
        with pytest.raises(ConfigError, match=said):
            task(**changes)
    with pytest.raises(ConfigError, match="Did you mean 'lambada'"):
        load_tasks("lambda")
    twice = msgspec.yaml.encode({"tasks": [msgspec.to_builtins(task())] * 2})
    (tmp_path / "t.yaml").write_bytes(twice)
    with pytest.raises(ConfigError, match="two tasks are called 'T'"):
        load_tasks(str(tmp_path / "t.yaml"))


@pytest.mark.parametrize("files", [("there.jsonl", "mmlu/*.csv"), ("there.jsonl", "gone.json")])
@pytest.mark.parametrize("kind", ["choice", "text"])
def test_files_that_are_not_below_the_folder_are_named_with_the_option(
    glm: Glm, tmp_path: Path, kind: Kind, files: tuple[str, ...]
) -> None:
    (tmp_path / "there.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    each = Task(name="T", kind=kind, files=files, prompts=() if kind == "text" else (WORDS,))
    with pytest.raises(UsageError, match=r"task 'T' reads '.*', and there is none below '.*--data") as error:
        run_task(glm, each, Setup(data=tmp_path))
    assert files[1] in str(error.value)


def test_the_command_prints_a_table_and_writes_the_same_json_every_time(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_bytes(msgspec.yaml.encode({"tasks": [msgspec.to_builtins(task(**SUBJECTS))]}))
    command = ["eval", str(folder), "--task", str(path), "--data", str(data), "--out", str(tmp_path / "report.json")]
    assert shell.run(command) == 0
    said = capsys.readouterr()
    assert "T (1 shots)" in said.out
    assert "letters" in said.err
    first = (tmp_path / "report.json").read_bytes()
    assert shell.run([*command, "--json"]) == 0
    assert (tmp_path / "report.json").read_bytes() == first
    (found,) = json.loads(first)["tasks"]
    assert set(found["prompts"][0]["groups"]) == {"one", "two"}
    assert json.loads(capsys.readouterr().out)["tasks"] == [found]
    assert shell.run(["eval", str(folder)]) == 2
    assert "nothing to measure on" in capsys.readouterr().err
    assert shell.run(["eval", str(folder), "--task", "lambada", "--data", str(data)]) == 2
    assert "lambada_openai.jsonl" in capsys.readouterr().err
