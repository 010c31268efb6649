"""The host's own listening sockets, by ss(8)."""

from __future__ import annotations

import posixpath
from ipaddress import IPv6Address

from agent.config.common import parse_address
from agent.model.address import Address
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
    address = _address(host.partition("%")[0].strip("[]"))
    return Listener(
        protocol=Protocol(fields[0]),
        address=None if address is None or address.is_unspecified else address,
        version=address.version if address else 0,
        port=int(port),
        # What ss finds no name for is “unreachable:ID”.
        owner=posixpath.basename(group) if group.startswith("/") else "",
    )


def _address(text: str) -> Address | None:
    """None stands for every address, of both versions. A socket that is bound to `::ffff:192.0.2.1` is one
    of IPv4."""
    address = parse_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
