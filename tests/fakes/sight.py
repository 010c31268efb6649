"""The network of tests/fakes/world.py as it is seen: everything that was made is there and well, and tests
spoil what they are about."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.core.diagnose import Diagnosis
from agent.core.networks import Networks
from agent.model.address import Address
from agent.model.diagnosis import Verdict
from agent.model.errors import HostError
from agent.model.link import Count, FilterChain, Link, Neighbour, Route, Way
from agent.model.network import Bridge, Tap
from agent.plan.ruleset import Json

if TYPE_CHECKING:
    from tests.fakes.world import World


class FakeSight:
    """Fulfils Sight, FirewallSight and Echo. `changes` of links are by name; an echo is answered unless
    `answers` says otherwise, and as soon as the `gate` is open."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.changes: dict[str, dict[str, Any]] = {}
        self.foreign: list[Route] = []
        self.forwarding, self.filtering = {4, 6}, set[int]()
        self.lost_tables: set[str] = set()
        self.foreign_chains: list[FilterChain] = []
        self.tables: dict[tuple[str, str], Json] | None = {}
        self.answers: dict[Address, Verdict] = {}
        self.asked: list[Address] = []
        self.threads: set[str] = set()
        self.looks = 0
        self.gate = threading.Event()
        self.gate.set()
        self.router: Address | None = None
        self.failure: HostError | None = None

    # --- links

    def links(self) -> dict[str, Link]:
        self._note_thread()
        self.looks += 1
        made = self._world.links.links
        indexes = {name: number for number, name in enumerate(made, 2)}
        found = {name: _seen(one, indexes) for name, one in made.items()}
        return {name: replace(link, **self.changes.get(name, {})) for name, link in found.items()}

    def addresses(self, index: int) -> set[str]:
        link = list(self._world.links.links.values())[index - 2]
        return set(link.addresses) if isinstance(link, Bridge) else set()

    def owner(self, tap: str) -> int:
        found = self._world.links.links[tap]
        return found.owner_uid if isinstance(found, Tap) else -1

    def vlans(self) -> dict[int, dict[int, int]]:
        return {}

    def foreign_routes(self) -> list[Route]:
        return self.foreign

    def way(self, destination: Address, *, source: Address | None = None, interface: str = "") -> Way:
        del source, interface
        for network in self._world.reconciler.plan.networks:
            if network.subnet_of(destination):
                return Way(network.bridge)
        return Way("eth0", self.router) if self.router else Way(refusal="No route to host")

    def neighbours(self) -> list[Neighbour]:
        return [
            Neighbour(port.network.bridge, address, port.mac)
            for appliance in self._world.reconciler.plan.appliances.values()
            for port in appliance.ports
            for address in port.addresses
        ]

    def forwards(self, version: int, interface: str) -> bool:
        return bool(interface) and version in self.forwarding

    def filters_bridged(self, version: int) -> bool:
        return version in self.filtering

    # --- firewall

    def refused(self) -> dict[str, tuple[int, int]]:
        if self.failure:
            raise self.failure
        return {name: (1, 60) for name, link in self._world.links.links.items() if isinstance(link, Tap)}

    def chains(self) -> list[FilterChain]:
        if self.failure:
            raise self.failure
        own = [
            FilterChain(table.family, table.name, chain)
            for table in self._world.firewall.loaded
            if table.family not in self.lost_tables
            for chain in table.chains
        ]
        return [*own, *self.foreign_chains]

    def rules(self, family: str, table: str) -> Json:
        if self.tables is None:
            raise HostError("there is no such table")
        return self.tables.get((family, table), [])

    # --- echoes

    def echo(self, address: Address, *, timeout_s: float) -> Verdict:
        self._note_thread()
        self.asked.append(address)
        self.gate.wait(timeout_s)
        return self.answers.get(address, Verdict.OK)

    def _note_thread(self) -> None:
        self.threads.add(threading.current_thread().name.rpartition("_")[0])


def _seen(made: Bridge | Tap, indexes: dict[str, int]) -> Link:
    own: dict[str, Any] = (
        {
            "kind": "tun",
            "mac": "02:00:00:00:00:01",
            "master": indexes.get(made.bridge, 0),
            "isolated": made.isolated,
            "hairpin": made.hairpin,
        }
        if isinstance(made, Tap)
        else {"kind": "bridge", "mac": made.mac, "master": 0, "isolated": False, "hairpin": False}
    )
    return Link(
        index=indexes[made.name],
        name=made.name,
        up=True,
        carrier=True,
        mtu=made.mtu,
        ours=True,
        qdisc="",
        filters_vlans=False,
        received=Count(10, 1000),
        sent=Count(20, 3000),
        **own,
    )


def networks_of(world: World) -> Networks:
    """What there is to see of networks, in a world."""
    parts: dict[str, Any] = {
        "reconciler": world.reconciler,
        "network": world.network,
        "sight": world.sight,
        "firewall": world.sight,
    }
    return Networks(diagnosis=Diagnosis(echo=world.sight.echo, watch=world.watch, **parts), **parts)
