"""What the firewall knows of an appliance (agent.plan.frames, agent.plan.packets)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address

from agent.model.address import Address
from agent.model.appliance import Appliance
from agent.model.network import Network, Port
from agent.model.traffic import Destination, Publication

FAMILIES = {4: "ip", 6: "ip6"}
"""The protocols of nftables by IP version."""


@dataclass(frozen=True, slots=True)
class Guest:
    """An appliance with its ports, and what of its `publish` list holds."""

    appliance: Appliance
    ports: tuple[Port, ...]
    publish: tuple[Publication, ...]

    @property
    def addresses(self) -> list[Address]:
        """All its addresses."""
        return [address for port in self.ports for address in port.addresses]


def egress_of(appliance: Appliance, network: Network) -> tuple[Destination, ...] | None:
    """Where an appliance may open connections to from a network; None is everywhere."""
    return network.egress if appliance.egress is None else appliance.egress


def link_local(mac: str) -> IPv6Address:
    """The link-local address that a kernel gives an interface (RFC 4291, appendix A)."""
    first, *rest = (int(part, 16) for part in mac.split(":"))
    identifier = bytes((first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]))
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


def published_address(ports: Iterable[Port], version: int) -> Address | None:
    """Where published ports lead to: the address on the network with the default route, else on the first
    that the host routes to."""
    routed = [port for port in ports if port.network.is_routed]
    for port in sorted(routed, key=lambda port: not port.default_route):
        for address in port.addresses:
            if address.version == version:
                return address
    return None
