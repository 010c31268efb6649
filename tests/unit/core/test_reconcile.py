"""The reconciler on a host in memory: what is done, what is left alone, and what a failure costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.core.reconcile import Outcome
from agent.model.errors import ConfigurationError, HostError, UnitError
from agent.model.health import Health, UnitStatus
from agent.util.journal import Event
from tests.fakes.events import EventLog
from tests.fakes.samples import sample_facts
from tests.fakes.world import World

NOTHING = Outcome((), ())


async def apply(world: World, *, restart: bool = True, retry: bool = False) -> Outcome:
    """Apply, and have every configuration on trial watched no longer than it must be."""
    outcome = await world.reconciler.apply(restart=restart, retry=retry)
    for name, generation in outcome.trials.items():
        operation = await world.swapper.configure(name, generation)
        operation.request_hurry()
        await world.operations.finished(operation)
    return outcome


def configure(world: World, name: str, **settings: Any) -> None:
    lines = (f"{key}: {value}\n" for key, value in {"image": "dns-nsd", **settings}.items())
    world.files.write(f"appliances/{name}.yaml", "".join(lines))


# --- making it so


async def test_a_first_run_does_everything_in_an_order_that_a_crash_cannot_hurt(world: World) -> None:
    configure(world, "dns")
    outcome = await apply(world)
    assert world.journal.take() == [
        "user dns",
        "link br-default",
        "link ap-dns",
        "state dns",
        "volume dns",
        "write dns image",
        "write dns launch",
        "write dns drop_in",
        "daemon-reload",
    ]
    assert outcome.problems == ()
    assert outcome.changes == (
        "dns: create its system user",
        "create br-default",
        "dns: create ap-dns",
        "dns: create its state directory",
        "dns: create a data volume",
        "dns: use image",
        "dns: write its launch plan",
        "dns: write its unit settings",
    )
    assert world.units.watched == {"dns"}


async def test_a_tap_belongs_to_the_user_that_was_made_in_the_same_run(world: World) -> None:
    configure(world, "dns")
    await apply(world)
    assert world.links.links["ap-dns"].owner_uid == world.files.users["dns"]  # type: ignore[union-attr]


async def test_a_second_run_does_nothing(world: World) -> None:
    await world.run("dns", "web")
    assert await apply(world) == NOTHING
    assert world.journal.take() == []


async def test_an_agent_that_was_started_again_does_nothing(world: World, events: EventLog) -> None:
    await world.run("dns", "web")
    world.boot()
    events.clear()
    assert await apply(world, restart=False) == NOTHING
    assert world.journal.take() == []
    assert world.watch.health("dns").health is Health.HEALTHY
    assert events.entries == []


async def test_addresses_and_cores_outlive_the_agent(world: World) -> None:
    await world.run("web")
    before = world.reconciler.plan.appliances["web"]
    world.boot()
    configure(world, "dns")
    await apply(world)
    assert world.reconciler.plan.appliances["web"] == before
    assert world.journal.take().count("restart web") == 0


# --- only looking


@pytest.mark.parametrize("running", [True, False])
async def test_a_dry_run_changes_nothing_and_says_what_would_be_done(world: World, *, running: bool) -> None:
    await world.run("dns", "old")
    if not running:
        await world.units.stop("dns")
        await world.units.stop("old")
    configure(world, "dns", memory="64M", data="512M")
    configure(world, "web")
    world.files.write("appliances/old.yaml", "")
    world.journal.take()
    kept = world.files.assignments, world.files.kept
    before = dict(world.files.owned), dict(world.links.links), dict(world.units.status)
    said = await world.reconciler.check()
    assert world.journal.take() == []
    assert before == (world.files.owned, world.links.links, world.units.status)
    assert kept == (world.files.assignments, world.files.kept)
    assert list(world.reconciler.plan.appliances) == ["dns", "old"]
    trial = "dns: restart with its new configuration" if running else "dns: check its new configuration"
    assert sorted(said.changes) == sorted([*(await apply(world)).changes, trial])
    assert await world.reconciler.check() == NOTHING


async def test_a_dry_run_of_an_invalid_configuration_fails_like_the_real_one(world: World) -> None:
    world.files.write("appliances/dns.yaml", "memory: 1")
    with pytest.raises(ConfigurationError):
        await world.reconciler.check()


# --- what must not be touched


@pytest.mark.parametrize(
    "break_it",
    [
        lambda world: world.files.write("appliances/web.yaml", "image: ["),
        lambda world: world.files.write("appliances/web.yaml", "image: x\nnetwork: nowhere"),
        lambda world: world.files.write("appliances/web.yaml", "image: x\ntimezone: Mars/Olympus"),
        lambda world: world.files.write("appliances/dns.yaml", "image: dns-nsd\nmemory: 64M\ndata: 4M"),
        lambda world: world.files.write("networks/default.yaml", "subnets: 7"),
        lambda world: world.files.write("agent.yaml", "cores: none"),
    ],
)
async def test_an_invalid_configuration_changes_nothing(world: World, break_it: Any) -> None:
    await world.run("dns")
    before = (
        dict(world.files.owned),
        dict(world.links.links),
        dict(world.units.status),
        world.reconciler.plan,
    )
    break_it(world)
    with pytest.raises(ConfigurationError):
        await apply(world)
    assert world.journal.take() == []
    assert before == (world.files.owned, world.links.links, world.units.status, world.reconciler.plan)


async def test_a_subnet_that_is_full_changes_nothing(world: World) -> None:
    world.files.write("networks/default.yaml", "subnets: [10.88.0.0/30]")
    await world.run("dns")
    configure(world, "web")
    with pytest.raises(Exception, match="no free address"):
        await apply(world)
    assert world.journal.take() == []


async def test_only_what_changed_is_restarted(world: World) -> None:
    await world.run("dns", "web")
    configure(world, "dns", memory="64M")
    outcome = await apply(world)
    assert world.journal.take() == [
        "write dns drop_in",
        "daemon-reload",
        "stop dns",
        "write dns launch",
        "start dns",
    ]
    assert (outcome.changes, list(outcome.trials)) == ((), ["dns"])


async def test_new_configuration_files_reach_the_guest_by_a_restart(world: World) -> None:
    await world.run("dns", "web")
    world.files.guest_files["web"] = {"nginx.conf": b"x"}
    await apply(world)
    assert world.journal.take() == ["stop web", "write web launch", "start web"]


async def test_what_does_not_run_is_not_started(world: World) -> None:
    await world.run("dns")
    await world.units.stop("dns")
    world.journal.take()
    configure(world, "dns", memory="64M")
    await apply(world)
    assert world.journal.take() == ["write dns drop_in", "daemon-reload", "stop dns", "write dns launch"]
    assert world.units.status["dns"].active_state == "inactive"


async def test_a_guest_that_is_starting_or_about_to_be_restarted_gets_the_new_plan(world: World) -> None:
    await world.run("dns")
    world.units.become("dns", "activating", sub_state="auto-restart")
    configure(world, "dns", memory="64M")
    await apply(world)
    assert world.journal.take()[-3:] == ["stop dns", "write dns launch", "start dns"]


# --- taking over a host


async def test_an_agent_that_starts_restarts_nobody(world: World) -> None:
    await world.run("dns")
    configure(world, "dns", memory="64M")
    world.boot()
    outcome = await apply(world, restart=False)
    assert (world.journal.take(), outcome) == ([], NOTHING)
    assert world.reconciler.restart_pending("dns")
    await apply(world)
    assert world.journal.take()[-1] == "start dns"
    assert not world.reconciler.restart_pending("dns")


async def test_a_new_runtime_reaches_guests_when_somebody_applies(world: World) -> None:
    await world.run("dns")
    world.files.runtime_digest = "newer"
    world.boot()
    await apply(world, restart=False)
    assert world.journal.take() == ["write dns launch"]
    assert world.reconciler.restart_pending("dns")
    outcome = await apply(world)
    assert (world.journal.take(), outcome.changes) == (["restart dns"], ("dns: restart",))
    assert not world.reconciler.restart_pending("dns")


async def test_only_a_configuration_that_was_applied_is_kept(world: World) -> None:
    await world.run("dns")
    kept = world.files.kept
    configure(world, "web")
    await world.reconciler.check()
    configure(world, "web", memory="1")
    with pytest.raises(ConfigurationError):
        await apply(world)
    assert world.files.kept == kept
    await world.reconciler.apply(restart=False, kept=True)
    assert list(world.reconciler.plan.appliances) == ["dns"]


async def test_an_agent_that_starts_without_a_valid_configuration_can_apply_the_next(world: World) -> None:
    await world.run("dns")
    world.boot()
    world.files.write("agent.yaml", "x: 1")
    with pytest.raises(ConfigurationError):
        await apply(world, restart=False)
    world.files.write("agent.yaml", "")
    assert await apply(world) == NOTHING


async def test_a_run_that_was_interrupted_is_finished_by_the_next(world: World) -> None:
    configure(world, "dns")
    world.journal.failing["write dns launch"] = HostError("No space left.")
    outcome = await apply(world)
    assert outcome.problems == ("dns: write its launch plan failed: No space left.",)
    del world.journal.failing["write dns launch"]
    world.journal.take()
    await apply(world)
    assert world.journal.take() == ["write dns launch", "write dns drop_in", "daemon-reload"]


async def test_a_reload_that_was_never_done_is_made_up_for(world: World) -> None:
    configure(world, "dns")
    world.units.status["dns"] = UnitStatus(needs_reload=True)
    await apply(world, restart=False)
    assert world.journal.take()[0] == "daemon-reload"


# --- coming and going


async def test_an_appliance_that_was_removed_is_stopped_and_forgotten(
    world: World, events: EventLog
) -> None:
    await world.run("dns", "web")
    events.clear()
    world.files.write("appliances/dns.yaml", "")
    outcome = await apply(world)
    assert world.journal.take() == [
        "stop dns",
        "write dns launch",
        "write dns drop_in",
        "unlink ap-dns",
        "daemon-reload",
    ]
    assert outcome.changes == (
        "dns: stop",
        "dns: remove its launch plan",
        "dns: remove its unit settings",
        "remove ap-dns",
    )
    assert world.units.watched == {"web"}
    assert world.files.known() == {"web"}
    assert "dns" in world.files.volumes
    assert await apply(world) == NOTHING


async def test_one_that_was_removed_while_the_agent_was_down(world: World) -> None:
    await world.run("dns", "web")
    world.files.write("appliances/dns.yaml", "")
    world.boot()
    await apply(world, restart=False)
    assert "stop dns" in world.journal.take()
    assert world.files.known() == {"web"}


async def test_an_appliance_that_comes_back_has_its_data(world: World) -> None:
    await world.run("dns")
    text = world.files.content["/etc/appliance/appliances/dns.yaml"].decode()
    world.files.write("appliances/dns.yaml", "")
    await apply(world)
    world.files.write("appliances/dns.yaml", text)
    world.journal.take()
    await apply(world)
    assert not {"volume dns", "user dns", "state dns"} & set(world.journal.take())


# --- failures


async def test_a_restart_that_fails_stops_no_other(world: World, events: EventLog) -> None:
    await world.run("a", "b", "c")
    events.clear()
    world.files.runtime_digest = "newer"
    world.journal.failing["restart b"] = UnitError("appliance@b.service: failed")
    outcome = await apply(world)
    assert outcome.changes[-2:] == ("a: restart", "c: restart")
    assert outcome.problems == ("b: restart failed: appliance@b.service: failed",)
    assert world.units.status["c"].active_state == "active"
    assert (Event.FAILED, "b") in [(event, name) for event, name, _ in events.entries]


async def test_so_does_a_stop(world: World) -> None:
    await world.run("dns", "web")
    world.journal.failing["stop dns"] = UnitError("appliance@dns.service: timeout")
    world.files.write("appliances/dns.yaml", "")
    configure(world, "web", memory="64M")
    outcome = await apply(world)
    assert outcome.problems == ("dns: stop failed: appliance@dns.service: timeout",)
    assert world.journal.take()[-1] == "start web"
    assert world.files.known() == {"web"}


async def test_systemd_reads_what_was_written_before_a_step_failed(world: World) -> None:
    configure(world, "dns")
    configure(world, "web")
    world.journal.failing["write web launch"] = HostError("No space left.")
    outcome = await apply(world)
    assert outcome.problems == ("web: write its launch plan failed: No space left.",)
    journal = world.journal.take()
    assert "daemon-reload" in journal
    assert "write web drop_in" not in journal


async def test_a_failing_unit_is_not_restarted_by_every_run(world: World) -> None:
    await world.run("dns")
    world.journal.failing["restart dns"] = UnitError("failed")
    configure(world, "dns", memory="64M")
    await apply(world)
    assert await apply(world) == NOTHING


async def test_runs_wait_for_each_other(world: World) -> None:
    configure(world, "dns")
    first, second = await asyncio.gather(apply(world), apply(world))
    assert (bool(first.changes), second) == (True, NOTHING)


# --- links


async def test_links_that_are_as_they_should_be_are_left_alone(world: World, events: EventLog) -> None:
    await world.run("dns")
    events.clear()
    await world.reconciler.restore_links()
    assert (world.journal.take(), events.entries) == ([], [])


async def test_only_guests_that_lost_their_tap_start_anew(world: World, events: EventLog) -> None:
    await world.run("dns", "web")
    events.clear()
    del world.links.links["ap-web"]
    await world.reconciler.restore_links()
    assert world.journal.take() == ["link ap-web", "restart web"]
    assert events.entries[0] == (Event.RESTORED, "", "Network restored: web: create ap-web.")


async def test_a_bridge_comes_back_without_any_restart(world: World) -> None:
    await world.run("dns")
    del world.links.links["br-default"]
    await world.reconciler.restore_links()
    assert world.journal.take() == ["link br-default"]


async def test_a_guest_that_does_not_run_is_not_started_by_its_tap(world: World) -> None:
    await world.run("dns")
    await world.units.stop("dns")
    world.journal.take()
    del world.links.links["ap-dns"]
    await world.reconciler.restore_links()
    assert world.journal.take() == ["link ap-dns"]


async def test_no_link_is_made_before_the_first_run(world: World) -> None:
    await world.reconciler.restore_links()
    assert world.journal.take() == []


# --- what else is read


async def test_time_zones(world: World) -> None:
    world.files.zones["Etc/UTC"] = b"TZifUTC"
    configure(world, "dns", timezone="Etc/UTC")
    configure(world, "web")
    await apply(world)
    plans = world.reconciler.plan.appliances
    assert b"TZifUTC" in plans["dns"].guest_archive
    assert b"TZif" in plans["web"].guest_archive


async def test_cores_that_the_host_does_not_have_are_refused(world: World) -> None:
    world.files.write("agent.yaml", "cores: 1-2")
    with pytest.raises(
        ConfigurationError, match=r"agent\.yaml: cores: this host has no core 2; it has 0, 1"
    ):
        await apply(world)
    assert world.journal.take() == []


async def test_a_host_time_zone_that_is_not_installed_is_nobody_s_problem(events: EventLog) -> None:
    del events
    world = World(sample_facts(time_zone="Mars/Olympus"))
    configure(world, "dns")
    assert (await apply(world)).problems == ()
    world.close()
