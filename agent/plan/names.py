"""The names of appliances: what guests know of their neighbours, and the host of all of them. Pure.

Lines are those of hosts(5): an address, the name with the first search domain of the network, and the name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.model.network import Port
from agent.plan.cpio import archive_of_one, as_disk

Ports = Mapping[str, tuple[Port, ...]]


def neighbours_of(name: str, ports: Ports) -> str:
    """Every other appliance on a network of this one, by its addresses there."""
    own = {port.network.name for port in ports[name]}
    return _text(
        line
        for other, others in ports.items()
        if other != name
        for port in others
        if port.network.name in own
        for line in _lines(other, port)
    )


def all_names(ports: Ports) -> str:
    """Every appliance by all its addresses."""
    return _text(line for name, found in ports.items() for port in found for line in _lines(name, port))


def names_disk(hosts: str) -> bytes:
    """The disk on which a guest finds the names of its neighbours (docs/interface-1.md, appendix)."""
    return as_disk(archive_of_one("appliance/hosts", hosts.encode()))


def _lines(name: str, port: Port) -> Iterator[str]:
    domain = next(iter(port.network.search), "")
    names = f"{name}.{domain} {name}" if domain else name
    return (f"{address} {names}" for address in port.addresses)


def _text(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
