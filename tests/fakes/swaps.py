"""What swaps need of the outside world, in memory."""

from __future__ import annotations

from collections.abc import Collection

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


class FakeVolumes:
    """Data volumes and their snapshots, each as a text."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.shares = False
        self.volumes: dict[str, str] = {}
        self.snapshots: dict[str, dict[str, str]] = {}

    def can_share(self, appliance: str) -> bool:
        del appliance
        return self.shares

    def has(self, appliance: str, snapshot: str) -> bool:
        return snapshot in self.snapshots.get(appliance, {})

    def take(self, appliance: str, snapshot: str) -> None:
        self._journal.note(f"snapshot {appliance} {snapshot}")
        self.snapshots.setdefault(appliance, {})[snapshot] = self.volumes.get(appliance, "")

    def exchange(self, appliance: str, snapshot: str, restored: str) -> None:
        self._journal.note(f"exchange {appliance} {snapshot} {restored}")
        kept = self.snapshots.setdefault(appliance, {})
        kept[snapshot], self.volumes[appliance] = self.volumes.get(appliance, ""), kept.pop(restored)

    def discard(self, appliance: str, snapshot: str) -> None:
        self.snapshots.get(appliance, {}).pop(snapshot, None)

    def restore(self, appliance: str, snapshot: str, *, aside: str = "") -> bool:
        kept = self.snapshots.get(appliance, {})
        if snapshot not in kept:
            return False
        self._journal.note(f"restore {appliance} {snapshot}")
        if aside and appliance in self.volumes:
            kept[aside] = self.volumes[appliance]
        self.volumes[appliance] = kept.pop(snapshot)
        return True

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        kept = self.snapshots.get(appliance, {})
        self.snapshots[appliance] = {name: text for name, text in kept.items() if name in but}


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
