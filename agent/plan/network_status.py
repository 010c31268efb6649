"""Networks, leases and published ports as they are shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from agent.model.address import Address
from agent.model.link import Link
from agent.model.network import Network, Port
from agent.model.network_status import Lease, LeasedAddress, NetworkStatus, Published, TapCounters
from agent.model.traffic import Publication
from agent.plan.host import AppliancePlan, HostPlan
from agent.plan.traffic import published_address

Withheld = Mapping[tuple[str, Publication], str]
"""Why ports of appliances are not published."""


def networks_of(plan: HostPlan) -> list[NetworkStatus]:
    """All networks, by name."""
    return [_network(network, plan) for network in sorted(plan.networks, key=lambda one: one.name)]


def leases_of(plan: HostPlan) -> list[Lease]:
    """What every appliance has on every network, by network."""
    found = (
        Lease(
            network=port.network.name,
            appliance=name,
            tap=port.tap,
            mac=port.mac,
            vlan=port.vlan,
            default_route=port.default_route,
            addresses=tuple(_leased(appliance, port)),
        )
        for name, appliance in plan.appliances.items()
        for port in appliance.ports
    )
    return sorted(found, key=lambda lease: (lease.network, lease.appliance))


def published_of(plan: HostPlan, withheld: Withheld) -> list[Published]:
    """All published ports, by appliance, and those that are not for the reasons in `withheld`."""
    return [
        _published(appliance, publication, withheld.get((name, publication), ""))
        for name, appliance in plan.appliances.items()
        for publication in appliance.appliance.publish
    ]


def counters_of(
    plan: HostPlan, links: Mapping[str, Link], refused: Mapping[str, tuple[int, int]]
) -> list[TapCounters]:
    """Counters of every tap that is there. What the guest receives is what its tap sends."""
    found = []
    for name, appliance in plan.appliances.items():
        for port in appliance.ports:
            if link := links.get(port.tap):
                received, sent = link.sent, link.received
                counts = (received.packets, received.size_bytes, sent.packets, sent.size_bytes)
                found.append(
                    TapCounters(port.network.name, name, port.tap, *counts, *refused.get(port.tap, (0, 0)))
                )
    return found


def target_of(ports: Iterable[Port], publication: Publication) -> list[tuple[Port, Address]]:
    """Where published ports lead to, at most one address of each IP version."""
    ports = tuple(ports)
    return [
        (port, address)
        for version in (4, 6)
        if publication.version in {0, version} and (address := published_address(ports, version))
        for port in ports
        if address in port.addresses
    ]


def texts(values: Iterable[object]) -> tuple[str, ...]:
    """Each as text."""
    return tuple(map(str, values))


def _network(network: Network, plan: HostPlan) -> NetworkStatus:
    lan = network.lan
    gateways = (network.gateway(subnet) for subnet in network.subnets)
    hosts = (network.host_address(subnet) for subnet in network.subnets)
    return NetworkStatus(
        name=network.name,
        kind=str(network.kind),
        bridge=network.bridge,
        uplink=lan.uplink if lan else "",
        vlan=network.vlan,
        subnets=texts(network.subnets),
        automatic=network.automatic,
        host_addresses=texts(address for address in hosts if address),
        gateways=texts(address for address in gateways if address),
        mtu=network.mtu,
        nameservers=texts(network.nameservers),
        search=network.search,
        peers=network.peers,
        limited=network.egress is not None,
        egress=texts(network.egress or ()),
        appliances=tuple(
            sorted(
                name
                for name, appliance in plan.appliances.items()
                if any(port.network.name == network.name for port in appliance.ports)
            )
        ),
    )


def _leased(appliance: AppliancePlan, port: Port) -> Iterator[LeasedAddress]:
    fixed = appliance.appliance.networks[port.index].addresses
    return (LeasedAddress(str(address), address in fixed) for address in port.addresses)


def _published(appliance: AppliancePlan, publication: Publication, reason: str) -> Published:
    targets = target_of(appliance.ports, publication)
    return Published(
        appliance=appliance.appliance.name,
        publication=str(publication),
        network=targets[0][0].network.name if targets else "",
        targets=tuple(_place(address, publication) for _, address in targets),
        reason=reason or ("" if targets else "it has no address that they could lead to"),
    )


def _place(address: Address, publication: Publication) -> str:
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{publication.target}"
