"""Tasks put to a model: items -> questions -> tokens -> scores with their intervals."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from glm_data.errors import InputError
from glm_data.evaluation.contamination import find_in_corpus
from glm_data.evaluation.encode import encode_question, encode_windows
from glm_data.evaluation.items import Item, Question, ask, read_items, solve, task_files
from glm_data.evaluation.spans import f1, is_exact
from glm_data.evaluation.statistics import Estimate, accuracy, bits_per_byte, mean_share, weighted_bits_per_byte
from glm_data.evaluation.tasks import Prompt, Task
from glm_data.formats import read_blocks
from glm_data.generation.glm import MAX_TOKENS, MOST_TEXTS, Glm
from glm_data.generation.options import GenerationOptions
from glm_data.generation.scoring import Query, losses
from glm_data.generation.texts import text_of
from glm_data.generation.write import Task as Writing
from glm_data.progress import LOG_SECONDS

_DOCUMENTS = 64
_QUESTIONS, _WINDOWS = 512, 32
"""Questions, and windows of documents, that are measured between two words on how far it is."""
ItemT = TypeVar("ItemT")
DoneT = TypeVar("DoneT")
_WORD = re.compile(r"\w+(?:['’-]\w+)*")


class PromptResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one way of asking scored."""

    name: str
    score: Estimate
    groups: dict[str, Estimate]
    """By group of items: the subject, or the source of documents."""
    refused: dict[str, int]
    """Items that could not be asked, by reason."""
    cut: int
    """Questions that lost their beginning for want of room."""
    f1: Estimate | None = None
    """How much of the answers is right, if they are compared as spans; ``score`` is the share that matches exactly."""
    clean: Estimate | None = None
    """The score on items that were not found in the corpus, if one was searched and any are left."""


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a model scored in one task."""

    name: str
    metric: str
    shots: int
    items: int
    prompts: tuple[PromptResult, ...]
    maximum: float
    median: float
    mean: float
    """Over prompts; of bits per byte the largest is not the best."""
    chance: float | None = None
    """What guessing among the choices scores."""
    weighted: Estimate | None = None
    """Bits per byte weighted by source."""
    found: int | None = None
    """Items found in the corpus, if one was searched."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is the same for all tasks."""

    data: Path = Path()
    limit: int | None = None
    """Items of a task at most, spread evenly over all; of a text task documents."""
    longest: int = MAX_TOKENS
    """Tokens of a question or window at most."""
    corpus: tuple[Path, ...] = ()
    """Documents to look for the items in."""


def run_task(glm: Glm, task: Task, setup: Setup, say: Callable[[str], None] = lambda _: None) -> TaskResult:
    """Measure ``glm`` in one task; ``say`` is told how far it is.

    Raises as :func:`read_items`, and :class:`InputError` if no item can be asked.
    """
    if task.kind == "text":
        return _run_text(glm, task, setup, say)
    items = _spread(read_items(task, setup.data, task.files), setup.limit)
    if not items:
        raise InputError(f"task '{task.name}': its files hold no item; check 'files'.")
    examples = read_items(task, setup.data, task.examples) if task.shots else []
    asked = [ask(task, prompt, items, examples) for prompt in task.prompts]
    if not any(each.questions for each in asked):
        reasons = ", ".join(f"{reason} {count}" for each in asked for reason, count in each.refused.items())
        raise InputError(f"task '{task.name}': no prompt fits any of {len(items)} items ({reasons}); mend the prompts.")
    found = _found([question for each in asked for question in each.questions], len(items), setup)
    results = []
    for prompt, each in zip(task.prompts, asked, strict=True):
        say(f"{task.name}: {prompt.name or 'prompt'}, {len(each.questions):,} questions")
        results.append(_run_prompt(glm, task, prompt, items, each.questions, dict(each.refused), found, setup, say))
    values = [result.score.value for result in results if result.score.items]
    shares = [1 / len(question.choices) for each in asked for question in each.questions if question.choices]
    return TaskResult(
        name=task.name,
        metric="accuracy",
        shots=task.shots,
        items=len(items),
        prompts=tuple(results),
        maximum=max(values, default=0.0),
        median=statistics.median(values or [0.0]),
        mean=statistics.fmean(values or [0.0]),
        chance=statistics.fmean(shares) if shares else None,
        found=None if found is None else int(found.sum()),
    )


def _spread(items: Sequence[Any], limit: int | None) -> list[Any]:
    if limit is None or limit >= len(items):
        return list(items)
    return [items[place * len(items) // limit] for place in range(limit)]


def _found(questions: Sequence[Question], items: int, setup: Setup) -> Any:
    """``bool[items]``: whether an item's question and answer, as the first prompt that fits it has them, stand in the
    corpus; None without one."""
    if not setup.corpus:
        return None
    found = np.zeros(items, bool)
    first = {question.item: solve(question.text, question.target) for question in reversed(questions)}
    found[list(first)] = find_in_corpus(list(first.values()), setup.corpus)
    return found


def _run_prompt(
    glm: Glm,
    task: Task,
    prompt: Prompt,
    items: Sequence[Item],
    questions: Sequence[Question],
    refused: dict[str, int],
    found: Any,
    setup: Setup,
    say: Callable[[str], None],
) -> PromptResult:
    encoded = [encode_question(task, each, glm.tokenizer, setup.longest, task.max_length + 1) for each in questions]
    kept = [(question, pair[0]) for question, pair in zip(questions, encoded, strict=True) if pair is not None]
    if len(kept) < len(questions):
        refused = {**refused, "too_long": len(questions) - len(kept)}
    fitting, queries = [question for question, _ in kept], [query for _, query in kept]
    shares: list[float] = []
    tell = _teller(say, task.name)
    if task.kind == "choice":
        nats = _in_parts(queries, _QUESTIONS, lambda part: losses(glm.model, part), tell)
        right = _choose(fitting, nats)
    else:
        texts = _in_parts(queries, MOST_TEXTS, lambda part: _write(glm, task, part), tell)
        answers = list(zip(texts, fitting, strict=True))
        right = [_is_right(task, text, question) for text, question in answers]
        shares = [f1(text, question.accepted) for text, question in answers] if task.match == "span" else []
    correct = np.array(right, bool)
    where = np.array([question.item for question in fitting], np.int64)
    by_group = defaultdict(list)
    for question, is_right in zip(fitting, correct.tolist(), strict=True):
        by_group[items[question.item].group].append(is_right)
    return PromptResult(
        name=prompt.name,
        score=accuracy(correct),
        groups={group: accuracy(own) for group, own in sorted(by_group.items())} if len(by_group) > 1 else {},
        refused=refused,
        cut=sum(pair[1] for pair in encoded if pair is not None),
        f1=mean_share(shares) if task.match == "span" else None,
        clean=None if found is None or found[where].all() else accuracy(correct[~found[where]]),
    )


def _teller(say: Callable[[str], None], name: str) -> Callable[[float], None]:
    """Says what share of the task ``name`` is done, every ten seconds at most."""
    last = time.monotonic()

    def tell(share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            say(f"{name}: {share:.0%} done")

    return tell


def _part_of(tell: Callable[[float], None], before: float, own: float) -> Callable[[float], None]:
    """``tell`` for a part of the work, the share ``own`` of it, behind the share ``before``."""
    return lambda share: tell(before + share * own)


def _in_parts(
    items: Sequence[ItemT], size: int, work: Callable[[Sequence[ItemT]], list[DoneT]], tell: Callable[[float], None]
) -> list[DoneT]:
    """``work(items)``, ``size`` of them at a time; ``tell`` is told what share is done."""
    done: list[DoneT] = []
    for first in range(0, len(items), size):
        done += work(items[first : first + size])
        tell(len(done) / len(items))
    return done


def _choose(questions: Sequence[Question], nats: Sequence[Sequence[float]]) -> list[bool]:
    """Whether the likeliest choice is the right one; of equally likely ones the first counts."""
    return [int(np.argmin(own)) == question.label for own, question in zip(nats, questions, strict=True)]


def _write(glm: Glm, task: Task, queries: Sequence[Query]) -> list[str]:
    """What the model writes in each blank."""
    options = GenerationOptions(beams=task.beams, max_length=task.max_length, no_repeat_ngram=0)
    writings = [Writing(list(query.context), (query.blank,), query.running) for query in queries]
    answers = [ids[0] for ids in glm.write(writings, options, words_first=task.match == "first-word")]
    return [text_of(glm.tokenizer, ids) for ids in answers]


def _is_right(task: Task, text: str, question: Question) -> bool:
    if task.match == "span":
        return is_exact(text, question.accepted)
    if task.match == "first-word":
        word = _WORD.search(text)
        return word is not None and any(word.group() == target.strip() for target in question.accepted)
    return any(" ".join(text.split()) == " ".join(target.split()) for target in question.accepted)


def _run_text(glm: Glm, task: Task, setup: Setup, say: Callable[[str], None]) -> TaskResult:
    """Bits per byte of documents, in all and by source."""
    documents = [
        (source or "", text)
        for file in task_files(task, setup.data, task.files)
        for block in read_blocks(file)
        for source, text in zip(*(block.documents.column(name).to_pylist() for name in ("source", "text")), strict=True)
        if text
    ]
    documents = _spread(documents, setup.limit)
    if not documents:
        raise InputError(f"task '{task.name}': its files hold no document; check 'files'.")
    sizes = np.array([float(len(text.encode())) for _, text in documents])
    say(f"{task.name}: {len(documents):,} documents of {int(sizes.sum()):,} bytes")
    nats = _document_nats(glm, documents, sizes, setup, _teller(say, task.name))
    sources = np.array([source for source, _ in documents])
    parts = {name: (nats[sources == name], sizes[sources == name]) for name in np.unique(sources).tolist()}
    found = find_in_corpus([text for _, text in documents], setup.corpus) if setup.corpus else None
    score = bits_per_byte(nats, sizes)
    known = {name: part for name, part in parts.items() if name in task.weights}
    result = PromptResult(
        name="",
        score=score,
        groups={name: bits_per_byte(*part) for name, part in parts.items()} if len(parts) > 1 else {},
        refused={},
        cut=0,
        clean=None if found is None or found.all() else bits_per_byte(nats[~found], sizes[~found]),
    )
    return TaskResult(
        name=task.name,
        metric="bits per byte",
        shots=0,
        items=len(documents),
        prompts=(result,),
        maximum=score.value,
        median=score.value,
        mean=score.value,
        weighted=weighted_bits_per_byte(known, task.weights) if known else None,
        found=None if found is None else int(found.sum()),
    )


def _document_nats(
    glm: Glm, documents: Sequence[tuple[str, str]], sizes: Any, setup: Setup, tell: Callable[[float], None]
) -> Any:
    """``float64[documents]``: nats of each, some at a time; ``tell`` is told what share of their bytes is done."""
    nats: list[float] = []
    for first in range(0, len(documents), _DOCUMENTS):
        some = slice(first, first + _DOCUMENTS)
        windows = [encode_windows(text, glm.tokenizer, setup.longest) for _, text in documents[some]]
        before, own = sizes[:first].sum() / sizes.sum(), sizes[some].sum() / sizes.sum()
        parts = [window for own_windows in windows for window in own_windows]
        told = _part_of(tell, before, own)
        each = iter(_in_parts(parts, _WINDOWS, lambda some_windows: losses(glm.model, some_windows), told))
        nats += [sum(next(each)[0] for _ in own_windows) for own_windows in windows]
    return np.array(nats, np.float64)
