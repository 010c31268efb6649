"""Networks and how appliances are attached to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


class NetworkKind(StrEnum):
    """What a network's bridge leads to."""

    ISOLATED = "isolated"


@dataclass(frozen=True, slots=True)
class Network:
    """A bridge with subnets of its own; the host holds each subnet's first address."""

    name: str
    kind: NetworkKind
    subnets: tuple[Subnet, ...]
    mtu: int
    nameservers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()

    @property
    def bridge(self) -> str:
        """Name of the bridge interface; fits IFNAMSIZ because network names are short."""
        return f"br-{self.name}"

    def gateway(self, subnet: Subnet) -> Address:
        """The host's own address in `subnet`."""
        return subnet.network_address + 1


@dataclass(frozen=True, slots=True)
class Attachment:
    """What the administrator asked for: a network, and addresses or a MAC where they are to be fixed."""

    network: str
    addresses: tuple[Address, ...] = ()
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """An attachment made concrete: the tap on the host, and what the guest finds on its `vecN`."""

    index: int
    tap: str
    mac: str
    network: Network
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Tap:
    """A tap as it is to be on the host: only `owner_uid` may attach to it."""

    name: str
    bridge: str
    owner_uid: int
    mtu: int
    appliance: str


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network's bridge as it is to be on the host. `addresses` are the host's own, with prefix length."""

    name: str
    network: str
    mac: str
    addresses: frozenset[str]
    mtu: int
