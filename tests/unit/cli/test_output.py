"""Tables for people."""

from __future__ import annotations

import sys

import pytest

from agent.cli.output import Style, paint, print_table


def pretend_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be called in the test itself: pytest exchanges standard output between a test's phases."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_terminal(monkeypatch)
    assert Style().colours
    monkeypatch.setenv("TERM", "dumb")
    assert not Style().colours
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")
    assert not Style().colours


def test_no_colours_elsewhere() -> None:
    assert not Style().colours
    assert paint("x", "bad", colours=False) == "x"
    assert paint("x", "unknown", colours=True) == "x"


def test_colours_do_not_move_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch)
    print_table(["A", "B"], [["failed", "x"], ["ok", "y"]], Style(), paints={"failed": "bad", "ok": "good"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["\x1b[1;31mfailed\x1b[0m  x", "\x1b[32mok\x1b[0m      y"]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 appliances."), (1, "1 appliance."), (2, "2 appliances.")]
)
def test_counts(capsys: pytest.CaptureFixture[str], count: int, text: str) -> None:
    print_table(["A"], [["x"]] * count, Style(), what="appliance")
    assert capsys.readouterr().out.splitlines()[-1] == text
