"""Snapshots and restores of data volumes on a host in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from agent.core import outside
from agent.core.operations import Operation, OperationState
from agent.model.data import DataKind, DataPhase, DataWork, SnapshotNote
from agent.model.errors import ApplianceError, HostError, Problem, UnitError
from agent.util.journal import Event
from tests.fakes.events import EventLog
from tests.fakes.guests import Guests
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.swapping import IMAGES, OLD, ONE_WAY, begin, reach, set_up, state_of, swap

NAME = OLD.manifest.reference
NOTE = SnapshotNote("the administrator", 1, 5)


@pytest.fixture
def guests(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guests]:
    monkeypatch.setattr(outside, "PAUSE_S", 0.001)
    guests = Guests(world)
    yield guests
    assert guests.wrongs == []


def keep(world: World, name: str, text: str, note: SnapshotNote | None = NOTE) -> None:
    """A snapshot that is there already."""
    world.volumes.snapshots.setdefault("dns", {})[name] = text
    if note:
        world.volumes.notes["dns", name] = note


async def take(world: World, name: str = "") -> Operation:
    operation, _ = await world.data.take("dns", name)
    return await world.operations.finished(operation)


async def restore(world: World, name: str) -> tuple[Operation, str]:
    operation, aside = await world.data.restore("dns", name)
    return await world.operations.finished(operation), aside


async def refusal(world: World, name: str) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        await world.data.restore("dns", name)
    assert world.operations.running("dns") is None
    return caught.value


# --- looking


async def test_what_is_shown(guests: Guests, world: World) -> None:
    await set_up(world)
    world.volumes.shares = True
    keep(world, "kept", "x/1")
    keep(world, "lost", "x/1", note=None)
    view = await world.data.view("dns")
    assert (view.volume.size_bytes, view.data_format, view.shares) == (256 << 20, 1, True)
    assert [(entry.name, entry.note) for entry in view.snapshots] == [("lost", None), ("kept", NOTE)]
    with pytest.raises(ApplianceError, match="There is no appliance"):
        await world.data.view("web")
    del guests


async def test_a_swap_is_named_as_the_maker_of_its_snapshots(guests: Guests, world: World) -> None:
    await set_up(world, soak="1h")
    operation = await begin(world, ONE_WAY)
    await reach(world, operation, "soak")
    [during] = (await world.data.view("dns")).snapshots
    world.operations.cancel(operation.number)
    await world.operations.finished(operation)
    assert during.note is not None
    maker = f"swap 1, {NAME} → {ONE_WAY.manifest.reference}"
    assert (during.name, during.note.maker, during.note.data_format) == ("swap-1", maker, 1)
    del guests


async def test_and_also_when_it_has_ended(guests: Guests, world: World) -> None:
    await set_up(world)
    await swap(world, ONE_WAY)
    [after] = (await world.data.view("dns")).snapshots
    assert after.note is not None
    assert (after.note.maker.split(",")[0], after.note.data_format) == ("swap 1", 1)
    with pytest.raises(ApplianceError, match="belongs to swap 1") as caught:
        await world.data.remove("dns", "swap-1")
    assert caught.value.problem is Problem.IN_USE
    del guests


# --- snapshots


async def test_a_snapshot_of_a_running_guest(guests: Guests, world: World, events: EventLog) -> None:
    await set_up(world)
    operation = await take(world, "before-edit")
    assert (operation.kind, operation.state) == ("snapshot", OperationState.SUCCEEDED)
    assert operation.message.startswith("snapshot before-edit taken; stopped for ")
    done = [line for line in world.journal.take() if line.split()[0] in {"start", "stop", "snapshot"}]
    assert done == ["stop dns", "snapshot dns before-edit", "start dns"]
    assert world.volumes.snapshots["dns"] == {"before-edit": f"{NAME}/1"}
    [entry] = (await world.data.view("dns")).snapshots
    assert entry.note is not None
    assert (entry.note.maker, entry.note.data_format) == ("the administrator", 1)
    assert (guests.running["dns"], state_of(world).work) == (OLD, None)
    assert Event.SNAPSHOT_TAKEN in events.events()


async def test_a_snapshot_of_a_guest_that_does_not_run(guests: Guests, world: World) -> None:
    await set_up(world, running=False)
    operation = await take(world)
    [name] = world.volumes.snapshots["dns"]
    assert operation.message == f"snapshot {name} taken."
    assert guests.running == {}


async def test_a_guest_runs_again_whatever_comes_of_its_snapshot(guests: Guests, world: World) -> None:
    await set_up(world)
    world.journal.failing["snapshot dns one"] = HostError("No space left.", problem=Problem.NO_SPACE)
    operation = await take(world, "one")
    assert (operation.state, operation.message) == (OperationState.FAILED, "No space left.")
    assert (guests.running["dns"], state_of(world).work) == (OLD, None)


async def test_a_guest_that_does_not_start_after_its_snapshot(guests: Guests, world: World) -> None:
    await set_up(world)
    guests.broken.add(NAME)
    operation = await take(world, "one")
    assert (operation.state, operation.message) == (OperationState.FAILED, "it is broken")
    assert (set(world.volumes.snapshots["dns"]), state_of(world).work) == ({"one"}, None)


async def test_a_disk_too_full_to_begin(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world)

    def refuse(*_arguments: object) -> bool:
        raise HostError("No space left.", problem=Problem.NO_SPACE)

    monkeypatch.setattr(world.states, "write", refuse)
    operation = await take(world, "one")
    assert operation.state is OperationState.FAILED
    assert "stop dns" not in world.journal.take()
    del guests


@pytest.mark.parametrize("name", ["swap-1", "Upper", ".hidden", "a/b", "x" * 42, "-x"])
async def test_names_that_are_refused(guests: Guests, world: World, name: str) -> None:
    await set_up(world)
    with pytest.raises(ApplianceError) as caught:
        await world.data.take("dns", name)
    assert caught.value.problem is Problem.NOT_SUPPORTED
    del guests


async def test_a_name_that_is_taken(guests: Guests, world: World) -> None:
    await set_up(world)
    keep(world, "kept", "x/1")
    with pytest.raises(ApplianceError) as caught:
        await world.data.take("dns", "kept")
    assert caught.value.problem is Problem.ALREADY_EXISTS
    del guests


async def test_a_guest_that_could_not_start_again_is_not_stopped(guests: Guests, world: World) -> None:
    await set_up(world)
    world.files.unfit["/usr/lib/appliance/linux"] = "is unfit"
    await world.reconciler.apply(restart=True)
    with pytest.raises(ApplianceError, match="could not start again: is unfit"):
        await world.data.take("dns", "one")
    assert guests.running["dns"] == OLD


async def test_one_thing_at_a_time(guests: Guests, world: World) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    operation, _ = await world.data.take("dns", "one")
    for verb in (world.data.take("dns", "two"), world.data.restore("dns", "kept")):
        with pytest.raises(ApplianceError) as caught:
            await verb
        assert caught.value.problem is Problem.BUSY
    with pytest.raises(ApplianceError, match="a snapshot is under way"):
        await world.data.remove("dns", "kept")
    await world.operations.finished(operation)
    await world.data.remove("dns", "kept")
    assert set(world.volumes.snapshots["dns"]) == {"one"}
    del guests


async def test_an_appliance_without_data(guests: Guests, world: World) -> None:
    await set_up(world)
    world.volumes.volumes.clear()
    with pytest.raises(ApplianceError, match="has no data volume"):
        await world.data.take("dns", "one")
    del guests


# --- restoring


async def test_a_restore(guests: Guests, world: World, events: EventLog) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    operation, aside = await restore(world, "kept")
    assert (operation.kind, operation.state) == ("restore", OperationState.SUCCEEDED)
    assert operation.message.startswith("kept is the data volume; stopped for ")
    assert operation.message.endswith(f"the data of before are snapshot {aside}.")
    assert guests.data("dns") == ["kept", NAME]
    assert world.volumes.snapshots["dns"] == {"kept": "kept/1", aside: f"{NAME}/1"}
    notes = {entry.name: entry.note for entry in (await world.data.view("dns")).snapshots}
    assert (note := notes[aside]) is not None
    assert (note.maker, note.data_format) == ("restore of kept", 1)
    assert (guests.running["dns"], state_of(world).work) == (OLD, None)
    assert Event.DATA_RESTORED in events.events()


async def test_and_back_again(guests: Guests, world: World) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    _, aside = await restore(world, "kept")
    _, second = await restore(world, aside)
    assert aside != second
    assert guests.data("dns") == [NAME, NAME]


async def test_a_restore_where_nothing_runs(guests: Guests, world: World) -> None:
    await set_up(world, running=False)
    keep(world, "kept", "kept/1")
    operation, _ = await restore(world, "kept")
    assert operation.state is OperationState.SUCCEEDED
    assert (guests.data("dns"), guests.running) == (["kept"], {})


async def test_data_that_the_guest_does_not_start_with(
    guests: Guests, world: World, events: EventLog
) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    guests.spoilt.add("kept")
    operation, _ = await restore(world, "kept")
    assert (operation.state, operation.message) == (
        OperationState.FAILED,
        "kept was not restored, the data are those of before: it is broken",
    )
    assert (guests.running["dns"], guests.data("dns")) == (OLD, [NAME, NAME])
    assert world.volumes.snapshots["dns"] == {"kept": "kept/1"}
    assert Event.RESTORE_FAILED in events.events()


async def test_data_with_which_nobody_outside_gets_an_answer(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")

    async def ask(*_plan: object) -> str:
        return "no zone" if guests.data("dns")[0] == "kept" else ""

    monkeypatch.setattr(world.outside, "ask", ask)
    operation, _ = await restore(world, "kept")
    assert "it does not answer from outside: no zone" in operation.message
    assert guests.data("dns") == [NAME, NAME]


async def test_who_did_not_answer_before_need_not_answer_after(guests: Guests, world: World) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    world.outside.failures[NAME] = "the port is closed"
    operation, _ = await restore(world, "kept")
    assert operation.state is OperationState.SUCCEEDED
    assert guests.data("dns") == ["kept", NAME]


async def test_one_answer_that_was_lost_before_excuses_nothing_after(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    asked = 0

    async def ask(*_plan: object) -> str:
        nonlocal asked
        asked += 1
        return "no answer" if asked == 1 or guests.data("dns")[0] == "kept" else ""

    monkeypatch.setattr(world.outside, "ask", ask)
    operation, _ = await restore(world, "kept")
    assert "it does not answer from outside: no answer" in operation.message
    assert guests.data("dns") == [NAME, NAME]


async def test_neither_data_start(guests: Guests, world: World) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    guests.broken.add(NAME)
    operation, _ = await restore(world, "kept")
    assert operation.message.endswith("; it does not start with them either: it is broken")
    assert (guests.data("dns")[0], state_of(world).work) == (NAME, None)


async def test_cancelled_before_anything_happened(guests: Guests, world: World) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    operation, _ = await world.data.restore("dns", "kept")
    world.operations.cancel(operation.number)
    await world.operations.finished(operation)
    assert operation.state is OperationState.CANCELLED
    assert "stop dns" not in world.journal.take()
    assert (guests.data("dns"), world.volumes.brought) == ([NAME], {})


async def test_a_volume_that_was_smaller_is_grown(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world)
    keep(world, "kept", "kept/1")
    monkeypatch.setattr(world.files, "needs_growth", lambda _plan: True)
    operation, _ = await restore(world, "kept")
    assert operation.state is OperationState.SUCCEEDED
    done = world.journal.take()
    assert done.index("switch dns") < done.index("grow dns") < done.index("start dns")
    del guests


async def test_an_image_that_cannot_read_it(guests: Guests, world: World) -> None:
    await set_up(world)
    keep(world, "new", "new/2", replace_format(2))
    error = await refusal(world, "new")
    assert error.problem is Problem.NOT_SUPPORTED
    assert "the data volume has format 2" in str(error)
    assert guests.data("dns") == [NAME]


def replace_format(data_format: int) -> SnapshotNote:
    return SnapshotNote("somebody", data_format, 5)


async def test_what_else_is_refused(guests: Guests, world: World) -> None:
    await set_up(world)
    assert (await refusal(world, "none")).problem is Problem.NOT_FOUND
    keep(world, "lost", "x/1", note=None)
    assert "nothing is known of its data format" in str(await refusal(world, "lost"))
    keep(world, "kept", "x/1")
    world.images.images[:] = [sample_image("other"), *IMAGES, OLD]
    del guests


# --- after a crash, what no crash of the fakes leads to


async def test_a_disk_too_full_to_say_that_it_went_back(guests: Guests, world: World) -> None:
    """On disk it is still tried, and the data of before are back."""
    await set_up(world)
    work = DataWork(DataKind.RESTORE, DataPhase.TRIAL, "kept", True, 5, aside="before", old_format=1)
    world.states.kept["dns"] = type(state_of(world))(data_format=2, work=work)
    await world.agent().start()
    await world.agent().resume()
    for task in list(world.operations._tasks.values()):
        await task
    assert (state_of(world).data_format, state_of(world).work) == (1, None)
    assert (guests.data("dns"), guests.running["dns"]) == ([NAME], OLD)


async def test_a_state_that_cannot_be_mended_keeps_nobody_from_starting(
    guests: Guests, world: World
) -> None:
    await set_up(world)
    work = DataWork(DataKind.RESTORE, DataPhase.SWITCH, "kept", True, 5, aside="before", old_format=1)
    world.states.kept["dns"] = type(state_of(world))(work=work)
    keep(world, "before", "x/1")
    world.journal.failing["stop dns"] = UnitError("systemd is not there")
    await world.data.settle()
    assert state_of(world).work == work
    del guests


# --- meanwhile


async def test_others_are_answered_while_a_volume_is_copied(guests: Guests, world: World) -> None:
    await set_up(world)
    copying, go_on = threading.Event(), threading.Event()
    take = world.volumes.take

    def slow(*arguments: Any) -> None:
        copying.set()
        assert go_on.wait(5)
        take(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.volumes, "take", slow)
        operation, _ = await world.data.take("dns", "one")
        await asyncio.get_running_loop().run_in_executor(None, copying.wait, 5)
        assert (await world.data.view("dns")).snapshots == ()
        go_on.set()
        await world.operations.finished(operation)
    assert operation.state is OperationState.SUCCEEDED
    del guests
