"""The house of docs/design.md, held: no import runs upward, heavy packages stay in their rooms, sizes stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("glm_data", "pipelines", "tokenizer", "manifests")

GROUND = (
    "errors", "files", "hidden", "config", "documents", "manifest", "inputs", "stage", "progress", "web", "kernels"
)  # fmt: skip
"""Modules of the ground floor, one room together with ``glm_data/__init__.py``."""

STANDS_ON: dict[str, tuple[str, ...]] = {
    "tokenizer": ("ground",),
    "manifests": (),
    "ground": (),
    "bans": ("ground", "manifests"),
    "text": ("ground",),
    "formats": ("text",),
    "filters": ("formats",),
    "dedupe": ("formats",),
    "decontaminate": ("formats", "bans"),
    "mip": ("formats", "decontaminate", "tokenizer"),
    "packing": ("filters", "dedupe", "mip", "tokenizer"),
    "vocabulary": ("formats", "tokenizer"),
    "loading": ("packing",),
    "exporting": ("loading",),
    "model": ("ground",),
    "training": ("model", "loading"),
    "int4": ("training",),
    "megatron": ("int4", "tokenizer"),
    "generation": ("training", "int4"),
    "evaluation": ("generation", "decontaminate"),
    "serving": ("generation",),
    "report": ("inspection",),
    "pipelines": ("packing", "vocabulary", "decontaminate"),
    "demo_input": ("formats", "manifests"),
    "inspection": ("loading",),
    "recipe": ("pipelines", "evaluation", "report", "demo_input"),
    "planning": ("recipe",),
    "viewer": ("report", "vocabulary"),
    "cli": ("planning", "exporting", "viewer", "megatron", "serving"),
}
"""Every room and those right below it; a room may import all that its house stands on, down to the ground."""

TORCH_ROOMS = {"model", "training", "int4", "megatron", "generation", "evaluation", "serving"}
WEB_ROOMS = {"serving", "viewer"}
TORCH_ADAPTERS = {"glm_data/loading/torch_adapter.py"}
MOST_FUNCTION_LINES, MOST_FILE_LINES = 60, 500


@cache
def sources() -> dict[str, ast.Module]:
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def room_of(module: str) -> str:
    """The room of a dotted module name of ours: ``glm_data.packing.rows`` is in ``packing``."""
    package, _, rest = module.partition(".")
    if package != "glm_data":
        return package
    first = rest.partition(".")[0]
    if first.startswith("demo_"):
        return "demo_input"
    return "ground" if first in ("", "__version__", *GROUND) else first


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported anywhere in a file; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(sources()[path]):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def below(room: str) -> set[str]:
    """The room itself and all it stands on."""
    return {room}.union(*(below(lower) for lower in STANDS_ON[room]))


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES


def test_no_import_runs_upward() -> None:
    upward = [
        f"{path}:{line}: '{room_of(module_of(path))}' imports {name}"
        for path in sources()
        for line, name in imports(path)
        if is_ours(name) and room_of(name) not in below(room_of(module_of(path)))
    ]
    assert not upward, "\n".join(upward)


def test_every_room_has_a_floor_and_a_line_in_the_design() -> None:
    rooms = {room_of(module_of(path)) for path in sources()}
    assert rooms <= set(STANDS_ON), f"rooms without a floor: {rooms - set(STANDS_ON)}"
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    folders = {room for room in rooms if (ROOT / "glm_data" / room).is_dir() or (ROOT / room).is_dir()}
    modules = {path.name for path in (ROOT / "glm_data").glob("*.py")} - {"__init__.py"}
    others = {"examples", "benchmarks"}
    missing = [name for name in (*(f"{room}/" for room in folders | others), *modules) if f"{name} " not in design]
    assert not missing, f"rooms that docs/design.md does not name: {missing}"


def test_the_corpus_rooms_never_stand_on_the_model() -> None:
    for room in ("pipelines", "packing", "loading", "exporting", "filters", "dedupe", "mip"):
        assert not below(room) & TORCH_ROOMS


def test_only_pipelines_import_beam() -> None:
    assert not importers("apache_beam") - {path for path in sources() if path.startswith("pipelines/")}


def test_only_the_training_rooms_import_torch() -> None:
    allowed = {path for path in sources() if room_of(module_of(path)) in TORCH_ROOMS} | TORCH_ADAPTERS
    assert not (importers("torch") | importers("safetensors")) - allowed


def test_only_the_shared_web_module_and_the_pages_import_a_web_server() -> None:
    allowed = {path for path in sources() if room_of(module_of(path)) in WEB_ROOMS} | {"glm_data/web.py"}
    assert not (importers("starlette") | importers("uvicorn")) - allowed


@pytest.mark.parametrize("module", ["pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"])
def test_nobody_unpickles(module: str) -> None:
    assert not importers(module)


def test_nobody_imports_the_generated_sentencepiece_model() -> None:
    """Its generated code wants a newer protobuf than Beam allows."""
    found = [path for path in sources() for _, name in imports(path) if "sentencepiece_model_pb2" in name]
    assert not found


def importers(package: str) -> set[str]:
    return {path for path in sources() for _, name in imports(path) if name.partition(".")[0] == package}


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path}:{node.lineno}: {node.name} has {length} lines"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_files_stay_small() -> None:
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in sources()}
    long = {path: lines for path, lines in lengths.items() if lines > MOST_FILE_LINES}
    assert not long


def test_the_checks_above_can_fail() -> None:
    assert room_of("glm_data.packing.rows") == "packing"
    assert room_of("glm_data.stage.Success") == "ground"
    assert room_of("pipelines.dedupe") == "pipelines"
    assert "cli" not in below("pipelines")
    assert below("loading") >= {"packing", "mip", "tokenizer", "ground"}
    assert importers("numpy"), "the tree is read and imports are found"
