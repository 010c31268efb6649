"""Names of appliances on the disk: for each guest the disk that it reads, for the host a part of /etc/hosts.

That part stands between two lines of ours; everything else in the file is left as it is, and a name that
stands there already is not given again.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from pathlib import Path

from agent.host.users import group_id
from agent.model.change import Change
from agent.model.paths import Paths
from agent.plan.names import names_disk
from agent.util.files import ensure_file, explain_errors, write_file

BEGIN = "# Appliances, kept by appliance-agent(8); do not edit from here"
END = "# to here."


class NameFiles:
    """Blocking; in the reconciler's thread."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def disk(self, appliance: str) -> Path:
        """Where a guest's disk lies."""
        return self._paths.appliance_runtime(appliance) / "names"

    def plan_guest(self, appliance: str, hosts: str) -> list[Change]:
        """What it takes to have a guest find these names."""
        path, content = self.disk(appliance), names_disk(hosts)
        if _read(path) == content:
            return []
        return [
            Change(
                "write the names of its neighbours", partial(self._write_disk, appliance, content), appliance
            )
        ]

    def plan_host(self, hosts: str) -> list[Change]:
        """What it takes to have the host know these names."""
        path = self._paths.hosts
        content = _read(path)
        if content is None:
            return []
        wanted = with_names(content.decode(errors="surrogateescape"), hosts, own=socket.gethostname())
        data = wanted.encode(errors="surrogateescape")
        return [] if data == content else [Change(f"update {path}", partial(_replace, path, data))]

    def _write_disk(self, appliance: str, content: bytes) -> None:
        path = self.disk(appliance)
        ensure_file(path, content, mode=0o640, group=group_id(appliance))


def with_names(text: str, hosts: str, *, own: str) -> str:
    """The text of /etc/hosts with these lines as our part; without it where there are none."""
    before, after = _without_ours(text)
    taken = {name for line in (*before, *after) for name in line.partition("#")[0].split()[1:]} | {own}
    lines = [line for line in hosts.splitlines() if not taken.intersection(line.split()[1:])]
    part = [BEGIN, *lines, END] if lines else []
    return "".join(f"{line}\n" for line in (*before, *part, *after))


def _without_ours(text: str) -> tuple[list[str], list[str]]:
    """The lines before our part, and those after it; one that has lost its end goes to its last address."""
    lines = text.splitlines()
    if BEGIN not in lines:
        return lines, []
    begin = lines.index(BEGIN)
    if END in lines[begin:]:
        return lines[:begin], lines[lines.index(END, begin) + 1 :]
    return lines[:begin], []


def _read(path: Path) -> bytes | None:
    with explain_errors(f"Reading {path}"), contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _replace(path: Path, content: bytes) -> None:
    with explain_errors(f"Writing {path}"):
        write_file(path, content, mode=path.stat().st_mode & 0o777)
