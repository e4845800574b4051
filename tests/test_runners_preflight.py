"""What a runner needs is said before it is missed, each thing with its cure."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from glm_data.cli.shell import run
from glm_data.errors import GlmDataError, MissingExtraError, UsageError
from pipelines import preflight
from pipelines.engines import ENGINES
from pipelines.preflight import about_this_process, check_endpoint, check_flink, check_java, check_workers


@contextlib.contextmanager
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def flink(answer: object) -> Iterator[str]:
    """A cluster's REST interface that gives one answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/overview" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


OVERVIEW = {"flink-version": "2.2.1", "taskmanagers": 3, "slots-total": 12}


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Java that can only say its version."""
    program = tmp_path / "jdk/bin/java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'openjdk version \"17.0.9\"' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    return program


def troubles(name: str, *args: str, shared: Path | None = None) -> dict[str, str]:
    checks = preflight.preflight(ENGINES[name], args, shared)
    return {check.name: check.sentence for check in checks if not check.ok}


def test_a_flink_cluster_with_an_image_has_all_it_needs(java: Path) -> None:
    with flink(OVERVIEW) as master:
        arguments = (f"--flink_master={master}", "--environment_type=DOCKER", "--environment_config=example/glm-data")
        checks = {check.name: check for check in preflight.preflight(ENGINES["flink"], arguments)}
    assert all(check.ok for check in checks.values())
    assert checks["address"].sentence == "Flink 2.2.1 with 3 task managers and 12 slots answers."
    assert checks["java"].sentence == f'openjdk version "17.0.9" ({java}).'
    assert "--flink_job_server_jar=PATH" in checks["job server jar"].sentence
    assert "--shared FOLDER" in checks["storage"].sentence


@pytest.mark.parametrize(
    ("answer", "cure"),
    [
        ({**OVERVIEW, "flink-version": "1.20.0"}, "runs Flink 1.20.0, not 2.2: give --flink_version=1.20."),
        ({**OVERVIEW, "taskmanagers": 0}, "has no task manager; start one."),
        ({"status": "UP"}, "is no Flink REST interface; give its port."),
        ("hello", "is no Flink REST interface; give its port."),
    ],
)
def test_a_flink_cluster_that_will_not_do(answer: object, cure: str) -> None:
    with flink(answer) as master:
        found = check_flink(master, "2.2")
    assert not found.ok
    assert found.sentence.endswith(cure)


def test_addresses_that_answer_and_that_do_not() -> None:
    with listening() as address:
        assert check_endpoint("job server", address).ok
        assert check_endpoint("Spark master", f"spark://{address}").ok
    gone = check_endpoint("job server", address)
    assert not gone.ok
    assert gone.sentence.startswith(f"nothing answers at {address} (")
    assert "start the job server, or check host, port and firewall" in gone.sentence
    assert "no address of a job server; give HOST:PORT" in check_endpoint("job server", "somewhere").sentence


def test_java_is_missed_with_both_cures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_java("--flink_submit_uber_jar")
    assert not found.ok
    assert "install Java 11 or newer, or submit with --flink_submit_uber_jar" in found.sentence
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    assert "(JAVA_HOME)" in check_java("--x").sentence


def test_a_spark_cluster(java: Path, tmp_path: Path) -> None:
    with listening() as address:
        jar = ("--spark_job_server_jar", str(tmp_path / "none.jar"))
        found = troubles("spark", f"--spark_master_url=spark://{address}", *jar)
        assert found.keys() == {"job server jar", "environment"}
        assert "there is no file" in found["job server jar"]
        assert "python -m pipelines.pool" in found["environment"]
        rest = ("--spark_submit_uber_jar", f"--spark_rest_url=http://{address}")
        pool = ("--environment_type=EXTERNAL", f"--environment_config={address}")
        java.unlink()
        assert troubles("spark", *rest, *pool) == {}
        missing = troubles("spark", "--spark_submit_uber_jar", f"--spark_master_url=spark://{address}")
        assert "--spark_rest_url" in missing["address"]


def test_a_job_server_with_its_kinds_of_workers() -> None:
    with listening() as jobs:
        job = f"--job_endpoint={jobs}"
        assert troubles("portable", job, "--environment_type=LOOPBACK") == {}
        assert "Beam's own image" in troubles("portable", job, "--environment_type=DOCKER")["environment"]
        lost = troubles("portable", job, "--environment_type=EXTERNAL", "--environment_config=127.0.0.1:1")
        assert "nothing answers at 127.0.0.1:1" in lost["environment"]
        assert troubles("portable", job, "--environment_type=PROCESS", '--environment_config={"command": "x"}') == {}
    assert preflight.check_environment(
        {"environment_type": "LOOPBACK", "environment_config": None}, "cluster.example:8081"
    ).sentence.startswith("LOOPBACK is for a cluster on this machine, not on 'cluster.example'")


@pytest.mark.parametrize(
    ("name", "option"), [("portable", "--job_endpoint"), ("flink", "--flink_master"), ("spark", "--spark_master_url")]
)
def test_a_runner_without_its_address(name: str, option: str) -> None:
    assert option in troubles(name)["address"]


def test_dataflow_names_what_is_not_given() -> None:
    found = troubles("dataflow", "--region=r", "--temp_location=gs://b/t")
    assert found["project"] == "not given: --project."
    assert "--sdk_container_image=IMAGE" in found["environment"]


def test_a_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(engine: object) -> None:
        raise MissingExtraError("pip install it")

    monkeypatch.setattr(preflight, "create_beam_runner", refuse)
    assert troubles("dask") == {"client": "pip install it"}


def test_workers_with_other_versions_are_counted() -> None:
    mine = about_this_process()
    assert check_workers("x", [mine, {**mine, "host": "b"}]).ok
    found = check_workers("x", [mine, {**mine, "python": "3.9"}, {**mine, "python": "3.9", "glm-data": "0.0"}])
    assert not found.ok
    assert f"python 3.9 instead of {mine['python']} (2 of 3)" in found.sentence
    assert f"glm-data 0.0 instead of {mine['glm-data']} (1 of 3)" in found.sentence
    assert "has no worker; start one with: dask worker x" in check_workers("x", []).sentence


def test_a_small_stage_shows_that_a_folder_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert troubles("local", shared=tmp_path) == {}
    assert list(tmp_path.iterdir()) == []

    def fail(*_: object) -> None:
        raise GlmDataError("its workers must see this folder.")

    monkeypatch.setattr(preflight, "run_tasks", fail)
    assert troubles("local", shared=tmp_path)["storage"].endswith("failed: its workers must see this folder.")
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_beam_does_not_know() -> None:
    with pytest.raises(UsageError, match="Did you mean '--flink_master'"):
        troubles("flink", "--flink_mastr=x:1")


def test_doctor_shows_what_the_runner_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--runner", "local", "--shared", str(tmp_path)]) == 0
    assert f"ok local storage: a small stage was run in '{tmp_path}' by workers on" in capsys.readouterr().out
    assert run(["doctor", "--runner", "portable", "--job_endpoint=localhost:1", "--json"]) == 1
    told = capsys.readouterr()
    checks = {check["name"]: check for check in json.loads(told.out)["checks"]}
    assert not checks["portable address"]["ok"]
    assert "trouble portable environment: " in told.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runner", "flnk"], "Did you mean 'flink'?"),
        (["--runner", "prism"], "nothing is known of what 'prism' needs"),
        (["--runer", "flink"], "Did you mean '--runner'?"),
        (["--shared", "."], "'--shared' is for a runner; name it with --runner."),
        (["--runner", "flink", "--flink_mastr=x:1"], "Did you mean '--flink_master'?"),
    ],
)
def test_what_doctor_cannot_be_asked(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err
