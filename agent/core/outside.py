"""An appliance as its clients see it, for swaps and restores: one question, a few until one is answered, or
questions all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from agent.core.prober import Prober
from agent.core.world import Outside
from agent.model.address import Address
from agent.model.probe import Probe
from agent.plan.host import AppliancePlan
from agent.plan.probes import question_of

TRIES = 5
PAUSE_S = 1.0
"""A guest that is ready may still be unknown to its neighbours for a moment."""


async def ask_patiently(outside: Outside, plan: AppliancePlan) -> str:
    """Ask until there is an answer or enough is enough (TRIES); why there was none, or ''."""
    why = await outside.ask(plan)
    for _ in range(TRIES - 1):
        if not why:
            break
        await asyncio.sleep(PAUSE_S)
        why = await outside.ask(plan)
    return why


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
        question = question_of(plan)
        return await self._prober.ask(plan.appliance.name, *question) if question else ""

    def measure(self, plan: AppliancePlan) -> Meter | None:
        """Begin to ask all the time; None where nothing can be asked."""
        question = question_of(plan)
        if question is None:
            return None
        meter = self._meter(*question)
        meter.start()
        return meter
