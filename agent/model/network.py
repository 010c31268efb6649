"""Networks and how appliances are attached to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from agent.model.address import Address, Subnet
from agent.model.traffic import Destination

IFNAMSIZ = 15
"""Longest interface name, without the final NUL (linux/if.h)."""


class NetworkKind(StrEnum):
    """What a network leads to.

    `nat`: out through the host, under the host's address; in only what is published.
    `routed`: out and in through the host, with addresses that others have a route to.
    `bridged`: a network there is already, by an interface or a bridge of the host.
    `isolated`: nowhere.
    """

    NAT = "nat"
    ROUTED = "routed"
    BRIDGED = "bridged"
    ISOLATED = "isolated"


ROUTED_KINDS = (NetworkKind.NAT, NetworkKind.ROUTED)


@dataclass(frozen=True, slots=True)
class Lan:
    """The network that a bridged one is part of: by `bridge`, a bridge that somebody else has made, or by
    `uplink`, an interface that is put into a bridge of ours. `vlan` of 0 means untagged.

    Addresses that nobody fixed are taken from `pool`, and from nowhere where that is empty.
    """

    bridge: str = ""
    uplink: str = ""
    vlan: int = 0
    gateways: tuple[Address, ...] = ()
    pool: tuple[Subnet, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """A bridge with subnets. But for `bridged` networks, which have a `lan`, they are of its own, and the
    host holds each subnet's first address.

    `automatic` subnets are chosen by the agent; `peers` lets all appliances in it reach each other; an
    `egress` of None is no limit.
    """

    name: str
    kind: NetworkKind
    subnets: tuple[Subnet, ...]
    mtu: int
    nameservers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    automatic: bool = False
    peers: bool = False
    egress: tuple[Destination, ...] | None = None
    lan: Lan | None = None

    @property
    def bridge(self) -> str:
        """Name of the bridge interface; our own names fit IFNAMSIZ because network names are short."""
        if self.lan is None:
            return f"br-{self.name}"
        return self.lan.bridge or uplink_bridge(self.lan.uplink)

    @property
    def vlan(self) -> int:
        """The VLAN of its bridge that it is, 0 for none."""
        return self.lan.vlan if self.lan else 0

    @property
    def leads_out(self) -> bool:
        """Whether appliances reach anything beyond it."""
        return bool(self.lan.gateways) if self.lan else self.kind is not NetworkKind.ISOLATED

    @property
    def is_routed(self) -> bool:
        """Whether what goes out of it and comes in goes through the host."""
        return self.kind in ROUTED_KINDS

    def gateway(self, subnet: Subnet) -> Address | None:
        """Where what is not in `subnet` goes to; None where there is no way out."""
        if self.lan:
            return next((address for address in self.lan.gateways if address in subnet), None)
        return self.host_address(subnet) if self.leads_out else None

    def host_address(self, subnet: Subnet) -> Address | None:
        """The host's own address in `subnet`; None where that is not the agent's business."""
        return None if self.lan else subnet.network_address + 1

    def subnet_of(self, address: Address) -> Subnet | None:
        """The subnet that an address is in."""
        return next((subnet for subnet in self.subnets if address in subnet), None)


def reserved_addresses(network: Network, subnet: Subnet) -> set[Address]:
    """What no guest may have in a subnet: the first and the last address, the host's own and the gateway."""
    fixed = {subnet.network_address, subnet.broadcast_address}
    others = (network.host_address(subnet), network.gateway(subnet))
    return fixed.union(address for address in others if address)


def uplink_bridge(uplink: str) -> str:
    """`eth1` → `br.eth1`, the bridge of ours that an interface is put into. No network's has a dot."""
    name = f"br.{uplink}"
    if len(name) <= IFNAMSIZ:
        return name
    return f"br.{uplink[: IFNAMSIZ - 8]}_{hashlib.sha256(uplink.encode()).hexdigest()[:4]}"


@dataclass(frozen=True, slots=True)
class Attachment:
    """What the administrator asked for: a network, and addresses, a MAC or a VLAN where they are to be
    fixed. `default_route` says whether it carries that; None leaves it to the order of the networks."""

    network: str
    addresses: tuple[Address, ...] = ()
    mac: str = ""
    vlan: int | None = None
    default_route: bool | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """An attachment made concrete: the tap on the host, and what the guest finds on its `vecN`."""

    index: int
    tap: str
    mac: str
    network: Network
    addresses: tuple[Address, ...]
    vlan: int = 0
    default_route: bool = False


@dataclass(frozen=True, slots=True)
class Tap:
    """A tap as it is to be on the host: only `owner_uid` may attach to it. An `isolated` one reaches no
    other isolated one of its bridge; by a `hairpin` one, what came from it can leave again. `bandwidth`, in
    bits per second, limits what the guest is sent; 0 is no limit."""

    name: str
    bridge: str
    owner_uid: int
    mtu: int
    appliance: str
    isolated: bool = False
    hairpin: bool = False
    vlan: int = 0
    bandwidth: int = 0


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of ours as it is to be on the host. `addresses` are the host's own, with prefix length; with
    `vlans`, it filters by them, and they are tagged on the `uplink`. `routes` says whether the host passes
    packets on that come from it."""

    name: str
    label: str
    mac: str
    addresses: frozenset[str]
    mtu: int
    uplink: str = ""
    vlans: frozenset[int] = frozenset()
    routes: bool = False
