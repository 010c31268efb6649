"""Appliances on a host in memory, and newer images for them."""

from __future__ import annotations

from typing import Any

from agent.core.operations import OperationState
from agent.model.image import Service
from agent.model.update import RunEntry, Standing
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.test_reconcile import configure

OLD, NEW, NEWER = sample_image(), sample_image(version="4.7-1"), sample_image(version="4.8-1")
CHECKED = sample_image(version="4.9-1", service=Service(exec=("/nsd",), check=("/check",)))
NEW_NAME = NEW.manifest.reference
TRIO = ("dns1", "dns2", "dns3")


async def set_up(world: World, *names: str, policy: str = "auto", window: str = "", **settings: Any) -> None:
    """Appliances with OLD, which run, and NEW in the store."""
    window = f", window: {window}" if window else ""
    for name in names or ("dns",):
        configure(world, name, update=f"{{soak: 1ms, policy: {policy}{window}}}", **settings)
    world.images.images[:] = [OLD]
    await world.reconciler.apply(restart=True)
    for name in names or ("dns",):
        await world.units.start(name)
    world.images.images[:] = [OLD, NEW]
    world.journal.take()


async def update(world: World, *names: str, retry: bool = False) -> dict[str, RunEntry]:
    """A run to its end."""
    operation = await world.operations.finished(world.updates.begin(names, retry=retry))
    assert operation.state is not OperationState.RUNNING
    return {entry.name: entry for entry in world.updates.entries(operation.number)}


async def standing(world: World, name: str = "dns") -> tuple[Standing, str]:
    [found] = await world.updates.check([name])
    return found.outlook.standing, found.outlook.reason


def results(entries: dict[str, RunEntry]) -> dict[str, str]:
    return {name: str(entry.result) for name, entry in entries.items()}


def acts(world: World) -> list[str]:
    """What was done to guests."""
    return [act for act in world.journal.take() if act.split()[0] in {"start", "stop", "run"}]
