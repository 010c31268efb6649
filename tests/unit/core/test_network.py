"""The reconciler on a host in memory: firewall, published ports and chosen subnets."""

from __future__ import annotations

import logging
from ipaddress import ip_network

import pytest

from agent.core.reconcile import Outcome
from agent.model.change import Change
from agent.model.errors import ConfigurationError, HostError
from agent.model.listener import Listener
from agent.model.traffic import Protocol
from agent.plan.ruleset import Ruleset
from agent.util.journal import Event
from tests.fakes.events import EventLog
from tests.fakes.world import World
from tests.unit.core.test_reconcile import NOTHING, apply, configure

NAT = "kind: nat\nsubnets: [10.88.0.0/24]\n"
SSH = Listener(Protocol.TCP, None, 0, 22, "ssh.service")
REFUSED = HostError("nft failed with exit status 1: Operation not supported.")


@pytest.fixture
def nat(world: World) -> World:
    """A host whose network leads out."""
    world.files.write("networks/default.yaml", NAT)
    return world


def published(world: World) -> list[int]:
    """Ports of the host that lead to an appliance, as the loaded rules have it."""
    rules = [
        rule for table in world.firewall.loaded for chain in table.chains.values() for rule in chain.rules
    ]
    return [
        statement["match"]["right"]
        for rule in rules
        if any("dnat" in statement for statement in rule)
        for statement in rule
        if statement.get("match", {}).get("left", {}).get("payload", {}).get("field") == "dport"
    ]


# --- the firewall comes first


async def test_rules_are_there_before_any_tap_is(world: World) -> None:
    world.firewall.tells = True
    configure(world, "dns")
    assert (await apply(world)).changes[:4] == (
        "dns: create its system user",
        "load the firewall",
        "create br-default",
        "dns: create ap-dns",
    )


async def test_without_rules_nothing_is_connected_or_started(world: World) -> None:
    world.firewall.tells, world.firewall.failure = True, REFUSED
    configure(world, "dns")
    outcome = await apply(world)
    assert outcome == Outcome(("dns: create its system user",), (f"load the firewall failed: {REFUSED}",))
    assert world.journal.take() == ["user dns"]
    assert (world.links.links, world.files.owned) == ({}, {})


async def test_that_is_no_appliance_s_fault(world: World, events: EventLog) -> None:
    world.firewall.tells, world.firewall.failure = True, REFUSED
    configure(world, "dns")
    await world.agent().apply()
    assert events.entries[-1] == (
        Event.REFUSED,
        "",
        f"Not everything was applied: load the firewall failed: {REFUSED}",
    )


async def test_a_running_guest_is_left_as_it_is_where_rules_cannot_be_loaded(world: World) -> None:
    await world.run("dns", "web")
    world.firewall.tells, world.firewall.failure = True, REFUSED
    configure(world, "new")
    del world.links.links["ap-web"]
    world.files.runtime_digest = "newer"
    outcome = await apply(world)
    assert outcome.problems == (f"load the firewall failed: {REFUSED}",)
    assert world.journal.take() == ["user new"]


async def test_no_volume_is_grown_either(world: World) -> None:
    await world.run("dns")
    await world.units.stop("dns")
    world.firewall.tells, world.firewall.failure = True, REFUSED
    configure(world, "dns", data="512M")
    configure(world, "new")
    world.journal.take()
    await apply(world)
    assert "grow dns" not in world.journal.take()


async def test_the_next_run_makes_up_for_it(world: World) -> None:
    world.firewall.tells, world.firewall.failure = True, REFUSED
    configure(world, "dns")
    await apply(world)
    world.firewall.failure = None
    outcome = await apply(world)
    assert outcome.problems == ()
    assert outcome.changes[0] == "load the firewall"
    assert set(world.links.links) == {"br-default", "ap-dns"}
    assert await apply(world) == NOTHING


async def test_rules_that_are_lost_come_back_before_links_do(world: World, events: EventLog) -> None:
    await world.run("dns")
    events.clear()
    wanted, world.firewall.loaded, world.firewall.tells = world.firewall.loaded, (), True
    del world.links.links["br-default"]
    assert await world.reconciler.restore_links()
    assert world.firewall.loaded == wanted
    [(_, _, message)] = events.entries
    assert message == "Network restored: load the firewall, create br-default."


async def test_and_links_wait_for_rules_that_do_not(
    world: World, events: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    await world.run("dns")
    events.clear()
    world.firewall.loaded, world.firewall.tells, world.firewall.failure = (), True, REFUSED
    del world.links.links["ap-dns"]
    for _ in range(2):
        assert not await world.reconciler.restore_links(), "it is to be tried again"
    assert (world.journal.take(), events.entries) == ([], [])
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"load the firewall failed: {REFUSED}"]
    world.firewall.failure = None
    assert await world.reconciler.restore_links()
    assert "ap-dns" in world.links.links


# --- published ports


async def test_a_port_that_the_host_uses_is_not_published_and_the_rest_is_applied(nat: World) -> None:
    nat.links.listening = [SSH]
    configure(nat, "web", publish=["22", "8080:80"])
    outcome = await apply(nat)
    assert outcome.problems == ("web: port 22/tcp is not published: ssh.service uses it on this host",)
    assert published(nat) == [8080]
    assert "web: write its launch plan" in outcome.changes


async def test_who_uses_it_need_not_have_a_unit(nat: World) -> None:
    nat.links.listening = [Listener(Protocol.UDP, None, 4, 53, "")]
    configure(nat, "dns", publish="53/udp")
    [problem] = (await apply(nat)).problems
    assert problem == "dns: port 53/udp is not published: something else uses it on this host"


async def test_a_port_that_is_free_again_is_published_by_the_next_run(nat: World) -> None:
    nat.links.listening = [SSH]
    configure(nat, "web", publish="22")
    await apply(nat)
    await nat.reconciler.restore_links()
    assert published(nat) == []
    nat.links.listening = []
    assert (await apply(nat)).problems == ()
    assert published(nat) == [22]


async def test_a_dry_run_says_the_same_and_publishes_nothing(nat: World) -> None:
    await nat.run("web")
    nat.firewall.tells = True
    nat.links.listening = [SSH]
    configure(nat, "web", publish=["22", "80"])
    said = await nat.reconciler.check()
    assert said.problems == ("web: port 22/tcp is not published: ssh.service uses it on this host",)
    assert published(nat) == []


async def test_a_dry_run_forgets_no_port_that_the_host_uses(nat: World) -> None:
    nat.links.listening = [SSH]
    configure(nat, "web", publish="22")
    await apply(nat)
    configure(nat, "web")
    await nat.reconciler.check()
    await nat.reconciler.restore_links()
    assert published(nat) == []


@pytest.mark.parametrize("also", [{}, {"memory": "64M"}])
async def test_what_is_published_anew_is_reached_at_once(nat: World, also: dict[str, str]) -> None:
    """Also where the guest has to prove itself with the rest of its new configuration."""
    await nat.run("web")
    configure(nat, "web", publish="8080:80", **also)
    await apply(nat)
    assert published(nat) == [8080]
    configure(nat, "web", **also)
    await apply(nat)
    assert published(nat) == []


async def test_a_configuration_on_trial_takes_no_port_of_the_host_either(
    nat: World, caplog: pytest.LogCaptureFixture
) -> None:
    await nat.run("web")
    nat.links.listening = [SSH]
    configure(nat, "web", publish=["22", "8080:80"], memory="64M")
    await apply(nat)
    assert published(nat) == [8080]
    assert "web: port 22/tcp is not published: ssh.service uses it on this host" in caplog.messages


async def test_ports_of_a_configuration_that_is_taken_back_are_published_no_more(
    nat: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nat.run("web")
    configure(nat, "web", publish="8080:80", memory="64M")
    nat.journal.failing["write web launch"] = HostError("No space left.")
    plan, seen = nat.firewall.plan, list[list[int]]()

    def watched(wanted: Ruleset) -> list[Change]:
        changes = plan(wanted)
        seen.append(published(nat))
        return changes

    monkeypatch.setattr(nat.firewall, "plan", watched)
    await apply(nat)
    assert seen == [[], [8080], []]


# --- subnets


async def test_a_network_without_subnets_gets_some_that_stay(world: World) -> None:
    world.files.write("networks/default.yaml", "kind: nat\n")
    world.links.foreign = [ip_network("10.88.0.0/24")]
    configure(world, "dns")
    await apply(world)
    [network] = world.reconciler.plan.networks
    assert network.subnets[0] == ip_network("10.88.1.0/24")
    addresses = world.reconciler.plan.appliances["dns"].addresses
    world.links.foreign = [ip_network("10.88.0.0/16")]
    world.boot()
    await apply(world, restart=False)
    assert world.reconciler.plan.networks == [network]
    assert world.reconciler.plan.appliances["dns"].addresses == addresses
    configure(world, "web", network="{name: default, address: 10.88.1.80}")
    assert (await apply(world)).problems == ()


async def test_an_address_outside_of_them_is_refused(world: World) -> None:
    world.files.write("networks/default.yaml", "kind: nat\n")
    world.links.foreign = [ip_network("10.0.0.0/8")]
    configure(world, "dns", network="{name: default, address: 10.88.0.53}")
    with pytest.raises(ConfigurationError, match=r"10\.88\.0\.53 is outside of network “default” \(172\.24"):
        await apply(world)
    assert world.journal.take() == []


async def test_a_host_with_routes_to_everything_is_told_so(world: World) -> None:
    world.files.write("networks/default.yaml", "kind: nat\n")
    world.links.foreign = [ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    configure(world, "dns")
    with pytest.raises(Exception, match="every private subnet collides"):
        await apply(world)
    assert world.journal.take() == []
