"""Reads `/etc/appliance/networks/NAME.yaml`. Called by agent.config.tree; the format is
appliance-network.yaml(5)."""

from __future__ import annotations

from collections.abc import Callable

from agent.config.common import check_address, check_domain, check_subnet, parse_address, parse_subnet
from agent.config.document import Section
from agent.model.network import Network, NetworkKind

# IPv6 needs 1280 (RFC 8200); UML's vector driver allocates whole frames, so jumbo frames end at 9000.
MINIMUM_MTU = 1280
MAXIMUM_MTU = 9000

RESERVED = frozenset({"vlan", "uplink", "bridge", "peers", "egress"})


def read_network(name: str, section: Section) -> Network:
    """Settings from one file; what is wrong is in the section's findings."""
    network = Network(
        name=name,
        kind=section.choice("kind", NetworkKind.ISOLATED),
        subnets=tuple(
            subnet for text in _texts(section, "subnets", check_subnet) if (subnet := parse_subnet(text))
        ),
        mtu=section.integer("mtu", default=1500, minimum=MINIMUM_MTU, maximum=MAXIMUM_MTU),
        nameservers=tuple(
            address
            for text in _texts(section, "nameservers", check_address)
            if (address := parse_address(text))
        ),
        search=tuple(text for text in _texts(section, "search", check_domain) if text),
    )
    _check_subnets(network, section)
    section.finish(reserved=RESERVED)
    return network


def _texts(section: Section, key: str, check: Callable[[str], str]) -> tuple[str, ...]:
    value = section.get(key)
    return value.texts(check=check) if value else ()


def _check_subnets(network: Network, section: Section) -> None:
    value = section.get("subnets", required=True)
    if value is None:
        return
    versions = [subnet.version for subnet in network.subnets]
    if len(set(versions)) < len(versions):
        value.complain("at most one IPv4 and one IPv6 subnet expected")
    if value.is_list() and not value.node.value:
        value.complain("at least one subnet expected")
