"""Subnets for networks whose administrator names none (`subnets: auto`): one of IPv4 and one of IPv6 each,
kept once an appliance has an address in it.

The IPv6 one is a unique local prefix (RFC 4193) whose global ID comes from the machine ID, so that it is the
same even after the agent was installed anew, and another on every host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from itertools import chain

from agent.model.address import Subnet
from agent.model.assignments import Assignments
from agent.model.errors import ApplianceError, Problem
from agent.model.network import Network

RANGES = (IPv4Network("10.88.0.0/16"), IPv4Network("172.24.0.0/14"), IPv4Network("192.168.128.0/17"))
"""Private address space (RFC 1918) that IPv4 subnets are taken from, each a /24, in this order."""

_Chosen = dict[str, tuple[Subnet, ...]]


def choose_subnets(
    networks: Mapping[str, Network],
    *,
    previous: Assignments,
    machine_id: str,
    taken: Callable[[], Collection[Subnet]],
    ipv6: bool = True,
) -> _Chosen:
    """The subnets of every automatic network, by its name. `taken` says what the host has routes to already;
    it is asked only where something can still be chosen. Without `ipv6` there are only IPv4 subnets."""
    fixed = [subnet for network in networks.values() for subnet in network.subnets]
    automatic = sorted(name for name, network in networks.items() if network.automatic)
    chosen: _Chosen = {}
    for name in automatic:
        kept = tuple(subnet for subnet in previous.subnets.get(name, ()) if ipv6 or subnet.version == 4)
        overlaps = overlap_with([*fixed, *chain.from_iterable(chosen.values())])
        if kept and previous.addresses.get(name) and not any(map(overlaps, kept)):
            chosen[name] = kept
    # Who has had one goes before who has not, and does not lose it to a name that sorts before its own.
    undecided = sorted(set(automatic) - chosen.keys(), key=lambda name: (name not in previous.subnets, name))
    if undecided:
        foreign = [*fixed, *chain.from_iterable(chosen.values()), *taken()]
        for name in undecided:
            candidates: list[Iterator[Subnet]] = [_candidates_4()]
            if ipv6:
                candidates.append(_candidates_6(name, machine_id))
            chosen[name] = _choose(name, previous.subnets.get(name, ()), foreign, candidates)
            foreign += chosen[name]
    return chosen


def overlap_with(others: Collection[Subnet]) -> Callable[[Subnet], bool]:
    """A function that tells whether a subnet overlaps one of these."""

    def overlaps(subnet: Subnet) -> bool:
        return any(subnet.version == other.version and subnet.overlaps(other) for other in others)

    return overlaps


def _choose(
    name: str,
    kept: Collection[Subnet],
    foreign: Collection[Subnet],
    candidates: Iterable[Iterator[Subnet]],
) -> tuple[Subnet, ...]:
    """One of each kind of candidates: the one that was kept, if it is free."""
    overlaps = overlap_with(foreign)
    found: list[Subnet] = []
    for of_one_version in candidates:
        first = next(of_one_version)
        before = [subnet for subnet in kept if subnet.version == first.version]
        all_of_it = chain(before, [first], of_one_version)
        free = next((subnet for subnet in all_of_it if not overlaps(subnet)), None)
        if free is None:
            raise ApplianceError(
                f"Network “{name}”: every private subnet collides with a route of this host.",
                problem=Problem.NO_SPACE,
                remedy="Give it `subnets:` of your own.",
            )
        found.append(free)
    return tuple(found)


def _candidates_4() -> Iterator[IPv4Network]:
    return chain.from_iterable(network.subnets(new_prefix=24) for network in RANGES)


def _candidates_6(name: str, machine_id: str) -> Iterator[IPv6Network]:
    global_id = hashlib.sha256(f"{machine_id}/ula".encode()).digest()[:5]
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big")
    for number in range(1 << 16):
        subnet_id = (first + number) & 0xFFFF
        yield IPv6Network((bytes((0xFD, *global_id)) + subnet_id.to_bytes(2, "big") + bytes(8), 64))
