"""What there is to see of networks: how they are planned, what is in force, what has passed, and where it is
broken."""

from __future__ import annotations

from functools import partial

from agent.core.diagnose import Diagnosis
from agent.core.network import HostNetwork
from agent.core.reconcile import Reconciler
from agent.core.world import FirewallSight, Sight
from agent.model.diagnosis import HopReport
from agent.model.errors import ApplianceError, Problem
from agent.model.network_status import Lease, NetworkStatus, Published, TapCounters
from agent.plan.host import HostPlan
from agent.plan.network_status import counters_of, leases_of, networks_of, published_of


class Networks:
    """Changes nothing."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        network: HostNetwork,
        sight: Sight,
        firewall: FirewallSight,
        diagnosis: Diagnosis,
    ) -> None:
        self._reconciler = reconciler
        self._network = network
        self._sight = sight
        self._firewall = firewall
        self._diagnosis = diagnosis

    def all(self) -> list[NetworkStatus]:
        """All networks, by name."""
        return networks_of(self._reconciler.plan)

    def leases(self, network: str) -> list[Lease]:
        """What appliances have on a network, on all where the name is ''; ApplianceError where there is none
        of that name."""
        plan = self._reconciler.plan
        if network and network not in {one.name for one in plan.networks}:
            raise ApplianceError(f"There is no network “{network}”.", problem=Problem.NOT_FOUND)
        return [lease for lease in leases_of(plan) if network in {"", lease.network}]

    async def publications(self) -> list[Published]:
        """All published ports, and those that are not, with the reason."""
        plan = self._reconciler.plan
        return published_of(plan, await self._reconciler.run(partial(self._network.withheld, plan)))

    async def counters(self) -> list[TapCounters]:
        """What has passed every tap that is there; HostError where that cannot be read."""
        return await self._reconciler.run(partial(self._count, self._reconciler.plan))

    async def diagnose(self, appliance: str) -> list[HopReport]:
        """Where the way of an appliance's packets is broken; see Diagnosis.diagnose."""
        return await self._diagnosis.diagnose(appliance)

    def _count(self, plan: HostPlan) -> list[TapCounters]:
        return counters_of(plan, self._sight.links(), self._firewall.refused())
