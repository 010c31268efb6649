"""Swaps on a host in memory: how each one ends, what it did on the way, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.core import outside
from agent.core.operations import Operation, OperationState
from agent.core.swap_steps import Request
from agent.model.errors import ApplianceError, HostError, ImageError, Problem, UnitError
from agent.model.health import Health, UnitStatus
from agent.model.image import Image, ImageReference, Requests
from agent.model.swap import Result
from agent.plan.host import AppliancePlan
from agent.util.journal import Event
from tests.fakes.events import EventLog
from tests.fakes.guests import Guests
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.swapping import (
    CHECKED,
    INSTANCE,
    NEW,
    OLD,
    ONE_WAY,
    begin,
    reach,
    set_up,
    state_of,
    swap,
)
from tests.unit.core.test_reconcile import apply

NEW_NAME, OLD_NAME = NEW.manifest.reference, OLD.manifest.reference


@pytest.fixture
def guests(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guests]:
    monkeypatch.setattr(outside, "PAUSE_S", 0.001)
    guests = Guests(world)
    yield guests
    assert guests.wrongs == []


def result_of(world: World) -> tuple[Result, str]:
    entry = state_of(world).history[-1]
    return entry.result, entry.reason


def image_of(world: World) -> Image | None:
    return world.reconciler.plan.appliances["dns"].image


# --- success


async def test_a_swap_touches_nothing_but_what_differs(
    guests: Guests, world: World, events: EventLog
) -> None:
    await set_up(world)
    operation = await swap(world, NEW)
    assert world.journal.take() == [
        "write dns drop_in",
        "daemon-reload",
        "stop dns",
        "write dns image",
        "write dns launch",
        "forget dns",
        "start dns",
        "tidy dns",
    ]
    assert operation.state is OperationState.SUCCEEDED
    assert operation.message == f"swapped from {OLD_NAME} to {NEW_NAME}; no answer for 12 ms."
    assert guests.running["dns"] == image_of(world) == NEW
    assert not world.reconciler.restart_pending("dns")
    assert world.files.previous["dns"] == [OLD.digest]
    assert world.files.next["dns"] is None
    state = state_of(world)
    assert (state.image, state.wanted, state.data_format) == (NEW.digest, "dns-nsd", 1)
    [entry] = state.history
    assert (entry.result, entry.downtime_ms, entry.snapshot) == (Result.COMMITTED, 12.5, "")
    assert events.events()[-1] is Event.SWAP_COMMITTED
    assert events.fields[-1]["old_image"] == OLD_NAME


async def test_its_phases_are_told_in_order(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[str] = []
    monkeypatch.setattr(world.operations, "_on_change", lambda operation: phases.append(operation.phase))
    await set_up(world)
    await swap(world, NEW)
    assert list(dict.fromkeys(phases)) == ["", "prepare", "switch", "trial", "soak"]
    assert guests.running["dns"] == NEW


async def test_one_that_does_not_run_gets_its_image_and_does_not_run(guests: Guests, world: World) -> None:
    await set_up(world, running=False)
    assert (await swap(world, NEW)).state is OperationState.SUCCEEDED
    assert (image_of(world), state_of(world).image) == (NEW, NEW.digest)
    assert guests.running == {}
    assert state_of(world).history[-1].downtime_ms == 0
    await world.units.start("dns")
    assert guests.running["dns"] == NEW


async def test_without_a_reference_it_is_the_newest_that_the_configuration_may_mean(
    guests: Guests, world: World
) -> None:
    await set_up(world)
    newest = sample_image("dns-nsd", "4.8-1")
    world.images.images.append(newest)
    await world.operations.finished(await world.swapper.swap("dns", None, Request()))
    assert guests.running["dns"] == newest


# --- refused: nothing was changed


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (sample_image("web", "1", role="web-static/1"), "its role is web-static/1"),
        (sample_image("dns", "2", requests=Requests(memory_bytes=64 << 20)), "it wants 64M of memory"),
        (sample_image("dns", "3", requests=Requests(ports=("853/tcp",))), "it wants to answer on 853/tcp"),
        (sample_image("dns", "4", data=None), "it does not use the data volume"),
    ],
)
async def test_what_speaks_against_it(guests: Guests, world: World, image: Image, reason: str) -> None:
    await set_up(world)
    world.images.images.append(image)
    operation = await swap(world, image, accept=False)
    assert operation.state is OperationState.FAILED
    assert reason in operation.message
    assert world.journal.take() == ["tidy dns"]
    assert (result_of(world)[0], guests.running["dns"]) == (Result.REFUSED, OLD)
    assert world.files.next["dns"] is None
    assert state_of(world).image is None
    assert state_of(world).quarantine == ()


async def test_what_is_only_asked_for_can_be_granted(guests: Guests, world: World) -> None:
    await set_up(world)
    hungry = sample_image("dns", "2", requests=Requests(memory_bytes=64 << 20))
    world.images.images.append(hungry)
    assert "swap --accept dns dns:2" in (await swap(world, hungry, accept=False)).message
    assert (await swap(world, hungry)).state is OperationState.SUCCEEDED
    assert guests.running["dns"] == hungry


async def test_data_that_it_cannot_read(guests: Guests, world: World) -> None:
    await set_up(world)
    await swap(world, ONE_WAY)
    operation = await swap(world, NEW)
    assert "the data volume has format 2, and dns-nsd 4.7-1 reads only 1" in operation.message
    assert guests.running["dns"] == ONE_WAY


async def test_a_check_that_refuses_the_configuration(guests: Guests, world: World) -> None:
    await set_up(world)
    guests.units.checks[INSTANCE] = UnitStatus(result="exit-code", status_text="check failed: line 7")
    operation = await swap(world, CHECKED)
    assert operation.message.endswith("the image's check of the configuration failed: check failed: line 7")
    assert world.journal.take() == [f"run {INSTANCE}", "tidy dns"]
    assert world.files.checks == set()
    assert (guests.running["dns"], state_of(world).quarantine) == (OLD, ())


async def test_a_check_that_cannot_be_run(guests: Guests, world: World) -> None:
    await set_up(world)
    world.journal.failing[f"run {INSTANCE}"] = UnitError("no such unit")
    assert "no such unit" in (await swap(world, CHECKED)).message
    assert (world.files.checks, guests.running["dns"]) == (set(), OLD)


async def test_a_kernel_that_is_not_fit_any_more_is_not_the_image_s_fault(
    guests: Guests, world: World
) -> None:
    await set_up(world)
    world.files.unfit["/usr/lib/appliance/linux"] = "kernel is not supported"
    assert "could not start: kernel is not supported" in (await swap(world, NEW)).message
    assert (guests.running["dns"], state_of(world).quarantine) == (OLD, ())


async def test_what_is_known_before_it_begins(guests: Guests, world: World) -> None:
    await set_up(world)
    for name, reference, problem in (
        ("web", ImageReference("dns-nsd"), Problem.NOT_FOUND),
        ("dns", ImageReference("dns-knot"), Problem.NOT_FOUND),
        ("dns", ImageReference(digest=OLD.digest), Problem.ALREADY_EXISTS),
    ):
        with pytest.raises(ApplianceError) as caught:
            await world.swapper.swap(name, reference, Request())
        assert caught.value.problem is problem
    assert (world.operations.all(), world.states.kept["dns"].swaps) == ([], 0)
    assert guests.running["dns"] == OLD


async def test_only_who_asks_for_it_gets_a_quarantined_image(guests: Guests, world: World) -> None:
    await set_up(world)
    guests.broken.add(NEW_NAME)
    await swap(world, NEW)
    guests.broken.clear()
    with pytest.raises(ImageError, match=r"dns-nsd:4.7-1 .* is quarantined: it is broken"):
        await world.swapper.swap("dns", ImageReference(digest=NEW.digest), Request(automatic=True))
    assert (await swap(world, NEW)).state is OperationState.SUCCEEDED
    assert state_of(world).quarantine == ()


# --- failed: back to the old image


async def test_one_that_does_not_start(guests: Guests, world: World, events: EventLog) -> None:
    await set_up(world)
    guests.broken.add(NEW_NAME)
    operation = await swap(world, NEW)
    assert (operation.state, operation.message) == (
        OperationState.FAILED,
        f"back to {OLD_NAME}, {NEW_NAME} failed: it is broken",
    )
    assert guests.running["dns"] == image_of(world) == OLD
    assert world.watch.health("dns").health is Health.HEALTHY
    state = state_of(world)
    assert (state.image, state.quarantine[0].reason) == (OLD.digest, "it is broken")
    assert (world.files.previous["dns"], world.files.next["dns"]) == ([], None)
    assert events.events()[-1] is Event.SWAP_ROLLED_BACK
    assert (await apply(world)).changes == ()


@pytest.mark.parametrize(
    ("active_state", "changes", "reason", "blamed"),
    [
        ("active", {"status_text": "unhealthy: no answer"}, "no answer", True),
        ("failed", {"result": "watchdog"}, "the guest gave no sign of life", True),
        ("inactive", {}, "it was stopped before it had proven itself", False),
    ],
)
async def test_what_happens_while_it_is_watched(
    guests: Guests, world: World, active_state: str, changes: dict[str, str], reason: str, *, blamed: bool
) -> None:
    await set_up(world, soak="5s")
    operation = await begin(world, NEW)
    await reach(world, operation, "soak")
    guests.running.pop("dns")
    world.units.become("dns", active_state, **changes)
    await world.operations.finished(operation)
    assert result_of(world) == (Result.ROLLED_BACK, reason)
    assert bool(state_of(world).quarantine) == blamed
    # What somebody stopped is not started again.
    assert guests.running == ({"dns": OLD} if active_state != "inactive" else {})
    assert image_of(world) == OLD


async def test_a_host_that_goes_down_proves_nothing(guests: Guests, world: World) -> None:
    await set_up(world, soak="5s")
    operation = await begin(world, NEW)
    await reach(world, operation, "soak")
    world.units.going_down = True
    guests.running.pop("dns")
    world.units.become("dns", "inactive")
    await world.operations.finished(operation)
    assert (operation.state, image_of(world)) == (OperationState.CANCELLED, NEW)
    swap_left = state_of(world).swap
    assert swap_left
    assert swap_left.phase == "soak"
    world.units.going_down = False
    world.boot()
    await world.agent().start()
    await world.agent().resume()
    for running in world.operations.all():
        await world.operations.finished(running)
    assert result_of(world) == (Result.COMMITTED, "")
    assert guests.running["dns"] == NEW


async def test_a_swap_that_nobody_has_taken_up_yet_is_not_overwritten(world: World) -> None:
    await set_up(world, soak="5s")
    operation = await begin(world, NEW)
    await reach(world, operation, "soak")
    await world.operations.close()
    world.boot()
    await world.agent().start()
    with pytest.raises(ApplianceError, match="a swap is under way") as caught:
        await world.swapper.swap("dns", ImageReference(digest=OLD.digest), Request())
    assert caught.value.problem is Problem.BUSY


async def test_a_failure_that_nobody_saw_counts_too(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(plan: AppliancePlan) -> str:
        if plan.image == NEW:
            world.units.become("dns", "activating", sub_state="auto-restart", restarts=1)
            world.units.become("dns", "active", sub_state="running")
        return ""

    await set_up(world)
    monkeypatch.setattr(world.outside, "ask", ask)
    await swap(world, NEW)
    assert result_of(world) == (Result.ROLLED_BACK, "it failed and was started again")
    assert guests.running["dns"] == OLD


async def test_one_that_is_not_back_in_time(guests: Guests, world: World) -> None:
    await set_up(world, soak="10ms")
    operation = await begin(world, NEW)
    await reach(world, operation, "soak")
    world.units.become("dns", "activating", sub_state="start")
    await world.operations.finished(operation)
    assert result_of(world) == (Result.ROLLED_BACK, "it is starting")
    assert guests.running["dns"] == OLD


async def test_one_that_does_not_answer_from_outside(guests: Guests, world: World) -> None:
    await set_up(world)
    world.outside.failures[NEW_NAME] = "no answer from 10.88.0.2"
    await swap(world, NEW)
    assert result_of(world) == (
        Result.ROLLED_BACK,
        "it does not answer from outside: no answer from 10.88.0.2",
    )
    assert state_of(world).quarantine[0].image.digest == NEW.digest
    assert guests.running["dns"] == OLD


async def test_one_that_somebody_stops_while_it_is_asked(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world)

    async def ask(plan: AppliancePlan) -> str:
        if plan.image == OLD:
            return ""
        guests.running.pop("dns", None)
        world.units.become("dns", "inactive")
        return "no answer from 10.88.0.2"

    monkeypatch.setattr(world.outside, "ask", ask)
    await swap(world, NEW)
    assert result_of(world) == (Result.ROLLED_BACK, "it was stopped before it had proven itself")
    assert state_of(world).quarantine == ()
    assert guests.running == {}


async def test_what_did_not_answer_before_need_not_answer_now(
    guests: Guests, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await set_up(world)
    world.outside.failures.update({OLD_NAME: "refused", NEW_NAME: "refused"})
    assert (await swap(world, NEW)).state is OperationState.SUCCEEDED
    assert "did not answer from outside even before the swap: refused" in caplog.text
    assert guests.running["dns"] == NEW


async def test_a_host_that_fails_while_it_switches(guests: Guests, world: World) -> None:
    await set_up(world, snapshot="always")
    world.journal.failing["snapshot dns swap-1"] = HostError("No space left.", problem=Problem.NO_SPACE)
    operation = await swap(world, NEW)
    assert (operation.state, result_of(world)) == (
        OperationState.FAILED,
        (Result.ROLLED_BACK, "No space left."),
    )
    assert (guests.running["dns"], state_of(world).quarantine) == (OLD, ())


async def test_an_error_that_nobody_foresaw_turns_back_too(guests: Guests, world: World) -> None:
    await set_up(world, snapshot="always")
    world.journal.failing["snapshot dns swap-1"] = OSError(5, "Input/output error")
    await swap(world, NEW)
    assert result_of(world) == (Result.ROLLED_BACK, "[Errno 5] Input/output error")
    assert guests.running["dns"] == OLD


# --- cancelled


@pytest.mark.parametrize(
    ("phase", "result"),
    [
        ("prepare", Result.REFUSED),
        ("switch", Result.ROLLED_BACK),
        ("trial", Result.ROLLED_BACK),
        ("soak", Result.ROLLED_BACK),
    ],
)
async def test_cancelled_in_each_phase(guests: Guests, world: World, phase: str, result: Result) -> None:
    await set_up(world, soak="5s")
    cancel_at(world, phase)
    operation = await swap(world, NEW)
    assert operation.state is OperationState.CANCELLED
    assert (result_of(world), state_of(world).quarantine) == ((result, "cancelled"), ())
    assert guests.running["dns"] == OLD


async def test_who_cancels_a_rollback_does_not_hide_why_it_came_to_that(
    guests: Guests, world: World
) -> None:
    await set_up(world)
    guests.broken.add(NEW_NAME)
    cancel_at(world, "rollback")
    assert (await swap(world, NEW)).state is OperationState.FAILED
    assert result_of(world) == (Result.ROLLED_BACK, "it is broken")
    assert guests.running["dns"] == OLD


def cancel_at(world: World, phase: str) -> None:
    """Cancel an operation as soon as it is in a phase."""

    def cancel(operation: Operation) -> None:
        if operation.phase == phase:
            world.operations.cancel(operation.number)

    world.operations._on_change = cancel


# --- what it leaves


class Meter:
    """Counts measurements that began and were not ended."""

    def __init__(self) -> None:
        self.running = self.begun = 0

    def measure(self, _plan: AppliancePlan) -> Meter:
        self.running += 1
        self.begun += 1
        return self

    def stop(self) -> float | None:
        self.running -= 1
        return None


@pytest.mark.parametrize("how", ["well", "broken", "refused", "left"])
async def test_no_measurement_outlives_its_swap(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    meter = Meter()
    monkeypatch.setattr(world.outside, "measure", meter.measure)
    await set_up(world, snapshot="always")
    if how == "broken":
        guests.broken.add(NEW_NAME)
    if how == "refused":
        world.journal.failing["snapshot dns swap-1"] = HostError("No space left.")
    operation = await begin(world, NEW)
    if how == "left":
        await reach(world, operation, "trial")
        await world.operations.close()
    await world.operations.finished(operation)
    assert (meter.begun, meter.running) == (1, 0)
    assert state_of(world).swap is None or how == "left"
    if how != "left":
        assert guests.running["dns"] == (NEW if how == "well" else OLD)
