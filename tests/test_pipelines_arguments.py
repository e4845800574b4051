"""Command lines of stages: options from structs, everything else to Beam, errors with the cure."""

from __future__ import annotations

import argparse
from typing import Annotated, Literal

import pytest

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError, UsageError
from pipelines.arguments import add_options, from_arguments, parse_stage


class Options(Config, frozen=True, kw_only=True):
    """One field of each kind."""

    must: Annotated[int, Doc("needed")]
    max_bad: Annotated[float, Doc("a share of 100 %")] = 0.01
    mode: Annotated[Literal["fast", "slow"], Doc("how")] = "fast"
    on: Annotated[bool, Doc("a switch")] = True
    many: Annotated[tuple[str, ...], Doc("words")] = ("x",)
    path: Annotated[str | None, Doc("a place")] = None


def parse(line: str):  # type: ignore[no-untyped-def]
    return parse_stage(line.split(), "stage", "A stage.", Options)


def test_a_command_line_becomes_the_struct() -> None:
    found = parse(
        "a b --input c d --output out --must 3 --max_bad 0.5 --mode slow --no-on --many p q --path z --overwrite"
    )
    assert found.inputs == ("a", "b", "c", "d")
    assert str(found.output) == "out"
    assert found.options == Options(must=3, max_bad=0.5, mode="slow", on=False, many=("p", "q"), path="z")
    assert found.overwrite is True
    assert parse("a --output out --must 1").options == Options(must=1)
    assert parse("a --output out --must 1").runner.workers == 0


def test_other_options_go_to_beam() -> None:
    runner = parse("a --output o --must 1 --temp_location gs://x --save_main_session --workers 2 b -- --own 1").runner
    assert runner.workers == 2
    assert runner.beam_args == ("--temp_location", "gs://x", "--save_main_session", "--", "--own", "1")
    assert parse("a --save_main_session b --output o --must 1").inputs == ("a", "b")
    assert parse("a --output o --must 1 --runner flink --flink_master=x:1 --unheard of").runner.beam_args == (
        "--flink_master=x:1", "--unheard", "of",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a --output o --must 1 --max-bda 2", "Did you mean '--max-bad'?"),
        ("a --output o --must 1 --unheard-of 2", "no Beam option '--unheard-of'"),
        ("a --output o --must 1 --mode quick", "invalid choice: 'quick'"),
        ("a --output o --must one", "invalid int value: 'one'"),
        ("a --output o", "the following arguments are required: --must"),
        ("a --must 1", "the following arguments are required: --output"),
        ("--output o --must 1", "no input; give files, folders or patterns"),
        ("a --output o --must 1 --runner flnk", "Did you mean 'flink'?"),
    ],
)
def test_errors_say_what_to_do(line: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(line)
    assert message in str(error.value)


def test_help_shows_doc_lines_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse("--help")
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "needed (required)",
        "a share of 100 % (default: 0.01)",
        "a switch (default: on)",
        "words (default: x)",
    ):
        assert part in shown
    assert "--beam-args" not in shown


def test_values_the_struct_refuses_are_config_errors() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Options)
    with pytest.raises(ConfigError, match="the option --must is missing"):
        from_arguments(argparse.Namespace(), Options)
    assert from_arguments(parser.parse_args(["--must", "2"]), Options) == Options(must=2)
