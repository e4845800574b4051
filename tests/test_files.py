import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data import files
from glm_data.errors import OutputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)

KILLED_WRITER = """
import sys, time
from pathlib import Path
from glm_data.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    handle = temporary.open("wb")
    handle.write(b"half of the new")
    handle.flush()
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_file_appears_whole_under_its_name_alone(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "数据 file.parquet"
    with files.atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == target.suffix
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), OSError(errno.EIO, "input broke")])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def write() -> None:
        with files.atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with files.atomic_path(target) as one, files.atomic_path(target) as other:
        assert one != other
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert target.read_bytes() == b"one"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("old", [None, b"old"])
def test_kill_in_the_middle_leaves_the_old_file(tmp_path: Path, old: bytes | None) -> None:
    target = tmp_path / "sub" / "file"
    target.parent.mkdir()
    if old is not None:
        target.write_bytes(old)
    with subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(target)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    left = [path for path in target.parent.iterdir() if path != target]
    assert [path.read_bytes() for path in left] == [b"half of the new"]
    assert (target.read_bytes() if target.exists() else None) == old
    files.remove_temporaries(tmp_path)
    assert list(target.parent.iterdir()) == ([target] if old else [])


def test_remove_temporaries_spares_everything_else(tmp_path: Path) -> None:
    spared = [tmp_path / "tmp-file", tmp_path / ".tmpfile", tmp_path / ".tmp-folder"]
    for path in spared[:2]:
        path.touch()
    spared[2].mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for place in (".tmp-1-x", "deep/er/.tmp-2-y", ".tmp-folder/.tmp-3-z"):
        (tmp_path / place).touch()
    files.remove_temporaries(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.name not in ("deep", "er")) == sorted(spared)


def test_remove_temporaries_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".tmp-1-x").touch()
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "link").symlink_to(tmp_path / "elsewhere")
    files.remove_temporaries(tmp_path / "stage")
    assert (tmp_path / "elsewhere" / ".tmp-1-x").exists()


def test_a_folder_that_vanishes_meanwhile_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / ".tmp-1-x").touch()
    scan = os.scandir

    def scan_too_late(folder: Path) -> object:
        if Path(folder).name == "b":
            raise FileNotFoundError(errno.ENOENT, "gone", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scan_too_late)
    files.remove_temporaries(tmp_path)
    monkeypatch.undo()
    assert [path.parent.name for path in tmp_path.rglob(".tmp-*")] == ["b"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_or_read_only_disk_is_one_sentence(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError) as caught, files.atomic_path(tmp_path / "file"):
        raise OSError(code, os.strerror(code))
    assert str(caught.value).startswith(f"'{tmp_path / 'file'}' cannot be written ({os.strerror(code)}); make room")
    assert list(tmp_path.iterdir()) == []


def test_an_input_that_may_not_be_read_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.atomic_path(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "Permission denied", "/some/input")


def write_by_python(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def write_by_arrow(path: Path) -> None:
    pq.write_table(pa.table({"a": [os.urandom(100_000)]}), path)


def write_by_numpy(path: Path) -> None:
    np.zeros(100_000).tofile(path)


@pytest.mark.parametrize("writer", [write_by_python, write_by_arrow, write_by_numpy])
def test_the_kernel_refusing_more_bytes_is_one_sentence(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    reason = r"File too large|only a part was written, the disk may be full"
    try:
        refused = pytest.raises(OutputError, match=rf"cannot be written \(({reason})\)")
        with refused, files.atomic_path(tmp_path / "file") as temporary:
            writer(temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"'.*/file/below' cannot be written"):
        files.write_bytes(tmp_path / "file" / "below" / "x", b"")


def test_a_folder_without_permission_is_one_sentence() -> None:
    """In a child without root's rights, as root may write anywhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "locked"
        folder.mkdir()
        Path(name).chmod(0o755)
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
        said = in_child(lambda: files.write_bytes(folder / "file", b"x"))
    assert (
        said == f"OutputError: '{folder / 'file'}' cannot be written (Permission denied); make room or choose another "
        "folder, then run again: what is finished is kept."
    )


def in_child(action: Callable[[], None]) -> str:
    """What ``action`` raised in a forked child that is not root."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        said = "nothing"
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            action()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as handle:
        said = handle.read()
    os.wait()
    return said


@settings(deadline=None)
@given(JSON)
def test_json_comes_back(value: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "value.json"
        files.write_json(path, value)
        assert files.read_json(path) == value


def test_json_is_sorted_indented_readable_utf8(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x", {"b": [1], "a": "中文"})
    assert (tmp_path / "x").read_text(encoding="utf-8") == '{\n "a": "中文",\n "b": [\n  1\n ]\n}\n'


@pytest.mark.parametrize("size", [0, 1, 240, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(index * index % 251 for index in range(1000)) * (size // 1000 + 1)
    data = data[:size]
    (tmp_path / "x").write_bytes(data)
    assert files.digest_file(tmp_path / "x") == files.digest_bytes(data) == xxhash.xxh3_128(data).hexdigest()


def test_digests_are_pinned() -> None:
    assert files.digest_bytes(b"") == "99aa06d3014798d86001c324468d497f"
    assert files.digest_value({"b": 1, "a": [True, None, "中"]}) == files.digest_bytes(
        '{"a":[true,null,"中"],"b":1}'.encode()
    )


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(-1000, 1000)))
def test_digest_of_a_mapping_knows_no_order(value: dict[str, int]) -> None:
    assert files.digest_value(value) == files.digest_value(dict(reversed(value.items())))
    assert files.digest_value(value) != files.digest_value({**value, "one more": 1001})
