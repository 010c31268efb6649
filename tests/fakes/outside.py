"""What clients see of appliances, as agent.core.world.Outside."""

from __future__ import annotations

from agent.plan.host import AppliancePlan


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
