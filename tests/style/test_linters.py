"""The linters are tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.style.files import ROOT, each, project_files, shebang


def lint(*command: str | Path) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.fail(result.stdout + result.stderr, pytrace=False)


def shell_scripts() -> tuple[Path, ...]:
    return tuple(
        path
        for path in project_files()
        if path.suffix == ".bash"
        or shebang(path).split("/")[-1].removeprefix("env ").split()[:1] in (["sh"], ["bash"])
    )


def test_ruff_check() -> None:
    lint(sys.executable, "-m", "ruff", "check", "--quiet", "agent", "tests")


def test_ruff_format() -> None:
    lint(sys.executable, "-m", "ruff", "format", "--quiet", "--diff", "agent", "tests")


def test_mypy() -> None:
    lint(sys.executable, "-m", "mypy", "agent", "tests")


@each(shell_scripts())
def test_shellcheck(path: Path) -> None:
    lint("shellcheck", path)


@each(
    tuple(path for path in shell_scripts() if path.suffix != ".bash" and ROOT / "conf" not in path.parents)
)
def test_shell_stops_at_errors(path: Path) -> None:
    """Nobody looks at what a script says while it goes on; one that only hands over with exec needs nothing.

    The scripts of images are free: they may want to name every error before they fail.
    """
    text = path.read_text("utf-8")
    assert any(line in text for line in ("\nset -euo pipefail\n", "\nset -eu\n", "\nset -e\n", "\nexec "))
