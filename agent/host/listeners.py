"""The host's own listening sockets, by ss(8)."""

from __future__ import annotations

import posixpath

from agent.config.common import parse_address
from agent.model.listener import Listener
from agent.model.traffic import Protocol
from agent.util.run import run

_SS = ("/usr/bin/ss", "--no-header", "--listening", "--numeric", "--tcp", "--udp", "--cgroup")


def listeners() -> list[Listener]:
    """All of them; HostError."""
    return [found for line in run(_SS).decode(errors="replace").splitlines() if (found := parse_line(line))]


def parse_line(line: str) -> Listener | None:
    """`udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* cgroup:/system.slice/systemd-resolved.service`; None where
    it is something else."""
    fields = line.split()
    if len(fields) < 6 or fields[0] not in {"tcp", "udp"}:
        return None
    host, _, port = fields[4].rpartition(":")
    if not port.isdigit():
        return None
    group = next((field.removeprefix("cgroup:") for field in fields[6:] if field.startswith("cgroup:")), "")
    text = host.strip("[]").partition("%")[0]
    address = None if text == "*" else parse_address(text)
    version = 0 if text == "*" or address is None else address.version
    return Listener(
        protocol=Protocol(fields[0]),
        address=None if address is None or address.is_unspecified else address,
        version=version,
        port=int(port),
        owner=posixpath.basename(group),
    )
