"""The firewall where the host routes: packets. Pure; part of agent.plan.firewall.

What comes from a guest has passed its chain in agent.plan.frames, so that its addresses can be believed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from agent.model.address import Subnet
from agent.model.network import Network, NetworkKind
from agent.model.traffic import Destination, Ports
from agent.plan.publishing import PUBLISHED, published_ports
from agent.plan.ruleset import (
    ACCEPT,
    DROP,
    IIF,
    LOOPBACK,
    MASQUERADE,
    OIF,
    RETURN,
    Chain,
    Hook,
    Json,
    Rule,
    Set,
    Table,
    concat,
    dispatch,
    is_local,
    is_published,
    jump,
    match,
    over,
    payload,
    prefix,
    span,
    state,
)
from agent.plan.traffic import FAMILIES, Guest, egress_of, link_local

# linux/netfilter_ipv4.h: before others filter, translate and filter.
_DSTNAT, _FILTER, _SRCNAT = -100, 0, 100
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_NEIGHBOURS = (
    "nd-neighbor-solicit",
    "nd-neighbor-advert",
    "mld-listener-report",
    "mld-listener-done",
    "mld2-listener-report",
)
_ESTABLISHED = state("established", "related")
# A burst of a tenth of a second passes, and one of five connections.
_BURST, _LEAST_BURST = 10, 5


def inet_table(name: str, networks: Collection[Network], guests: Mapping[str, Guest]) -> Table:
    """The table of this name."""
    own = [network for network in networks if network.lan is None]
    personal = {
        f"{way}-{name}": Chain(rules)
        for name, guest in guests.items()
        for way, rules in (("from", _leaving(guest)), ("to", _connections(guest)))
        if rules
    }
    ports = published_ports(guests)
    return Table(
        family="inet",
        name=name,
        chains={**personal, **ports.chains, **_translation(own), **_filter(guests)},
        sets={**_sets(own, guests, personal), **ports.sets},
    )


def _translation(own: Collection[Network]) -> dict[str, Chain]:
    # Loopback addresses but for the usual one are those of resolvers and the like.
    loopback = payload("ip", "daddr")
    return {
        "prerouting": Chain([[is_local(), jump(PUBLISHED)]], Hook("nat", "prerouting", _DSTNAT)),
        "output": Chain(
            [
                [match(loopback, LOOPBACK), match(loopback, "127.0.0.1", negated=True), RETURN],
                [match(payload("ip6", "daddr"), "::1"), RETURN],
                [is_local(), jump(PUBLISHED)],
            ],
            Hook("nat", "output", _DSTNAT),
        ),
        "postrouting": Chain(list(_translated(own)), Hook("nat", "postrouting", _SRCNAT)),
    }


def _filter(guests: Mapping[str, Guest]) -> dict[str, Chain]:
    members = [
        [match(concat(IIF, payload(family, "saddr")), f"@members{version}"), jump("guest-to-host")]
        for version, family in FAMILIES.items()
    ]
    return {
        "guest-to-host": Chain(list(_guest_to_host(guests))),
        # With br_netfilter bridged frames come here, too, and the other table has let them pass; but to a
        # published port a guest goes by way of the host.
        "bridged": Chain([[is_published(), RETURN], [ACCEPT]]),
        "guest-out": Chain([*_by_address("saddr", "from"), [match(IIF, "@closed"), DROP]]),
        "guest-in": Chain(
            [
                *_by_address("daddr", "to"),
                [match(OIF, "@closed"), DROP],
                [match(OIF, "@routed"), ACCEPT],
                [is_published(), ACCEPT],
                [DROP],
            ]
        ),
        "input": Chain(
            [[match(IIF, "@bridges"), jump("guest-to-host")], *members], Hook("filter", "input", _FILTER)
        ),
        "forward": Chain(
            [
                [_ESTABLISHED, ACCEPT],
                [match(concat(IIF, OIF), "@same"), jump("bridged")],
                [match(IIF, "@bridges"), jump("guest-out")],
                [match(OIF, "@bridges"), jump("guest-in")],
            ],
            Hook("filter", "forward", _FILTER),
        ),
    }


def _by_address(field: str, prefix_: str) -> list[Rule]:
    return [
        [dispatch(payload(family, field), f"{prefix_}{version}")] for version, family in FAMILIES.items()
    ]


def _sets(own: Collection[Network], guests: Mapping[str, Guest], chains: Collection[str]) -> dict[str, Set]:
    bridges = [network.bridge for network in own]

    def named(kind: NetworkKind) -> list[str]:
        return [network.bridge for network in own if network.kind is kind]

    sets = {
        "bridges": Set("ifname", bridges),
        "same": Set(("ifname", "ifname"), [concat(bridge, bridge) for bridge in bridges]),
        "closed": Set("ifname", named(NetworkKind.ISOLATED)),
        "routed": Set("ifname", named(NetworkKind.ROUTED)),
    }
    for version, kind in _TYPES.items():
        members = [
            concat(port.network.bridge, str(address))
            for guest in guests.values()
            for port in guest.ports
            if port.network.lan
            for address in (*port.addresses, *([link_local(port.mac)] if version == 6 else []))
            if address.version == version
        ]
        sets[f"members{version}"] = Set(("ifname", kind), members)
        for way in ("from", "to"):
            sets[f"{way}{version}"] = Set(
                kind,
                [
                    (str(address), f"{way}-{name}")
                    for name, guest in guests.items()
                    if f"{way}-{name}" in chains
                    for address in guest.addresses
                    if address.version == version
                ],
                verdicts=True,
            )
    return sets


def _leaving(guest: Guest) -> list[Rule]:
    """What an appliance may open: as many connections, and where to."""
    rules = _connections(guest)
    for port in guest.ports:
        egress = egress_of(guest.appliance, port.network)
        if egress is None or not port.network.is_routed:
            continue
        via = match(IIF, port.network.bridge)
        rules += [[via, *_destination(destination), RETURN] for destination in egress]
        rules.append([via, DROP])
    return rules


def _connections(guest: Guest) -> list[Rule]:
    """As many new ones as it may have; both ways."""
    rate = guest.appliance.limits.connections
    return [[state("new"), over(rate, burst=max(_LEAST_BURST, rate // _BURST)), DROP]] if rate else []


def _destination(destination: Destination) -> list[Json]:
    conditions: list[Json] = []
    if destination.subnet:
        family = FAMILIES[destination.subnet.version]
        conditions.append(match(payload(family, "daddr"), _network(destination.subnet)))
    if destination.ports and destination.protocol:
        conditions.append(match(payload(destination.protocol, "dport"), _span(destination.ports)))
    return conditions


def _network(subnet: Subnet) -> Json:
    return str(subnet.network_address) if subnet.num_addresses == 1 else prefix(subnet)


def _span(ports: Ports) -> Json:
    return span(ports.first, ports.last)


def _guest_to_host(guests: Mapping[str, Guest]) -> Iterator[Rule]:
    yield [_ESTABLISHED, ACCEPT]
    yield [match(payload("icmpv6", "type"), _NEIGHBOURS), ACCEPT]
    for guest in guests.values():
        grants = guest.appliance.grants
        for version, family in FAMILIES.items():
            addresses = [str(address) for address in guest.addresses if address.version == version]
            if not addresses:
                continue
            source = match(payload(family, "saddr"), addresses)
            if grants.host:
                yield [source, ACCEPT]
            for service in grants.services:
                port = payload(service.protocol, "dport")
                yield [source, match(port, _span(service.ports)), ACCEPT]
    yield [DROP]


def _translated(own: Collection[Network]) -> Iterator[Rule]:
    """Replies have to come back the way that questions went."""
    yield [match(payload("ip", "saddr"), LOOPBACK), match(OIF, "@bridges"), MASQUERADE]
    for network in own:
        if not network.leads_out:
            continue
        for subnet in network.subnets:
            family = FAMILIES[subnet.version]
            from_here = match(payload(family, "saddr"), prefix(subnet))
            yield [is_published(), from_here, match(payload(family, "daddr"), prefix(subnet)), MASQUERADE]
            if network.kind is NetworkKind.NAT:
                yield [from_here, match(OIF, network.bridge, negated=True), MASQUERADE]
