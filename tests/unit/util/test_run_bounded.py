"""Programs that read foreign content: bounded in output and time."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.model.errors import HostError, Problem
from agent.util.run import run_bounded


def bounded(script: str, *, content: Path = Path("/dev/null"), timeout_s: float = 10.0) -> bytes:
    with content.open("rb") as file:
        return run_bounded(["sh", "-c", script], stdin=file.fileno(), limit_bytes=100, timeout_s=timeout_s)


def test_its_output(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("given")
    assert bounded("cat; printf x", content=path) == b"givenx"
    assert bounded("printf %0100d 1") == b"1".rjust(100, b"0")


def test_too_much_output() -> None:
    with pytest.raises(HostError, match="sh wrote more than 100 bytes"):
        bounded("yes")


def test_too_slow() -> None:
    with pytest.raises(HostError, match=r"took longer than 0\.05 s") as caught:
        bounded("exec sleep 100", timeout_s=0.05)
    assert caught.value.problem is Problem.TIMED_OUT


def test_failure() -> None:
    with pytest.raises(HostError, match="sh failed with exit status 3: no"):
        bounded("echo no >&2; exit 3")


def test_missing() -> None:
    with Path("/dev/null").open("rb") as file, pytest.raises(HostError, match="is not installed"):
        run_bounded(["/nonexistent/program"], stdin=file.fileno(), limit_bytes=1)
