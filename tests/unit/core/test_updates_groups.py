"""Updates of appliances that stand in for each other, and runs that end early."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from agent.core import outside, updates
from agent.core.operations import Operation, OperationState
from agent.model.errors import HostError
from agent.model.health import Health
from agent.model.update import Progress, Standing
from tests.fakes.guests import Guests
from tests.fakes.world import World
from tests.unit.core.updating import (
    NEW,
    NEW_NAME,
    OLD,
    TRIO,
    acts,
    results,
    set_up,
    update,
)


@pytest.fixture
def guests(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guests]:
    monkeypatch.setattr(outside, "PAUSE_S", 0.001)
    guests = Guests(world)
    yield guests
    assert guests.wrongs == []


# --- groups


class Lookout:
    """Sees how few members ran while something was done."""

    def __init__(self, world: World, guests: Guests) -> None:
        self.fewest = len(guests.running)
        note = world.journal.note

        def noted(text: str) -> None:
            self.fewest = min(self.fewest, len(guests.running))
            note(text)

        world.journal.note = noted  # type: ignore[method-assign]


async def test_a_group_one_at_a_time(guests: Guests, world: World) -> None:
    await set_up(world, *TRIO, group="dns")
    lookout = Lookout(world, guests)
    assert results(await update(world)) == dict.fromkeys(TRIO, Progress.UPDATED)
    assert [act for act in acts(world) if act.startswith("st")] == [
        f"{verb} {name}" for name in TRIO for verb in ("stop", "start")
    ]
    assert lookout.fewest == 2
    assert set(guests.running.values()) == {NEW}


async def test_a_member_that_is_named_does_not_wait_for_one_that_is_not(
    guests: Guests, world: World
) -> None:
    await set_up(world, *TRIO, group="dns")
    results_ = results(await update(world, "dns3", "dns2"))
    assert results_ == {"dns2": Progress.UPDATED, "dns3": Progress.UPDATED}
    assert guests.running["dns1"] == OLD


def count_swaps(world: World) -> list[int]:
    """How many were under way with every change of one."""
    counts: list[int] = []
    world.operations._on_change = lambda _changed: counts.append(len(world.operations.busy() - {""}))
    return counts


async def test_appliances_that_are_in_no_group_go_together(guests: Guests, world: World) -> None:
    await set_up(world, *TRIO)
    counts = count_swaps(world)
    assert results(await update(world)) == dict.fromkeys(TRIO, Progress.UPDATED)
    assert max(counts) > 1
    assert set(guests.running.values()) == {NEW}


async def test_many_go_a_few_at_a_time(guests: Guests, world: World) -> None:
    names = [f"a{number}" for number in range(updates.AT_ONCE + 3)]
    await set_up(world, *names)
    counts = count_swaps(world)
    assert results(await update(world)) == dict.fromkeys(names, Progress.UPDATED)
    assert 1 < max(counts) <= updates.AT_ONCE
    assert set(guests.running.values()) == {NEW}


async def test_a_bad_image_gets_no_further_than_one_member(guests: Guests, world: World) -> None:
    await set_up(world, *TRIO, group="dns")
    guests.broken.add(NEW_NAME)
    assert results(await update(world)) == {
        "dns1": Progress.FAILED,
        "dns2": Standing.QUARANTINED,
        "dns3": Standing.QUARANTINED,
    }
    world.journal.take()
    assert set(results(await update(world)).values()) == {Standing.QUARANTINED}
    assert acts(world) == []
    assert set(guests.running.values()) == {OLD}


async def test_a_failure_that_is_nobody_s_fault_stops_the_group_for_this_run(
    guests: Guests, world: World
) -> None:
    await set_up(world, *TRIO, group="dns")
    world.journal.failing["stop dns1"] = HostError("no answer")
    entries = await update(world)
    assert results(entries) == {
        "dns1": Progress.FAILED,
        "dns2": Standing.GROUP_WAITS,
        "dns3": Standing.GROUP_WAITS,
    }
    assert entries["dns2"].message == "group dns waits: dns1 failed"
    world.journal.failing.clear()
    await world.reconciler.apply(restart=True)
    await world.units.start("dns1")
    assert results(await update(world)) == dict.fromkeys(TRIO, Progress.UPDATED)
    assert set(guests.running.values()) == {NEW}


async def test_a_group_with_too_few_that_are_well_waits(guests: Guests, world: World) -> None:
    await set_up(world, *TRIO, group="{name: dns, healthy: 2}")
    world.units.become("dns3", "active", status_text="unhealthy: no answer")
    assert world.watch.health("dns3").health is Health.DEGRADED
    assert results(await update(world, "dns1")) == {"dns1": Standing.GROUP_WAITS}
    assert guests.running["dns1"] == OLD
    # It may be updated itself, and the others when that has made it well.
    lookout = Lookout(world, guests)
    world.journal.take()
    assert results(await update(world)) == dict.fromkeys(TRIO, Progress.UPDATED)
    assert [act for act in acts(world) if act.startswith("stop")] == ["stop dns3", "stop dns1", "stop dns2"]
    assert lookout.fewest == 2


# --- the end of a run


async def test_a_run_that_is_cancelled_begins_nothing_more(guests: Guests, world: World) -> None:
    await set_up(world, *TRIO, group="dns")
    run = world.updates.begin([], retry=False)

    def look(changed: Operation) -> None:
        if changed.kind == "swap" and changed.appliance == "dns1":
            world.operations.cancel(run.number)

    world.operations._on_change = look
    await world.operations.finished(run)
    assert run.state is OperationState.CANCELLED
    found = {entry.name: entry.result for entry in world.updates.entries(run.number)}
    assert found["dns1"] is Progress.UPDATED
    assert (guests.running["dns2"], guests.running["dns3"]) == (OLD, OLD)


async def test_the_agent_may_end_in_the_middle(guests: Guests, world: World) -> None:
    await set_up(world, *TRIO, group="dns")
    world.updates.begin([], retry=False)
    await asyncio.sleep(0.01)
    await world.operations.close()
    world.boot()
    agent = world.agent()
    await agent.start()
    await agent.resume()
    for operation in world.operations.all():
        await world.operations.finished(operation)
    await update(world)
    assert len(guests.running) == 3
