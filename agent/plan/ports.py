"""How appliances are wired: tap names, MAC addresses, and the addresses that nobody fixed by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from agent.model.assignments import Assignments
from agent.model.configuration import Configuration
from agent.model.errors import ApplianceError, Problem
from agent.model.network import Address, Bridge, Network, Port, Subnet

IFNAMSIZ = 15
"""Longest interface name, without the final NUL (linux/if.h)."""

_Leases = dict[str, dict[str, tuple[Address, ...]]]


def tap_name(appliance: str, index: int) -> str:
    """`ap-dns` for the first attachment, `ap-dns.1` for the next; long names are cut and told apart by a
    hash."""
    suffix = f".{index}" if index else ""
    name = f"ap-{appliance}{suffix}"
    if len(name) <= IFNAMSIZ:
        return name
    tag = hashlib.sha256(appliance.encode()).hexdigest()[:4]
    return f"ap-{appliance[: IFNAMSIZ - 8 - len(suffix)]}-{tag}{suffix}"


def mac_address(machine_id: str, appliance: str, network: str) -> str:
    """A locally administered unicast address that is the same at every start and differs between hosts.

    UML would draw one at random, and neighbours would keep the old one in their ARP tables for seconds.
    """
    digest = hashlib.sha256(f"{machine_id}/{network}/{appliance}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def plan_bridge(network: Network, *, machine_id: str) -> Bridge:
    """The bridge of a network. Its MAC is fixed for the same reason as the guests' are."""
    return Bridge(
        name=network.bridge,
        network=network.name,
        mac=mac_address(machine_id, "", network.name),
        addresses=frozenset(f"{network.gateway(subnet)}/{subnet.prefixlen}" for subnet in network.subnets),
        mtu=network.mtu,
    )


def _free_addresses(subnet: Subnet, taken: set[Address]) -> Iterator[Address]:
    last = int(subnet.broadcast_address) - 1 if subnet.version == 4 else int(subnet.broadcast_address)
    for number in range(int(subnet.network_address) + 2, last + 1):
        address = type(subnet.network_address)(number)
        if address not in taken:
            yield address


def _lease(
    network: Network, wanted: tuple[Address, ...], kept: tuple[Address, ...], taken: set[Address]
) -> tuple[Address, ...]:
    """One address of each subnet: the fixed one, else the one it had, else the lowest that is free."""
    addresses = []
    for subnet in network.subnets:
        fixed = next((address for address in wanted if address in subnet), None)
        held = next((address for address in kept if address in subnet and address not in taken), None)
        address = fixed or held or next(_free_addresses(subnet, taken), None)
        if address is None:
            raise ApplianceError(
                f"Network “{network.name}” has no free address in {subnet}.", problem=Problem.NO_SPACE
            )
        taken.add(address)
        addresses.append(address)
    return tuple(addresses)


def allocate(configuration: Configuration, previous: Assignments) -> _Leases:
    """Addresses of every attachment by network and appliance.

    Those once given are kept while the appliance exists and they still fit; fixed addresses go before all
    others.
    """
    leases: _Leases = {name: {} for name in configuration.networks}
    for name, network in configuration.networks.items():
        attached = {
            appliance.name: attachment.addresses
            for appliance in configuration.appliances.values()
            for attachment in appliance.networks
            if attachment.network == name
        }
        kept = previous.addresses.get(name, {})
        taken = {network.gateway(subnet) for subnet in network.subnets}
        taken.update(address for addresses in attached.values() for address in addresses)
        # Who holds an address goes before who needs one, so that a newcomer never takes a neighbour's.
        for appliance in sorted(attached, key=lambda appliance: (appliance not in kept, appliance)):
            leases[name][appliance] = _lease(network, attached[appliance], kept.get(appliance, ()), taken)
    return leases


def plan_ports(
    configuration: Configuration, leases: Mapping[str, Mapping[str, tuple[Address, ...]]], *, machine_id: str
) -> dict[str, tuple[Port, ...]]:
    """The ports of every appliance; the first one carries the default route."""
    return {
        appliance.name: tuple(
            Port(
                index=index,
                tap=tap_name(appliance.name, index),
                mac=attachment.mac or mac_address(machine_id, appliance.name, attachment.network),
                network=configuration.networks[attachment.network],
                addresses=leases[attachment.network][appliance.name],
            )
            for index, attachment in enumerate(appliance.networks)
        )
        for appliance in configuration.appliances.values()
    }
