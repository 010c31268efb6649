"""What is shown of networks, and the walk that finds what is broken, on a host in memory."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from agent.core.networks import Networks
from agent.model.diagnosis import Hop, HopReport, Verdict
from agent.model.errors import ApplianceError, HostError, Problem
from agent.model.link import FilterChain, Route
from agent.model.listener import Listener
from agent.model.traffic import Protocol
from tests.fakes.sight import networks_of
from tests.fakes.world import World
from tests.unit.core.test_reconcile import configure

NAT = "subnets: [10.88.0.0/24]\n"
GUEST, ROUTER = ipaddress.ip_address("10.88.0.2"), ipaddress.ip_address("192.0.2.254")
DROPPING = FilterChain("ip", "filter", "FORWARD", "forward", "drop")


async def set_up(world: World, web: str = "") -> Networks:
    """`dns` and `web` run on a nat network; the host has a router that answers."""
    world.files.write("networks/default.yaml", NAT)
    configure(world, "dns")
    world.files.write("appliances/web.yaml", f"image: dns-nsd\n{web}")
    await world.reconciler.apply(restart=True)
    for name in ("dns", "web"):
        await world.units.start(name)
    world.sight.router = ROUTER
    return networks_of(world)


def broken(reports: list[HopReport]) -> dict[str, str]:
    return {report.hop: report.verdict for report in reports if report.verdict != "ok"}


# --- what is shown


async def test_networks_and_leases(world: World) -> None:
    networks = await set_up(world)
    [network] = networks.all()
    assert (network.name, network.kind, network.appliances) == ("default", "nat", ("dns", "web"))
    assert [lease.appliance for lease in networks.leases("")] == ["dns", "web"]
    assert networks.leases("default") == networks.leases("")
    with pytest.raises(ApplianceError, match="There is no network “lan”") as caught:
        networks.leases("lan")
    assert caught.value.problem is Problem.NOT_FOUND


async def test_ports_that_somebody_else_has(world: World) -> None:
    world.links.listening = [Listener(Protocol.TCP, None, 0, 443, "nginx.service")]
    networks = await set_up(world, "publish: [8080:80, 443]\n")
    shown, held = await networks.publications()
    assert (shown.publication, shown.targets, shown.reason) == ("8080:80/tcp", ("10.88.0.3:80",), "")
    assert (held.publication, held.reason) == ("443/tcp", "nginx.service uses it on this host")


async def test_counters(world: World) -> None:
    networks = await set_up(world)
    dns, web = await networks.counters()
    assert (dns.appliance, web.appliance) == ("dns", "web")
    assert (dns.received_packets, dns.sent_packets, dns.refused_packets) == (20, 10, 1)
    world.sight.failure = HostError("nft failed")
    with pytest.raises(HostError, match="nft failed"):
        await networks.counters()


# --- the walk


async def test_a_sound_way(world: World) -> None:
    networks = await set_up(world)
    reports = await networks.diagnose("dns")
    assert [report.hop for report in reports] == list(Hop)
    assert broken(reports) == {}
    assert world.sight.asked == [GUEST, ROUTER]


async def test_echoes_are_awaited_in_threads_of_their_own(world: World) -> None:
    networks = await set_up(world)
    world.sight.threads.clear()
    await networks.diagnose("dns")
    assert world.sight.threads == {"host", "long"}
    world.sight.threads.clear()
    await asyncio.gather(networks.counters(), world.reconciler.run_long(lambda: None))
    assert world.sight.threads == {"host"}


async def test_every_network_of_an_appliance_is_walked(world: World) -> None:
    world.files.write("networks/back.yaml", "kind: isolated\nsubnets: [10.89.0.0/24]\n")
    networks = await set_up(world, "network: [default, back]\n")
    reports = await networks.diagnose("web")
    assert [report.network for report in reports] == ["default"] * 7 + ["back"] * 7
    assert broken(reports) == {}


async def test_an_appliance_on_no_network(world: World) -> None:
    networks = await set_up(world, "network: []\n")
    assert await networks.diagnose("web") == []


async def test_a_name_that_nobody_has(world: World) -> None:
    networks = await set_up(world)
    with pytest.raises(ApplianceError) as caught:
        await networks.diagnose("ntp")
    assert caught.value.problem is Problem.NOT_FOUND


async def test_a_bridge_that_is_down(world: World) -> None:
    networks = await set_up(world)
    world.sight.changes["br-default"] = {"up": False}
    world.sight.answers[GUEST] = Verdict.FAILED
    assert broken(await networks.diagnose("dns")) == {
        "bridge": "failed",
        "guest": "unknown",
        "gateway": "unknown",
        "outside": "unknown",
    }


async def test_a_bridge_that_is_gone(world: World) -> None:
    networks = await set_up(world)
    del world.links.links["br-default"]
    found = broken(await networks.diagnose("dns"))
    assert (found["bridge"], found["tap"], found["outside"]) == ("failed", "failed", "unknown")


async def test_a_tap_that_is_gone(world: World) -> None:
    networks = await set_up(world)
    del world.links.links["ap-dns"]
    world.sight.answers[GUEST] = Verdict.FAILED
    assert broken(await networks.diagnose("dns")) == {
        "tap": "failed",
        "guest": "unknown",
        "gateway": "unknown",
    }


async def test_a_guest_that_is_silent(world: World) -> None:
    networks = await set_up(world)
    world.sight.answers[GUEST] = Verdict.FAILED
    assert broken(await networks.diagnose("dns")) == {"guest": "failed", "gateway": "unknown"}


async def test_a_guest_that_is_stopped(world: World) -> None:
    networks = await set_up(world)
    await world.units.stop("dns")
    world.sight.changes["ap-dns"] = {"carrier": False}
    found = {report.hop: report for report in await networks.diagnose("dns")}
    assert (found["tap"].verdict, found["guest"].verdict) == ("failed", "failed")
    assert found["tap"].remedy == found["guest"].remedy == "`systemctl start appliance@dns.service`"
    assert world.sight.asked == [ROUTER]


async def test_rules_that_are_not_in_the_kernel(world: World) -> None:
    networks = await set_up(world)
    world.sight.lost_tables.add("inet")
    [report] = [one for one in await networks.diagnose("dns") if one.verdict != "ok"]
    assert (report.hop, report.reason) == ("firewall", "table inet appliance is not in the kernel")


async def test_a_foreign_chain_is_asked_for_rules_about_the_network(world: World) -> None:
    networks = await set_up(world)
    world.sight.foreign_chains.append(DROPPING)
    assert broken(await networks.diagnose("dns")) == {"firewall": "failed"}
    match = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "br-default"}}
    world.sight.tables = {("ip", "filter"): [{"rule": {"expr": [match, {"accept": None}]}}]}
    assert broken(await networks.diagnose("dns")) == {"firewall": "unknown"}
    world.sight.tables = None
    assert broken(await networks.diagnose("dns")) == {"firewall": "unknown"}


async def test_rules_that_cannot_be_read_keep_nothing_else_from_being_looked_at(world: World) -> None:
    networks = await set_up(world)
    world.sight.failure = HostError("nft is not installed.")
    world.sight.answers[GUEST] = Verdict.FAILED
    reports = {report.hop: report for report in await networks.diagnose("dns")}
    assert reports["firewall"].verdict == "unknown"
    assert reports["firewall"].reason == "they could not be read: nft is not installed."
    assert reports["guest"].verdict == "failed"


async def test_a_route_that_collides(world: World) -> None:
    networks = await set_up(world)
    world.sight.foreign.append(Route(ipaddress.ip_network("10.88.0.0/25"), "tun0"))
    assert broken(await networks.diagnose("dns")) == {"host": "failed"}


async def test_a_host_that_does_not_forward(world: World) -> None:
    networks = await set_up(world)
    world.sight.forwarding = {6}
    assert broken(await networks.diagnose("dns")) == {"host": "failed"}


async def test_a_host_without_a_way_out(world: World) -> None:
    networks = await set_up(world)
    world.sight.router = None
    assert broken(await networks.diagnose("dns")) == {"outside": "failed"}


async def test_a_published_port_that_is_withheld_is_named_where_it_belongs(world: World) -> None:
    world.links.listening = [Listener(Protocol.TCP, None, 0, 443, "nginx.service")]
    world.files.write("networks/back.yaml", "kind: isolated\nsubnets: [10.89.0.0/24]\n")
    networks = await set_up(world, "publish: 443\nnetwork: [back, default]\n")
    [report] = [one for one in await networks.diagnose("web") if one.verdict != "ok"]
    assert (report.hop, report.network) == ("outside", "default")
    assert report.reason == "port 443/tcp is not published: nginx.service uses it on this host"
    assert broken(await networks.diagnose("dns")) == {}


async def test_one_diagnosis_at_a_time(world: World) -> None:
    networks = await set_up(world)
    world.sight.gate.clear()
    under_way = [asyncio.ensure_future(networks.diagnose(name)) for name in ("dns", "web")]
    for _ in range(10):
        await world.reconciler.run(lambda: None)
    assert world.sight.looks == 1
    world.sight.gate.set()
    assert [broken(reports) for reports in await asyncio.gather(*under_way)] == [{}, {}]
    assert world.sight.looks == 2
