"""The site builds without a warning, how-tos and README can be followed, every explained error is raised somewhere."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import warnings
from pathlib import Path

import pytest
from dedupe_texts import write_documents
from test_docs import ROOT, blocks

from glm_data.cli.shell import run

PACKAGES = ("glm_data", "pipelines", "tokenizer", "manifests")


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Sphinx and its own dependencies; what it says of our pages is below
        from sphinx.application import Sphinx

        said = io.StringIO()
        places = (tmp_path / "out", tmp_path / "trees")
        site = Sphinx(ROOT / "docs", ROOT / "docs", *places, "dummy", status=None, warning=said, freshenv=True)
        site.build()
    assert said.getvalue() == ""
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} == site.env.found_docs


# --- commands that are run --------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with some shards in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    for number, language in enumerate(("en", "zh")):
        texts = write_documents(language, 30)
        lines = (json.dumps({"text": text, "meta": {"pile_set_name": language}}) for text in [*texts, texts[0]])
        (tmp_path / "shards" / f"{number:02d}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def runnable(page: str) -> list[list[str]]:
    """The commands of a page that need nothing but a folder of shards: no cluster."""
    lines = [line for body in blocks(page, "sh") for line in body.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["glm-data"] and "--runner" not in line]


def test_the_how_tos_can_be_followed(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = runnable("docs/howto.md")
    assert len(commands) >= 15
    for command in commands:
        assert run(command) == 0, (command, capsys.readouterr().err)
    assert (shards / "my-run" / "report.html").is_file()
    assert "same in every stage" in capsys.readouterr().out
    assert run(["explain", "shards/00.jsonl#0", "my-run"]) == 0


def test_the_stages_of_the_readme_can_be_followed(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but ``serve``, which ends when it is told to, and but what stands in the how-tos, too.

    So few texts hold 1,024 pieces and make a pack of about 16 rows.
    """
    fitting = {"tokenizer": ["--vocab-size", "1024"], "eval": ["--held-out-rows", "2"]}
    for number, corpus in enumerate(("pile", "wudao")):
        (shards / "shards" / corpus).mkdir()
        (shards / "shards" / f"{number:02d}.jsonl").rename(shards / "shards" / corpus / "00.jsonl")
    (shards / "manifests").symlink_to(ROOT / "manifests")
    followed = runnable("docs/howto.md")
    commands = [command for command in runnable("README.md") if command not in followed and command[0] != "serve"]
    assert len(commands) == 12
    for command in commands:
        assert run([*command, *fitting.get(command[0], ())]) == 0, (command, capsys.readouterr().err)
    assert (shards / "run" / "quantize" / "_SUCCESS.json").is_file()


# --- errors by their sentence -----------------------------------------------------------------------------------------


def constants() -> str:
    """Every string of our source, parts of f-strings apart."""
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            found += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\0".join(found)


def explained() -> list[str]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


_FILLED_IN = re.compile(
    r"…%?|\b[NM]\b|HOST|\d[\d.]*%|_SUCCESS\.json|No space left on device|Permission denied"
    r"|torch|train|: |wanted\. |\(limit"
)
"""What stands for something in an explained sentence, and where its parts are joined."""


def test_every_explained_error_is_said_somewhere() -> None:
    source = constants()
    assert len(explained()) > 25
    for sentence in explained():
        parts = [part.strip(" '\"(),.[]") for part in _FILLED_IN.split(sentence)]
        known = [part for part in parts if len(part) >= 8]
        assert known, sentence
        for part in known:
            assert part in source, f"{sentence}: nothing says '{part}'"
