"""Walks the way of an appliance's packets and finds the hop that is broken. It looks and asks, and changes
nothing; agent.plan.diagnosis judges what it has seen.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial

from agent.core.network import HostNetwork
from agent.core.reconcile import Reconciler
from agent.core.watch import Watch
from agent.core.world import Echo, FirewallSight, Sight
from agent.model.address import Address
from agent.model.diagnosis import HopReport, Verdict
from agent.model.errors import HostError
from agent.model.link import FilterChain, Link, Way
from agent.model.network import Port
from agent.plan.diagnosis import judge, to_ask
from agent.plan.diagnosis_beyond import FAR
from agent.plan.diagnosis_facts import Facts, Subject
from agent.plan.diagnosis_host import stopping_chains
from agent.plan.foreign_rules import speak_of
from agent.plan.host import AppliancePlan, HostPlan
from agent.plan.network_status import target_of
from agent.plan.traffic import egress_of

ECHO_TIMEOUT_S = 2.0


class Diagnosis:
    """One at a time: everybody may ask for one, and it takes threads that others need, too."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        network: HostNetwork,
        sight: Sight,
        firewall: FirewallSight,
        echo: Echo,
        watch: Watch,
    ) -> None:
        self._reconciler = reconciler
        self._network = network
        self._sight = sight
        self._firewall = firewall
        self._ask_for_echo = echo
        self._watch = watch
        self._lock = asyncio.Lock()

    async def diagnose(self, name: str) -> list[HopReport]:
        """The hops of every network that an appliance is on; ApplianceError where there is none of that
        name."""
        appliance = self._reconciler.plan_of(name)
        async with self._lock:
            return [report for port in appliance.ports for report in await self._walk(appliance, port)]

    async def _walk(self, appliance: AppliancePlan, port: Port) -> list[HopReport]:
        plan = self._reconciler.plan
        subject = await self._reconciler.run(partial(self._subject, plan, appliance, port))
        facts = await self._reconciler.run(partial(self._look, subject))
        asked = to_ask(subject, facts)
        answers = await asyncio.gather(*map(self._echo, asked))
        # By asking, the host has learnt who has these addresses.
        neighbours = await self._reconciler.run(self._sight.neighbours)
        echoes = dict(zip(asked, answers, strict=True))
        return judge(subject, replace(facts, echoes=echoes, neighbours=neighbours))

    async def _echo(self, address: Address) -> Verdict:
        ask = partial(self._ask_for_echo, address, timeout_s=ECHO_TIMEOUT_S)
        return await self._reconciler.run_long(ask)

    # --- in the host's thread

    def _subject(self, plan: HostPlan, appliance: AppliancePlan, port: Port) -> Subject:
        """The appliance on this network as it is to be."""
        settings, network = appliance.appliance, port.network
        bridges, taps = self._network.links(plan)
        return Subject(
            name=settings.name,
            port=port,
            tap=next(tap for tap in taps if tap.name == port.tap),
            bridge=next((bridge for bridge in bridges if bridge.name == network.bridge), None),
            unit=self._watch.status(settings.name),
            chains=[
                (table.family, table.name, chain)
                for table in self._network.ruleset(plan)
                for chain in table.chains
            ],
            egress=egress_of(settings, network),
            withheld=tuple(
                f"port {publication} is not published: {why}"
                for (name, publication), why in self._network.withheld(plan).items()
                if name == settings.name
                and any(found is port for found, _ in target_of(appliance.ports, publication)[:1])
            ),
        )

    def _look(self, subject: Subject) -> Facts:
        links, network = self._sight.links(), subject.network
        bridge, tap = links.get(network.bridge), links.get(subject.tap.name)
        gateways = network.lan.gateways if network.lan else ()
        chains, unreadable = self._chains()
        facts = Facts(
            links=links,
            host_addresses=self._sight.addresses(bridge.index) if bridge else (),
            owner=self._owner(tap),
            vlans=self._sight.vlans().get(tap.index, {}) if tap and subject.tap.vlan else (),
            forwards=[one for one in (4, 6) if self._sight.forwards(one, network.bridge)],
            filters_bridged=[one for one in (4, 6) if self._sight.filters_bridged(one)],
            foreign_routes=self._sight.foreign_routes(),
            chains=chains,
            unreadable=unreadable,
            ways={address: self._sight.way(address) for address in (*subject.port.addresses, *gateways)},
            ways_out=self._ways_out(subject) if bridge and network.is_routed else {},
            own_ways_out={one: self._sight.way(FAR[one]) for one in subject.versions},
        )
        related = [chain for chain in stopping_chains(subject, facts) if self._is_told(chain, subject)]
        return replace(facts, related=related)

    def _owner(self, tap: Link | None) -> int | None:
        with suppress(HostError):
            return self._sight.owner(tap.name) if tap else None
        return None

    def _chains(self) -> tuple[list[FilterChain], str]:
        """What nftables has, or why that is not known: there is more to look at."""
        try:
            return self._firewall.chains(), ""
        except HostError as error:
            return [], error.message

    def _ways_out(self, subject: Subject) -> dict[int, Way]:
        """Where packets of the guest go that are meant for far away, by IP version."""
        return {
            address.version: self._sight.way(
                FAR[address.version], source=address, interface=subject.network.bridge
            )
            for address in subject.port.addresses
        }

    def _is_told(self, chain: FilterChain, subject: Subject) -> bool:
        """Whether there are rules about the network beside a chain that drops; those that cannot be read may
        be about anything."""
        with suppress(HostError):
            return speak_of(subject.network, self._firewall.rules(chain.family, chain.table))
        return True
