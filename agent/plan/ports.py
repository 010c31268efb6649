"""How appliances are wired: tap names, MAC addresses, and the addresses that nobody fixed by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping

from agent.model.assignments import Assignments
from agent.model.configuration import Configuration
from agent.model.errors import ApplianceError, Problem
from agent.model.network import Address, Bridge, Network, Port, Subnet

IFNAMSIZ = 15
"""Longest interface name, without the final NUL (linux/if.h)."""

_Leases = dict[str, dict[str, tuple[Address, ...]]]


def tap_name(appliance: str, index: int) -> str:
    """`ap-dns` for the first attachment, `ap-dns.1` for the next; long names are cut and told apart by a
    hash, after a character that no name has."""
    suffix = f".{index}" if index else ""
    name = f"ap-{appliance}{suffix}"
    if len(name) <= IFNAMSIZ:
        return name
    tag = hashlib.sha256(appliance.encode()).hexdigest()[:4]
    return f"ap-{appliance[: IFNAMSIZ - 8 - len(suffix)]}_{tag}{suffix}"


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


def _never_given(network: Network) -> set[Address]:
    """Addresses that no guest may have: the subnets' first, the host's own, and the last."""
    return {
        address
        for subnet in network.subnets
        for address in (subnet.network_address, network.gateway(subnet), subnet.broadcast_address)
    }


def _free_addresses(subnet: Subnet, taken: Collection[Address]) -> Iterator[Address]:
    for number in range(int(subnet.network_address), int(subnet.broadcast_address)):
        address = type(subnet.network_address)(number)
        if address not in taken:
            yield address


def _keep(network: Network, wanted: Collection[Address], held: Collection[Address]) -> list[Address]:
    """At most one address of each subnet: the fixed one, else the one it had."""
    found = (
        next((address for address in (*wanted, *held) if address in subnet), None)
        for subnet in network.subnets
    )
    return [address for address in found if address]


def _complete(network: Network, kept: Collection[Address], taken: set[Address]) -> tuple[Address, ...]:
    """One address of each subnet: the one that was kept, else the lowest that is free."""
    addresses = []
    for subnet in network.subnets:
        address = next((address for address in kept if address in subnet), None)
        address = address or next(_free_addresses(subnet, taken), None)
        if address is None:
            raise ApplianceError(
                f"Network “{network.name}” has no free address in {subnet}.", problem=Problem.NO_SPACE
            )
        taken.add(address)
        addresses.append(address)
    return tuple(addresses)


def _lease(
    network: Network, fixed: Mapping[str, tuple[Address, ...]], previous: Mapping[str, tuple[Address, ...]]
) -> dict[str, tuple[Address, ...]]:
    """Addresses of every appliance in `fixed`, which holds those the administrator has chosen."""
    taken = _never_given(network).union(*fixed.values())
    kept = {}
    # Whoever holds an address goes before whoever needs one, so that nobody takes a neighbour's.
    for appliance, wanted in sorted(fixed.items()):
        held = [address for address in previous.get(appliance, ()) if address not in taken]
        kept[appliance] = _keep(network, wanted, held)
        taken.update(kept[appliance])
    return {appliance: _complete(network, addresses, taken) for appliance, addresses in kept.items()}


def allocate(configuration: Configuration, previous: Assignments) -> _Leases:
    """Addresses of every attachment by network and appliance.

    Those once given are kept while the appliance exists and they still fit; fixed addresses go before all
    others.
    """
    fixed: dict[str, dict[str, tuple[Address, ...]]] = {name: {} for name in configuration.networks}
    for appliance in configuration.appliances.values():
        for attachment in appliance.networks:
            fixed[attachment.network][appliance.name] = attachment.addresses
    return {
        name: _lease(network, fixed[name], previous.addresses.get(name, {}))
        for name, network in configuration.networks.items()
    }


def plan_ports(
    configuration: Configuration, leases: Mapping[str, Mapping[str, tuple[Address, ...]]], *, machine_id: str
) -> dict[str, tuple[Port, ...]]:
    """The ports of every appliance; the first one carries the default route."""
    _check_tap_names(configuration)
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


def _check_tap_names(configuration: Configuration) -> None:
    owners: dict[str, str] = {}
    for name in configuration.appliances:
        owner = owners.setdefault(tap_name(name, 0), name)
        if owner != name:
            raise ApplianceError(
                f"Appliances “{owner}” and “{name}” have the same tap {tap_name(name, 0)}.",
                problem=Problem.INVALID_CONFIGURATION,
                remedy="Give one of them another name.",
            )
