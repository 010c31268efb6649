"""The agent dies before each thing that it does while a configuration is on trial: wherever that was, the
appliance serves in the end, with one configuration or the other, and everything says which."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from agent.core.operations import OperationState
from agent.model.health import UnitStatus
from agent.model.image import Image, Service
from agent.model.swap import Result
from tests.fakes.guests import Crash, Guests
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.swapping import INSTANCE, state_of
from tests.unit.core.test_reconcile import configure
from tests.unit.core.test_swap_recovery import INTERRUPTED, ended, full_disk, start_again

pytestmark = pytest.mark.usefixtures("events")

OLD = sample_image(service=Service(exec=("/usr/sbin/nsd",), check=("/check",), reload_signal="HUP"))
OTHER = sample_image("dns-nsd", "4.7-1", service=Service(exec=("/usr/sbin/nsd",), check=("/check",)))
SOAK = {"update": "{soak: 1ms}"}


@dataclass(frozen=True)
class Scene:
    """What is written anew, and how its trial `ends` where nothing interrupts it."""

    ends: Result
    settings: dict[str, str] = field(default_factory=dict)
    image: Image = OLD
    running: bool = True
    refusal: str = ""
    check: str = "success"
    broken: bool = False


ANOTHER = {"image": "dns-nsd:4.7-1"}
SCENES = {
    "reloaded": Scene(Result.COMMITTED),
    "not taken": Scene(Result.ROLLED_BACK, refusal="syntax error"),
    "restarted": Scene(Result.COMMITTED, {"memory": "64M"}),
    "grown": Scene(Result.COMMITTED, {"memory": "64M", "data": "512M"}),
    "not running": Scene(Result.COMMITTED, running=False),
    "refused": Scene(Result.REFUSED, check="exit-code"),
    "another image": Scene(Result.COMMITTED, ANOTHER, OTHER),
    "another image, broken": Scene(Result.ROLLED_BACK, ANOTHER, OTHER, broken=True),
}


@asynccontextmanager
async def played(scene: Scene) -> AsyncIterator[Guests]:
    """Everything as it is when the new configuration was written."""
    world = World()
    guests = Guests(world)
    try:
        world.images.images[:] = [OTHER, OLD]
        configure(world, "dns", **SOAK)
        world.files.guest_files["dns"] = {"zones/a.zone": b"a"}
        await world.reconciler.apply(restart=True)
        await world.units.start("dns")
        if not scene.running:
            await world.units.stop("dns")
        configure(world, "dns", **SOAK, **scene.settings)
        world.files.guest_files["dns"] = {"zones/a.zone": b"b"}
        if scene.refusal:
            world.console.refusals["dns"] = scene.refusal
        if scene.broken:
            guests.broken.add(scene.image.manifest.reference)
        world.units.checks[INSTANCE] = UnitStatus(result=scene.check)
        yield guests
    finally:
        guests.fuse.renew()
        world.close()


async def apply(guests: Guests) -> bool:
    """Apply; whether the agent lived until everything had ended."""
    try:
        await guests.world.agent().apply()
    except Crash:
        return False
    return await ended(guests.world)


async def check(guests: Guests, scene: Scene, old: str, *, reboot: bool) -> Result | None:
    """What must hold when all is over; how the trial ended, None for one that had not begun."""
    world, state = guests.world, state_of(guests.world)
    entry = state.history[-1] if state.history else None
    result = entry.result if entry else None
    new = world.reconciler._planner.gather(world.reconciler.plan.assignments).generation("dns").id
    assert guests.wrongs == []
    # A guest that was started meanwhile has taken it with its start.
    ends = {scene.ends, Result.COMMITTED} if reboot and scene.refusal else {scene.ends}
    assert entry is None or result in ends or entry.reason == INTERRUPTED
    assert (state.swap, state.failure) == (None, "")
    assert state.generation == (new if result is Result.COMMITTED else old)
    assert set(world.generations.kept["dns"]) >= {state.generation}
    assert (world.files.deliveries, world.files.checks, world.files.next.get("dns")) == ({}, set(), None)
    plan = world.reconciler.plan.appliances["dns"]
    assert plan.inputs.generation == state.generation
    assert plan.image == (scene.image if result is Result.COMMITTED else OLD)
    assert guests.running.get("dns") == (plan.image if scene.running else None)
    assert not scene.running or guests.configured["dns"] == plan.initrd
    assert world.reconciler.is_outdated("dns") is False
    return result


@pytest.mark.parametrize("reboot", [False, True], ids=["agent", "host"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_death_at_any_point(scene: Scene, *, reboot: bool) -> None:
    results: set[Result | None] = set()
    lived, point = False, 0
    while not lived:
        point += 1
        async with played(scene) as guests:
            old = state_of(guests.world).generation
            guests.fuse.renew(at=point)
            lived = await apply(guests)
            done = guests.world.journal.take()
            try:
                assert await start_again(guests, running=scene.running, reboot=reboot)
                results.add(await check(guests, scene, old, reboot=reboot))
            except AssertionError as error:
                error.add_note(f"died before {point}, after {done}, then {guests.world.journal.done}")
                raise
    assert {Result.REFUSED, scene.ends} <= results


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_a_disk_that_is_full_from_any_point_on(scene: Scene) -> None:
    written, point = True, 0
    while written:
        async with played(scene) as guests:
            world, old = guests.world, state_of(guests.world).generation
            with full_disk(world, after=point) as writes:
                _, operations = await world.agent().apply()
                assert await ended(world)
                written = len(writes) > point
            assert all(operation.state is not OperationState.RUNNING for operation in operations)
            assert ("dns" in guests.running) == scene.running
            assert guests.wrongs == []
            # Space is made, and the agent started again.
            assert await start_again(guests, running=scene.running, reboot=False)
            try:
                await check(guests, scene, old, reboot=False)
            except AssertionError as error:
                error.add_note(f"full after {point} writes; {world.journal.done}")
                raise
        point += 1
