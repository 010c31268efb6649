"""Going back on a host in memory: rollbacks that were asked for, data, and what is kept for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from agent.core.operations import OperationState
from agent.model.errors import ApplianceError, HostError, Problem
from agent.model.swap import ApplianceState, Result
from agent.plan.swap import Step, advance
from agent.util.journal import Event
from tests.fakes.events import EventLog
from tests.fakes.guests import Guests
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.swapping import NEW, OLD, ONE_WAY, begin, reach, roll_back, set_up, state_of, swap
from tests.unit.core.test_reconcile import NOTHING, apply, configure

NEW_NAME, OLD_NAME, ONE_WAY_NAME = (image.manifest.reference for image in (NEW, OLD, ONE_WAY))
NO_DATA = sample_image("dns-nsd", "6", data=None)


@pytest.fixture
def guests(world: World) -> Iterator[Guests]:
    guests = Guests(world)
    yield guests
    assert guests.wrongs == []


def snapshots(world: World) -> dict[str, str]:
    return world.volumes.snapshots.get("dns", {})


# --- asked for


async def test_back_to_the_image_before(guests: Guests, world: World) -> None:
    await set_up(world)
    await swap(world, NEW)
    operation = await roll_back(world)
    assert (operation.kind, operation.state) == ("rollback", OperationState.SUCCEEDED)
    assert (guests.running["dns"], guests.data("dns")) == (OLD, [OLD_NAME, NEW_NAME, OLD_NAME])
    assert world.files.previous["dns"] == [NEW.digest]
    await roll_back(world)
    assert guests.running["dns"] == NEW


async def test_back_to_the_data_of_then(guests: Guests, world: World) -> None:
    await set_up(world)
    await swap(world, ONE_WAY)
    assert snapshots(world) == {"swap-1": f"{OLD_NAME}/1"}
    operation = await roll_back(world, with_data=True)
    assert operation.state is OperationState.SUCCEEDED
    assert (guests.running["dns"], guests.data("dns")) == (OLD, [OLD_NAME, OLD_NAME])
    assert snapshots(world) == {"swap-2": f"{OLD_NAME}/1 {ONE_WAY_NAME}/2"}
    assert state_of(world).data_format == 1


async def test_and_forth_again(guests: Guests, world: World) -> None:
    await set_up(world)
    await swap(world, ONE_WAY)
    await roll_back(world, with_data=True)
    await roll_back(world, with_data=True)
    assert guests.running["dns"] == ONE_WAY
    assert guests.data("dns") == [OLD_NAME, ONE_WAY_NAME, ONE_WAY_NAME]


async def test_back_to_data_that_the_image_in_between_does_not_use(guests: Guests, world: World) -> None:
    await set_up(world, snapshot="always")
    world.images.images.append(NO_DATA)
    await swap(world, NO_DATA)
    await roll_back(world, with_data=True)
    assert (guests.running["dns"], guests.data("dns")) == (OLD, [OLD_NAME, OLD_NAME])
    assert set(snapshots(world)) == {"swap-2"}


async def test_a_rollback_that_fails_is_rolled_back_with_its_data(guests: Guests, world: World) -> None:
    await set_up(world)
    await swap(world, ONE_WAY)
    guests.broken.add(OLD_NAME)
    await roll_back(world, with_data=True)
    assert state_of(world).history[-1].result is Result.ROLLED_BACK
    assert guests.running["dns"] == ONE_WAY
    assert guests.data("dns") == [OLD_NAME, ONE_WAY_NAME, ONE_WAY_NAME]
    assert state_of(world).data_format == 2


async def test_an_image_that_cannot_read_the_data_is_not_gone_back_to(guests: Guests, world: World) -> None:
    await set_up(world)
    await swap(world, ONE_WAY)
    operation = await roll_back(world)
    assert "the data volume has format 2, and dns-nsd 4.6.1-1 reads only 1" in operation.message
    assert guests.running["dns"] == ONE_WAY


async def test_where_there_is_nothing_to_go_back_to(guests: Guests, world: World) -> None:
    await set_up(world)
    with pytest.raises(ApplianceError, match="no swap to go back from") as caught:
        await world.swapper.rollback("dns", with_data=False)
    assert caught.value.problem is Problem.NOT_FOUND
    await swap(world, NEW)
    with pytest.raises(ApplianceError, match="no snapshot of its data") as caught:
        await world.swapper.rollback("dns", with_data=True)
    assert caught.value.problem is Problem.NOT_FOUND
    assert guests.running["dns"] == NEW


async def test_an_image_that_has_left_the_store(guests: Guests, world: World) -> None:
    await set_up(world)
    await swap(world, NEW)
    world.images.images.remove(OLD)
    with pytest.raises(ApplianceError, match="There is no image"):
        await world.swapper.rollback("dns", with_data=False)
    assert guests.running["dns"] == NEW


# --- neither image


async def test_where_going_back_fails_too_the_unit_fails_for_good(
    guests: Guests, world: World, events: EventLog
) -> None:
    await set_up(world)
    guests.broken.update({NEW_NAME, OLD_NAME})
    operation = await swap(world, NEW)
    assert (operation.state, events.events()[-1]) == (OperationState.FAILED, Event.FAILED)
    assert Event.SWAP_FAILED in events.events()
    state = state_of(world)
    assert state.failure.startswith("it is broken; going back failed too: ")
    assert world.units.status["dns"].active_state == "failed"
    assert f"refuse {state.failure}" in world.files.owned["dns"].launch
    assert world.files.previous["dns"] == [NEW.digest, OLD.digest]


async def test_an_agent_that_starts_leaves_it_so_and_apply_does_not(guests: Guests, world: World) -> None:
    await set_up(world)
    guests.broken.update({NEW_NAME, OLD_NAME})
    await swap(world, NEW)
    world.boot()
    await world.agent().start()
    assert "refuse it is broken" in world.files.owned["dns"].launch
    guests.broken.clear()
    assert (await apply(world)).problems == ()
    assert state_of(world).failure == ""
    await world.units.start("dns")
    assert guests.running["dns"] == OLD


async def test_data_that_could_not_be_restored_are_still_there(guests: Guests, world: World) -> None:
    await set_up(world)
    guests.broken.add(ONE_WAY_NAME)
    world.journal.failing["restore dns swap-1"] = HostError("Input/output error.")
    await swap(world, ONE_WAY)
    assert state_of(world).history[-1].result is Result.FAILED
    assert snapshots(world) == {"swap-1": f"{OLD_NAME}/1"}
    assert state_of(world).history[-1].snapshot == "swap-1"
    # The old image must not be started on what the new one has written, not even when somebody tries.
    [problem] = (await apply(world)).problems
    assert "the data volume has format 2" in problem
    assert guests.running == {}


# --- snapshots


@pytest.mark.parametrize(
    ("kind", "shares", "image", "taken"),
    [
        ("auto", False, NEW, False),
        ("auto", True, NEW, True),
        ("auto", False, ONE_WAY, True),
        ("always", False, NEW, True),
        ("never", True, NEW, False),
        ("never", True, ONE_WAY, False),
    ],
)
async def test_when_a_snapshot_is_made(
    guests: Guests, world: World, kind: str, *, shares: bool, image: object, taken: bool
) -> None:
    await set_up(world, snapshot=kind)
    world.volumes.shares = shares
    assert image in {NEW, ONE_WAY}
    await swap(world, NEW if image is NEW else ONE_WAY)
    assert guests.running["dns"] == image
    assert set(snapshots(world)) == ({"swap-1"} if taken else set())
    assert state_of(world).history[-1].snapshot == ("swap-1" if taken else "")


async def test_without_a_snapshot_there_is_no_way_back_and_it_says_so(guests: Guests, world: World) -> None:
    await set_up(world, snapshot="never")
    assert "there would be no way back" in (await swap(world, ONE_WAY, accept=False)).message
    guests.broken.add(ONE_WAY_NAME)
    await swap(world, ONE_WAY)
    entry = state_of(world).history[-1]
    assert (entry.result, "reads only 1" in entry.reason) == (Result.FAILED, True)
    assert guests.running == {}


async def test_a_rolled_back_swap_leaves_no_snapshot(guests: Guests, world: World) -> None:
    await set_up(world, snapshot="always")
    guests.broken.add(NEW_NAME)
    await swap(world, NEW)
    assert (snapshots(world), guests.running["dns"]) == ({}, OLD)


@pytest.mark.parametrize("keep", [1, 2])
async def test_as_much_is_kept_as_update_keep_says(guests: Guests, world: World, keep: int) -> None:
    await set_up(world, snapshot="always")
    configure(world, "dns", snapshot="always", update=f"{{soak: 1ms, keep: {keep}}}")
    await apply(world)
    await swap(world, NEW)
    await swap(world, ONE_WAY)
    assert world.files.previous["dns"] == [NEW.digest, OLD.digest][:keep]
    assert set(snapshots(world)) == {"swap-1", "swap-2"} - ({"swap-1"} if keep == 1 else set())
    assert guests.running["dns"] == ONE_WAY


async def test_a_volume_keeps_its_format_while_an_image_without_data_runs(
    guests: Guests, world: World
) -> None:
    await set_up(world)
    world.images.images.append(NO_DATA)
    await swap(world, ONE_WAY)
    await swap(world, NO_DATA)
    await apply(world)
    assert state_of(world).data_format == 2
    assert "the data volume has format 2" in (await swap(world, NEW)).message
    await swap(world, ONE_WAY)
    assert guests.running["dns"] == ONE_WAY


# --- beside apply


async def test_another_one_is_refused_while_one_is_under_way(guests: Guests, world: World) -> None:
    await set_up(world, soak="5s")
    operation = await begin(world, NEW)
    for attempt in (begin(world, ONE_WAY), world.swapper.clear_quarantine("dns", "")):
        with pytest.raises(ApplianceError, match="is under way") as caught:
            await attempt
        assert caught.value.problem is Problem.BUSY
    world.operations.cancel(operation.number)
    await world.operations.finished(operation)
    assert (guests.running["dns"], state_of(world).swaps) == (OLD, 1)


async def test_two_at_the_same_moment(guests: Guests, world: World) -> None:
    await set_up(world, running=False)
    first, second = await asyncio.gather(begin(world, NEW), begin(world, ONE_WAY), return_exceptions=True)
    assert not isinstance(first, BaseException)
    assert isinstance(second, ApplianceError)
    await world.operations.finished(first)
    assert [entry.new.digest for entry in state_of(world).history] == [NEW.digest]
    assert guests.running == {}


async def test_apply_leaves_it_alone_and_says_so(guests: Guests, world: World) -> None:
    await set_up(world, soak="5s")
    operation = await begin(world, NEW)
    await reach(world, operation, "soak")
    world.journal.take()
    configure(world, "dns", update="{soak: 5s}", memory="64M")
    outcome = await apply(world)
    assert outcome.problems == ("dns: an operation is under way; apply once more when it has ended",)
    assert (outcome.changes, world.journal.take()) == ((), [])
    world.operations.cancel(operation.number)
    await world.operations.finished(operation)
    assert list((await apply(world)).trials) == ["dns"]
    assert (guests.running["dns"], await apply(world)) == (OLD, NOTHING)


async def test_apply_removes_nothing_under_its_hands(guests: Guests, world: World) -> None:
    await set_up(world, soak="5s")
    operation = await begin(world, NEW)
    await reach(world, operation, "soak")
    world.files.write("appliances/dns.yaml", "")
    with pytest.raises(ApplianceError, match="An operation is under way on dns") as caught:
        await apply(world)
    assert caught.value.problem is Problem.BUSY
    assert guests.running["dns"] == NEW
    world.operations.cancel(operation.number)
    await world.operations.finished(operation)
    await apply(world)
    assert (guests.running, world.reconciler.plan.appliances) == ({}, {})


async def test_apply_keeps_the_choice_until_the_configuration_names_another(
    guests: Guests, world: World
) -> None:
    await set_up(world)
    await swap(world, NEW)
    assert await apply(world) == NOTHING
    world.boot()
    await world.agent().start()
    assert world.journal.done[-1] == "tidy dns"
    configure(world, "dns", image="dns-nsd:5", update="{soak: 1ms}")
    await apply(world)
    assert guests.running["dns"] == ONE_WAY
    state = state_of(world)
    assert (state.image, state.wanted, state.data_format) == (ONE_WAY.digest, "dns-nsd:5", 2)


async def test_a_state_that_cannot_be_read_is_a_problem_and_left_as_it_is(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world)

    def refuse(_appliance: str) -> ApplianceState:
        raise HostError("state cannot be read.")

    monkeypatch.setattr(world.states, "read", refuse)
    world.boot()
    await world.agent().start()
    assert (await apply(world)).problems == ("dns: state cannot be read.",)
    with pytest.raises(HostError):
        await begin(world, NEW)
    assert guests.running["dns"] == OLD


async def test_a_swap_of_an_appliance_that_is_configured_no_more_waits(guests: Guests, world: World) -> None:
    await set_up(world, soak="5s")
    operation = await begin(world, NEW)
    await reach(world, operation, "soak")
    await world.operations.close()
    world.files.write("appliances/dns.yaml", "")
    world.boot()
    await world.agent().start()
    await world.agent().resume()
    assert (world.operations.all(), guests.running) == ([], {})
    assert state_of(world).swap is not None


async def test_quarantine_is_cleared_by_digest_or_as_a_whole(guests: Guests, world: World) -> None:
    await set_up(world)
    guests.broken.update({NEW_NAME, ONE_WAY_NAME})
    await swap(world, NEW)
    await swap(world, ONE_WAY)
    assert await world.swapper.clear_quarantine("dns", str(OLD.digest)) == 0
    assert await world.swapper.clear_quarantine("dns", str(NEW.digest)) == 1
    assert [entry.image.digest for entry in state_of(world).quarantine] == [ONE_WAY.digest]
    assert await world.swapper.clear_quarantine("dns", "") == 1
    assert state_of(world).quarantine == ()


@pytest.mark.parametrize("hops", range(0, 24, 2))
async def test_one_that_begins_while_a_configuration_is_applied(
    guests: Guests, world: World, hops: int
) -> None:
    await set_up(world, snapshot="always")
    configure(world, "dns", update="{soak: 1ms}", snapshot="always", memory="64M", data="512M")
    applying = asyncio.ensure_future(apply(world))
    for _ in range(hops):
        await asyncio.sleep(0.0002)
    swapping = asyncio.ensure_future(swap(world, NEW))
    outcomes = await asyncio.gather(applying, swapping, return_exceptions=True)
    # One may have come too late: the other was under way.
    late = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(late) < len(outcomes)
    for error in late:
        assert isinstance(error, ApplianceError)
        assert error.problem is Problem.BUSY
    await apply(world)
    running = OLD if isinstance(outcomes[1], BaseException) else NEW
    assert (guests.running["dns"], await apply(world)) == (running, NOTHING)


async def test_a_host_that_fails_to_restore_data_keeps_no_agent_from_starting(
    guests: Guests, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await set_up(world)
    operation = await begin(world, ONE_WAY)
    await reach(world, operation, "trial")
    await world.operations.close()
    going_back = advance(state_of(world), Step.FAILED, now_us=1, reason="it is broken", data_format=2)
    world.states.write("dns", going_back)
    world.journal.failing["restore dns swap-1"] = OSError(5, "Input/output error")
    world.boot()
    agent = world.agent()
    await agent.start()
    assert "Input/output error" in caplog.text
    assert agent.appliances() == ["dns"]
    world.journal.failing.clear()
    await agent.resume()
    [operation] = world.operations.all()
    await world.operations.finished(operation)
    assert (guests.running["dns"], guests.data("dns")) == (OLD, [OLD_NAME, OLD_NAME])
