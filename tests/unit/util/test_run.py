"""The one gateway to other programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.model.errors import HostError, Problem
from agent.util.run import reading_through, run, run_bounded, writing_through

Gateway = Callable[..., bytes]


def bounded(argv: list[str], *, timeout_s: float = 5.0) -> bytes:
    """run_bounded() for programs that read nothing and write little."""
    with Path(os.devnull).open("rb") as null:
        return run_bounded(argv, stdin=null.fileno(), limit_bytes=99, timeout_s=timeout_s)


each_gateway = pytest.mark.parametrize("gateway", [run, bounded])


@each_gateway
def test_a_shell_is_never_asked(gateway: Gateway) -> None:
    assert gateway(["echo", "$(id)", ";", "*"]) == b"$(id) ; *\n"


@each_gateway
def test_the_environment_is_ours(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent")
    assert gateway(["env"]).splitlines() == [b"PATH=/usr/sbin:/usr/bin:/sbin:/bin", b"LC_ALL=C.UTF-8"]


@each_gateway
@pytest.mark.parametrize(
    ("script", "message", "problem"),
    [
        ("echo first >&2; echo last >&2; exit 3", "sh failed with exit status 3: last", Problem.FAILED),
        ("exit 3", "sh failed with exit status 3", Problem.FAILED),
        ("kill -9 $$", "sh was killed by signal 9", Problem.FAILED),
        ("echo No space left on device >&2; exit 1", "(?i)sh.*no space left on device", Problem.NO_SPACE),
    ],
)
def test_failures(gateway: Gateway, script: str, message: str, problem: Problem) -> None:
    with pytest.raises(HostError, match=message) as caught:
        gateway(["/bin/sh", "-c", script])
    assert caught.value.problem is problem


@each_gateway
def test_missing_programs(gateway: Gateway) -> None:
    with pytest.raises(HostError, match="nonexistent is not installed") as caught:
        gateway(["nonexistent"])
    assert caught.value.problem is Problem.NOT_SUPPORTED


@each_gateway
def test_programs_that_take_too_long_are_killed(gateway: Gateway) -> None:
    with pytest.raises(HostError, match=r"sleep took longer than 0\.05 s") as caught:
        gateway(["sleep", "60"], timeout_s=0.05)
    assert caught.value.problem is Problem.TIMED_OUT


def test_input_and_more_of_an_environment() -> None:
    assert run(["cat"], stdin=b"text") == b"text"
    assert b"EXTRA=1\n" in run(["env"], environment={"EXTRA": "1"})


def test_accepted_statuses() -> None:
    assert run(["sh", "-c", "exit 1"], accept=(0, 1)) == b""


def test_output_without_end_is_cut_off() -> None:
    with pytest.raises(HostError, match="yes wrote more than 99 bytes"):
        bounded(["yes"])


def test_bounded_output_that_just_fits(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 10)
    with (tmp_path / "in").open("rb") as file:
        assert run_bounded(["cat"], stdin=file.fileno(), limit_bytes=10) == b"x" * 10


# --- filters


def test_writing_through_a_program(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as target, writing_through(["tr", "a-z", "A-Z"], target) as stream:
        stream.write(b"hello")
    assert (tmp_path / "x").read_bytes() == b"HELLO"


def pour(argv: list[str], path: Path, *, then: Exception | None = None) -> None:
    """Write more through a program than a pipe holds, and raise `then`."""
    with path.open("wb") as target, writing_through(argv, target) as stream:
        for _ in range(64):
            stream.write(bytes(4096))
        if then:
            raise then


def test_a_filter_that_fails(tmp_path: Path) -> None:
    script = "echo no such thing >&2; exit 3"
    with pytest.raises(HostError, match="sh failed with exit status 3: no such thing"):
        pour(["sh", "-c", script], tmp_path / "x")


def test_a_filter_whose_writer_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        pour(["cat"], tmp_path / "x", then=KeyError())


def test_reading_through_a_program(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    with (tmp_path / "x").open("rb") as source, reading_through(["tr", "a-z", "A-Z"], source) as stream:
        assert stream.read() == b"HELLO"


def test_what_is_not_read_to_its_end_is_killed() -> None:
    with open("/dev/zero", "rb") as source, reading_through(["cat"], source) as stream:
        assert stream.read(5) == bytes(5)


def test_filters_that_are_not_there(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as target:
        with pytest.raises(HostError, match="is not installed"), writing_through(["none-such"], target):
            pass
        with pytest.raises(HostError, match="is not installed"), reading_through(["none-such"], target):
            pass
