"""An appliance on a host in memory, and images to swap it to."""

from __future__ import annotations

import asyncio
from typing import Any

from agent.core.operations import Operation
from agent.core.swap_steps import Request
from agent.model.image import DataFormat, Image, ImageReference, Service
from agent.model.swap import ApplianceState
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.test_reconcile import configure

OLD = sample_image()
NEW = sample_image("dns-nsd", "4.7-1")
ONE_WAY = sample_image("dns-nsd", "5-1", data=DataFormat("/data", format=2, reads=(1, 2)))
"""Reads what OLD has written; OLD cannot read what it writes."""

CHECKED = sample_image("dns-bind", "9", service=Service(exec=("/named",), check=("/check",)))
IMAGES = (NEW, ONE_WAY, CHECKED)

INSTANCE = "dns.check"


async def set_up(world: World, *, running: bool = True, soak: str = "1ms", **settings: Any) -> None:
    """Appliance `dns` with OLD, which runs; the other images are there too."""
    configure(world, "dns", update=f"{{soak: {soak}}}", **settings)
    world.images.images[:] = [OLD]
    await world.reconciler.apply(restart=True)
    await world.units.start("dns")
    if not running:
        await world.units.stop("dns")
    world.images.images[:] = [*IMAGES, OLD]
    world.journal.take()


async def begin(world: World, image: Image, *, accept: bool = True) -> Operation:
    """Begin to swap to an image."""
    reference = ImageReference(digest=image.digest)
    return await world.swapper.swap("dns", reference, Request(accept=accept))


async def swap(world: World, image: Image, *, accept: bool = True) -> Operation:
    """Swap to an image; the operation when it has ended."""
    return await world.operations.finished(await begin(world, image, accept=accept))


async def roll_back(world: World, *, with_data: bool = False) -> Operation:
    """Go back; the operation when it has ended."""
    return await world.operations.finished(await world.swapper.rollback("dns", with_data=with_data))


async def reach(world: World, operation: Operation, phase: str) -> None:
    """Wait until an operation is in this phase."""
    reached = asyncio.Event()

    def look(changed: Operation) -> None:
        if changed is operation and (changed.phase == phase or changed.ended_at_us):
            reached.set()

    world.operations._on_change = look
    look(operation)
    await reached.wait()
    assert operation.phase == phase, operation.message


def state_of(world: World) -> ApplianceState:
    """What is remembered of `dns`."""
    return world.states.read("dns")
