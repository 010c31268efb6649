"""What is understood of rules of others."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model.network import Network
from agent.plan.foreign_rules import speak_of
from tests.unit.plan.diagnosing import NAT, plan_of


def network() -> Network:
    [found] = plan_of(NAT).networks
    return found


def rules(right: Any) -> list[Any]:
    """A table with one rule."""
    match = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": right}}
    return [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "policy": "drop", "prio": 0}},
        {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "expr": [match, {"accept": None}]}},
    ]


@pytest.mark.parametrize(
    "right",
    [
        "br-default",
        "br-*",
        {"set": ["eth0", "br-default"]},
        "10.88.0.7",
        "fd00:88::7",
        {"prefix": {"addr": "10.88.0.0", "len": 24}},
        {"prefix": {"addr": "10.0.0.0", "len": 8}},
        {"prefix": {"addr": "fd00:88::", "len": 64}},
        {"range": ["10.88.0.5", "10.88.0.9"]},
    ],
)
def test_rules_about_a_network(right: Any) -> None:
    assert speak_of(network(), rules(right))


@pytest.mark.parametrize(
    "right",
    [
        "br-default2",
        "br-other",
        "docker*",
        "10.89.0.7",
        {"prefix": {"addr": "192.168.0.0", "len": 16}},
        {"prefix": {"addr": "fd00:89::", "len": 64}},
        443,
        True,
        None,
    ],
)
def test_rules_about_others(right: Any) -> None:
    assert not speak_of(network(), rules(right))
