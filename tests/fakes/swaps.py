"""What swaps need of the outside world, in memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from agent.core import operations
from agent.model.errors import HostError, Problem
from agent.model.generation import Generation
from agent.model.guest import RELOAD_FAILED
from agent.model.swap import ApplianceState
from agent.plan.host import AppliancePlan
from tests.fakes.journal import Journal

if TYPE_CHECKING:
    from tests.fakes.world import World


class FakeStates:
    """States that outlive the agent."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.kept: dict[str, ApplianceState] = {}

    def names(self) -> list[str]:
        return sorted(self.kept)

    def read(self, appliance: str) -> ApplianceState:
        return self.kept.get(appliance, ApplianceState())

    def write(self, appliance: str, state: ApplianceState) -> bool:
        changed = self.read(appliance) != state
        self.kept[appliance] = state
        return changed


class FakeGenerations:
    """Configurations that outlive the agent."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Generation]] = {}

    def read(self, appliance: str, generation: str) -> Generation:
        kept = self.kept.get(appliance, {})
        if generation not in kept:
            raise HostError(f"{generation} is gone.", problem=Problem.NOT_FOUND)
        return kept[generation]

    def write(self, appliance: str, generation: Generation) -> bool:
        self.kept.setdefault(appliance, {})[generation.id] = generation
        return True

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        kept = self.kept.get(appliance, {})
        self.kept[appliance] = {name: kept[name] for name in kept if name in but}


class FakeMeasurement:
    """Always the same gap."""

    def stop(self) -> float | None:
        return 12.5


class FakeOutside:
    """What clients see: `answers` holds why an image does not answer, by its reference."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}

    async def ask(self, plan: AppliancePlan) -> str:
        return self.failures.get(plan.image.manifest.reference, "") if plan.image else ""

    def measure(self, plan: AppliancePlan) -> FakeMeasurement:
        del plan
        return FakeMeasurement()


class FakeConsole:
    """Guests that take what they are given, unless `refusals` says why not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.refusals: dict[str, str] = {}

    def deliver(self, instance: str, path: str) -> None:
        del path
        self._world.journal.note(f"deliver {instance}")
        reason = self.refusals.get(instance, "")
        text = f"{RELOAD_FAILED}{reason}" if reason else "running"
        units, ended_at_us = self._world.units, operations.now_us() + 1
        started_at_us = units.status[instance].started_at_us
        units.become(
            instance, "active", status_text=text, started_at_us=started_at_us, state_changed_us=ended_at_us
        )
        if not reason:
            units.took(instance)

    def withdraw(self, instance: str) -> None:
        self._world.journal.note(f"withdraw {instance}")
