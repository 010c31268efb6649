"""How appliances are wired: tap names, MAC addresses, and the addresses that nobody fixed by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from agent.model.address import Address, Subnet
from agent.model.appliance import Appliance
from agent.model.assignments import Assignments
from agent.model.configuration import Configuration
from agent.model.errors import ApplianceError, Problem
from agent.model.network import (
    IFNAMSIZ,
    Attachment,
    Bridge,
    Lan,
    Network,
    Port,
    Tap,
    reserved_addresses,
)

NO_USER = -1
"""In place of a uid, where there is no user yet."""

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


def plan_bridges(networks: Collection[Network], *, machine_id: str) -> list[Bridge]:
    """The bridges of ours: one for each network of its own, one for each uplink. Their MACs are fixed for
    the same reason as the guests' are."""
    bridges = {}
    for network in networks:
        if network.lan is None:
            bridges[network.bridge] = _own_bridge(network, machine_id=machine_id)
        elif network.lan.uplink:
            before = bridges.get(network.bridge)
            bridges[network.bridge] = _uplink_bridge(network, network.lan, before, machine_id=machine_id)
    return list(bridges.values())


def _own_bridge(network: Network, *, machine_id: str) -> Bridge:
    return Bridge(
        name=network.bridge,
        label=f"network {network.name}",
        mac=mac_address(machine_id, "", network.name),
        addresses=frozenset(
            f"{network.host_address(subnet)}/{subnet.prefixlen}" for subnet in network.subnets
        ),
        mtu=network.mtu,
        routes=network.leads_out,
    )


def _uplink_bridge(network: Network, lan: Lan, before: Bridge | None, *, machine_id: str) -> Bridge:
    """Networks that are VLANs of the same uplink share a bridge."""
    vlans = frozenset({network.vlan} - {0}) | (before.vlans if before else frozenset())
    return Bridge(
        name=network.bridge,
        label=f"uplink {lan.uplink}",
        mac=mac_address(machine_id, "", network.bridge),
        addresses=frozenset(),
        mtu=max(network.mtu, before.mtu if before else 0),
        uplink=lan.uplink,
        vlans=vlans,
    )


def with_vlans(bridges: Iterable[Bridge], taps: Iterable[Tap]) -> list[Bridge]:
    """The bridges with what their taps need: an appliance may be in another VLAN of an uplink than its
    network is."""
    tagged = [tap for tap in taps if tap.vlan]
    return [
        replace(bridge, vlans=bridge.vlans.union(tap.vlan for tap in tagged if tap.bridge == bridge.name))
        for bridge in bridges
    ]


def _never_given(network: Network) -> set[Address]:
    """Addresses that no guest may have."""
    return {address for subnet in network.subnets for address in reserved_addresses(network, subnet)}


def _pool(network: Network, subnet: Subnet) -> list[Subnet]:
    """The parts of a subnet from which addresses are given."""
    if network.lan is None:
        return [subnet]
    return [part for part in network.lan.pool if part.version == subnet.version]


def _free_addresses(network: Network, subnet: Subnet, taken: Collection[Address]) -> Iterator[Address]:
    for part in _pool(network, subnet):
        for number in range(int(part.network_address), int(part.broadcast_address) + 1):
            address = type(subnet.network_address)(number)
            if address not in taken:
                yield address


def _keep(network: Network, wanted: Collection[Address], held: Collection[Address]) -> list[Address]:
    """At most one address of each subnet: the fixed one, else the one it had, if that may still be given."""
    kept = []
    for subnet in network.subnets:
        pool = _pool(network, subnet)
        good = [address for address in wanted if address in subnet]
        good += [address for address in held if any(address in part for part in pool)]
        kept += good[:1]
    return kept


def _complete(network: Network, kept: Collection[Address], taken: set[Address]) -> tuple[Address, ...]:
    """One address of each subnet: the one that was kept, else the lowest that is free."""
    addresses = []
    for subnet in network.subnets:
        address = next((address for address in kept if address in subnet), None)
        address = address or next(_free_addresses(network, subnet, taken), None)
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
    """The ports of every appliance; one of them carries the default route, if there is any."""
    _check_tap_names(configuration)
    networks = configuration.networks
    ports = {}
    for appliance in configuration.appliances.values():
        default = _default_attachment(appliance, networks)
        ports[appliance.name] = tuple(
            Port(
                index=index,
                tap=tap_name(appliance.name, index),
                mac=attachment.mac or mac_address(machine_id, appliance.name, attachment.network),
                network=networks[attachment.network],
                addresses=leases[attachment.network][appliance.name],
                vlan=networks[attachment.network].vlan if attachment.vlan is None else attachment.vlan,
                default_route=attachment is default,
            )
            for index, attachment in enumerate(appliance.networks)
        )
    return ports


def _default_attachment(appliance: Appliance, networks: Mapping[str, Network]) -> Attachment | None:
    """The one that was chosen, else the first that leads out and was not excluded."""
    able = [
        attachment
        for attachment in appliance.networks
        if attachment.default_route is not False and networks[attachment.network].leads_out
    ]
    chosen = (attachment for attachment in able if attachment.default_route)
    return next(chosen, able[0] if able else None)


def plan_taps(
    appliances: Mapping[str, tuple[Appliance, tuple[Port, ...]]], user_ids: Mapping[str, int]
) -> list[Tap]:
    """The taps of all appliances, which have these ports and users."""
    meeting = frozenset().union(*(pair for pair in peers(appliances.values())))
    return [
        Tap(
            name=port.tap,
            bridge=port.network.bridge,
            owner_uid=user_ids.get(name, NO_USER),
            mtu=port.network.mtu,
            appliance=name,
            isolated=not (port.network.peers or port.tap in meeting or appliance.publish),
            hairpin=bool(appliance.publish),
            vlan=port.vlan,
            bandwidth=appliance.limits.bandwidth,
        )
        for name, (appliance, ports) in appliances.items()
        for port in ports
    ]


def peers(appliances: Iterable[tuple[Appliance, tuple[Port, ...]]]) -> set[frozenset[str]]:
    """Pairs of taps in one network whose appliances may reach each other because one names the other."""
    by_name = {appliance.name: (appliance, ports) for appliance, ports in appliances}
    return {
        frozenset((port.tap, other.tap))
        for appliance, ports in by_name.values()
        for peer in appliance.peers
        if peer in by_name
        for port in ports
        for other in by_name[peer][1]
        if port.network.name == other.network.name and port.vlan == other.vlan
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
