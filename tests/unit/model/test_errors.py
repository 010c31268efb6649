"""Problems, exit statuses and findings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.main import EXIT_USAGE, main
from agent.model.errors import (
    ApplianceError,
    ConfigurationError,
    Finding,
    HostError,
    ImageError,
    Problem,
    UnitError,
)


def test_every_problem_has_an_exit_status_of_its_own() -> None:
    statuses = [problem.exit_status for problem in Problem]
    assert len(set(statuses)) == len(statuses)
    assert not {0, EXIT_USAGE} & set(statuses)
    assert max(statuses) < 64  # below those of sysexits.h, signals and systemd


def test_every_exit_status_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out.split("exit status:")[1]
    documented = {int(number) for number in re.findall(r"(?<!\S)(\d+)  ?\w", text)}
    assert documented == {0, EXIT_USAGE} | {problem.exit_status for problem in Problem}


@pytest.mark.parametrize("problem", Problem)
def test_a_problem_is_the_last_element_of_an_error_name(problem: Problem) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", problem)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ApplianceError("x"), Problem.FAILED),
        (HostError("x"), Problem.FAILED),
        (UnitError("x"), Problem.FAILED),
        (ImageError("x"), Problem.INVALID_IMAGE),
        (ConfigurationError([]), Problem.INVALID_CONFIGURATION),
        (ImageError("x", problem=Problem.NOT_FOUND), Problem.NOT_FOUND),
    ],
)
def test_what_kind_of_problem_an_error_is(error: ApplianceError, problem: Problem) -> None:
    assert error.problem is problem


def test_a_remedy_follows_the_message() -> None:
    assert str(HostError("The disk is full.", remedy="Free space.")) == "The disk is full. Free space."
    assert str(HostError("The disk is full.")) == "The disk is full."


@given(st.text(), st.text(), st.integers(0, 99), st.integers(0, 99))
def test_a_finding_is_one_line_that_moves_no_cursor(path: str, message: str, line: int, column: int) -> None:
    assert str(Finding(path, line, column, message)).isprintable()


def test_findings_that_are_printable_are_said_as_they_are() -> None:
    assert str(Finding("dns.yaml", 3, 9, "“ä” is wrong")) == "dns.yaml:3:9: “ä” is wrong"
    assert str(Finding("dns.yaml", 0, 0, "missing")) == "dns.yaml: missing"
    assert str(Finding("\udcff.yaml", 0, 0, "a\nb")) == "\\udcff.yaml: a\\nb"
