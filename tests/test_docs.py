"""What the documents tell a reader to type exists, what they link to is there, and what is generated is current."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import pytest

from glm_data.cli.fields import OPTIONS
from glm_data.cli.shell import cli, load_command
from glm_data.packing.rows import Rows, assemble
from pipelines.arguments import _beam_options
from pipelines.engines import ENGINES
from pipelines.launcher import main as beam_main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:glm-data|beam|glm-beam|make) [^`]+)`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_PROGRAMS = ("glm-data", "beam", "glm-beam", "make")


def blocks(page: str, language: str) -> list[str]:
    return [body for name, body in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")) if name == language]


def commands(page: str) -> Iterator[list[str]]:
    """The words of every command of ours on a page, in shell blocks and in running text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for body in blocks(page, "sh") for line in body.replace("\\\n", " ").splitlines()]
    for line in [*lines, *_INLINE.findall(_BLOCK.sub("", text))]:
        for part in re.split(r"&&|\|(?= glm-data)", line):
            words = shlex.split(part, comments=True)
            if words and words[0] in _PROGRAMS:
                yield words


ALL = [(page, words) for page in PAGE_NAMES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), ALL, ids=[" ".join(words)[:60] for _, words in ALL])
def test_commands_exist_with_their_options(page: str, words: list[str]) -> None:
    program, *rest = words
    if program == "make":
        check_make(rest)
    elif program == "glm-data" and rest[:1] != ["beam"]:
        check_click(cli, rest)
    else:
        check_beam(rest[1:] if program == "glm-data" else rest)


def check_make(targets: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        name, is_variable, _ = target.partition("=")
        assert re.search(rf"^{name} =" if is_variable else rf"^{name}:", makefile, re.MULTILINE), target


def check_click(command: click.Command, words: list[str]) -> None:
    """Walk into groups, then hold every flag against the command's options. UPPER-CASE words are placeholders."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        if words and not words[0].startswith("-") and words[0] != "COMMAND":
            found = command.get_command(context, words[0])
            assert found is not None, f"no command {words[0]}"
            check_click(found, words[1:])
        return
    branches = getattr(command, "branches", {})
    if words and words[0] in branches:
        check_click(load_command(branches[words[0]][0]), words[1:])
        return
    known = {name for item in command.params if isinstance(item, click.Option) for name in item.opts}
    known |= {name for item in command.params if isinstance(item, click.Option) for name in item.secondary_opts}
    if command.context_settings.get("ignore_unknown_options"):
        known |= beam_options()
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known | {"--help"}, f"{command.name} has no {sorted(used - known)}"


def check_beam(words: list[str]) -> None:
    if not words or words[0] != "run" or len(words) == 1 or not words[1].startswith("pipelines/"):
        assert words[:1] in ([], ["run"], ["runners"], ["--version"]), words
        return
    used = {word.partition("=")[0] for word in words[2:] if word.startswith("--") and word != "--"}
    known = set(re.findall(r"--[\w-]+", beam_help(words[1]))) | beam_options()
    assert used <= known, f"{words[1]} has no {sorted(used - known)}"


@functools.cache
def beam_options() -> set[str]:
    """The options of Beam and of its runners, those of Dask by name, as they are declared by an extra."""
    return {*_beam_options(), *ENGINES["dask"].address}


@functools.cache
def beam_help(pipeline: str) -> str:
    command = [sys.executable, "-m", "glm_data.cli", "beam", "run", pipeline, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_launcher_is_what_the_documents_call_beam() -> None:
    assert beam_main(["runners"]) == 0


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_links_lead_somewhere(page: str) -> None:
    text = _BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = ((ROOT / page).parent / target) if target else ROOT / page
        assert path.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(path), f"{page} links to {link}"


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, made as forges make them."""
    heads = re.findall(r"^#+ (.+)$", _BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_page_of_commands_is_current() -> None:
    current = load(ROOT / "docs" / "write_cli.py").page()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == current, "run: make docs"


def test_the_list_of_options_is_current() -> None:
    current = load(ROOT / "docs" / "write_cli.py").listed()
    assert OPTIONS.read_bytes() == current, "run: make docs"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_readmes_show_the_same_commands() -> None:
    assert list(commands("README.md")) == list(commands("README.zh.md"))


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_python_blocks_are_python(page: str) -> None:
    for body in blocks(page, "python"):
        compile(body, page, "exec")


def test_the_three_line_reader_of_the_readme_reads_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [body for body in blocks("README.md", "python") if "memmap" in body]
    written = np.arange(3 * 2048, dtype=np.uint16).reshape(3, 2048)
    pack = tmp_path / "run" / "pack"
    pack.mkdir(parents=True)
    (pack / "data-00000-of-00001.arrow").write_bytes(b"\0" * 64 + written.tobytes())
    shard = {"file": "data-00000-of-00001.arrow", "rows": 3, "offset": 64}
    facts = {"token_type": "uint16", "shards": [shard]}
    (pack / "_SUCCESS.json").write_text(json.dumps({"facts": facts}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, np.ndarray] = {}
    exec(code, names)
    assert np.array_equal(names["tokens"], written)


# --- the rows drawn on the page of the format -------------------------------------------------------------------------

MASK, GMASK, SOP, EOP = 1, 2, 3, 4
_WORDS = {"[M]": MASK, "[gM]": GMASK, "<sop>": SOP, "<eop>": EOP}


def drawn() -> dict[str, dict[str, str]]:
    """The drawn rows of docs/format.md: name -> line -> its text."""
    (block,) = [body for body in blocks("docs/format.md", "") if body.startswith("[MASK]    tokens")]
    rows: dict[str, dict[str, str]] = {}
    for part in block.strip().split("\n\n"):
        name = part.split()[0]
        lines = [line[10:] for line in part.splitlines()]
        rows[name] = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    return rows


def cells(line: str) -> list[int]:
    return [_WORDS.get(word) or int(word) for word in line.replace("|", " ").split()]


def triples(line: str, width: int) -> np.ndarray:
    return np.array([int(number) for number in re.findall(r"\d+", line)], np.int32).reshape(-1, width)


@pytest.mark.parametrize("name", ["[MASK]", "[gMASK]", "MIP"])
def test_the_drawn_rows_are_what_assemble_makes(name: str) -> None:
    row = drawn()[name]
    tokens = np.array([cells(row["tokens"])], np.int32)
    head, tail = re.split(r"\s+tails\s+", row["pieces"])
    pieces, spans = re.split(r"\s+spans\s+", head)
    tails = np.array([] if tail == "-" else [int(tail)], np.int32)
    columns = (triples(pieces, 4), triples(spans, 3), tails)
    offsets = [np.array([0, len(column)], np.int64) for column in columns]
    rows = Rows(tokens, offsets[0], columns[0], offsets[1], columns[1], offsets[2], columns[2])
    made, sep = assemble(rows, EOP), columns[0][0, 1]
    assert made.position_ids[0].tolist() == cells(row["position"])
    assert made.targets[0, sep:].tolist() == cells(row["targets"])
    assert made.loss_mask[0].tolist() == [0] * sep + [1] * (tokens.shape[1] - sep)
