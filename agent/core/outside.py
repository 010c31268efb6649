"""An appliance as its clients see it, for swaps: one question, or questions all the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.core.prober import Prober
from agent.model.network import Address
from agent.model.probe import Probe
from agent.plan.host import AppliancePlan
from agent.plan.probes import address_of, probes_of


class Meter(Protocol):
    """Asks in a thread of its own: agent.host.outage.OutageMeter."""

    def start(self) -> None:
        """Begin to ask."""

    def stop(self) -> float | None:
        """The longest time without an answer, in milliseconds; None where there was none at all."""


class OutsideView:
    """Fulfils agent.core.world.Outside."""

    def __init__(self, prober: Prober, meter: Callable[[tuple[Probe, ...], Address], Meter]) -> None:
        self._prober = prober
        self._meter = meter

    async def ask(self, plan: AppliancePlan) -> str:
        """Ask once what a client would ask; why there was no good answer, or ''."""
        probes, address = probes_of(plan), address_of(plan)
        if not probes or address is None:
            return ""
        return await self._prober.ask(plan.appliance.name, probes, address)

    def measure(self, plan: AppliancePlan) -> Meter | None:
        """Begin to ask all the time; None where nothing can be asked."""
        probes, address = probes_of(plan), address_of(plan)
        if not probes or address is None:
            return None
        meter = self._meter(probes, address)
        meter.start()
        return meter
