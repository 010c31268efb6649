"""The agent's verbs: what it logs, and what it survives."""

from __future__ import annotations

import logging

import pytest

from agent.core.agent import Agent
from agent.model.errors import ConfigurationError, HostError
from agent.model.health import Health
from agent.util.journal import Event
from tests.fakes.events import EventLog
from tests.fakes.world import World


@pytest.fixture
def applied() -> list[str]:
    return []


@pytest.fixture
def agent(world: World, applied: list[str]) -> Agent:
    return world.agent(lambda: applied.append("applied"))


async def test_an_applied_configuration_is_an_event(
    world: World, agent: Agent, events: EventLog, applied: list[str]
) -> None:
    world.files.write("appliances/dns.yaml", "image: dns-nsd")
    outcome, _ = await agent.apply()
    assert events.entries == [(Event.APPLIED, "", f"Configuration applied, {len(outcome.changes)} changes.")]
    await agent.apply()
    assert len(events.entries) == 1
    assert (agent.appliances(), applied) == (["dns"], ["applied", "applied"])


async def test_a_refused_configuration_is_an_event_with_every_finding(
    world: World, agent: Agent, events: EventLog, applied: list[str]
) -> None:
    world.files.write("appliances/dns.yaml", "memory: 1")
    with pytest.raises(ConfigurationError):
        await agent.apply()
    [(event, appliance, message)] = events.entries
    assert (event, appliance) == (Event.REFUSED, "")
    assert message.count("dns.yaml:1:") == 2
    assert applied == ["applied"]


async def test_an_appliance_that_cannot_start_has_it_in_its_own_log(
    world: World, agent: Agent, events: EventLog
) -> None:
    world.files.write("appliances/dns.yaml", "image: dns-bind")
    await agent.apply()
    assert events.entries[-1] == (
        Event.REFUSED,
        "dns",
        "Appliance dns: There is no image dns-bind.",
    )


async def test_a_dry_run_is_no_event(
    world: World, agent: Agent, events: EventLog, applied: list[str]
) -> None:
    world.files.write("appliances/dns.yaml", "image: dns-nsd")
    assert (await agent.check()).changes
    assert (events.entries, applied, agent.appliances()) == ([], [], [])


async def test_starting_survives_what_is_wrong(
    world: World, agent: Agent, caplog: pytest.LogCaptureFixture, applied: list[str]
) -> None:
    world.files.write("appliances/dns.yaml", "image: [")
    await agent.start()
    assert set(applied) == {"applied"}
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
    assert "The configuration could not be applied: " in caplog.text


async def test_what_was_last_valid_counts_until_the_configuration_is_mended(
    world: World, agent: Agent, events: EventLog
) -> None:
    await world.run("dns")
    world.boot()
    restarted = world.agent()
    world.files.write("appliances/dns.yaml", "image: [")
    world.files.write("appliances/web.yaml", "image: dns-nsd")
    events.clear()
    await restarted.start()
    assert restarted.appliances() == ["dns"]
    assert world.journal.take() == []
    assert events.events() == [Event.REFUSED]
    del agent


async def test_so_does_restoring_links(world: World, agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    await world.run("dns")
    world.links.links.clear()
    world.journal.failing["link br-default"] = HostError("Interface br-default exists.")
    await agent.restore_links()
    assert "Interface br-default exists." in caplog.text
    world.journal.failing.clear()
    await agent.restore_links()
    assert set(world.links.links) == {"br-default", "ap-dns"}


async def test_a_view(world: World, agent: Agent) -> None:
    await world.run("dns")
    view = agent.view("dns")
    assert (view.health.health, view.status.active_state, view.restart_pending) == (
        Health.HEALTHY,
        "active",
        False,
    )
    assert view.plan is world.reconciler.plan.appliances["dns"]
