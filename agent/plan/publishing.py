"""Published ports as nftables chains. Pure; part of agent.plan.packets.

A packet is looked up by its port, and finds a chain with the rules of that port, or of a range: however many
are published, a packet passes few rules, and a change touches few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.model.address import Address
from agent.model.traffic import Ports, Protocol, Publication
from agent.plan.ruleset import Chain, Json, Rule, Set, dispatch, match, meta, payload, span
from agent.plan.traffic import FAMILIES, Guest, published_address

PUBLISHED = "published"
"""The chain for packets to an address of the host."""

_NFPROTO = {4: "ipv4", 6: "ipv6"}


@dataclass(frozen=True, slots=True)
class PublishedPorts:
    """`PUBLISHED` with what it takes, by name."""

    chains: Mapping[str, Chain]
    sets: Mapping[str, Set]


@dataclass(slots=True)
class _Range:
    """Ports that somebody has published, and everything that overlaps them."""

    first: int
    last: int
    rules: list[Rule] = field(default_factory=list)


def published_ports(guests: Mapping[str, Guest]) -> PublishedPorts:
    """The ports of all guests."""
    chains = {PUBLISHED: Chain([[dispatch(_port(protocol), protocol)] for protocol in Protocol])}
    sets = {}
    for protocol in Protocol:
        ranges = {f"{protocol}-{Ports(one.first, one.last)}": one for one in _ranges(protocol, guests)}
        chains |= {name: Chain(one.rules) for name, one in ranges.items()}
        elements = [(span(one.first, one.last), name) for name, one in ranges.items()]
        sets[str(protocol)] = Set("inet_service", elements, verdicts=True, intervals=True)
    return PublishedPorts(chains, sets)


def _ranges(protocol: Protocol, guests: Mapping[str, Guest]) -> list[_Range]:
    """Two may publish a port, each for an address of its own."""
    found = [
        (publication.ports, rule)
        for guest in guests.values()
        for publication in guest.publish
        if publication.protocol is protocol
        for rule in _rules(publication, guest)
    ]
    ranges: list[_Range] = []
    for ports, rule in sorted(found, key=lambda entry: entry[0]):
        if not ranges or ports.first > ranges[-1].last:
            ranges.append(_Range(ports.first, ports.last))
        ranges[-1].last = max(ranges[-1].last, ports.last)
        ranges[-1].rules.append(rule)
    return ranges


def _rules(publication: Publication, guest: Guest) -> Iterator[Rule]:
    for version in (4, 6):
        target = published_address(guest.ports, version)
        if target and publication.version in {0, version}:
            yield _rule(publication, target)


def _rule(publication: Publication, target: Address) -> Rule:
    family = FAMILIES[target.version]
    destination: dict[str, Json] = {"family": family, "addr": str(target)}
    port = _port(publication.protocol)
    if publication.ports != publication.target:
        shift = publication.target.first - publication.ports.first
        numbers = range(publication.ports.first, publication.ports.last + 1)
        pairs = [[number, number + shift] for number in numbers]
        destination["port"] = (
            pairs[0][1] if len(pairs) == 1 else {"map": {"key": port, "data": {"set": pairs}}}
        )
    where = (
        match(payload(family, "daddr"), str(publication.address))
        if publication.address
        else match(meta("nfproto"), _NFPROTO[target.version])
    )
    return [where, match(port, span(publication.ports.first, publication.ports.last)), {"dnat": destination}]


def _port(protocol: Protocol) -> Json:
    return payload(str(protocol), "dport")
