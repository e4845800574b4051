"""The finished stages of a run, and where the files that a stage read lie now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.errors import InputError, UsageError
from glm_data.inputs import find_inputs
from glm_data.manifest import INPUTS, PLAN, RUN, SUCCESS, InputFile, Success, read_success, stage_folders


@dataclass(frozen=True)
class FinishedStage:
    """A stage's folder with what it says about itself."""

    folder: Path
    plan: dict[str, Any]
    success: Success

    @property
    def kind(self) -> str:
        """The stage's name: ``filter``, ``dedupe``; the folder may be called otherwise."""
        return self.success.stage

    def paths(self, below: str) -> list[Path]:
        """The stage's files in its sub-folder ``below``, in order of name."""
        return [self.folder / item.name for item in self.success.files if item.name.startswith(f"{below}/")]


@dataclass(frozen=True)
class Run:
    """A run's folder, or a single stage's."""

    folder: Path
    stages: tuple[FinishedStage, ...]
    unfinished: tuple[str, ...]
    """Folders of stages that have not come to their end."""

    def only(self, kind: str) -> FinishedStage:
        """The one finished stage of a kind; :class:`UsageError` if there is none, or a choice."""
        found = [stage for stage in self.stages if stage.kind == kind]
        if len(found) > 1:
            names = ", ".join(f"'{stage.folder}'" for stage in found)
            raise UsageError(f"'{self.folder}' holds several {kind} stages ({names}); give one of them.")
        if not found:
            raise UsageError(f"'{self.folder}' holds no finished {kind} stage; give a run or a stage that does.")
        return found[0]


def open_run(folder: Path) -> Run:
    """Read the manifests of all stages in ``folder``; :class:`UsageError` if none of them is finished."""
    folders = stage_folders(folder)
    finished = tuple(_open(path) for path in folders if (path / SUCCESS).exists())
    unfinished = tuple(path.name for path in folders if not (path / SUCCESS).exists())
    if not finished:
        raise UsageError(
            f"'{folder}' holds no finished stage (begun: {', '.join(unfinished)}); run it to its end first."
        )
    return Run(folder, finished, unfinished)


def _open(folder: Path) -> FinishedStage:
    try:
        return FinishedStage(folder, files.read_json(folder / PLAN), read_success(folder))
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"'{folder / PLAN}' cannot be read ({error}); run that stage again.") from None


def locate_inputs(stage: FinishedStage, given: Sequence[str | Path] = ()) -> tuple[InputFile, ...]:
    """The files that a stage read, where they lie now, in the stage's order.

    Looked for are ``given`` (files, folders, patterns or stages; known by their digests), then the places where the
    stage read them, then the outputs of the stages beside it. Raises :class:`InputError` for those that are not found.
    """
    by_digest = {item.digest: item.path for item in find_inputs(given)} if given else {}
    known, beside = _known_paths(stage.folder), dict(_outputs_beside(stage.folder))
    found, lost = [], []
    for item in stage.plan["inputs"]:
        places = [by_digest.get(item["digest"]), known.get(item["name"]), beside.get(item["digest"])]
        path = next((place for place in places if place and _has_size(Path(place), item["bytes"])), None)
        if path:
            found.append(InputFile(name=item["name"], path=path, bytes=item["bytes"], digest=item["digest"]))
        else:
            lost.append(known.get(item["name"]) or item["name"])
    if lost:
        raise InputError(
            f"{len(lost)} of {len(stage.plan['inputs'])} inputs of '{stage.folder}' have moved or changed since it "
            f"read them, such as '{lost[0]}'; put them back, or say where they are now with --inputs."
        )
    return tuple(found)


def _known_paths(folder: Path) -> dict[str, str]:
    """Where the stage's last run found its inputs, by name."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        paths: dict[str, str] = files.read_json(folder / RUN / INPUTS)
        return paths
    return {}


def _outputs_beside(folder: Path) -> Iterator[tuple[str, str]]:
    """Digest and path of every file of the finished stages in the same run."""
    for path in sorted(folder.parent.glob(f"*/{SUCCESS}")):
        with contextlib.suppress(InputError):
            for item in read_success(path.parent).files:
                yield item.digest, str(path.parent / item.name)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
