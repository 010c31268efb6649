"""The agent dies before each thing that it does in a snapshot or a restore, and the next one takes it up:
wherever that was, the appliance runs in the end as it did, on the data of before or the restored ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from agent.core.operations import Operation, OperationState
from agent.core.reconcile import Outcome
from agent.model.data import SnapshotNote
from tests.fakes.guests import Guests
from tests.fakes.world import World
from tests.unit.core.swapping import OLD, set_up, state_of
from tests.unit.core.test_swap_recovery import ended, full_disk, start_again

pytestmark = pytest.mark.usefixtures("events")

NAME = OLD.manifest.reference
KEPT = "kept"


@dataclass(frozen=True)
class Scene:
    """A snapshot or a restore; `spoilt` is whether the guest does not start with the restored data."""

    restores: bool
    running: bool = True
    spoilt: bool = False

    async def begin(self, world: World) -> Operation:
        verb = world.data.restore("dns", KEPT) if self.restores else world.data.take("dns", "new")
        return (await verb)[0]


SCENES = {
    "snapshot": Scene(restores=False),
    "snapshot, not running": Scene(restores=False, running=False),
    "restore": Scene(restores=True),
    "restore, not running": Scene(restores=True, running=False),
    "restore, spoilt": Scene(restores=True, spoilt=True),
}


@asynccontextmanager
async def played(scene: Scene) -> AsyncIterator[Guests]:
    world = World()
    guests = Guests(world)
    try:
        await set_up(world, running=scene.running)
        world.volumes.snapshots["dns"] = {KEPT: f"{KEPT}/1"}
        world.volumes.notes["dns", KEPT] = SnapshotNote("the administrator", 1, 5)
        if scene.spoilt:
            guests.spoilt.add(KEPT)
        yield guests
    finally:
        guests.fuse.renew()
        world.close()


async def check(guests: Guests, scene: Scene) -> bool:
    """What must hold when all is over; whether the snapshot was taken, or is the volume."""
    world, state = guests.world, state_of(guests.world)
    data, snapshots = guests.data("dns"), dict(world.volumes.snapshots["dns"])
    assert guests.wrongs == []
    assert (state.work, state.data_format) == (None, 1)
    assert guests.running.get("dns") == (OLD if scene.running else None)
    assert (world.volumes.brought, world.volumes.linked) == ({}, {})
    assert snapshots.pop(KEPT) == f"{KEPT}/1"
    restored = data[0] == KEPT
    assert set(data[1:]) <= {NAME}
    assert restored or data[0] == NAME
    assert not (restored and (scene.spoilt or not scene.restores))
    assert await world.reconciler.apply(restart=True) == Outcome((), ())
    if scene.restores:
        assert list(snapshots.values()) == ([f"{NAME}/1"] if restored else [])
        return restored
    assert set(snapshots.values()) <= {f"{NAME}/1"}
    return bool(snapshots)


@pytest.mark.parametrize("reboot", [False, True], ids=["agent", "host"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_death_at_any_point(scene: Scene, *, reboot: bool) -> None:
    results: set[bool] = set()
    lived, point = False, 0
    while not lived:
        point += 1
        async with played(scene) as guests:
            guests.fuse.renew(at=point)
            await scene.begin(guests.world)
            lived = await ended(guests.world)
            done = guests.world.journal.take()
            try:
                assert await start_again(guests, running=scene.running, reboot=reboot)
                results.add(await check(guests, scene))
            except AssertionError as error:
                error.add_note(f"died before {point}, after {done}, then {guests.world.journal.done}")
                raise
    assert results == ({False} if scene.spoilt else {False, True})


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_death_and_death_again(scene: Scene) -> None:
    """The second agent dies before the n-th thing that it does after each death of the first."""
    first, lived = 0, False
    while not lived:
        first, second, lived_again = first + 1, 0, False
        while not lived_again:
            second += 1
            async with played(scene) as guests:
                guests.fuse.renew(at=first)
                await scene.begin(guests.world)
                lived = await ended(guests.world)
                lived_again = await start_again(guests, running=scene.running, reboot=False, at=second)
                assert await start_again(guests, running=scene.running, reboot=False), (first, second)
                await check(guests, scene)


@pytest.mark.parametrize("again", [False, True], ids=["then space", "then another agent"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_a_disk_that_is_full_from_any_point_on(scene: Scene, *, again: bool) -> None:
    written, point = True, 0
    while written:
        async with played(scene) as guests:
            world = guests.world
            with full_disk(world, after=point) as writes:
                operation = await scene.begin(world)
                await world.operations.finished(operation)
                written = len(writes) > point
                if again:
                    assert await start_again(guests, running=scene.running, reboot=False)
            assert operation.state is not OperationState.RUNNING
            assert ("dns" in guests.running) == scene.running
            # Space is made, and the agent started again.
            assert await start_again(guests, running=scene.running, reboot=False)
            await check(guests, scene)
        point += 1
