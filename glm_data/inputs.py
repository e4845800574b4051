"""Finding a stage's input files: what a path on the command line or in a recipe stands for, and the names in ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from glm_data import files
from glm_data.errors import InputError, UsageError
from glm_data.manifest import PLAN, InputFile, OutputFile, is_in_place, read_success

_WILDCARDS = "*?["


def describe_input(path: Path, name: str, *, digest: bool = True) -> InputFile:
    """Measure one input file: size and, if wanted, xxh3-128 of its bytes (read once, at disk speed).

    Raises :class:`InputError` if it cannot be read, or if its name, which stands in ids, is not UTF-8.
    """
    if not is_utf8(name):
        raise InputError(f"'{path}' has a name that is not UTF-8, and the ids of documents are made of it; rename it.")
    try:
        found = files.digest_file(path) if digest else ""
        return InputFile(name=name, path=str(path.absolute()), bytes=path.stat().st_size, digest=found)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); check the file and its permissions.") from error


def is_utf8(name: str) -> bool:
    """Whether a file's name, as the system gave it, is UTF-8; other bytes come as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def files_inside(folder: Path) -> list[Path]:
    """All files of a folder that is one input, such as one of ``datasets``, but hidden ones; sorted."""
    return sorted(item for item in folder.rglob("*") if item.is_file() and not item.name.startswith("."))


def check_unchanged(item: InputFile) -> None:
    """Raise :class:`InputError` if an input file, or folder, is no longer as long as when the stage was planned.

    A shard calls this after reading, so that a file that was still being written does not pass for the planned one.
    """
    path = Path(item.path)
    found = files_inside(path) if path.is_dir() else [path] if path.is_file() else []
    size = sum(file.stat().st_size for file in found)
    if size != item.bytes:
        raise InputError(
            f"'{path}' changed while the stage ran ({item.bytes} bytes when planned, {size} now); "
            "wait until it is complete, then run again."
        )


def find_inputs(paths: Sequence[str | Path], *, digest: bool = True) -> tuple[InputFile, ...]:
    """Resolve files, folders, globs and finished stage folders to input files, in order of name.

    A folder stands for all files in it, except names with a leading ``.`` or ``_`` and stage folders inside it. A file
    is named ``<folder name>/<relative path>``, and the same whether it was given itself (then by the folder it lies
    in), with its folder, or by a glob (then from the part before the first wildcard). A finished stage folder stands
    for the ``data/`` files of its success manifest, named as there; with several stages the folder's name comes first.
    Nothing found, an unfinished stage, or two inputs of one name is a :class:`UsageError`. Without ``digest`` no file
    is read, which is enough to plan a stage but not to run one.
    """
    stages = [Path(given) for given in paths if (Path(given) / PLAN).exists()]
    found: list[InputFile] = []
    for given in paths:
        if Path(given) in stages:
            found.extend(_find_in_stage(Path(given), prefix=len(stages) > 1))
        else:
            found.extend(_find(str(given), digest))
    names = Counter(item.name for item in found)
    doubled = sorted(name for name, count in names.items() if count > 1)
    if doubled:
        clashing = " and ".join(f"'{item.path}'" for item in found if item.name == doubled[0])
        raise UsageError(
            f"two inputs are named '{doubled[0]}' ({clashing}), so ids would clash; "
            "give each once, give the folder above them, or rename one."
        )
    return tuple(sorted(found, key=lambda item: item.name))


def stage_files(folder: Path, prefix: str = "") -> tuple[InputFile, ...]:
    """Every file that the finished stage in ``folder`` lists, for a stage that stands on it as a whole.

    Names are those of the manifest behind ``prefix``. Raises as :func:`read_success`, and :class:`InputError` if a
    file is not as its stage left it.
    """
    return tuple(_listed(folder, item, prefix + item.name) for item in read_success(folder).files)


def _find(given: str, digest: bool) -> list[InputFile]:
    path = Path(given)
    if path.is_dir():
        return _find_in_folder(path, digest)
    if path.is_file():
        return [describe_input(path, _name_below(path.parent, path), digest=digest)]
    if any(mark in given for mark in _WILDCARDS):
        return _find_by_pattern(path, digest)
    raise UsageError(f"'{given}' does not exist; give a file, a folder, a pattern or a finished stage's folder.")


def _find_in_stage(folder: Path, prefix: bool) -> list[InputFile]:
    success = read_success(folder)
    items = [item for item in success.files if item.name.startswith("data/")]
    if not items:
        raise UsageError(f"'{folder}' is a {success.stage} stage, which holds no data/ files; give another stage.")
    return [_listed(folder, item, _name_below(folder, folder / item.name) if prefix else item.name) for item in items]


def _listed(folder: Path, item: OutputFile, name: str) -> InputFile:
    path = folder / item.name
    if not is_in_place(folder, item):
        raise InputError(f"'{path}' is not as its stage left it; run that stage again.")
    return InputFile(name=name, path=str(path.absolute()), bytes=item.bytes, digest=item.digest)


def _find_in_folder(folder: Path, digest: bool) -> list[InputFile]:
    inside, stages = _visible_files(folder)
    if not inside and stages:
        names = ", ".join(stage.relative_to(folder).as_posix() for stage in stages)
        raise UsageError(f"'{folder}' holds stage folders ({names}) but no input of its own; give one of those.")
    if not inside:
        raise UsageError(f"'{folder}' holds no file to read; give a folder with shards in it.")
    return [describe_input(path, _name_below(folder, path), digest=digest) for path in inside]


def _visible_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files to read below ``folder``, and the stage folders that were passed over (output beside input is no input)."""
    inside: list[Path] = []
    stages: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_file():
            inside.append(path)
        elif (path / PLAN).exists():
            stages.append(path)
        elif path.is_dir() and not path.is_symlink():  # a linked folder may lead back up
            below = _visible_files(path)
            inside += below[0]
            stages += below[1]
    return inside, stages


def _find_by_pattern(pattern: Path, digest: bool) -> list[InputFile]:
    fixed = next(index for index, part in enumerate(pattern.parts) if any(mark in part for mark in _WILDCARDS))
    folder, rest = Path(*pattern.parts[:fixed]), Path(*pattern.parts[fixed:])
    if rest.name == "**":
        rest = rest / "*"
    try:
        matches = sorted(match for match in folder.glob(str(rest)) if match.is_file())
    except ValueError as error:
        raise UsageError(f"'{pattern}' is no pattern ({error}).") from None
    if _is_visible(rest):  # as in a shell, hidden names have to be asked for
        matches = [match for match in matches if _is_visible(match.relative_to(folder))]
    if not matches:
        raise UsageError(f"'{pattern}' matches no file; check the pattern and the working directory.")
    return [describe_input(match, _name_below(folder, match), digest=digest) for match in matches]


def _is_visible(relative: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in relative.parts)


def _name_below(folder: Path, path: Path) -> str:
    """``<folder name>/<relative path>``; a link keeps the name it is known by."""
    absolute = folder.absolute()
    if ".." in absolute.parts:
        absolute = absolute.resolve()
    return f"{absolute.name}/{path.relative_to(folder).as_posix()}".lstrip("/")
