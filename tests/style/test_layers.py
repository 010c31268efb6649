"""The layers of agent/: arrows point down only, and every foreign library has one door."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.style.files import ROOT, each, syntax_tree

PURE = {"model", "config", "plan"}
ADAPTERS = {"host", "image"}

# What each folder of agent/ may import of the others, lowest layer first. Within a folder imports are free.
MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "util": {"model"},
    "config": {"model"},
    "plan": {"model", "config"},
    "host": PURE | {"util"},
    "image": PURE | {"util"},
    # Adapters come in through constructors, as the protocols that core itself declares.
    "core": PURE | {"util"},
    "dbus": PURE | ADAPTERS | {"util", "core"},
    "cli": PURE | ADAPTERS | {"util"},
    "daemon": PURE | ADAPTERS | {"util", "core", "dbus"},
    # Between systemd and the guest's kernel: every import is time.
    "stop": set(),
}

# Who may import what is not in the standard library. Of what is named here, a path stands for all below it.
DOORS: dict[str, tuple[str, ...]] = {
    "dbus_next": ("agent/host/bus.py",),
    "dns": ("agent/host/probes.py",),
    "icmplib": ("agent/host/probes.py",),
    "ntplib": ("agent/host/probes.py",),
    "pyroute2": ("agent/host/links.py", "agent/host/netlink.py"),
    "pystemd": ("agent/cli", "agent/daemon.py", "agent/util/journal.py"),
    "yaml": ("agent/config", "agent/image"),
}

SOURCES = tuple(sorted((ROOT / "agent").rglob("*.py")))


def folder_of(path: Path) -> str:
    """The entry of MAY_IMPORT for a file: its folder below agent/, or its own name where it has none."""
    return path.relative_to(ROOT / "agent").with_suffix("").parts[0]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, those inside functions and for type checking included."""
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            # A name may be a module too: `from agent import host`.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_every_folder_has_a_layer() -> None:
    assert {folder_of(path) for path in SOURCES} - {"__init__"} <= MAY_IMPORT.keys()


@each(SOURCES)
def test_imports_point_down(path: Path) -> None:
    folder = folder_of(path)
    allowed = MAY_IMPORT.get(folder, set()) | {folder}
    for line, name in imports_of(path):
        top, below, *_ = (*name.split("."), "")
        if top == "agent" and below in MAY_IMPORT:
            assert below in allowed, f"{path}:{line}: {folder} must not import {name}"


@each(SOURCES)
def test_libraries_have_one_door(path: Path) -> None:
    relative = path.relative_to(ROOT)
    for line, name in imports_of(path):
        library = name.split(".")[0]
        if library != "agent" and library not in sys.stdlib_module_names:
            doors = DOORS.get(library, ())
            assert any(relative.is_relative_to(door) for door in doors), (
                f"{relative}:{line}: {library} is only for {', '.join(doors) or 'nobody'}"
            )
