"""Tap names, MAC addresses, and who gets which IP address."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.tree import read_tree
from agent.model.address import Address
from agent.model.assignments import Assignments
from agent.model.configuration import Configuration
from agent.model.errors import ApplianceError, Problem
from agent.model.names import APPLIANCE_NAME
from agent.model.network import IFNAMSIZ, Network, NetworkKind
from agent.plan.ports import allocate, mac_address, plan_bridges, plan_ports, tap_name
from tests.fakes.samples import sample_files

MACHINE = "0123456789abcdef0123456789abcdef"
SUBNETS = ("10.0.0.0/29", "10.0.0.0/28", "10.0.0.8/29", "10.1.0.0/24", "fd00::/64", "fd00::/126")

names = st.from_regex(APPLIANCE_NAME, fullmatch=True)
few_names = st.sampled_from(["a", "b", "c", "d", "e", "f"])


def configuration(appliances: dict[str, Any], *subnets: str) -> Configuration:
    """Appliances on one network; each may name a fixed address."""
    files = {
        name: {"image": "x", **({"network": {"name": "default", "address": address}} if address else {})}
        for name, address in appliances.items()
    }
    return read_tree(
        sample_files(files, networks={"default": f"subnets: [{', '.join(map(repr, subnets))}]"})
    )


def leases(given_: Configuration, previous: Assignments | None = None) -> dict[str, tuple[Address, ...]]:
    return allocate(given_, previous or Assignments())["default"]


def kept(given_: Mapping[str, tuple[Address, ...]]) -> Assignments:
    return Assignments(addresses={"default": given_})


def texts(given_: dict[str, tuple[Address, ...]]) -> dict[str, list[str]]:
    return {name: list(map(str, addresses)) for name, addresses in given_.items()}


def assert_sound(given_: Configuration, result: dict[str, tuple[Address, ...]]) -> None:
    network = given_.networks["default"]
    everything = [address for addresses in result.values() for address in addresses]
    assert len(set(everything)) == len(everything)
    for addresses in result.values():
        assert len(addresses) == len(network.subnets)
        for address, subnet in zip(addresses, network.subnets, strict=True):
            assert address in subnet
            assert address not in {subnet.network_address, subnet.broadcast_address, network.gateway(subnet)}


# --- addresses


@given(st.sets(few_names), st.sampled_from(SUBNETS[:-1]))
def test_addresses_are_unique_and_free_for_guests(wanted: set[str], subnet: str) -> None:
    given_ = configuration(dict.fromkeys(wanted), subnet)
    if len(wanted) <= 5:
        assert_sound(given_, leases(given_))


@given(
    st.lists(
        st.tuples(st.sets(few_names, max_size=5), st.sampled_from(SUBNETS[:-1])), min_size=1, max_size=6
    )
)
def test_they_stay_so_whatever_comes_and_goes(history: list[tuple[set[str], str]]) -> None:
    previous = Assignments()
    for wanted, subnet in history:
        given_ = configuration(dict.fromkeys(wanted), subnet)
        result = leases(given_, previous)
        assert_sound(given_, result)
        assert leases(given_, kept(result)) == result
        previous = kept(result)


fixed = st.dictionaries(
    few_names, st.none() | st.sampled_from([f"10.0.0.{number}" for number in range(2, 7)]), max_size=5
).filter(
    lambda wanted: (
        len({address for address in wanted.values() if address}) == sum(map(bool, wanted.values()))
    )
)


@given(fixed, fixed)
def test_nobody_s_address_changes_because_of_somebody_else(
    before: dict[str, str | None], after: dict[str, str | None]
) -> None:
    earlier = leases(configuration(before, "10.0.0.0/29"))
    given_ = configuration(after, "10.0.0.0/29")
    later = leases(given_, kept(earlier))
    assert_sound(given_, later)
    asked_for = {address for address in after.values() if address}
    for name, address in after.items():
        if address:
            assert texts(later)[name] == [address]
        elif name in earlier and str(earlier[name][0]) not in asked_for:
            assert later[name] == earlier[name]


def test_what_holds_an_address_comes_before_what_lost_its_own() -> None:
    earlier = {"a": (ip_address("10.0.0.2"),), "b": (ip_address("10.0.0.3"),)}
    given_ = configuration({"a": None, "b": None, "new": "10.0.0.2"}, "10.0.0.0/29")
    assert texts(leases(given_, kept(earlier))) == {
        "a": ["10.0.0.4"],
        "b": ["10.0.0.3"],
        "new": ["10.0.0.2"],
    }


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.9.0.5"])
def test_a_kept_address_that_is_no_guest_s_any_more_is_given_up(address: str) -> None:
    given_ = configuration({"a": None}, "10.0.0.0/29")
    assert texts(leases(given_, kept({"a": (ip_address(address),)}))) == {"a": ["10.0.0.2"]}


def test_two_that_were_given_the_same_are_told_apart() -> None:
    same = (ip_address("10.0.0.5"),)
    given_ = configuration({"a": None, "b": None}, "10.0.0.0/29")
    assert texts(leases(given_, kept({"a": same, "b": same}))) == {"a": ["10.0.0.5"], "b": ["10.0.0.2"]}


def test_one_of_each_family() -> None:
    given_ = configuration({"a": None, "b": "fd00::9"}, "10.0.0.0/29", "fd00::/64")
    assert texts(leases(given_)) == {"a": ["10.0.0.2", "fd00::2"], "b": ["10.0.0.3", "fd00::9"]}


def test_a_network_that_gains_a_family_keeps_the_other() -> None:
    given_ = configuration({"a": None, "b": None}, "10.0.0.0/29", "fd00::/64")
    earlier = {"a": (ip_address("10.0.0.6"),), "b": (ip_address("10.0.0.2"),)}
    assert texts(leases(given_, kept(earlier))) == {
        "a": ["10.0.0.6", "fd00::2"],
        "b": ["10.0.0.2", "fd00::3"],
    }


@pytest.mark.parametrize(("subnet", "room"), [("10.0.0.0/30", 1), ("10.0.0.0/29", 5), ("fd00::/126", 1)])
def test_a_subnet_that_is_full(subnet: str, room: int) -> None:
    wanted: dict[str, None] = {f"a{number}": None for number in range(room)}
    assert len(leases(configuration(wanted, subnet))) == room
    with pytest.raises(ApplianceError, match="Network “default” has no free address in") as caught:
        leases(configuration({**wanted, "more": None}, subnet))
    assert caught.value.problem is Problem.NO_SPACE


def test_a_subnet_is_not_walked_from_end_to_end() -> None:
    given_ = configuration({"a": None}, "10.0.0.0/8", "fd00::/8")
    assert texts(leases(given_)) == {"a": ["10.0.0.2", "fd00::2"]}


# --- names and MAC addresses


@given(names, st.integers(0, 12))
def test_tap_names_fit_and_say_whose_they_are(name: str, index: int) -> None:
    tap = tap_name(name, index)
    assert len(tap) <= IFNAMSIZ
    assert re.fullmatch(r"ap-[a-z0-9_.-]+", tap)
    assert tap.startswith(f"ap-{name[:4]}")


@given(st.sets(names, min_size=2, max_size=8))
def test_tap_names_are_distinct(appliances: set[str]) -> None:
    taps = [tap_name(name, index) for name in appliances for index in range(3)]
    assert len(set(taps)) == len(taps)


def test_no_short_name_is_another_s_abbreviation() -> None:
    long = "abcdefghijklmnop"
    tag = hashlib.sha256(long.encode()).hexdigest()[:4]
    assert tap_name(long, 0) != tap_name(f"abcdefg-{tag}", 0)


def same_tap() -> tuple[str, str]:
    """Two names with the same abbreviation: four hex digits do not tell everything apart."""
    seen: dict[str, str] = {}
    for number in itertools.count():
        name = f"webserver-{number}x"
        other = seen.setdefault(tap_name(name, 0), name)
        if other != name:
            return name, other
    raise AssertionError


def test_two_whose_abbreviations_are_equal_are_refused() -> None:
    name, other = same_tap()
    given_ = configuration({name: None, other: None}, "10.1.0.0/24")
    with pytest.raises(ApplianceError, match=f"“{other}” and “{name}”|“{name}” and “{other}”") as caught:
        plan_ports(given_, allocate(given_, Assignments()), machine_id=MACHINE)
    assert caught.value.problem is Problem.INVALID_CONFIGURATION


@given(st.text(min_size=1, max_size=20), st.text(max_size=20), st.text(max_size=10))
def test_mac_addresses_are_local_unicast_and_always_the_same(
    machine: str, appliance: str, network: str
) -> None:
    mac = mac_address(machine, appliance, network)
    assert re.fullmatch(r"02(:[0-9a-f]{2}){5}", mac)
    assert mac == mac_address(machine, appliance, network)


def test_mac_addresses_differ_between_hosts_networks_and_appliances() -> None:
    macs = {
        mac_address(machine, appliance, network)
        for machine in "ab"
        for appliance in ("", "dns", "web")
        for network in ("x", "y")
    }
    assert len(macs) == 12


def test_a_bridge_has_the_first_address_of_each_subnet() -> None:
    network = Network(
        "lan", NetworkKind.ISOLATED, (ip_network("10.0.0.0/24"), ip_network("fd00::/64")), 1400
    )
    [bridge] = plan_bridges([network], machine_id=MACHINE)
    assert (bridge.name, bridge.label, bridge.mtu) == ("br-lan", "network lan", 1400)
    assert bridge.addresses == {"10.0.0.1/24", "fd00::1/64"}
    assert bridge.mac == mac_address(MACHINE, "", "lan")


def test_ports_in_the_order_of_the_file() -> None:
    files = sample_files(
        {"dns": {"image": "x", "network": ["lan", {"name": "default", "mac": "02:00:00:00:00:09"}]}},
        networks={"default": "subnets: [10.0.0.0/24]", "lan": "subnets: [10.1.0.0/24]"},
    )
    given_ = read_tree(files)
    [first, second] = plan_ports(given_, allocate(given_, Assignments()), machine_id=MACHINE)["dns"]
    assert (first.tap, first.network.name, first.mac) == (
        "ap-dns",
        "lan",
        mac_address(MACHINE, "dns", "lan"),
    )
    assert (second.tap, second.network.name, second.mac) == ("ap-dns.1", "default", "02:00:00:00:00:09")
    assert (first.addresses, second.addresses) == ((ip_address("10.1.0.2"),), (ip_address("10.0.0.2"),))
