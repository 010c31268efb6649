"""The agent dies before each thing that it does in a swap, and the next one takes it up: wherever that was,
the appliance runs in the end, on one image, by that image's plan, on data of that image's time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from agent.core.operations import Operation, OperationState
from agent.core.reconcile import Outcome
from agent.model.errors import HostError, Problem, UnitError
from agent.model.health import Health, UnitStatus
from agent.model.image import Image
from agent.model.swap import ApplianceState, Result
from tests.fakes.guests import Crash, Guests
from tests.fakes.world import World
from tests.unit.core.swapping import (
    CHECKED,
    INSTANCE,
    NEW,
    OLD,
    ONE_WAY,
    begin,
    set_up,
    state_of,
    swap,
)

pytestmark = pytest.mark.usefixtures("events")

INTERRUPTED = "the agent was interrupted"

Begin = Callable[[World], Awaitable[Operation]]


def to(image: Image) -> Begin:
    return lambda world: begin(world, image)


def back(*, with_data: bool) -> Begin:
    return lambda world: world.swapper.rollback("dns", with_data=with_data)


@dataclass(frozen=True)
class Scene:
    """A swap from `old` to `new`, and how it `ends` where nothing interrupts it.

    `came` is whether `old` is what an earlier swap came to; `restores` whether the data volume becomes the
    snapshot of that swap.
    """

    begin: Begin
    new: Image
    ends: Result
    old: Image = OLD
    came: bool = False
    restores: bool = False
    running: bool = True
    snapshot: str = "auto"
    broken: tuple[Image, ...] = ()
    sick: tuple[Image, ...] = ()
    check: str = "success"

    @property
    def separates(self) -> bool:
        """Whether no data of the new image may be left with the old one."""
        return self.restores or self.new is ONE_WAY


SCENES = {
    "committed": Scene(to(NEW), NEW, Result.COMMITTED),
    "committed, snapshot": Scene(to(NEW), NEW, Result.COMMITTED, snapshot="always"),
    "committed after a check": Scene(to(CHECKED), CHECKED, Result.COMMITTED),
    "committed, other data": Scene(to(ONE_WAY), ONE_WAY, Result.COMMITTED),
    "committed, not running": Scene(to(ONE_WAY), ONE_WAY, Result.COMMITTED, running=False),
    "refused": Scene(to(CHECKED), CHECKED, Result.REFUSED, check="exit-code"),
    "broken": Scene(to(NEW), NEW, Result.ROLLED_BACK, broken=(NEW,)),
    "broken, snapshot": Scene(to(NEW), NEW, Result.ROLLED_BACK, broken=(NEW,), snapshot="always"),
    "broken, other data": Scene(to(ONE_WAY), ONE_WAY, Result.ROLLED_BACK, broken=(ONE_WAY,)),
    "sick": Scene(to(NEW), NEW, Result.ROLLED_BACK, sick=(NEW,)),
    "sick, other data": Scene(to(ONE_WAY), ONE_WAY, Result.ROLLED_BACK, sick=(ONE_WAY,)),
    "lost": Scene(to(NEW), NEW, Result.FAILED, broken=(OLD, NEW)),
    "lost, other data": Scene(to(ONE_WAY), ONE_WAY, Result.FAILED, broken=(OLD, ONE_WAY)),
    "back": Scene(back(with_data=False), OLD, Result.COMMITTED, old=NEW, came=True),
    "back with data": Scene(
        back(with_data=True), OLD, Result.COMMITTED, old=ONE_WAY, came=True, restores=True
    ),
    "back with data, not running": Scene(
        back(with_data=True), OLD, Result.COMMITTED, old=ONE_WAY, came=True, restores=True, running=False
    ),
    "back with data, broken": Scene(
        back(with_data=True), OLD, Result.ROLLED_BACK, old=ONE_WAY, came=True, restores=True, broken=(OLD,)
    ),
}


@asynccontextmanager
async def played(scene: Scene) -> AsyncIterator[Guests]:
    """Everything as it is before the scene's swap begins."""
    world = World()
    guests = Guests(world)
    try:
        soak = "1s" if scene.sick else "1ms"
        await set_up(world, soak=soak, snapshot=scene.snapshot)
        if scene.came:
            await swap(world, scene.old)
        if not scene.running:
            await world.units.stop("dns")
        guests.broken.update(image.manifest.reference for image in scene.broken)
        guests.sick.update(image.manifest.reference for image in scene.sick)
        guests.units.checks[INSTANCE] = UnitStatus(result=scene.check)
        yield guests
    finally:
        guests.fuse.renew()
        world.close()


async def ended(world: World) -> bool:
    """Wait for all operations; whether the agent lived."""
    try:
        for task in list(world.operations._tasks.values()):
            await task
    except Crash:
        return False
    return True


async def start_again(guests: Guests, *, running: bool, reboot: bool, at: int = 0) -> bool:
    """Start the agent, or the whole host, with its guest if that was `running`; whether the agent lived
    until everything had ended."""
    guests.world.boot()
    guests.fuse.renew(at=at)
    if reboot:
        guests.power_off()
    agent = guests.world.agent()
    try:
        await agent.start()
        if reboot and running:
            with contextlib.suppress(UnitError):
                guests.units.launch("dns")
        await agent.resume()
    except Crash:
        return False
    return await ended(guests.world)


async def mend(guests: Guests, scene: Scene) -> None:
    """What the administrator does where neither image started: nothing is lost that takes more than that."""
    if scene.ends is Result.FAILED and "dns" not in guests.running:
        assert guests.world.watch.health("dns").health in {Health.FAILED, Health.STOPPED}
        guests.broken.clear()
        await guests.world.reconciler.apply(restart=True)
        await guests.world.units.start("dns")


async def check(guests: Guests, scene: Scene, *, data: list[str], restored: list[str]) -> Result | None:
    """What must hold when all is over; how the swap ended, None for one that had not begun."""
    world, state = guests.world, state_of(guests.world)
    entry = state.history[-1] if len(state.history) > scene.came else None
    result = entry.result if entry else None
    committed = result is Result.COMMITTED
    image, reference = (
        (scene.new, scene.new.manifest.reference) if committed else (scene.old, scene.old.manifest.reference)
    )
    assert guests.wrongs == []
    assert entry is None or result is scene.ends or entry.reason == INTERRUPTED
    assert (state.swap, state.failure) == (None, "")
    assert (world.files.next.get("dns"), world.files.checks) == (None, set())
    assert world.reconciler.plan.appliances["dns"].image == image
    assert guests.running.get("dns") == (image if scene.running else None)
    before = restored if committed and scene.restores else data
    found = guests.data("dns")
    assert found[: len(before)] == before
    assert set(found[len(before) :]) <= (
        {reference} if committed or scene.separates else {reference, scene.new.manifest.reference}
    )
    kept = {kept.snapshot for kept in state.history if kept.result in {Result.COMMITTED, Result.FAILED}}
    assert set(world.volumes.snapshots.get("dns", {})) <= kept
    assert await world.reconciler.apply(restart=True) == Outcome((), ())
    return result


@pytest.mark.parametrize("reboot", [False, True], ids=["agent", "host"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_death_at_any_point(scene: Scene, *, reboot: bool) -> None:
    results: set[Result | None] = set()
    lived, point = False, 0
    while not lived:
        point += 1
        async with played(scene) as guests:
            data, restored = guests.data("dns"), [OLD.manifest.reference]
            guests.fuse.renew(at=point)
            await scene.begin(guests.world)
            lived = await ended(guests.world)
            done = guests.world.journal.take()
            try:
                assert await start_again(guests, running=scene.running, reboot=reboot)
                await mend(guests, scene)
                results.add(await check(guests, scene, data=data, restored=restored))
            except AssertionError as error:
                error.add_note(f"died before {point}, after {done}, then {guests.world.journal.done}")
                raise
    assert {None, Result.REFUSED, scene.ends} <= results


TWICE = ("committed, other data", "back with data, broken")


@pytest.mark.parametrize("name", TWICE)
async def test_death_and_death_again(name: str) -> None:
    """The second agent dies before the n-th thing that it does after each death of the first."""
    scene, first, lived = SCENES[name], 0, False
    while not lived:
        first, second, lived_again = first + 1, 0, False
        while not lived_again:
            second += 1
            async with played(scene) as guests:
                data, restored = guests.data("dns"), [OLD.manifest.reference]
                guests.fuse.renew(at=first)
                await scene.begin(guests.world)
                lived = await ended(guests.world)
                lived_again = await start_again(guests, running=scene.running, reboot=False, at=second)
                assert await start_again(guests, running=scene.running, reboot=False), (first, second)
                await check(guests, scene, data=data, restored=restored)


@pytest.mark.parametrize("again", [False, True], ids=["then space", "then another agent"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_a_disk_that_is_full_from_any_point_on(scene: Scene, *, again: bool) -> None:
    """States cannot be written; launch plans lie in memory, and what is renamed needs no space."""
    written, point = True, 0
    while written:
        async with played(scene) as guests:
            world = guests.world
            data, restored = guests.data("dns"), [OLD.manifest.reference]
            with full_disk(world, after=point) as writes:
                operation = await scene.begin(world)
                await world.operations.finished(operation)
                written = len(writes) > point
                if again:
                    assert await start_again(guests, running=scene.running, reboot=False)
            assert operation.state is not OperationState.RUNNING
            assert guests.wrongs == []
            if scene.ends is not Result.FAILED:
                assert ("dns" in guests.running) == scene.running
            # Space is made, and the agent started again.
            assert await start_again(guests, running=scene.running, reboot=False)
            await mend(guests, scene)
            try:
                await check(guests, scene, data=data, restored=restored)
            except AssertionError as error:
                error.add_note(f"full after {point} writes; {world.journal.done}")
                raise
        point += 1


@contextlib.contextmanager
def full_disk(world: World, *, after: int) -> Iterator[list[ApplianceState]]:
    """No state can be written after the first few; all that were tried."""
    write, tried = world.states.write, list[ApplianceState]()

    def refuse(appliance: str, state: ApplianceState) -> bool:
        tried.append(state)
        if len(tried) > after:
            raise HostError("No space left.", problem=Problem.NO_SPACE)
        return write(appliance, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.states, "write", refuse)
        yield tried
