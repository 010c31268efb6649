"""What systemd says about the units, and that every command they name is one that the packages install."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.style.files import ROOT, each

UNITS = tuple(sorted((ROOT / "units").iterdir()))
INSTALLED = {
    "/usr/sbin/appliance-agent",
    "/usr/bin/appliancectl",
    "/usr/lib/appliance/launch",
    "/usr/lib/appliance/stop",
}
# The machine that tests need not have the packages installed.
NOT_INSTALLED = re.compile(r": Command (\S+) is not executable: No such file or directory$")


@each(UNITS)
def test_verify(path: Path) -> None:
    command: list[str | Path] = ["systemd-analyze", "--man=no", "verify", path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = [line for line in result.stderr.splitlines() if not _is_ours(line)]
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def _is_ours(line: str) -> bool:
    match = NOT_INSTALLED.search(line)
    return match is not None and match[1] in INSTALLED


@each(UNITS)
def test_commands_are_installed(path: Path) -> None:
    commands = re.findall(r"^Exec\w+=[-@:+!|]*(\S+)", path.read_text("utf-8"), re.MULTILINE)
    assert set(commands) <= INSTALLED
