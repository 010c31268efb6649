"""What traffic an appliance may have: ports published on the host, grants, egress lists and limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.model.address import Address, Subnet


class Protocol(StrEnum):
    """What has ports."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, order=True, slots=True)
class Ports:
    """Port numbers from `first` to `last`."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __len__(self) -> int:
        return self.last - self.first + 1

    def overlaps(self, other: Ports) -> bool:
        """Whether they have a port in common."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Publication:
    """Ports of the host that lead to as many of an appliance.

    `address` is the host's; None means all addresses of the host, of IP `version` or, where that is 0, of
    both.
    """

    protocol: Protocol
    ports: Ports
    target: Ports
    address: Address | None = None
    version: int = 0

    def __str__(self) -> str:
        """As written in `publish:`."""
        if self.address:
            host = f"[{self.address}]:" if self.version == 6 else f"{self.address}:"
        else:
            host = {0: "", 4: "0.0.0.0:", 6: "[::]:"}[self.version]
        ports = f"{self.ports}" if self.ports == self.target else f"{self.ports}:{self.target}"
        return f"{host}{ports}/{self.protocol}"

    def collides(self, other: Publication) -> bool:
        """Whether there are packets that both mean."""
        return (
            self.protocol == other.protocol
            and self.ports.overlaps(other.ports)
            and (self.version == other.version or 0 in {self.version, other.version})
            and (self.address is None or other.address is None or self.address == other.address)
        )


@dataclass(frozen=True, slots=True)
class Destination:
    """One entry of an egress list; what is None is not asked for."""

    subnet: Subnet | None = None
    protocol: Protocol | None = None
    ports: Ports | None = None

    def __str__(self) -> str:
        """As written in `egress:`."""
        where = "*"
        if self.subnet:
            single = self.subnet.num_addresses == 1
            where = str(self.subnet.network_address if single else self.subnet)
        if not self.ports:
            return where
        place = f"[{where}]" if self.subnet and self.subnet.version == 6 else where
        return f"{place}:{self.ports}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Service:
    """A port of the host itself."""

    protocol: Protocol
    ports: Ports


@dataclass(frozen=True, slots=True)
class Grants:
    """What no appliance may do unless it is said: answer DHCP requests, send router advertisements, reach
    the host's own addresses (all, or some services)."""

    dhcp_server: bool = False
    router: bool = False
    host: bool = False
    services: tuple[Service, ...] = ()


NO_GRANTS = Grants()


@dataclass(frozen=True, slots=True)
class Limits:
    """Most that an appliance may use, each 0 for no limit: bits per second in each direction, and new
    connections per second that it opens and that are opened to it."""

    bandwidth: int = 0
    connections: int = 0


NO_LIMITS = Limits()
