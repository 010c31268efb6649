"""What a diagnosis is made of: an appliance on one network as it is to be, what was seen of it, and what is
found at a hop. Pure; agent.core.diagnose gathers it, agent.plan.diagnosis judges.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from agent.model.address import Address
from agent.model.diagnosis import Hop, HopReport, Verdict
from agent.model.health import UnitStatus
from agent.model.link import FilterChain, Link, Neighbour, Route, Way
from agent.model.names import unit_of
from agent.model.network import Bridge, Network, Port, Tap
from agent.model.traffic import Destination

ChainName = tuple[str, str, str]
"""Family, table and name."""


@dataclass(frozen=True, slots=True)
class Subject:
    """`bridge` is None where somebody else has made it. `chains` are those that the firewall is to have,
    `withheld` says which ports are not published, and why; an `egress` of None is no limit."""

    name: str
    port: Port
    tap: Tap
    bridge: Bridge | None
    unit: UnitStatus
    chains: Collection[ChainName] = ()
    egress: tuple[Destination, ...] | None = None
    withheld: tuple[str, ...] = ()

    @property
    def network(self) -> Network:
        """The network it is on."""
        return self.port.network

    @property
    def unit_name(self) -> str:
        """Its unit."""
        return unit_of(self.name)

    @property
    def runs(self) -> bool:
        """Whether there is a guest."""
        return self.unit.is_running

    @property
    def versions(self) -> list[int]:
        """The IP versions it speaks."""
        return sorted({address.version for address in self.port.addresses})


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen.

    `host_addresses` are those on its bridge, `owner` is that of its tap, and `vlans` are the tap's. `ways`
    lead from the host to addresses, `ways_out` from the guest to anywhere, `own_ways_out` likewise from the
    host, by IP version. `unreadable` says why there are no `chains`, or ''; `related` are those in whose
    tables something is said of the network. `echoes` are the answers of those who were asked.
    """

    links: Mapping[str, Link]
    host_addresses: Collection[str] = ()
    owner: int | None = None
    vlans: Collection[int] = ()
    forwards: Collection[int] = (4, 6)
    filters_bridged: Collection[int] = ()
    foreign_routes: Collection[Route] = ()
    chains: Collection[FilterChain] = ()
    unreadable: str = ""
    related: Collection[FilterChain] = ()
    ways: Mapping[Address, Way] = field(default_factory=dict)
    ways_out: Mapping[int, Way] = field(default_factory=dict)
    own_ways_out: Mapping[int, Way] = field(default_factory=dict)
    echoes: Mapping[Address, Verdict] = field(default_factory=dict)
    neighbours: Collection[Neighbour] = ()

    def mac_of(self, address: Address, interface: str = "") -> str:
        """Who has an address on a link of the host; '' where nobody is known to."""
        found = (
            neighbour.mac
            for neighbour in self.neighbours
            if neighbour.address == address and interface in {"", neighbour.interface}
        )
        return next((mac for mac in found if mac), "")

    def bridge_is_sound(self, subject: Subject) -> bool:
        """Whether its bridge is there, up, and has the host's addresses."""
        link = self.links.get(subject.network.bridge)
        addresses = subject.bridge.addresses if subject.bridge else frozenset()
        return link is not None and link.up and addresses <= set(self.host_addresses)


@dataclass(slots=True)
class Findings:
    """What is found at one hop: what was looked at, what is wrong with it, and what cannot be told, the
    latter two with what to do."""

    hop: Hop
    seen: list[str] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    unsure: list[tuple[str, str]] = field(default_factory=list)

    def see(self, text: str) -> None:
        """Something was looked at."""
        self.seen.append(text)

    def fail(self, reason: str, remedy: str) -> None:
        """It is broken."""
        self.wrong.append((reason, remedy))

    def doubt(self, reason: str, remedy: str = "") -> None:
        """It cannot be told."""
        self.unsure.append((reason, remedy))

    @property
    def verdict(self) -> Verdict:
        """What follows."""
        return Verdict.FAILED if self.wrong else Verdict.UNKNOWN if self.unsure else Verdict.OK

    def report(self, network: str) -> HopReport:
        """For people. Where something is wrong, nothing is said of what is only not known."""
        chosen = self.wrong or self.unsure
        return HopReport(
            hop=str(self.hop),
            network=network,
            verdict=str(self.verdict),
            looked_at="; ".join(self.seen),
            reason="; ".join(reason for reason, _ in chosen),
            remedy=" ".join(dict.fromkeys(remedy for _, remedy in chosen if remedy)),
        )


def is_near(way: Way) -> bool:
    """Whether it ends on a link of the host, without another machine in between."""
    return bool(way.interface) and way.gateway is None
