"""Files and functions of a size that can be read at once, and a docstring at the top of each file."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.style.files import ROOT, each, project_files, python_files, syntax_tree

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
SOURCE_SUFFIXES = {".py", ".c", ".h", ".bash"}

SOURCES = tuple(path for path in project_files() if path.suffix in SOURCE_SUFFIXES)


@each(python_files())
def test_module_docstring(path: Path) -> None:
    tree = syntax_tree(path)
    assert not tree.body or ast.get_docstring(tree), f"{path}: says nothing about itself"


@each(SOURCES)
def test_file_length(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{path}: {lines} lines"


@each(python_files())
def test_function_length(path: Path) -> None:
    functions = (
        node
        for node in ast.walk(syntax_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    long = [
        f"{path}:{node.lineno}: {node.name} has {length} lines"
        for node in functions
        if (length := lines_of(node)) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_no_merge_markers_or_machine_paths() -> None:
    """Nothing of the machine on which a file was written gets into it."""
    marks = ("<" * 7 + " ", ">" * 7 + " ", "/" + "work/")
    text = {path: path.read_text("utf-8", "replace") for path in project_files()}
    found = [
        f"{path.relative_to(ROOT)}: {mark}"
        for path, content in text.items()
        for mark in marks
        if mark in content
    ]
    assert not found, "\n".join(found)
