"""Imports of single modules from packages that import everything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent.util.lean import skip_init

CODE = """
import sys
import agent.host.netlink, agent.util.journal
pyroute2 = [name for name in sys.modules if name.startswith("pyroute2.")]
print(len(pyroute2), "sqlite3" in sys.modules, "lxml" in sys.modules)
"""


def test_only_what_is_used_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    modules, sqlite, lxml = done.stdout.split()
    assert int(modules) < 120
    assert (sqlite, lxml) == ("False", "False")


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(ModuleNotFoundError, match="nonexistent_package"):
        skip_init("nonexistent_package")


def test_a_package_that_was_imported_in_full_is_left_alone() -> None:
    before = sys.modules["json"]
    skip_init("json")
    assert sys.modules["json"] is before
