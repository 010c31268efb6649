"""Reads what traffic an appliance or a network may have: `publish`, `grants`, `egress` and `limits`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from agent.config.common import parse_address, parse_subnet
from agent.config.document import Section, Value
from agent.config.units import parse_rate
from agent.model.traffic import Destination, Grants, Limits, Ports, Protocol, Publication, Service

_T = TypeVar("_T")

_IPV4, _IPV6 = r"[0-9]+(?:\.[0-9]+){3}", r"\[[0-9a-fA-F:.]+\]"
_PORTS = r"[0-9]{1,5}(?:-[0-9]{1,5})?"
_PROTOCOL = r"(?:/(?P<protocol>tcp|udp))?"
_PUBLICATION = re.compile(
    rf"(?:(?P<host>{_IPV6}|{_IPV4}):)?(?:(?P<ports>{_PORTS}):)?(?P<target>{_PORTS}){_PROTOCOL}"
)
_DESTINATION = re.compile(
    rf"(?P<subnet>\*|\[[0-9a-fA-F:.]+(?:/[0-9]+)?\]|{_IPV4}(?:/[0-9]+)?)(?::(?P<ports>{_PORTS}){_PROTOCOL})?"
)
_SERVICE = re.compile(rf"host:(?P<ports>{_PORTS}){_PROTOCOL}")
MAXIMUM_BANDWIDTH = 100_000_000_000
MINIMUM_BANDWIDTH = 8_000
MAXIMUM_CONNECTIONS = 1_000_000


def parse_ports(text: str) -> Ports | None:
    """`53` or `8000-8010`; None where it is neither."""
    if not re.fullmatch(_PORTS, text):
        return None
    first, _, last = text.partition("-")
    ports = Ports(int(first), int(last or first))
    return ports if 1 <= ports.first <= ports.last <= 65535 else None


def parse_publication(text: str) -> Publication | None:
    """`53/udp`, `8080:80/tcp`, `192.0.2.1:8080:80`, `[::]:443:443`, `8000-8010:9000-9010`; None where it is
    none of them. Without a protocol it is tcp."""
    match = _PUBLICATION.fullmatch(text)
    target = parse_ports(match["target"]) if match else None
    ports = parse_ports(match["ports"] or match["target"]) if match else None
    if match is None or target is None or ports is None or len(ports) != len(target):
        return None
    protocol = Protocol(match["protocol"] or Protocol.TCP)
    if not match["host"]:
        return Publication(protocol, ports, target)
    address = parse_address(match["host"].strip("[]"))
    # Brackets are what tells an IPv6 address from ports.
    if address is None or (address.version == 6) != match["host"].startswith("["):
        return None
    return Publication(
        protocol, ports, target, None if address.is_unspecified else address, version=address.version
    )


def parse_destination(text: str) -> Destination | None:
    """`192.0.2.0/24`, `192.0.2.7:443/tcp`, `[2001:db8::/32]:53/udp`, `*:25`; None where it is none of
    them."""
    match = _DESTINATION.fullmatch(text)
    if match is None:
        return None
    ports = parse_ports(match["ports"]) if match["ports"] else None
    if match["ports"] and ports is None:
        return None
    protocol = Protocol(match["protocol"] or Protocol.TCP) if ports else None
    if match["subnet"] == "*":
        return Destination(None, protocol, ports)
    written = match["subnet"].strip("[]")
    length = "" if "/" in written else "/128" if ":" in written else "/32"
    subnet = parse_subnet(written + length)
    bracketed = match["subnet"].startswith("[")
    return Destination(subnet, protocol, ports) if subnet and bracketed == (subnet.version == 6) else None


def parse_service(text: str) -> Service | None:
    """`host:53/udp`; None where it is something else."""
    match = _SERVICE.fullmatch(text)
    ports = parse_ports(match["ports"]) if match else None
    return Service(Protocol(match["protocol"] or Protocol.TCP), ports) if match and ports else None


def read_publications(value: Value | None) -> tuple[Publication, ...]:
    """One or several publications."""
    publications = tuple(_parsed(value, parse_publication, _check_publication))
    for number, one in enumerate(publications):
        if value and any(one.collides(other) for other in publications[:number]):
            value.complain(f"{one} is published twice")
    return publications


def read_egress(value: Value | None) -> tuple[Destination, ...] | None:
    """Where traffic may go; None where nothing is said of it."""
    example = "a destination such as 192.0.2.0/24, [2001:db8::/32]:443/tcp or *:53/udp"

    def check(text: str) -> str:
        return "" if parse_destination(text) else f"“{text}” is not {example}"

    return tuple(_parsed(value, parse_destination, check)) if value else None


def read_grants(value: Value | None) -> Grants:
    """What is granted."""
    known = {"dhcp-server", "router", "host"}

    def check(text: str) -> str:
        wrong = text not in known and parse_service(text) is None
        return f"“{text}” is no grant: dhcp-server, router, host or host:53/udp expected" if wrong else ""

    texts = [item.text(check=check) for item in value.items_or_self()] if value else []
    return Grants(
        dhcp_server="dhcp-server" in texts,
        router="router" in texts,
        host="host" in texts,
        services=tuple(service for text in texts if (service := parse_service(text))),
    )


def read_limits(section: Section | None) -> Limits:
    """Bandwidth, written as `100M`, and connections per second."""
    if section is None:
        return Limits()
    text = section.text("bandwidth", default="", check=_check_bandwidth)
    limits = Limits(
        bandwidth=parse_rate(text) or 0,
        connections=section.integer("connections", default=0, minimum=1, maximum=MAXIMUM_CONNECTIONS),
    )
    section.finish()
    return limits


def _check_bandwidth(text: str) -> str:
    rate = parse_rate(text)
    if rate is None:
        return f"“{text}” is not a bandwidth such as 100M (bits per second)"
    if MINIMUM_BANDWIDTH <= rate <= MAXIMUM_BANDWIDTH:
        return ""
    return f"{text} is out of range (8K to 100G bits per second)"


def _check_publication(text: str) -> str:
    """What comes to other loopback addresses cannot be turned to a guest: see agent.plan.packets."""
    one = parse_publication(text)
    if one is None:
        return f"“{text}” is not a port to publish such as 53/udp, 8080:80/tcp or [::]:443:443"
    nowhere = one.address and one.address.is_loopback and str(one.address) != "127.0.0.1"
    return f"{one}: of loopback addresses only 127.0.0.1 leads to guests" if nowhere else ""


def _parsed(
    value: Value | None, parse: Callable[[str], _T | None], check: Callable[[str], str]
) -> Iterator[_T]:
    items: Iterable[Value] = value.items_or_self() if value else ()
    for item in items:
        text = item.text(check=check)
        parsed = parse(text) if text else None
        if parsed:
            yield parsed
