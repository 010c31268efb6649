"""Configurations that are put on trial: what is tried and how, what is held, and what comes back."""

from __future__ import annotations

import asyncio

import pytest

from agent.core import swap_steps
from agent.core.operations import Operation, OperationState
from agent.core.swap_steps import Request
from agent.model.errors import ApplianceError, ConfigurationError, HostError, ImageError, Problem
from agent.model.health import UnitStatus
from agent.model.image import Service
from agent.model.swap import Result
from tests.fakes.guests import Guests
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.swapping import INSTANCE, reach, roll_back, state_of
from tests.unit.core.test_reconcile import NOTHING, apply, configure

pytestmark = pytest.mark.usefixtures("events")

RELOADS = sample_image(service=Service(exec=("/usr/sbin/nsd",), check=("/check",), reload_signal="HUP"))
ZONE = {"zones/a.zone": b"a"}
NEW_ZONE = {"zones/a.zone": b"b"}


@pytest.fixture
def guests(world: World) -> Guests:
    return Guests(world)


async def set_up(world: World, *, running: bool = True, soak: str = "1ms") -> None:
    """Appliance `dns`, which runs with ZONE; its image can reload."""
    world.images.images[:] = [RELOADS]
    configure(world, "dns", update=f"{{soak: {soak}}}")
    world.files.guest_files["dns"] = ZONE
    await world.reconciler.apply(restart=True)
    await world.units.start("dns")
    if not running:
        await world.units.stop("dns")
    world.journal.take()


async def try_files(world: World, files: dict[str, bytes] | None = None) -> Operation:
    """Have other files applied; the operation that put them on trial."""
    world.files.guest_files["dns"] = NEW_ZONE if files is None else files
    _, [operation] = await world.agent().apply()
    return await world.operations.finished(operation)


def written(world: World) -> str:
    """The generation that the administrator's files are."""
    return world.reconciler._planner.gather(world.reconciler.plan.assignments).generation("dns").id


async def test_files_alone_are_handed_to_the_running_guest(guests: Guests, world: World) -> None:
    await set_up(world)
    before = guests.configured["dns"]
    operation = await try_files(world)
    assert operation.state is OperationState.SUCCEEDED, operation.message
    done = world.journal.take()
    assert "deliver dns" in done
    assert not {"stop dns", "start dns"} & set(done)
    assert guests.configured["dns"] != before
    assert state_of(world).generation == written(world)
    assert (world.files.deliveries, world.reconciler.restart_pending("dns")) == ({}, False)
    assert await apply(world) == NOTHING


async def test_whatever_else_changes_takes_a_new_start(guests: Guests, world: World) -> None:
    await set_up(world)
    configure(world, "dns", update="{soak: 1ms}", memory="64M")
    operation = await try_files(world)
    assert operation.state is OperationState.SUCCEEDED
    done = world.journal.take()
    assert "deliver dns" not in done
    assert done.index("stop dns") < done.index("start dns")
    assert guests.running["dns"] == RELOADS


async def test_what_no_guest_notices_is_in_force_at_once(guests: Guests, world: World) -> None:
    await set_up(world)
    configure(world, "dns", update="{soak: 2s, policy: auto}")
    outcome, operations = await world.agent().apply()
    assert (outcome, operations) == (NOTHING, [])
    assert world.reconciler.plan.appliances["dns"].appliance.update.soak_s == 2.0
    assert state_of(world).generation == written(world)
    assert guests.wrongs == []


async def test_one_that_the_check_refuses_is_held(guests: Guests, world: World) -> None:
    await set_up(world)
    before = guests.configured["dns"], state_of(world).generation
    world.units.checks[INSTANCE] = UnitStatus(
        active_state="failed", result="exit-code", status_text="check failed: a.zone:7"
    )
    operation = await try_files(world)
    assert operation.state is OperationState.FAILED
    assert operation.message.endswith("check of the configuration failed: check failed: a.zone:7")
    assert (guests.configured["dns"], state_of(world).generation) == before
    held = state_of(world).held
    assert held is not None
    assert (held.generation, held.for_good) == (written(world), True)
    world.units.checks.clear()
    # Neither the next run nor the next agent tries it again.
    world.journal.take()
    outcome = await apply(world)
    assert outcome.trials == {}
    assert outcome.problems[0].startswith("dns: its configuration is not in force: the image's check")
    world.boot()
    await world.agent().start()
    assert not {"write dns launch", "stop dns"} & set(world.journal.take())
    assert guests.configured["dns"] == before[0]
    # Only when somebody says so.
    assert list((await apply(world, retry=True)).trials) == ["dns"]
    assert (state_of(world).generation, state_of(world).held) == (written(world), None)


async def test_one_that_the_guest_does_not_take_comes_back(guests: Guests, world: World) -> None:
    await set_up(world)
    before = guests.configured["dns"]
    world.console.refusals["dns"] = "nsd: a.zone:7: syntax error"
    operation = await try_files(world)
    assert operation.state is OperationState.FAILED
    assert "it did not take its configuration: nsd: a.zone:7: syntax error" in operation.message
    assert guests.configured["dns"] == before
    assert state_of(world).history[-1].result is Result.ROLLED_BACK
    assert state_of(world).quarantine == ()


async def test_a_guest_that_cannot_be_reached_is_started_with_what_it_had(
    guests: Guests, world: World
) -> None:
    await set_up(world)
    before = guests.configured["dns"]
    world.journal.failing["deliver dns"] = HostError("no console")
    operation = await try_files(world)
    assert operation.state is OperationState.FAILED
    assert (guests.configured["dns"], world.files.deliveries) == (before, {})
    # That was nobody's fault: the next run tries it again.
    assert list((await apply(world)).trials) == ["dns"]


async def test_another_image_in_the_configuration_is_on_trial_too(guests: Guests, world: World) -> None:
    await set_up(world)
    broken = sample_image("dns-nsd", "5-1")
    world.images.images.append(broken)
    guests.broken.add(broken.manifest.reference)
    configure(world, "dns", image="dns-nsd:5", update="{soak: 1ms}")
    operation = await try_files(world, ZONE)
    assert operation.state is OperationState.FAILED
    assert guests.running["dns"] == RELOADS
    assert [entry.image.reference for entry in state_of(world).quarantine] == ["dns-nsd:5-1"]
    assert str(world.reconciler.plan.appliances["dns"].appliance.image) == "dns-nsd"


async def test_an_image_of_another_role_may_be_configured(guests: Guests, world: World) -> None:
    await set_up(world)
    web = sample_image("web-nginx", "1", role="web-static/1")
    world.images.images.append(web)
    configure(world, "dns", image="web-nginx", update="{soak: 1ms}")
    operation = await try_files(world, ZONE)
    assert operation.state is OperationState.SUCCEEDED, operation.message
    assert guests.running["dns"] == web


async def test_what_does_not_run_is_only_checked(guests: Guests, world: World) -> None:
    await set_up(world, running=False)
    operation = await try_files(world)
    assert operation.state is OperationState.SUCCEEDED
    assert f"run {INSTANCE}" in world.journal.take()
    assert guests.running == {}
    assert state_of(world).generation == written(world)


async def test_a_data_volume_grows_on_the_way(guests: Guests, world: World) -> None:
    await set_up(world)
    configure(world, "dns", update="{soak: 1ms}", memory="64M", data="512M")
    operation = await try_files(world)
    assert operation.state is OperationState.SUCCEEDED
    done = world.journal.take()
    assert done.index("stop dns") < done.index("grow dns") < done.index("start dns")
    assert guests.wrongs == []


async def test_going_back_to_the_configuration_before(guests: Guests, world: World) -> None:
    await set_up(world)
    first, before = guests.configured["dns"], state_of(world).generation
    await try_files(world)
    operation = await roll_back(world)
    assert operation.state is OperationState.SUCCEEDED, operation.message
    assert (guests.configured["dns"], state_of(world).generation) == (first, before)
    outcome = await apply(world)
    assert (outcome.trials, len(outcome.problems)) == ({}, 1)
    assert "it was rolled back" in outcome.problems[0]
    # And forward again.
    await roll_back(world)
    assert (state_of(world).generation, await apply(world)) == (written(world), NOTHING)


async def test_one_that_is_gone_cannot_be_gone_back_to(guests: Guests, world: World) -> None:
    await set_up(world)
    await try_files(world)
    world.generations.kept["dns"].clear()
    with pytest.raises(ApplianceError) as caught:
        await world.swapper.rollback("dns", with_data=False)
    assert caught.value.problem is Problem.NOT_FOUND
    assert guests.wrongs == []


async def test_a_new_agent_lets_a_guest_go_on_until_somebody_applies(guests: Guests, world: World) -> None:
    await set_up(world)
    before = guests.configured["dns"]
    world.files.guest_files["dns"] = NEW_ZONE
    world.boot()
    agent = world.agent()
    await agent.start()
    await agent.resume()
    assert (guests.configured["dns"], agent.view("dns").restart_pending) == (before, True)
    await apply(world)
    assert (guests.configured["dns"] != before, agent.view("dns").restart_pending) == (True, False)


async def test_after_a_boot_what_was_written_meanwhile_is_tried(guests: Guests, world: World) -> None:
    await set_up(world)
    before = guests.configured["dns"]
    world.files.guest_files["dns"] = NEW_ZONE
    world.boot()
    guests.power_off()
    agent = world.agent()
    await agent.start()
    guests.units.launch("dns")
    assert guests.configured["dns"] == before
    await agent.resume()
    for operation in world.operations.all():
        await world.operations.finished(operation)
    assert (guests.configured["dns"] != before, state_of(world).generation) == (True, written(world))


async def test_another_one_does_not_wait_until_the_last_was_watched(guests: Guests, world: World) -> None:
    await set_up(world, soak="1h")
    agent = world.agent()
    world.files.guest_files["dns"] = NEW_ZONE
    _, [first] = await agent.apply()
    await reach(world, first, "soak")
    world.files.guest_files["dns"] = {"zones/a.zone": b"c"}
    _, [second] = await agent.apply()
    assert first.state is OperationState.SUCCEEDED
    second.request_hurry()
    await world.operations.finished(second)
    assert state_of(world).generation == written(world)
    assert guests.wrongs == []


async def test_one_that_takes_anothers_address_waits_for_that(guests: Guests, world: World) -> None:
    await set_up(world)
    configure(world, "web", network="{name: default, address: 10.88.0.80}", update="{soak: 1ms}")
    await world.reconciler.apply(restart=True)
    await world.units.start("web")
    configure(world, "web", network="{name: default, address: 10.88.0.81}", update="{soak: 1ms}")
    configure(world, "ntp", network="{name: default, address: 10.88.0.80}")
    with pytest.raises(ApplianceError, match="as long as the change of web has not proven itself"):
        await world.agent().apply()
    world.files.write("appliances/ntp.yaml", "")
    await apply(world)
    ports = world.reconciler.plan.appliances["web"].ports
    assert [str(address) for port in ports for address in port.addresses] == ["10.88.0.81"]
    configure(world, "ntp", network="{name: default, address: 10.88.0.80}")
    assert (await apply(world)).problems == ()
    assert guests.wrongs == []


async def test_only_what_one_may_go_back_to_is_kept(guests: Guests, world: World) -> None:
    await set_up(world)
    for content in b"bcd":
        await try_files(world, {"zones/a.zone": bytes([content])})
    kept = world.generations.kept["dns"]
    assert set(kept) == {written(world), state_of(world).history[-1].old_generation}
    assert guests.wrongs == []


async def test_a_generation_that_cannot_be_kept_begins_nothing(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world)
    before = guests.configured["dns"]

    def refuse(_appliance: str, _generation: object) -> bool:
        raise HostError("No space left.", problem=Problem.NO_SPACE)

    monkeypatch.setattr(world.generations, "write", refuse)
    operation = await try_files(world)
    assert (operation.state, guests.configured["dns"]) == (OperationState.FAILED, before)
    assert state_of(world).swap is None


async def test_a_swap_to_what_it_has_is_still_refused(world: World) -> None:
    await set_up(world)
    with pytest.raises(ImageError, match="already"):
        await world.swapper.configure(
            "dns", world.reconciler._planner.gather(world.reconciler.plan.assignments).generation("dns")
        )


async def test_one_that_ends_while_another_configuration_is_applied(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(world, soak="1h")
    await world.run("old")
    checked, stop, run = asyncio.Event(), world.units.stop, world.units.run

    async def check_for_long(instance: str) -> UnitStatus:
        await checked.wait()
        return await run(instance)

    monkeypatch.setattr(world.units, "run", check_for_long)
    world.files.guest_files["dns"] = NEW_ZONE
    _, [operation] = await world.agent().apply()
    await reach(world, operation, "prepare")
    await world.reconciler.idle()

    async def stop_while_it_ends(appliance: str) -> None:
        await stop(appliance)
        checked.set()
        await reach(world, operation, "soak")
        operation.request_hurry()
        await world.operations.finished(operation)

    monkeypatch.setattr(world.units, "stop", stop_while_it_ends)
    world.files.write("appliances/old.yaml", "")
    await world.reconciler.apply(restart=True)
    assert operation.state is OperationState.SUCCEEDED
    assert (state_of(world).generation, state_of(world).held) == (written(world), None)
    assert world.reconciler.plan.appliances["dns"].inputs.configuration == NEW_ZONE
    assert world.files.owned["dns"].initrd == guests.configured["dns"]
    assert await apply(world) == NOTHING


async def test_a_guest_that_refused_its_files_is_not_disturbed(guests: Guests, world: World) -> None:
    await set_up(world)
    world.console.refusals["dns"] = "syntax error"
    await try_files(world)
    assert not {"stop dns", "start dns"} & set(world.journal.take())
    assert not world.reconciler.is_outdated("dns")
    assert world.reconciler.restart_pending("dns")
    assert guests.wrongs == []


async def test_files_with_a_larger_volume_take_a_new_start(guests: Guests, world: World) -> None:
    await set_up(world)
    configure(world, "dns", update="{soak: 1ms}", data="512M")
    operation = await try_files(world)
    assert operation.state is OperationState.SUCCEEDED
    done = world.journal.take()
    assert "deliver dns" not in done
    assert done.index("stop dns") < done.index("grow dns") < done.index("start dns")
    assert guests.wrongs == []


async def test_who_is_removed_and_added_again_begins_anew(guests: Guests, world: World) -> None:
    await set_up(world, running=False)
    world.files.write("appliances/dns.yaml", "")
    await apply(world)
    assert (state_of(world).generation, world.generations.kept["dns"]) == ("", {})
    configure(world, "web", network="{name: default, address: 10.88.0.2}")
    configure(world, "dns", network="{name: default, address: 10.88.0.9}")
    assert (await world.reconciler.check()).problems == ()
    outcome = await apply(world)
    assert (outcome.trials, outcome.problems) == ({}, ())
    assert guests.wrongs == []


@pytest.mark.parametrize("exchanged", [False, True])
async def test_what_does_not_go_together_costs_no_other_its_start(
    guests: Guests, world: World, *, exchanged: bool
) -> None:
    def write(name: str, last: int) -> None:
        configure(world, name, network=f"{{name: default, address: 10.88.0.{last}}}", update="{soak: 1ms}")

    await set_up(world)
    write("a", 20)
    write("b", 30)
    await world.reconciler.apply(restart=True)
    for name in "ab":
        await world.units.start(name)
    write("a", 30)
    write("b", 20 if exchanged else 40)
    world.boot()
    guests.power_off()
    agent = world.agent()
    await agent.start()
    assert set(world.reconciler.plan.appliances) == {"a", "b", "dns"}
    assert all(plan.can_start for plan in world.reconciler.plan.appliances.values())
    guests.units.launch("dns")
    await agent.resume()
    for operation in world.operations.all():
        await world.operations.finished(operation)
    assert guests.running["dns"] == RELOADS


async def test_going_back_after_an_edit_that_no_guest_noticed(guests: Guests, world: World) -> None:
    await set_up(world)
    newer = sample_image("dns-nsd", "4.7-1", service=RELOADS.manifest.service)
    world.images.images.append(newer)
    await world.operations.finished(await world.swapper.swap("dns", None, Request(accept=True)))
    assert guests.running["dns"] == newer
    before = guests.configured["dns"]
    await try_files(world)
    # What the image swap left to go back to is still there.
    assert world.files.previous["dns"] == [RELOADS.digest]
    configure(world, "dns", update="{soak: 1ms, policy: stage}")
    await apply(world)
    await roll_back(world)
    assert (guests.running["dns"], guests.configured["dns"]) == (newer, before)


async def test_two_who_apply_the_same_follow_the_same_trial(guests: Guests, world: World) -> None:
    await set_up(world)
    world.files.guest_files["dns"] = NEW_ZONE
    agent = world.agent()
    (first, [one]), (second, others) = await asyncio.gather(agent.apply(), agent.apply())
    assert (first.problems, second.problems) == ((), ())
    assert others in ([], [one])
    await world.operations.finished(one)
    assert guests.wrongs == []


async def test_what_is_not_valid_ends_no_watch(world: World) -> None:
    await set_up(world, soak="1h")
    world.files.guest_files["dns"] = NEW_ZONE
    agent = world.agent()
    _, [operation] = await agent.apply()
    await reach(world, operation, "soak")
    world.files.write("appliances/web.yaml", "memory: 1")
    with pytest.raises(ConfigurationError):
        await agent.apply()
    assert operation.state is OperationState.RUNNING
    operation.request_hurry()
    await world.operations.finished(operation)


async def test_no_trial_comes_in_the_way_of_a_boot(
    guests: Guests, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap_steps, "BOOT_PAUSE_S", 0.001)
    await set_up(world)
    world.files.guest_files["dns"] = NEW_ZONE
    world.boot()
    guests.power_off()
    world.units.booting = True
    agent = world.agent()
    await agent.start()
    world.journal.take()
    await agent.resume()
    await asyncio.sleep(0.01)
    assert world.journal.take() == []
    guests.units.launch("dns")
    world.units.booting = False
    [operation] = world.operations.all()
    await world.operations.finished(operation)
    assert "deliver dns" in world.journal.take()
    assert state_of(world).generation == written(world)


async def test_who_is_only_watched_can_be_removed(guests: Guests, world: World) -> None:
    await set_up(world, soak="1h")
    world.files.guest_files["dns"] = NEW_ZONE
    agent = world.agent()
    _, [operation] = await agent.apply()
    await reach(world, operation, "soak")
    world.files.write("appliances/dns.yaml", "")
    outcome, _ = await agent.apply()
    assert (outcome.problems, guests.running, agent.appliances()) == ((), {}, [])
