"""The files that the style tests look at."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What belongs to the project: no caches, no build results, nothing of git's.
FOLDERS = (".ci", "agent", "conf", "docs", "packaging", "tests", "units")


@cache
def project_files() -> tuple[Path, ...]:
    """Every file of the project's folders."""
    return tuple(
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )


@cache
def python_files() -> tuple[Path, ...]:
    """Every Python source, those without a suffix (commands) included."""
    return tuple(path for path in project_files() if path.suffix == ".py" or "python3" in shebang(path))


def shebang(path: Path) -> str:
    """The interpreter line of a script; empty where there is none."""
    with path.open("rb") as file:
        line = file.readline(200)
    return line.decode("utf-8", "replace").strip() if line.startswith(b"#!") else ""


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def name_of(path: Path) -> str:
    """A file as a test's parameter shows it."""
    return str(path.relative_to(ROOT))


def each(paths: tuple[Path, ...]) -> pytest.MarkDecorator:
    """Run a test once for each of these files."""
    return pytest.mark.parametrize("path", paths, ids=name_of)
