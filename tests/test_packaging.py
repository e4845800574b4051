"""The wheel holds everything that a run needs, and its entry points lead somewhere."""

from __future__ import annotations

import email
import importlib
import os
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("glm_data", "pipelines", "tokenizer", "manifests")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("glm_data-*.whl")
    return zipfile.ZipFile(built)


def tracked_files() -> set[str]:
    """Files of our packages in the tree, as a wheel should hold them."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in found}
    return {name for name in names if "__pycache__" not in name}


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    missing = tracked_files() - held
    assert not missing, sorted(missing)[:10]
    assert {name for name in held if not name.partition("/")[0].endswith(".dist-info")} <= tracked_files()


@pytest.mark.parametrize("package", ["glm_data", "pipelines", "tokenizer"])
def test_the_wheel_marks_its_packages_as_typed(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


def test_the_wheel_ships_the_demo(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "manifests/demo.yaml" in names
    for language in ("en", "zh"):
        assert any(name.startswith(f"manifests/demo/corpus/{language}/") for name in names)


def test_the_metadata_names_the_extras_and_the_python(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Name"] == "glm-data"
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"train", "web", "dask", "dev"} <= set(metadata.get_all("Provides-Extra") or [])


def test_the_entry_points_can_be_called(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    parser = ConfigParser()
    parser.read_string(wheel.read(name).decode())
    scripts = dict(parser["console_scripts"])
    assert set(scripts) == {"glm-data", "beam", "glm-beam"}
    for target in scripts.values():
        module, _, attribute = target.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_every_requirement_is_pinned_for_make() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    wanted = [*project["dependencies"], *extras["train"], *extras["web"], *extras["dev"]]
    missing = [item for item in wanted if item.partition(">=")[0].partition("[")[0].lower() not in pinned]
    assert not missing, f"not in constraints.txt: {missing}"


def test_the_image_of_workers_has_our_beam_and_what_the_package_needs() -> None:
    lines = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ARG BEAM_VERSION={_pinned(constraints, 'apache-beam')}" in lines
    assert "FROM apache/beam_python3.11_sdk:${BEAM_VERSION}" in lines
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert copied >= {*PACKAGES, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in copied)


def _pinned(constraints: list[str], name: str) -> str:
    (version,) = [line.partition("==")[2] for line in constraints if line.startswith(f"{name}==")]
    return version
