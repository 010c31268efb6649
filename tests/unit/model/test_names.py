"""Names: the intersection of what units, users, hosts and paths allow."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.model.names import (
    APPLIANCE_NAME,
    NETWORK_NAME,
    appliance_of,
    is_appliance_name,
    is_network_name,
    unit_of,
    user_of,
)
from agent.model.network import Network, NetworkKind
from tests.unit.config.strategies import HOSTILE_TEXTS, hostile_texts

names = st.from_regex(APPLIANCE_NAME, fullmatch=True)


@given(names)
def test_every_valid_name_is_valid_for_everything_made_from_it(name: str) -> None:
    # systemd.unit(5): an instance needs no escaping; useradd(8); RFC 1123; a path's component.
    assert re.fullmatch(r"[a-zA-Z0-9:_.\\-]+", name)
    assert len(user_of(name)) <= 31
    assert re.fullmatch(r"[a-z_][a-z0-9_-]*", user_of(name))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
    assert "/" not in name
    assert name not in {".", ".."}


@given(names)
def test_a_unit_tells_its_appliance(name: str) -> None:
    assert appliance_of(unit_of(name)) == name


@given(st.from_regex(NETWORK_NAME, fullmatch=True))
def test_a_network_s_bridge_fits_an_interface_name(name: str) -> None:
    bridge = Network(name=name, kind=NetworkKind.ISOLATED, subnets=(), mtu=1500).bridge
    assert len(bridge) <= 15
    assert is_network_name(name)


@given(hostile_texts)
@example("dns\n")
@example("dns.service")
def test_no_name_has_lines_paths_or_specifiers(text: str) -> None:
    if is_appliance_name(text) or is_network_name(text):
        assert not set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_names_are_none(text: str) -> None:
    assert not is_appliance_name(text)


@pytest.mark.parametrize(
    "unit",
    [
        "appliance@.service",
        "appliance@dns.timer",
        "appliance.service",
        "dns.service",
        "appliance@a.service.service",
        "appliance@A.service",
        "xappliance@dns.service",
        "",
    ],
)
def test_other_units_have_no_appliance(unit: str) -> None:
    assert appliance_of(unit) is None
