"""What swaps need of the outside world, in memory."""

from __future__ import annotations

from collections.abc import Collection

from agent.model.errors import HostError, Problem
from agent.model.generation import Generation
from agent.model.swap import ApplianceState
from agent.plan.host import AppliancePlan
from tests.fakes.journal import Journal


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
