"""The firewall where a guest's tap meets its bridge: frames. Pure; part of agent.plan.firewall.

A guest's own chain is called before anything else, and lets pass what is from it, and not to another guest
that is no peer. The rest is dropped, and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv6Address

from agent.model.network import Port
from agent.plan.ports import peers
from agent.plan.ruleset import (
    ACCEPT,
    DROP,
    IIF,
    LOOPBACK,
    OIF,
    Chain,
    Hook,
    Rule,
    Set,
    Table,
    concat,
    count,
    dispatch,
    match,
    meta,
    over,
    payload,
    prefix,
)
from agent.plan.traffic import FAMILIES, Guest, link_local

# linux/netfilter_bridge.h: before others filter.
_PRIORITY = -200
_ETHER_SOURCE, _ETHER_TARGET = payload("ether", "saddr"), payload("ether", "daddr")
_ETHER_TYPES = ("arp", "ip", "ip6")
_BETWEEN_GUESTS = [match(IIF, "@ports"), match(OIF, "@ports")]
# Offset of the target address in ICMPv6 neighbour messages (RFC 4861, 4.3 and 4.4), in bits.
_ND_TARGET = {"payload": {"base": "th", "offset": 64, "len": 128}}
# A burst of a tenth of a second passes, and one of 64 kB.
_BURST, _LEAST_BURST = 10, 64


def bridge_table(name: str, guests: Mapping[str, Guest], bridge_macs: Mapping[str, str]) -> Table:
    """The table of this name; `bridge_macs` are those of our bridges, by name."""
    ports = {port.tap: (guest, port) for guest in guests.values() for port in guest.ports}
    pairs = peers((guest.appliance, guest.ports) for guest in guests.values())
    ways = sorted((one, other) for pair in pairs for one in pair for other in pair - {one})
    met: dict[str, list[str]] = {tap: [] for tap in ports}
    for one, other in ways:
        met[one].append(ports[other][1].mac)
    return Table(
        family="bridge",
        name=name,
        counters=frozenset(ports),
        chains={
            **{
                tap: Chain(list(_tap_rules(guest, port, bridge_macs.get(port.network.bridge, ""), met[tap])))
                for tap, (guest, port) in ports.items()
            },
            "prerouting": Chain([[dispatch(IIF, "taps")]], Hook("filter", "prerouting", _PRIORITY)),
            "forward": Chain(
                [
                    [match(concat(IIF, OIF), "@peers"), ACCEPT],
                    [match(IIF, "@open"), match(OIF, "@open"), ACCEPT],
                    # With br_netfilter, what goes to a published port is turned around on the bridge. It was
                    # addressed to the host: a guest's own chain lets nothing pass to others than its peers.
                    [*_BETWEEN_GUESTS, match(_ETHER_TARGET, "@macs"), ACCEPT],
                    [*_BETWEEN_GUESTS, DROP],
                ],
                Hook("filter", "forward", _PRIORITY),
            ),
        },
        sets={
            "taps": Set("ifname", [(tap, tap) for tap in ports], verdicts=True),
            "ports": Set("ifname", list(ports)),
            "macs": Set("ether_addr", sorted({port.mac for _, port in ports.values()})),
            "open": Set("ifname", [tap for tap, (_, port) in ports.items() if port.network.peers]),
            "peers": Set(("ifname", "ifname"), [concat(*way) for way in ways]),
        },
    )


def _tap_rules(guest: Guest, port: Port, bridge_mac: str, peer_macs: Collection[str]) -> Iterator[Rule]:
    """What a guest may send. What no rule accepts is dropped, and counted."""
    appliance, refuse = guest.appliance, [count(port.tap), DROP]
    own = {
        version: [str(address) for address in port.addresses if address.version == version]
        for version in (4, 6)
    }
    if appliance.limits.bandwidth:
        rate = max(1, appliance.limits.bandwidth // 8000)
        yield [over(rate, "kbytes", burst=max(_LEAST_BURST, rate // _BURST)), *refuse]
    yield [match(_ETHER_SOURCE, port.mac, negated=True), *refuse]
    yield [match(payload("ether", "type"), _ETHER_TYPES, negated=True), *refuse]
    if not port.network.peers:
        others = match(_ETHER_TARGET, "@macs")
        yield [others, *([match(_ETHER_TARGET, peer_macs, negated=True)] if peer_macs else []), *refuse]
    yield from _detours(port, bridge_mac, refuse)
    if own[4]:
        yield [
            match(payload("arp", "saddr ether"), port.mac),
            match(payload("arp", "saddr ip"), own[4]),
            ACCEPT,
        ]
        if not appliance.grants.dhcp_server:
            yield [match(meta("protocol"), "ip"), match(payload("udp", "sport"), 67), *refuse]
        yield [match(payload("icmp", "type"), "redirect"), *refuse]
        yield [match(payload("ip", "daddr"), LOOPBACK), *refuse]
        yield [match(payload("ip", "saddr"), own[4]), ACCEPT]
    if own[6]:
        mine = [*own[6], str(link_local(port.mac))]
        forbidden = ["nd-redirect"] if appliance.grants.router else ["nd-router-advert", "nd-redirect"]
        targets = [hex(int(IPv6Address(address))) for address in mine]
        kind = payload("icmpv6", "type")
        yield [match(kind, forbidden), *refuse]
        yield [match(kind, "nd-neighbor-advert"), match(_ND_TARGET, targets, negated=True), *refuse]
        if not appliance.grants.dhcp_server:
            yield [match(meta("protocol"), "ip6"), match(payload("udp", "sport"), 547), *refuse]
        yield [match(payload("ip6", "saddr"), mine), ACCEPT]
        unspecified = match(payload("ip6", "saddr"), "::")
        yield [unspecified, match(kind, "nd-neighbor-solicit"), match(_ND_TARGET, targets), ACCEPT]
        yield [unspecified, match(kind, "mld2-listener-report"), ACCEPT]
    yield refuse


def _detours(port: Port, bridge_mac: str, refuse: Rule) -> Iterator[Rule]:
    """By way of the host's routing a guest could reach those of its own network that are not its peers."""
    for subnet in port.network.subnets:
        host = port.network.host_address(subnet)
        if host is None:
            continue
        family = FAMILIES[subnet.version]
        yield [
            match(_ETHER_TARGET, bridge_mac),
            match(payload(family, "daddr"), prefix(subnet)),
            match(payload(family, "daddr"), str(host), negated=True),
            *refuse,
        ]
