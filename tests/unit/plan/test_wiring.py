"""Addresses from pools, default routes, and how taps and bridges are to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.tree import read_tree
from agent.model.address import Address
from agent.model.appliance import Appliance
from agent.model.assignments import Assignments
from agent.model.configuration import Configuration
from agent.model.errors import ApplianceError
from agent.model.network import IFNAMSIZ, Bridge, Port, Tap, uplink_bridge
from agent.plan.ports import (
    NO_USER,
    allocate,
    mac_address,
    peers,
    plan_bridges,
    plan_ports,
    plan_taps,
    with_vlans,
)
from tests.fakes.samples import sample_files

MACHINE = "0123456789abcdef0123456789abcdef"
NETWORKS = {
    "nat": "subnets: [10.0.0.0/24]\n",
    "all": "subnets: [10.1.0.0/24]\npeers: all\n",
    "routed": "kind: routed\nsubnets: [10.2.0.0/24]\n",
    "inner": "kind: isolated\nsubnets: [10.3.0.0/24]\n",
    "lan": (
        "kind: bridged\nsubnets: [192.0.2.0/24]\nuplink: eth1\n"
        "gateway: 192.0.2.1\npool: 192.0.2.128/25\nmtu: 1400\n"
    ),
    "lan7": "kind: bridged\nsubnets: [198.51.100.0/24]\nuplink: eth1\nvlan: 7\npool: 198.51.100.0/24\n",
    "own": "kind: bridged\nsubnets: [203.0.113.0/24]\nbridge: br0\npool: 203.0.113.0/24\n",
}

few_names = st.sampled_from(["a", "b", "c", "d", "e", "f"])


def read(
    appliances: Mapping[str, Mapping[str, Any]], networks: Mapping[str, str] = NETWORKS
) -> Configuration:
    files = {name: {"image": "x", **settings} for name, settings in appliances.items()}
    return read_tree(sample_files(files, networks=networks))


def wired(appliances: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Appliance, tuple[Port, ...]]]:
    given_ = read(appliances)
    ports = plan_ports(given_, allocate(given_, Assignments()), machine_id=MACHINE)
    return {name: (given_.appliances[name], found) for name, found in ports.items()}


def taps(appliances: Mapping[str, Mapping[str, Any]]) -> dict[str, Tap]:
    return {tap.name: tap for tap in plan_taps(wired(appliances), {})}


# --- addresses of a network that others use, too

SUBNETS = ("192.0.2.0/28", "2001:db8::/124")
TAKEN = {
    ip_address(text)
    for text in ("192.0.2.0", "192.0.2.5", "192.0.2.15", "2001:db8::", "2001:db8::6", "2001:db8::f")
}
"""The first and the last, and the gateways."""
POOLS = ("192.0.2.0/29", "192.0.2.8/29", "2001:db8::/125", "2001:db8::8/125")
ONLY_FIXED = "192.0.2.10"


def lan(pools: list[str]) -> str:
    """A network of somebody else's, with the families of the pools."""
    families = {":" in pool for pool in pools}
    keys = {
        "kind": "bridged",
        "uplink": "eth1",
        "subnets": [text for text in SUBNETS if (":" in text) in families],
        "gateway": [text for text in ("192.0.2.5", "2001:db8::6") if (":" in text) in families],
        "pool": pools,
    }
    return json.dumps(keys)


def leases(
    appliances: Mapping[str, str | None], pools: list[str], previous: Mapping[str, tuple[Address, ...]]
) -> dict[str, tuple[Address, ...]]:
    networks = {
        name: {"network": {"name": "lan", **({"address": address} if address else {})}}
        for name, address in appliances.items()
    }
    given_ = read(networks, {"lan": lan(pools)})
    return allocate(given_, Assignments(addresses={"lan": previous}))["lan"]


# There is room for all of them in each.
pools = st.lists(st.sampled_from(POOLS), min_size=1, max_size=3, unique=True)


@given(st.lists(st.tuples(st.sets(few_names, max_size=4), pools, st.booleans()), min_size=1, max_size=6))
def test_a_pool_is_never_left_whatever_comes_and_goes(
    history: list[tuple[set[str], list[str], bool]],
) -> None:
    previous: dict[str, tuple[Address, ...]] = {}
    for names, texts, fixed in history:
        parts = [ip_network(text) for text in texts]
        wanted: dict[str, str | None] = dict.fromkeys(sorted(names))
        if fixed and names and any(part.version == 4 for part in parts):
            wanted[max(names)] = ONLY_FIXED
        found = leases(wanted, texts, previous)
        everything = [address for addresses in found.values() for address in addresses]
        assert len(set(everything)) == len(everything)
        assert TAKEN.isdisjoint(everything)
        for name, addresses in found.items():
            assert [address.version for address in addresses] == sorted({part.version for part in parts})
            for address in addresses:
                assert str(address) == wanted[name] or any(address in part for part in parts)
            stays = [address for address in previous.get(name, ()) if any(address in part for part in parts)]
            assert wanted[name] or {*stays} - {ip_address(ONLY_FIXED)} <= {*addresses}
        assert leases(wanted, texts, found) == found
        previous = found


def test_parts_of_a_pool_are_used_up_in_their_order() -> None:
    found = leases(dict.fromkeys(["a", "b", "c", "d"]), ["192.0.2.12/30", "192.0.2.4/30"], {})
    assert [str(address) for [address] in found.values()] == [
        "192.0.2.12",
        "192.0.2.13",
        "192.0.2.14",
        "192.0.2.4",
    ]


def test_a_pool_that_is_used_up() -> None:
    wanted = dict.fromkeys(["a", "b", "c", "d"])
    with pytest.raises(ApplianceError, match=r"Network “lan” has no free address in 192\.0\.2\.0/28"):
        leases(wanted, ["192.0.2.4/30"], {})


def test_an_address_that_is_in_the_pool_no_more_is_given_up() -> None:
    """The administrator has made it somebody else's."""
    held: dict[str, tuple[Address, ...]] = {
        "a": (ip_address("192.0.2.13"),),
        "b": (ip_address("192.0.2.6"),),
    }
    found = leases({"a": None, "b": None}, ["192.0.2.4/30"], held)
    assert found == {"a": (ip_address("192.0.2.4"),), "b": held["b"]}


# --- the default route


@pytest.mark.parametrize(
    ("network", "default"),
    [
        ("nat", "nat"),
        (["nat", "routed"], "nat"),
        (["routed", "nat"], "routed"),
        (["inner", "nat"], "nat"),
        (["inner"], None),
        ([], None),
        (["inner", "lan"], "lan"),
        # It has no gateway.
        (["own", "nat"], "nat"),
        (["own"], None),
        (["nat", {"name": "lan", "default-route": True}], "lan"),
        ([{"name": "nat", "default-route": False}, "lan"], "lan"),
        ([{"name": "nat", "default-route": False}], None),
        ([{"name": "nat", "default-route": False}, "inner"], None),
        ([{"name": "nat", "default-route": False}, {"name": "lan", "default-route": True}], "lan"),
    ],
)
def test_which_network_has_the_default_route(network: Any, default: str | None) -> None:
    [(_, ports)] = wired({"dns": {"network": network}}).values()
    assert [port.network.name for port in ports if port.default_route] == ([default] if default else [])


# --- taps


def test_a_tap_is_as_its_network_and_appliance_say() -> None:
    found = wired({"dns": {"network": ["lan", "inner"], "limits": {"bandwidth": "10M"}}})
    assert plan_taps(found, {"dns": 61000}) == [
        Tap(
            name="ap-dns",
            bridge="br.eth1",
            owner_uid=61000,
            mtu=1400,
            appliance="dns",
            isolated=True,
            bandwidth=10_000_000,
        ),
        Tap(
            name="ap-dns.1",
            bridge="br-inner",
            owner_uid=61000,
            mtu=1500,
            appliance="dns",
            isolated=True,
            bandwidth=10_000_000,
        ),
    ]
    assert [tap.owner_uid for tap in plan_taps(found, {})] == [NO_USER, NO_USER]


def test_only_who_may_meet_somebody_is_not_isolated() -> None:
    found = taps(
        {
            "a": {"network": "nat", "peers": "b"},
            "b": {"network": ["inner", "nat"]},
            "c": {"network": "nat"},
            "d": {"network": "all"},
        }
    )
    assert {name: tap.isolated for name, tap in found.items()} == {
        "ap-a": False,
        "ap-b": True,
        "ap-b.1": False,
        "ap-c": True,
        "ap-d": False,
    }


def test_what_is_published_can_be_reached_from_the_same_bridge() -> None:
    found = taps({"a": {"network": "nat", "publish": 80}, "b": {"network": "nat"}})
    assert {name: (tap.isolated, tap.hairpin) for name, tap in found.items()} == {
        "ap-a": (False, True),
        "ap-b": (True, False),
    }


def test_a_vlan_is_that_of_the_network_or_of_the_appliance() -> None:
    found = taps(
        {
            "a": {"network": ["lan7", "lan"]},
            "b": {"network": [{"name": "lan7", "vlan": 9}, {"name": "lan", "vlan": 8}]},
        }
    )
    assert {name: tap.vlan for name, tap in found.items()} == {
        "ap-a": 7,
        "ap-a.1": 0,
        "ap-b": 9,
        "ap-b.1": 8,
    }


# --- peers


def pairs(appliances: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, ...]]:
    return {tuple(sorted(pair)) for pair in peers(wired(appliances).values())}


def test_one_name_is_enough_for_both() -> None:
    one = {"a": {"network": "nat", "peers": "b"}, "b": {"network": "nat"}}
    both = {"a": {"network": "nat", "peers": "b"}, "b": {"network": "nat", "peers": "a"}}
    assert pairs(one) == pairs(both) == {("ap-a", "ap-b")}


def test_peers_meet_in_each_network_that_both_are_in() -> None:
    found = pairs(
        {"a": {"network": ["nat", "inner", "lan"], "peers": "b"}, "b": {"network": ["inner", "nat"]}}
    )
    assert found == {("ap-a", "ap-b.1"), ("ap-a.1", "ap-b")}


def test_peers_of_one_are_no_peers_of_each_other() -> None:
    found = pairs(
        {"a": {"network": "nat", "peers": ["b", "c"]}, "b": {"network": "nat"}, "c": {"network": "nat"}}
    )
    assert found == {("ap-a", "ap-b"), ("ap-a", "ap-c")}


def test_no_peers_across_vlans() -> None:
    other = {"name": "lan7", "vlan": 9}
    assert pairs({"a": {"network": "lan7", "peers": "b"}, "b": {"network": other}}) == set()
    assert pairs({"a": {"network": other, "peers": "b"}, "b": {"network": other}}) == {("ap-a", "ap-b")}


# --- bridges


def bridges(*networks: str) -> dict[str, Bridge]:
    given_ = read({}, {name: NETWORKS[name] for name in networks})
    found = plan_bridges(given_.networks.values(), machine_id=MACHINE)
    assert len({bridge.name for bridge in found}) == len(found)
    return {bridge.name: bridge for bridge in found}


@pytest.mark.parametrize(("network", "routes"), [("nat", True), ("routed", True), ("inner", False)])
def test_the_host_passes_on_only_what_leads_somewhere(network: str, routes: bool) -> None:
    assert bridges(network)[f"br-{network}"].routes is routes


def test_vlans_of_an_uplink_share_its_bridge() -> None:
    assert bridges("lan", "lan7") == {
        "br.eth1": Bridge(
            name="br.eth1",
            label="uplink eth1",
            mac=mac_address(MACHINE, "", "br.eth1"),
            addresses=frozenset(),
            mtu=1500,
            uplink="eth1",
            vlans=frozenset({7}),
        )
    }
    assert bridges("lan")["br.eth1"].vlans == frozenset()


def test_a_bridge_of_somebody_else_is_not_ours_to_make() -> None:
    assert bridges("own") == {}
    [tap] = taps({"dns": {"network": "own"}}).values()
    assert tap.bridge == "br0"


def test_an_uplink_s_bridge_has_the_vlans_of_appliances_too() -> None:
    found = taps(
        {"a": {"network": {"name": "lan", "vlan": 8}}, "b": {"network": "lan7"}, "c": {"network": "nat"}}
    )
    planned = bridges("lan", "lan7", "nat")
    assert {bridge.name: bridge for bridge in with_vlans(planned.values(), found.values())} == {
        "br.eth1": replace(planned["br.eth1"], vlans=frozenset({7, 8})),
        "br-nat": planned["br-nat"],
    }


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=IFNAMSIZ))
def test_the_bridge_of_an_uplink_says_whose_it_is(uplink: str) -> None:
    name = uplink_bridge(uplink)
    assert len(name) <= IFNAMSIZ
    assert name.startswith(f"br.{uplink[:7]}")


def test_bridges_of_uplinks_with_long_names_are_distinct() -> None:
    names = [f"enp0s20f0u1c{number}" for number in range(100)]
    assert len({uplink_bridge(name) for name in names}) == len(names)
