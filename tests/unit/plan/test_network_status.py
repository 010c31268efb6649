"""Networks, leases and published ports as they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from agent.config.traffic import parse_destination, parse_publication
from agent.config.tree import read_tree
from agent.model.assignments import Assignments
from agent.model.link import Count, Link
from agent.model.network_status import LeasedAddress
from agent.plan.host import HostPlan, plan_host
from agent.plan.network_status import counters_of, leases_of, networks_of, published_of
from tests.fakes.samples import sample_facts, sample_files, sample_inputs

NAT = "subnets: [10.88.0.0/24, 'fd00:88::/64']\n"
NONE = "subnets: [10.89.0.0/24]\negress: []\n"
LINK = Link(
    index=7,
    name="ap-dns",
    kind="tun",
    up=True,
    carrier=True,
    mtu=1500,
    mac="02:00:00:00:00:01",
    master=3,
    ours=True,
    isolated=True,
    hairpin=False,
    qdisc="",
    filters_vlans=False,
    received=Count(1, 100),
    sent=Count(2, 200),
)


def planned(networks: Mapping[str, str], appliances: Mapping[str, Mapping[str, Any]]) -> HostPlan:
    files = sample_files(
        {name: {"image": "dns-nsd", **settings} for name, settings in appliances.items()}, networks=networks
    )
    return plan_host(
        read_tree(files),
        {name: sample_inputs() for name in appliances},
        host=sample_facts(),
        previous=Assignments(),
        runtime_digest="r",
    )


def test_a_network_of_its_own() -> None:
    text = NAT + "nameservers: [192.0.2.53]\nsearch: [example.test]\npeers: all\nmtu: 1400\n"
    [shown] = networks_of(planned({"default": text}, {"web": {}, "dns": {}}))
    assert (shown.name, shown.kind, shown.bridge, shown.uplink, shown.vlan) == (
        "default",
        "nat",
        "br-default",
        "",
        0,
    )
    assert shown.subnets == ("10.88.0.0/24", "fd00:88::/64")
    assert shown.host_addresses == shown.gateways == ("10.88.0.1", "fd00:88::1")
    assert (shown.mtu, shown.nameservers, shown.search) == (1400, ("192.0.2.53",), ("example.test",))
    assert (shown.automatic, shown.peers, shown.limited, shown.egress) == (False, True, False, ())
    assert shown.appliances == ("dns", "web")


def test_an_isolated_network_has_no_gateway() -> None:
    [shown] = networks_of(planned({"default": "kind: isolated\nsubnets: [10.88.0.0/24]"}, {}))
    assert (shown.host_addresses, shown.gateways, shown.appliances) == (("10.88.0.1",), (), ())


def test_a_bridged_network() -> None:
    text = "kind: bridged\nuplink: eth1\nvlan: 20\nsubnets: [192.0.2.0/24]\ngateway: 192.0.2.254\n"
    [_, shown] = networks_of(planned({"default": NAT, "lan": text}, {}))
    assert (shown.name, shown.bridge, shown.uplink, shown.vlan) == ("lan", "br.eth1", "eth1", 20)
    assert (shown.host_addresses, shown.gateways) == ((), ("192.0.2.254",))


def test_where_traffic_may_go() -> None:
    shown = networks_of(planned({"default": NAT + "egress: ['*:443/tcp', 192.0.2.0/24]", "none": NONE}, {}))
    assert [(one.name, one.limited, one.egress) for one in shown] == [
        ("default", True, ("*:443/tcp", "192.0.2.0/24")),
        ("none", True, ()),
    ]


@pytest.mark.parametrize(
    "text",
    ["192.0.2.0/24", "192.0.2.7", "192.0.2.7:443/tcp", "[2001:db8::/32]:53/udp", "*:1-1024/udp", "*"],
)
def test_destinations_are_shown_as_they_are_written(text: str) -> None:
    destination = parse_destination(text)
    assert destination is not None
    assert str(destination) == text
    assert parse_destination(str(destination)) == destination


def test_leases() -> None:
    plan = planned(
        {"default": NAT, "back": "kind: isolated\nsubnets: [10.89.0.0/24]"},
        {"web": {"network": [{"name": "default", "address": "10.88.0.80"}, "back"]}, "dns": {}},
    )
    back, dns, web = leases_of(plan)
    assert (back.network, back.appliance, back.tap, back.default_route) == ("back", "web", "ap-web.1", False)
    assert (dns.network, dns.appliance, dns.default_route) == ("default", "dns", True)
    assert web.addresses == (
        LeasedAddress("10.88.0.80", fixed=True),
        LeasedAddress("fd00:88::3", fixed=False),
    )
    assert web.mac == plan.appliances["web"].ports[0].mac


def test_published_ports() -> None:
    plan = planned({"default": NAT}, {"web": {"publish": ["8080-8081:80-81", "0.0.0.0:443"]}, "dns": {}})
    publication = parse_publication("0.0.0.0:443")
    assert publication is not None
    shown, held = published_of(plan, {("web", publication): "nginx.service uses it on this host"})
    assert (shown.appliance, shown.publication, shown.network, shown.reason) == (
        "web",
        "8080-8081:80-81/tcp",
        "default",
        "",
    )
    assert shown.targets == ("10.88.0.3:80-81", "[fd00:88::3]:80-81")
    assert (held.publication, held.targets) == ("0.0.0.0:443/tcp", ("10.88.0.3:443",))
    assert held.reason == "nginx.service uses it on this host"


def test_ports_that_lead_nowhere() -> None:
    plan = planned({"default": NAT}, {"web": {"publish": "80"}})
    web = plan.appliances["web"]
    away = replace(plan, appliances={"web": replace(web, ports=())})
    [shown] = published_of(away, {})
    assert (shown.targets, shown.network) == ((), "")
    assert shown.reason == "it has no address that they could lead to"


def test_what_a_tap_sends_is_what_its_guest_receives() -> None:
    plan = planned({"default": NAT}, {"web": {}, "dns": {}})
    [shown] = counters_of(plan, {"ap-dns": LINK}, {"ap-dns": (3, 300), "ap-web": (9, 9)})
    assert (shown.network, shown.appliance, shown.tap) == ("default", "dns", "ap-dns")
    assert (shown.received_packets, shown.received_bytes) == (2, 200)
    assert (shown.sent_packets, shown.sent_bytes) == (1, 100)
    assert (shown.refused_packets, shown.refused_bytes) == (3, 300)
