"""Updates on a host in memory: what is swapped, what waits and why, and what is told of it."""

# ruff: noqa: DTZ001 (windows are in the local time that clocks show)

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime

import pytest

from agent.core import outside, updates
from agent.core.operations import Operation, OperationState
from agent.core.swap_steps import Request
from agent.model.errors import ApplianceError, HostError, Problem
from agent.model.health import UnitStatus
from agent.model.image import Image, ImageReference, Requests
from agent.model.names import check_instance_of
from agent.model.swap import Result
from agent.model.update import Progress, RunEntry, Standing
from agent.util.journal import Event
from tests.fakes.events import EventLog
from tests.fakes.guests import Guests
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.test_reconcile import apply
from tests.unit.core.updating import (
    CHECKED,
    NEW,
    NEW_NAME,
    NEWER,
    OLD,
    acts,
    results,
    set_up,
    standing,
    update,
)


@pytest.fixture
def guests(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guests]:
    monkeypatch.setattr(outside, "PAUSE_S", 0.001)
    guests = Guests(world)
    yield guests
    assert guests.wrongs == []


# --- policies


async def test_what_is_automatic_is_checked_and_swapped(guests: Guests, world: World) -> None:
    await set_up(world)
    assert await standing(world) == (Standing.UNCHECKED, "update available, not checked yet")
    entries = await update(world)
    assert results(entries) == {"dns": Progress.UPDATED}
    assert entries["dns"].message.startswith("swapped from dns-nsd:4.6.1-1 to dns-nsd:4.7-1")
    assert world.operations.get(entries["dns"].operation).kind == "swap"
    assert guests.running["dns"] == NEW
    assert await standing(world) == (Standing.UP_TO_DATE, "up to date")
    world.journal.take()
    assert results(await update(world)) == {"dns": Standing.UP_TO_DATE}
    assert world.journal.take() == []


async def test_manual_is_only_shown(guests: Guests, world: World, events: EventLog) -> None:
    await set_up(world, policy="manual")
    events.clear()
    assert results(await update(world)) == {"dns": Standing.AVAILABLE}
    assert (await standing(world))[1] == "update available (manual)"
    assert (acts(world), guests.running["dns"]) == ([], OLD)
    assert events.events() == [Event.UPDATE_AVAILABLE]
    assert events.fields[-1]["image"] == NEW_NAME


async def test_stage_checks_once_and_does_not_swap(guests: Guests, world: World, events: EventLog) -> None:
    await set_up(world, policy="stage")
    world.images.images.append(CHECKED)
    events.clear()
    for _ in range(2):
        assert results(await update(world)) == {"dns": Standing.STAGED}
    assert acts(world) == [f"run {check_instance_of('dns')}"]
    assert guests.running["dns"] == OLD
    assert world.files.checks == set()
    assert events.events() == [Event.UPDATE_AVAILABLE]
    assert events.entries[-1][2] == "Appliance dns runs dns-nsd:4.6.1-1, there is dns-nsd:4.9-1: staged."


async def test_looking_changes_nothing(guests: Guests, world: World, events: EventLog) -> None:
    await set_up(world)
    world.images.images.append(CHECKED)
    events.clear()
    [found] = await world.updates.check([])
    assert (found.name, found.policy, found.group) == ("dns", "auto", "")
    assert found.image is not None
    assert found.newest is not None
    assert (found.image.digest, found.newest.digest) == (OLD.digest, CHECKED.digest)
    assert (world.journal.take(), events.events(), world.operations.all()) == ([], [], [])
    assert guests.running["dns"] == OLD


async def test_a_digest_is_followed_by_nothing(guests: Guests, world: World) -> None:
    await set_up(world, image=str(OLD.digest))
    assert results(await update(world)) == {"dns": Standing.UP_TO_DATE}
    assert guests.running["dns"] == OLD


async def test_one_that_does_not_run_waits(guests: Guests, world: World) -> None:
    await set_up(world)
    await world.units.stop("dns")
    assert results(await update(world)) == {"dns": Standing.WAITS}
    assert results(await update(world, "dns")) == {"dns": Progress.UPDATED}
    assert guests.running == {}


async def test_without_an_image(guests: Guests, world: World) -> None:
    await set_up(world)
    world.images.images.clear()
    assert results(await update(world)) == {"dns": Standing.UP_TO_DATE}
    await world.reconciler.apply(restart=True)
    assert results(await update(world)) == {"dns": Standing.NO_IMAGE}
    assert guests.wrongs == []


# --- what was found in advance


@pytest.mark.parametrize("policy", ["stage", "auto"])
async def test_a_configuration_that_is_refused_holds_it_back(
    guests: Guests, world: World, events: EventLog, policy: str
) -> None:
    await set_up(world, policy=policy)
    world.images.images.append(CHECKED)
    failed = UnitStatus(active_state="failed", result="exit-code", status_text="line 3: what?")
    world.units.checks[check_instance_of("dns")] = failed
    events.clear()
    for _ in range(2):
        assert results(await update(world)) == {"dns": Standing.REFUSED}
    why = "refused: the image's check of the configuration failed: line 3: what?"
    assert await standing(world) == (Standing.REFUSED, why)
    assert acts(world) == [f"run {check_instance_of('dns')}"]
    assert events.events() == [Event.UPDATE_REFUSED]
    assert world.states.read("dns").history == ()
    # A configuration that has changed is looked at again.
    world.units.checks.clear()
    world.files.guest_files["dns"] = {"nsd/zone": b"mended"}
    await apply(world)
    assert (await standing(world))[0] is Standing.UNCHECKED
    expected = Standing.STAGED if policy == "stage" else Progress.UPDATED
    assert results(await update(world)) == {"dns": expected}
    assert guests.running["dns"] == (OLD if policy == "stage" else CHECKED)


async def test_a_refusal_is_looked_at_again_after_a_while(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world)
    world.images.images.append(CHECKED)
    world.units.checks[check_instance_of("dns")] = UnitStatus(active_state="failed", result="timeout")
    assert results(await update(world)) == {"dns": Standing.REFUSED}
    world.units.checks.clear()
    assert results(await update(world)) == {"dns": Standing.REFUSED}
    monkeypatch.setattr(updates, "CHECK_AGAIN_S", -1.0)
    assert results(await update(world)) == {"dns": Progress.UPDATED}
    assert guests.running["dns"] == CHECKED


@pytest.mark.parametrize(
    ("image", "standing_", "reason"),
    [
        (sample_image(version="5", role="web/1"), Standing.REFUSED, "its role is web/1"),
        (
            sample_image(version="5", requests=Requests(memory_bytes=64 << 20)),
            Standing.ASKS_FOR_MORE,
            "asks for more: it wants 64M",
        ),
    ],
)
async def test_what_the_manifests_tell_needs_no_check(
    guests: Guests, world: World, events: EventLog, image: Image, standing_: Standing, reason: str
) -> None:
    await set_up(world)
    world.images.images.append(image)
    assert (await standing(world))[0] is standing_
    events.clear()
    entries = await update(world)
    assert results(entries) == {"dns": standing_}
    assert reason in entries["dns"].message
    assert (events.events(), guests.running["dns"]) == ([Event.UPDATE_REFUSED], OLD)


@pytest.mark.parametrize("error", [HostError("no space"), OSError(5, "Input/output error")])
async def test_a_check_that_could_not_be_made_is_made_again(
    guests: Guests, world: World, error: Exception
) -> None:
    await set_up(world, policy="stage")
    world.images.images.append(CHECKED)
    world.journal.failing[f"run {check_instance_of('dns')}"] = error
    assert results(await update(world)) == {"dns": Standing.UNCHECKED}
    world.journal.failing.clear()
    assert results(await update(world)) == {"dns": Standing.STAGED}
    assert guests.running["dns"] == OLD


# --- failures


async def test_a_bad_image_is_not_tried_again(guests: Guests, world: World) -> None:
    await set_up(world)
    guests.broken.add(NEW_NAME)
    entries = await update(world)
    assert results(entries) == {"dns": Progress.FAILED}
    assert guests.running["dns"] == OLD
    assert world.states.read("dns").history[-1].result is Result.ROLLED_BACK
    world.journal.take()
    assert results(await update(world)) == {"dns": Standing.QUARANTINED}
    assert results(await update(world, "dns")) == {"dns": Standing.QUARANTINED}
    assert acts(world) == []
    guests.broken.clear()
    assert results(await update(world, retry=True)) == {"dns": Progress.UPDATED}
    assert await standing(world) == (Standing.UP_TO_DATE, "up to date")


async def test_an_agent_that_is_new_knows_what_is_quarantined(guests: Guests, world: World) -> None:
    """What was checked is forgotten with the agent, and is checked anew where it is to be tried again."""
    await set_up(world)
    guests.broken.add(NEW_NAME)
    await update(world)
    world.boot()
    agent = world.agent()
    await agent.start()
    assert results(await update(world)) == {"dns": Standing.QUARANTINED}
    guests.broken.clear()
    assert results(await update(world, retry=True)) == {"dns": Progress.UPDATED}
    assert guests.running["dns"] == NEW


async def test_a_newer_one_is_tried_after_a_bad_one(guests: Guests, world: World) -> None:
    await set_up(world)
    guests.broken.add(NEW_NAME)
    await update(world)
    world.images.images.append(NEWER)
    assert results(await update(world)) == {"dns": Progress.UPDATED}
    assert guests.running["dns"] == NEWER


async def test_one_failure_stops_no_other(guests: Guests, world: World) -> None:
    await set_up(world, "dns", "www")
    world.journal.failing["stop dns"] = HostError("no answer")
    entries = await update(world)
    assert results(entries) == {"dns": Progress.FAILED, "www": Progress.UPDATED}
    assert guests.running["www"] == NEW


async def test_what_its_administrator_took_back_is_not_put_back(guests: Guests, world: World) -> None:
    await set_up(world)
    await update(world)
    await world.operations.finished(await world.swapper.rollback("dns", with_data=False))
    assert guests.running["dns"] == OLD
    assert results(await update(world)) == {"dns": Standing.TAKEN_BACK}
    assert guests.running["dns"] == OLD
    assert results(await update(world, "dns")) == {"dns": Progress.UPDATED}


async def test_another_vendor_s_image_is_no_update(guests: Guests, world: World) -> None:
    """It was swapped to by hand, and stays."""
    await set_up(world)
    other = sample_image("dns-knot", "1")
    world.images.images.insert(0, other)
    reference = ImageReference(digest=other.digest)
    await world.operations.finished(await world.swapper.swap("dns", reference, Request(accept=True)))
    assert results(await update(world)) == {"dns": Standing.UP_TO_DATE}
    assert guests.running["dns"] == other


# --- windows


async def test_a_window(guests: Guests, world: World) -> None:
    await set_up(world, window="Tue 22:00-23:00")
    assert results(await update(world)) == {"dns": Standing.OUTSIDE_WINDOW}
    assert (await standing(world))[1] == "outside its window until Tue 2026-11-24 22:00"
    world.now = datetime(2026, 11, 24, 22, 59)
    assert results(await update(world)) == {"dns": Progress.UPDATED}
    assert guests.running["dns"] == NEW


async def test_by_name_any_time_and_whatever_the_policy(guests: Guests, world: World) -> None:
    await set_up(world, "dns", "www", window="Sun 22:00-23:00", policy="manual")
    assert results(await update(world, "dns")) == {"dns": Progress.UPDATED}
    assert (guests.running["dns"], guests.running["www"]) == (NEW, OLD)


# --- runs


async def test_one_run_at_a_time(guests: Guests, world: World) -> None:
    await set_up(world)
    first = world.updates.begin([], retry=False)
    with pytest.raises(ApplianceError, match=r"A run of updates is under way\.") as caught:
        world.updates.begin([], retry=False)
    assert caught.value.problem is Problem.BUSY
    await world.operations.finished(first)
    assert (first.state, first.message) == (OperationState.SUCCEEDED, "1 updated, 0 failed")
    with pytest.raises(ApplianceError, match=r"is not the last run"):
        world.updates.entries(first.number + 1)
    assert guests.running["dns"] == NEW


async def test_names_that_nobody_has(guests: Guests, world: World) -> None:
    await set_up(world)
    with pytest.raises(ApplianceError, match="ntp"):
        world.updates.begin(["dns", "ntp"], retry=False)
    with pytest.raises(ApplianceError, match="ntp"):
        await world.updates.check(["ntp"])
    assert guests.running["dns"] == OLD


async def test_an_appliance_that_is_busy_is_left_alone(guests: Guests, world: World) -> None:
    await set_up(world)
    begun, end = asyncio.Event(), asyncio.Event()

    async def work(_operation: Operation) -> OperationState:
        begun.set()
        await end.wait()
        return OperationState.SUCCEEDED

    operation = world.operations.begin("rollback", "dns", work)
    await begun.wait()
    assert results(await update(world)) == {"dns": Standing.UNCHECKED}
    entries = await update(world, "dns")
    assert entries["dns"] == RunEntry("dns", 0, Standing.WAITS, "waits: a rollback is under way")
    end.set()
    await world.operations.finished(operation)
    assert results(await update(world)) == {"dns": Progress.UPDATED}
    assert guests.running["dns"] == NEW
