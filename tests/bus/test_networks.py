"""Networks over the bus: the methods as callers of org.appliance1 find them, and `appliancectl network` as a
program."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from agent.dbus.objects import ROOT
from agent.model.errors import Problem
from agent.model.listener import Listener
from agent.model.traffic import Protocol
from tests.bus.test_client import Run, appliancectl
from tests.bus.test_objects import MANAGER, NAME, Service, service
from tests.fakes.bus import busctl

pytestmark = pytest.mark.usefixtures("events")

__all__ = ["appliancectl"]

NAT = "subnets: [10.88.0.0/24, 'fd00:88::/64']\negress: ['*:53/udp']\n"
LAN = "kind: bridged\nbridge: br0\nvlan: 20\nsubnets: [192.0.2.0/24]\npool: 192.0.2.64/26\n"


@asynccontextmanager
async def serving(address: str) -> AsyncIterator[Service]:
    """`dns` and `web` on a nat network, of whose ports one is taken; and another network."""
    async with service(address) as found:
        world = found.world
        world.files.write("networks/default.yaml", NAT)
        world.files.write("networks/lan.yaml", LAN)
        world.files.write(
            "appliances/dns.yaml", "image: dns-nsd\nnetwork: {name: default, address: 10.88.0.53}\n"
        )
        world.files.write("appliances/web.yaml", "image: dns-nsd\npublish: ['8080:80', '443']\n")
        world.links.listening = [Listener(Protocol.TCP, None, 0, 443, "nginx.service")]
        await world.reconciler.apply(restart=True)
        for name in ("dns", "web"):
            await world.units.start(name)
        yield found


async def test_networks(address: str) -> None:
    async with serving(address) as found:
        [[default, lan]] = await found.call(ROOT, f"{MANAGER}.GetNetworks")
    assert default == [
        "default",
        "nat",
        "br-default",
        "",
        0,
        ["10.88.0.0/24", "fd00:88::/64"],
        False,
        ["10.88.0.1", "fd00:88::1"],
        ["10.88.0.1", "fd00:88::1"],
        1500,
        [],
        [],
        False,
        True,
        ["*:53/udp"],
        ["dns", "web"],
    ]
    assert (lan[:5], lan[-1]) == (["lan", "bridged", "br0", "", 20], [])


async def test_leases(address: str) -> None:
    async with serving(address) as found:
        [leases] = await found.call(ROOT, f"{MANAGER}.GetLeases", "", signature="s")
        assert await found.call(ROOT, f"{MANAGER}.GetLeases", "default", signature="s") == [leases]
        assert await found.call(ROOT, f"{MANAGER}.GetLeases", "lan", signature="s") == [[]]
        assert await found.error(ROOT, MANAGER, "GetLeases", "s", "none") == f"{NAME}.Error.NotFound"
    dns, web = leases
    assert (dns[:3], dns[4:6]) == (["default", "dns", "ap-dns"], [0, True])
    assert dns[6] == [["10.88.0.53", True], ["fd00:88::2", False]]
    assert web[6] == [["10.88.0.2", False], ["fd00:88::3", False]]


async def test_publications_and_counters(address: str) -> None:
    async with serving(address) as found:
        [publications] = await found.call(ROOT, f"{MANAGER}.GetPublications")
        [counters] = await found.call(ROOT, f"{MANAGER}.GetNetworkCounters")
    targets = ["10.88.0.2:80", "[fd00:88::3]:80"]
    assert publications[0] == ["web", "8080:80/tcp", "default", targets, ""]
    assert publications[1][1:3] == ["443/tcp", "default"]
    assert publications[1][4] == "nginx.service uses it on this host"
    assert counters[0] == ["default", "dns", "ap-dns", 20, 3000, 10, 1000, 1, 60]


async def test_a_diagnosis(address: str) -> None:
    async with serving(address) as found:
        found.world.sight.changes["br-default"] = {"up": False}
        [hops] = await found.call(ROOT, f"{MANAGER}.DiagnoseNetwork", "dns", signature="s")
        assert await found.error(ROOT, MANAGER, "DiagnoseNetwork", "s", "ntp") == f"{NAME}.Error.NotFound"
        answer = await busctl(address, "call", NAME, ROOT, MANAGER, "DiagnoseNetwork", "s", "dns")
    assert answer == {"type": "a(ssssss)", "data": [hops]}
    assert [hop[0] for hop in hops] == ["host", "firewall", "bridge", "tap", "guest", "gateway", "outside"]
    assert hops[2][1:5] == ["default", "failed", "br-default with 10.88.0.1/24, fd00:88::1/64", "it is down"]


async def test_looking_from_the_command_line(address: str, appliancectl: Run) -> None:
    async with serving(address):
        status, out, error = await appliancectl("network", "--json=short")
        assert (status, error) == (0, "")
        [default, lan] = json.loads(out)
        assert (default["limited"], default["egress"], default["appliances"]) == (
            True,
            ["*:53/udp"],
            ["dns", "web"],
        )
        assert (lan["vlan"], lan["automatic"], lan["host_addresses"]) == (20, False, [])
        [dns, _] = json.loads((await appliancectl("network", "leases", "--json"))[1])
        assert dns["addresses"] == [
            {"address": "10.88.0.53", "fixed": True},
            {"address": "fd00:88::2", "fixed": False},
        ]
        shown = json.loads((await appliancectl("network", "show", "default", "--json"))[1])
        assert [one["appliance"] for one in shown["appliances"]] == ["dns", "web"]
        assert shown["appliances"][1]["published"][1]["reason"] == "nginx.service uses it on this host"
        assert shown["appliances"][0]["counters"]["refused_bytes"] == 60
        status, out, _ = await appliancectl("network", "picture")
        assert (status, "8080:80/tcp" in out, out.splitlines()[0]) == (0, True, "this host")
        assert (await appliancectl("network", "leases", "lan"))[1].endswith("\n0 leases.\n")
        assert (await appliancectl("network", "leases", "none"))[0] == Problem.NOT_FOUND.exit_status


async def test_a_diagnosis_from_the_command_line(address: str, appliancectl: Run) -> None:
    async with serving(address) as found:
        found.world.sight.router = ip_address("192.0.2.254")
        status, out, _ = await appliancectl("network", "diagnose", "dns")
        assert (status, out.splitlines()[0].split()) == (0, ["HOP", "NETWORK", "VERDICT", "LOOKED", "AT"])
        found.world.sight.changes["br-default"] = {"up": False}
        status, out, _ = await appliancectl("network", "diagnose", "dns")
        assert (status, "\nbridge: it is down.\n" in out) == (1, True)
        status, _, error = await appliancectl("network", "diagnose", "ntp")
        assert (status, "There is no appliance “ntp”." in error) == (Problem.NOT_FOUND.exit_status, True)
