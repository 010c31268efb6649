"""The one gateway to other programs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.model.errors import HostError, Problem
from agent.util.run import run, run_async, run_bounded


def test_output_input_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent")
    assert run(["cat"], stdin=b"text") == b"text"
    assert b"LD_PRELOAD" not in run(["env"])
    assert b"EXTRA=1" in run(["env"], environment={"EXTRA": "1"})


def test_a_shell_is_never_asked() -> None:
    assert run(["echo", "$(id)", ";", "*"]) == b"$(id) ; *\n"


def test_accepted_statuses() -> None:
    assert run(["sh", "-c", "exit 1"], accept=(0, 1)) == b""


@pytest.mark.parametrize(
    ("script", "message", "problem"),
    [
        ("echo first >&2; echo last >&2; exit 3", "sh failed with exit status 3: last", Problem.FAILED),
        ("exit 3", "sh failed with exit status 3", Problem.FAILED),
        ("kill -9 $$", "sh was killed by signal 9", Problem.FAILED),
        ("echo No space left on device >&2; exit 1", "sh.*(?i:no space left on device)", Problem.NO_SPACE),
    ],
)
async def test_failures(script: str, message: str, problem: Problem) -> None:
    argv = ["/bin/sh", "-c", script]
    with Path(os.devnull).open("rb") as null:
        for attempt in (lambda: run(argv), lambda: run_bounded(argv, stdin=null.fileno(), limit_bytes=99)):
            with pytest.raises(HostError, match=message) as caught:
                attempt()
            assert caught.value.problem is problem
    with pytest.raises(HostError, match=message) as caught:
        await run_async(argv)
    assert caught.value.problem is problem


async def test_missing_programs() -> None:
    with Path(os.devnull).open("rb") as null:
        for attempt in (
            lambda: run(["nonexistent"]),
            lambda: run_bounded(["nonexistent"], stdin=null.fileno(), limit_bytes=1),
        ):
            with pytest.raises(HostError, match="nonexistent is not installed") as caught:
                attempt()
            assert caught.value.problem is Problem.NOT_SUPPORTED
    with pytest.raises(HostError, match="nonexistent is not installed"):
        await run_async(["nonexistent"])


async def test_programs_that_take_too_long_are_killed() -> None:
    argv = ["sleep", "60"]
    with Path(os.devnull).open("rb") as null:
        for attempt in (
            lambda: run(argv, timeout_s=0.05),
            lambda: run_bounded(argv, stdin=null.fileno(), limit_bytes=1, timeout_s=0.05),
        ):
            with pytest.raises(HostError, match=r"sleep took longer than 0\.05 s") as caught:
                attempt()
            assert caught.value.problem is Problem.TIMED_OUT
    with pytest.raises(HostError, match=r"sleep took longer than 0\.05 s"):
        await run_async(argv, timeout_s=0.05)


def test_output_without_end_is_cut_off() -> None:
    with Path(os.devnull).open("rb") as null, pytest.raises(HostError, match="yes wrote more than 10 bytes"):
        run_bounded(["yes"], stdin=null.fileno(), limit_bytes=10)


def test_bounded_output_that_fits(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 10)
    with (tmp_path / "in").open("rb") as file:
        assert run_bounded(["cat"], stdin=file.fileno(), limit_bytes=10) == b"x" * 10


async def test_a_cancelled_call_kills_its_program() -> None:
    task = asyncio.ensure_future(run_async(["sleep", "60"]))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_async_output() -> None:
    assert await run_async(["cat"], stdin=b"text") == b"text"
