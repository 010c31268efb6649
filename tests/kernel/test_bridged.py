"""Appliances that are part of a network there is already, by real packets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.links import ip
from tests.kernel.rack import Machine, Rack, ethernet, is_kept_out, reach, reaches, tcp_server, udp

MARK = b"the mark of this test"
IPV4 = 0x0800
ROUTER, STATION = "198.51.100.1", "198.51.100.9"
BY_UPLINK = {
    "lan": "kind: bridged\nuplink: eth1\nsubnets: 198.51.100.0/24\npool: 198.51.100.128/26\n"
    f"gateway: {ROUTER}\n"
}
BY_BRIDGE = {"lan": BY_UPLINK["lan"].replace("uplink: eth1", "bridge: br0")}


@pytest.fixture
def rack() -> Iterator[Rack]:
    with contextlib.ExitStack() as stack:
        yield Rack(stack)


@pytest.fixture
def station(rack: Rack) -> Machine:
    """Another machine of that network, behind eth1."""
    machine = rack.machine("station", "eth1")
    for address in (STATION, ROUTER):
        machine.run("address", "add", f"{address}/24", "dev", "eth0")
    return machine


def test_an_appliance_is_a_machine_like_others(rack: Rack, station: Machine) -> None:
    rack.set_up({"web": {"network": "lan"}}, BY_UPLINK)
    web = rack.machines["web"]
    assert web.address() == "198.51.100.128"
    with tcp_server(web, 80) as server:
        assert reach(station, web.address(), 80, server) == STATION
    with tcp_server(station, 80) as server:
        assert reach(web, STATION, 80, server) == web.address()


def test_it_cannot_be_another(rack: Rack, station: Machine) -> None:
    rack.set_up({"bad": {"network": "lan"}}, BY_UPLINK)
    bad = rack.machines["bad"]
    assert bad.port
    for source, passes in ((bad.address(), True), (ROUTER, False), ("198.51.100.77", False)):
        content = udp(source, STATION, 5000, 5001, MARK)
        with station.listening() as raw:
            raw.settimeout(5 if passes else 0.25)
            bad.send(ethernet("ff:ff:ff:ff:ff:ff", bad.port.mac, IPV4, content))
            heard = False
            with contextlib.suppress(TimeoutError):
                while not heard:
                    heard = MARK in raw.recv(2048)
        assert heard == passes, source


def test_appliances_reach_each_other_only_as_peers(rack: Rack, station: Machine) -> None:
    appliances: dict[str, dict[str, Any]] = {
        "web": {"network": "lan", "peers": ["db"]},
        "db": {"network": "lan"},
        "dns": {"network": "lan"},
    }
    rack.set_up(appliances, BY_UPLINK)
    web, db, dns = (rack.machines[name] for name in ("web", "db", "dns"))
    with tcp_server(web, 80) as server:
        assert reaches(db, web.address(), 80, server)
        assert is_kept_out(dns, web.address(), 80, server)
        assert reaches(station, web.address(), 80, server)


def test_on_a_bridge_of_the_host_they_do_not_reach_the_host(rack: Rack, station: Machine) -> None:
    for arguments in (
        ("link", "add", "br0", "type", "bridge"),
        ("link", "set", "br0", "up"),
        ("link", "set", "eth1", "master", "br0"),
        ("address", "add", "198.51.100.2/24", "dev", "br0"),
    ):
        ip(*arguments)
    granted = {"network": "lan", "grants": ["host:22"]}
    rack.set_up({"web": {"network": "lan"}, "ssh": granted}, BY_BRIDGE)
    with tcp_server(None, 22) as server:
        assert is_kept_out(rack.machines["web"], "198.51.100.2", 22, server)
        assert reaches(rack.machines["ssh"], "198.51.100.2", 22, server)
        assert reaches(station, "198.51.100.2", 22, server), "not our business"
    with tcp_server(rack.machines["web"], 80) as server:
        assert reaches(None, rack.machines["web"].address(), 80, server)
        assert reaches(station, rack.machines["web"].address(), 80, server)
