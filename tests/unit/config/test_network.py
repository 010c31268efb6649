"""appliance-network.yaml(5)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from agent.config.document import Findings, read_document
from agent.config.network import read_network
from agent.model.network import Network, NetworkKind

NO_SUBNET = "is not a subnet such as 10.88.0.0/24 (host bits must be zero)"
KEYS = "kind, mtu, nameservers, search, subnets"


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
    assert [network.gateway(subnet) for subnet in network.subnets] == [
        ip_address("10.1.0.1"),
        ip_address("fd00::1"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["lan.yaml: “subnets” is missing"]),
        ("kind: isolated", ["lan.yaml:1:1: “subnets” is missing"]),
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
            ["lan.yaml:2:7: kind: one of isolated expected, found “open”"],
        ),
        ("subnets: [10.0.0.0/24]\nsearch: [a_b]", ["lan.yaml:2:10: search[0]: “a_b” is not a domain name"]),
        (
            "subnets: [10.0.0.0/24]\negress: nat",
            [
                f"lan.yaml:2:1: “egress” is not available in this version; known here: {KEYS}",
            ],
        ),
    ],
)
def test_refusals(text: str, expected: list[str]) -> None:
    assert read(text)[1] == expected
