"""appliance-network.yaml(5)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from agent.config.document import Findings, read_document
from agent.config.network import read_network
from agent.model.network import Network, NetworkKind

NO_EGRESS = "traffic of isolated networks does not go through the host: there is nothing to limit"
DESTINATION = "a destination such as 192.0.2.0/24, [2001:db8::/32]:443/tcp or *:53/udp"
BRIDGED = "kind: bridged\nsubnets: 192.0.2.0/24\nbridge: br0\n"
TOO_LONG = "is longer than the 15 bytes of an interface name"
NO_SUBNET = "is not a subnet such as 10.88.0.0/24 (host bits must be zero)"


def read(text: str) -> tuple[Network, list[str]]:
    findings = Findings("lan.yaml")
    network = read_network("lan", read_document(text, findings))
    return network, [str(finding) for finding in findings.items]


def test_everything() -> None:
    text = """
kind: isolated
subnets: [10.1.0.0/16, "fd00::/64"]
mtu: 9000
nameservers: [10.1.0.1]
search: [example.test]
"""
    network, findings = read(text)
    assert findings == []
    assert network == Network(
        name="lan",
        kind=NetworkKind.ISOLATED,
        subnets=(ip_network("10.1.0.0/16"), ip_network("fd00::/64")),
        mtu=9000,
        nameservers=(ip_address("10.1.0.1"),),
        search=("example.test",),
    )
    assert network.bridge == "br-lan"
    assert [network.host_address(subnet) for subnet in network.subnets] == [
        ip_address("10.1.0.1"),
        ip_address("fd00::1"),
    ]
    assert [network.gateway(subnet) for subnet in network.subnets] == [None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: routed", ["lan.yaml:1:1: “subnets” is missing"]),
        (
            "kind: routed\nsubnets: auto",
            ["lan.yaml:2:10: subnets: others have to know the subnets of a routed network: write them out"],
        ),
        ("vlan: 7", ["lan.yaml:1:7: vlan: a nat network has none; only a bridged one has"]),
        ("kind: isolated\negress: []", [f"lan.yaml:2:9: egress: {NO_EGRESS}"]),
        (f"{BRIDGED}vlan: 4095", ["lan.yaml:4:7: vlan: a number from 1 to 4094 expected, found 4095"]),
        (
            f"{BRIDGED}gateway: 198.51.100.1",
            ["lan.yaml:4:10: gateway: 198.51.100.1 is outside of 192.0.2.0/24"],
        ),
        (
            f"{BRIDGED}pool: [192.0.2.0/23]",
            ["lan.yaml:4:8: pool[0]: 192.0.2.0/23 is outside of 192.0.2.0/24"],
        ),
        (f"{BRIDGED}uplink: eth1", ["lan.yaml:1:1: a bridged network needs either “bridge” or “uplink”"]),
        (
            "kind: bridged\nsubnets: 192.0.2.0/24\nbridge: br-with-a-long-name",
            [
                f"lan.yaml:3:9: bridge: “br-with-a-long-name” {TOO_LONG}",
            ],
        ),
        ("subnets: []", ["lan.yaml:1:10: subnets: at least one subnet expected"]),
        (
            "subnets: [10.0.0.0/24, 10.1.0.0/24]",
            ["lan.yaml:1:10: subnets: at most one IPv4 and one IPv6 subnet expected"],
        ),
        (
            "subnets: [10.0.0.1/24]",
            [
                f"lan.yaml:1:11: subnets[0]: “10.0.0.1/24” {NO_SUBNET}",
            ],
        ),
        (
            "subnets: [10.0.0.0/24]\nmtu: 1279",
            ["lan.yaml:2:6: mtu: a number from 1280 to 9000 expected, found 1279"],
        ),
        ('subnets: [10.0.0.0/24]\nmtu: ""', ["lan.yaml:2:6: mtu: a number expected, found “”"]),
        (
            "subnets: [10.0.0.0/24]\nkind: open",
            ["lan.yaml:2:7: kind: one of nat, routed, bridged, isolated expected, found “open”"],
        ),
        ("subnets: [10.0.0.0/24]\nsearch: [a_b]", ["lan.yaml:2:10: search[0]: “a_b” is not a domain name"]),
        (
            "subnets: [10.0.0.0/24]\negress: nat",
            [f"lan.yaml:2:9: egress: “nat” is not {DESTINATION}"],
        ),
    ],
)
def test_refusals(text: str, expected: list[str]) -> None:
    assert read(text)[1] == expected
