"""Reads `/etc/appliance/networks/NAME.yaml`. Called by agent.config.tree; the format is
appliance-network.yaml(5)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import TypeVar

from agent.config.common import (
    check_address,
    check_domain,
    check_interface_name,
    check_pool,
    check_subnet,
    parse_address,
    parse_subnet,
)
from agent.config.document import Section
from agent.config.traffic import read_egress
from agent.model.address import Address, Subnet
from agent.model.network import Lan, Network, NetworkKind

_A = TypeVar("_A", Address, Subnet)

# IPv6 needs 1280 (RFC 8200); UML's vector driver allocates whole frames, so jumbo frames end at 9000.
MINIMUM_MTU = 1280
MAXIMUM_MTU = 9000

MAXIMUM_VLAN = 4094
AUTOMATIC = "auto"
_LAN_KEYS = ("bridge", "uplink", "vlan", "gateway", "pool")


class _Peers(StrEnum):
    NONE = "none"
    ALL = "all"


def read_network(name: str, section: Section) -> Network:
    """Settings from one file; what is wrong is in the section's findings."""
    kind = section.choice("kind", NetworkKind.NAT)
    subnets, automatic = _subnets(section, kind)
    network = Network(
        name=name,
        kind=kind,
        subnets=subnets,
        mtu=section.integer("mtu", default=1500, minimum=MINIMUM_MTU, maximum=MAXIMUM_MTU),
        nameservers=_addresses(section, "nameservers"),
        search=tuple(text for text in _texts(section, "search", check_domain) if text),
        automatic=automatic,
        peers=section.choice("peers", _Peers.NONE) is _Peers.ALL,
        egress=read_egress(section.get("egress")),
        lan=_lan(section, subnets) if kind is NetworkKind.BRIDGED else None,
    )
    _check_egress(network, section)
    if kind is not NetworkKind.BRIDGED:
        _refuse_lan_keys(section, kind)
    section.finish()
    return network


def _texts(section: Section, key: str, check: Callable[[str], str]) -> tuple[str, ...]:
    value = section.get(key)
    return value.texts(check=check) if value else ()


def _addresses(section: Section, key: str) -> tuple[Address, ...]:
    value = section.get(key)
    texts = [item.text(check=check_address) for item in value.items_or_self()] if value else []
    return tuple(address for text in texts if (address := parse_address(text)))


def _subnets(section: Section, kind: NetworkKind) -> tuple[tuple[Subnet, ...], bool]:
    """The subnets, and whether they are for the agent to choose."""
    chosen_by_hand = kind in {NetworkKind.ROUTED, NetworkKind.BRIDGED}
    value = section.get("subnets", required=chosen_by_hand)
    if value is None:
        return (), not chosen_by_hand
    if value.is_word(AUTOMATIC):
        if chosen_by_hand:
            value.complain(f"others have to know the subnets of a {kind} network: write them out")
        return (), not chosen_by_hand
    texts = [item.text(check=check_subnet) for item in value.items_or_self()]
    subnets = tuple(subnet for text in texts if (subnet := parse_subnet(text)))
    if not texts and value.is_list():
        value.complain("at least one subnet expected")
    if len({subnet.version for subnet in subnets}) < len(subnets):
        value.complain("at most one IPv4 and one IPv6 subnet expected")
    return subnets, False


def _lan(section: Section, subnets: Collection[Subnet]) -> Lan:
    bridge = section.text("bridge", default="", check=check_interface_name)
    uplink = section.text("uplink", default="", check=check_interface_name)
    if ("bridge" in section) == ("uplink" in section):
        section.complain("a bridged network needs either “bridge” or “uplink”")
    return Lan(
        bridge=bridge,
        uplink=uplink,
        vlan=section.integer("vlan", default=0, minimum=1, maximum=MAXIMUM_VLAN),
        gateways=_inside(section, "gateway", check_address, parse_address, subnets),
        pool=_inside(section, "pool", check_pool, parse_subnet, subnets),
    )


def _inside(
    section: Section,
    key: str,
    check: Callable[[str], str],
    parse: Callable[[str], _A | None],
    subnets: Collection[Subnet],
) -> tuple[_A, ...]:
    """Addresses or parts of the subnets."""
    value = section.get(key)
    found = []
    for item in value.items_or_self() if value else ():
        one = parse(item.text(check=check))
        if one is None:
            continue
        if not any(_is_inside(one, subnet) for subnet in subnets):
            item.complain(f"{one} is outside of {' and '.join(map(str, subnets)) or 'every subnet'}")
        found.append(one)
    return tuple(found)


def _is_inside(one: Address | Subnet, subnet: Subnet) -> bool:
    part = ipaddress.ip_network(str(one))
    return part.version == subnet.version and part.subnet_of(subnet)  # type: ignore[arg-type]


def _refuse_lan_keys(section: Section, kind: NetworkKind) -> None:
    for key in _LAN_KEYS:
        if value := section.get(key):
            value.complain(f"a {kind} network has none; only a bridged one has")


def _check_egress(network: Network, section: Section) -> None:
    value = section.get("egress")
    if value and not network.is_routed:
        value.complain(
            f"traffic of {network.kind} networks does not go through the host: there is nothing to limit"
        )
