"""Networks as they are shown, on D-Bus and by appliancectl. The fields of each class are in the order of a
structure in org.appliance1.Manager.xml.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """One network. `egress` says where its traffic may go, if that is `limited`; `peers` whether all its
    appliances reach each other."""

    name: str
    kind: str
    bridge: str
    uplink: str
    vlan: int
    subnets: tuple[str, ...]
    automatic: bool
    host_addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    mtu: int
    nameservers: tuple[str, ...]
    search: tuple[str, ...]
    peers: bool
    limited: bool
    egress: tuple[str, ...]
    appliances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeasedAddress:
    """An address, and whether it is written in the appliance's file."""

    address: str
    fixed: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """What an appliance has on a network."""

    network: str
    appliance: str
    tap: str
    mac: str
    vlan: int
    default_route: bool
    addresses: tuple[LeasedAddress, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """Ports of the host as written in `publish:`, and where on which network they lead; `reason` says why
    they are not published, or ''."""

    appliance: str
    publication: str
    network: str
    targets: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class TapCounters:
    """What a guest has received and sent since its tap was made, and what of the latter was refused since
    the firewall was loaded."""

    network: str
    appliance: str
    tap: str
    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
    refused_packets: int
    refused_bytes: int
