"""The network of all appliances: bridges, taps and the firewall, as one thing to plan. Blocking, in the
reconciler's thread.

The firewall comes first: no guest is connected without its rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.core.world import Files, Firewall, Links, Managers
from agent.model.change import Change
from agent.model.listener import Listener
from agent.model.network import Bridge, Tap
from agent.model.traffic import Publication
from agent.plan.firewall import plan_firewall
from agent.plan.host import AppliancePlan, HostPlan
from agent.plan.ports import plan_taps, with_vlans
from agent.plan.ruleset import Ruleset
from agent.plan.traffic import Guest

DHCP_SERVER_PORT = "67/udp"
_DHCP = "what it answers DHCP clients is dropped: `grants: [dhcp-server]` is missing"


class HostNetwork:
    """What `look` has last seen of the host's own ports holds for every plan until it is called again."""

    def __init__(self, links: Links, firewall: Firewall, managers: Managers, files: Files) -> None:
        self._links = links
        self._firewall = firewall
        self._managers = managers
        self._files = files
        self._listeners: list[Listener] = []
        self._ruled: tuple[HostPlan, list[Listener], Ruleset] | None = None

    def look(self, plan: HostPlan) -> tuple[str, ...]:
        """See which ports the host itself uses; why ports that are to be published are not."""
        publishing = any(appliance.appliance.publish for appliance in plan.appliances.values())
        # A dry run, too, comes here, and leaves what is published as it is.
        self._listeners = self._links.listeners() if publishing or self._listeners else []
        withheld = (
            f"{name}: port {publication} is not published: {why}"
            for (name, publication), why in self.withheld(plan).items()
        )
        return (*withheld, *(f"{name}: {_DHCP}" for name in plan.appliances if _needs_grant(plan, name)))

    def withheld(self, plan: HostPlan) -> dict[tuple[str, Publication], str]:
        """Ports of appliances that are not published, and why."""
        return {
            (name, publication): f"{_owner(owner)} uses it on this host"
            for name, appliance in plan.appliances.items()
            for publication in appliance.appliance.publish
            if (owner := self._owner_of(publication))
        }

    def plan(self, plan: HostPlan) -> list[Change]:
        """What it takes to have exactly what appliances need."""
        bridges, taps = self.links(plan)
        return [
            *self._firewall.plan(self.ruleset(plan)),
            *self._managers.plan(bridges),
            *self._links.plan(bridges, taps),
        ]

    def ruleset(self, plan: HostPlan) -> Ruleset:
        """The rules that the kernel is to have. They are asked for whenever anything happens to a link; a
        plan never changes."""
        if self._ruled and self._ruled[0] is plan and self._ruled[1] is self._listeners:
            return self._ruled[2]
        ruleset = self._make_ruleset(plan)
        self._ruled = plan, self._listeners, ruleset
        return ruleset

    def _make_ruleset(self, plan: HostPlan) -> Ruleset:
        guests = {name: self._guest(appliance) for name, appliance in plan.appliances.items()}
        macs = {bridge.name: bridge.mac for bridge in plan.bridges}
        return plan_firewall(plan.networks, guests, bridge_macs=macs)

    def links(self, plan: HostPlan) -> tuple[list[Bridge], list[Tap]]:
        """The bridges and taps that the host is to have."""
        ports = {name: (one.appliance, one.ports) for name, one in plan.appliances.items()}
        taps = plan_taps(ports, self._user_ids(plan.appliances))
        return with_vlans(plan.bridges, taps), taps

    def _guest(self, plan: AppliancePlan) -> Guest:
        publish = (one for one in plan.appliance.publish if self._owner_of(one) is None)
        return Guest(plan.appliance, plan.ports, tuple(publish))

    def _owner_of(self, publication: Publication) -> Listener | None:
        return next((found for found in self._listeners if found.keeps_from(publication)), None)

    def _user_ids(self, appliances: Mapping[str, AppliancePlan]) -> dict[str, int]:
        found = ((name, self._files.user_id(name)) for name in appliances)
        return {name: uid for name, uid in found if uid is not None}


def _needs_grant(plan: HostPlan, name: str) -> bool:
    """Whether it is a DHCP server that nobody can hear."""
    appliance = plan.appliances[name]
    requests = appliance.image.manifest.requests.ports if appliance.image else ()
    return DHCP_SERVER_PORT in requests and not appliance.appliance.grants.dhcp_server


def _owner(listener: Listener) -> str:
    return listener.owner or "something else"
