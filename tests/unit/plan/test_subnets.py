"""Subnets for networks whose administrator names none: they collide with nothing, and stay."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.address import Address, Subnet
from agent.model.assignments import Assignments
from agent.model.errors import ApplianceError, Problem
from agent.model.network import Network, NetworkKind
from agent.plan.subnets import RANGES, choose_subnets, overlap_with

MACHINE = "0123456789abcdef0123456789abcdef"
NAMES = ("a", "b", "c", "d")
Chosen = dict[str, tuple[Subnet, ...]]


def networks(**fixed: str | None) -> dict[str, Network]:
    """Networks by name; one with a subnet is fixed, one without automatic."""
    return {
        name: Network(
            name=name,
            kind=NetworkKind.NAT,
            subnets=(ip_network(text),) if text else (),
            mtu=1500,
            automatic=text is None,
        )
        for name, text in fixed.items()
    }


def choose(
    given_: Mapping[str, Network],
    *,
    previous: Assignments | None = None,
    taken: Collection[Subnet] = (),
    machine_id: str = MACHINE,
) -> Chosen:
    return choose_subnets(
        given_, previous=previous or Assignments(), machine_id=machine_id, taken=lambda: taken
    )


def texts(chosen: Chosen) -> dict[str, list[str]]:
    return {name: list(map(str, subnets)) for name, subnets in chosen.items()}


def kept(chosen: Chosen, *holders: str) -> Assignments:
    """What is remembered of them; appliances have addresses in these."""
    addresses: dict[str, dict[str, tuple[Address, ...]]] = {
        name: {"dns": tuple(subnet.network_address + 5 for subnet in chosen[name])} for name in holders
    }
    return Assignments(subnets=chosen, addresses=addresses)


# What a host may have routes to, near to what is chosen and far from it.
foreign = st.sampled_from(
    [
        ip_network(text)
        for text in (
            "10.0.0.0/8",
            "10.88.0.0/16",
            "10.88.0.0/25",
            "10.88.1.7/32",
            "172.16.0.0/12",
            "192.0.2.0/24",
            "2001:db8::/32",
            "fd00:1::/32",
        )
    ]
)
fixed = st.none() | st.sampled_from(["10.88.0.0/24", "10.88.2.0/23", "172.24.0.0/16", "fd00:1::/48"])
steps = st.tuples(
    st.dictionaries(st.sampled_from(NAMES), fixed, max_size=4),
    st.lists(foreign, max_size=4, unique=True),
    st.sets(st.sampled_from(NAMES)),
)


@given(st.lists(steps, min_size=1, max_size=5))
def test_they_collide_with_nothing_and_stay_whatever_comes_and_goes(
    history: list[tuple[dict[str, str | None], list[Subnet], set[str]]],
) -> None:
    previous = Assignments()
    for wanted, routes, holders in history:
        given_ = networks(**wanted)
        chosen = choose(given_, previous=previous, taken=routes)
        own = [subnet for network in given_.values() for subnet in network.subnets]
        everything = [*own, *itertools.chain.from_iterable(chosen.values())]
        for name, subnets in chosen.items():
            assert [subnet.version for subnet in subnets] == [4, 6]
            others = [subnet for subnet in everything if subnet not in subnets]
            assert len(others) == len(everything) - len(subnets)
            assert not any(map(overlap_with([subnet for subnet in others if subnet not in own]), subnets))
            had = previous.subnets.get(name, ())
            stays = had and previous.addresses.get(name) and not any(map(overlap_with(own), had))
            assert subnets == had if stays else not any(map(overlap_with([*own, *routes]), subnets))
        assert chosen.keys() == {name for name, text in wanted.items() if text is None}
        previous = kept(chosen, *(holders & chosen.keys()))


def test_the_same_every_time() -> None:
    assert choose(networks(a=None, b=None)) == choose(networks(b=None, a=None))


@pytest.mark.parametrize(
    ("routes", "first"),
    [
        ([], "10.88.0.0/24"),
        (["0.0.0.0/32"], "10.88.0.0/24"),
        (["10.88.0.0/30"], "10.88.1.0/24"),
        (["10.88.0.0/17"], "10.88.128.0/24"),
        (["10.0.0.0/8"], "172.24.0.0/24"),
        (["10.0.0.0/8", "172.16.0.0/12"], "192.168.128.0/24"),
    ],
)
def test_the_first_that_the_host_has_no_route_to(routes: list[str], first: str) -> None:
    chosen = choose(networks(a=None), taken=[ip_network(text) for text in routes])
    assert chosen["a"][0] == ip_network(first)


def test_only_private_addresses() -> None:
    private = [ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    assert all(any(subnet.subnet_of(part) for part in private) for subnet in RANGES)  # type: ignore[arg-type]


# --- what stays


HELD = choose(networks(a=None))
MOVED = ["10.88.1.0/24", str(HELD["a"][1])]


def test_what_holds_addresses_stays_whatever_the_host_has_routes_to() -> None:
    """Renumbering would cut off who is there; the route may be gone tomorrow."""
    given_ = networks(a=None)
    assert choose(given_, previous=kept(HELD, "a"), taken=HELD["a"]) == HELD


def test_nobody_asks_for_routes_where_nothing_is_to_be_chosen() -> None:
    def taken() -> Collection[Subnet]:
        raise AssertionError

    for given_ in (networks(a=None), networks(a=None, b="10.1.0.0/24"), networks(b="10.1.0.0/24"), {}):
        chosen = choose_subnets(given_, previous=kept(HELD, "a"), machine_id=MACHINE, taken=taken)
        assert chosen == {name: HELD[name] for name in given_ if name == "a"}


def test_what_holds_none_is_chosen_again_while_it_is_free() -> None:
    other = kept({"a": (ip_network("172.24.5.0/24"), ip_network("fd00:5::/64"))})
    assert choose(networks(a=None), previous=other) == other.subnets
    route = ip_network("172.24.5.128/25")
    assert texts(choose(networks(a=None), previous=other, taken=[route])) == {
        "a": ["10.88.0.0/24", "fd00:5::/64"]
    }


def test_what_an_administrator_gives_to_another_network_is_given_up() -> None:
    given_ = networks(a=None, b="10.88.0.0/24")
    assert texts(choose(given_, previous=kept(HELD, "a"))) == {"a": MOVED}


def test_two_that_were_given_the_same_are_told_apart() -> None:
    both: Chosen = {"a": HELD["a"], "b": HELD["a"]}
    chosen = choose(networks(a=None, b=None), previous=kept(both, "a", "b"))
    assert chosen["a"] == HELD["a"]
    assert not any(map(overlap_with(chosen["a"]), chosen["b"]))


def test_networks_that_stay_are_no_obstacle_to_themselves() -> None:
    chosen = choose(networks(a=None, b=None))
    again = choose(networks(a=None, b=None, c=None), previous=kept(chosen, "b"))
    assert {name: again[name] for name in chosen} == chosen


# --- when there is none


@pytest.mark.parametrize("taken", [RANGES, [ip_network("fc00::/7")]])
def test_a_host_with_routes_to_everything(taken: list[Subnet]) -> None:
    with pytest.raises(ApplianceError, match="Network “a”: every private subnet collides") as caught:
        choose(networks(a=None), taken=taken)
    assert (caught.value.problem, caught.value.remedy) == (
        Problem.NO_SPACE,
        "Give it `subnets:` of your own.",
    )


# --- IPv6


def ula(machine_id: str, name: str) -> IPv6Network:
    found = choose(networks(**{name: None}), machine_id=machine_id)[name][1]
    assert isinstance(found, IPv6Network)
    return found


@given(st.text(min_size=1, max_size=32), st.sampled_from(NAMES))
def test_unique_local_prefixes_are_those_of_the_host(machine_id: str, name: str) -> None:
    """RFC 4193: fd, 40 bits that are the host's own, 16 that are the network's."""
    found = ula(machine_id, name)
    assert (found.prefixlen, found.network_address.packed[0]) == (64, 0xFD)
    assert found == ula(machine_id, name)
    assert found.supernet(new_prefix=48) == ula(machine_id, "other").supernet(new_prefix=48)


def test_no_two_hosts_or_networks_have_the_same() -> None:
    prefixes = {ula(machine, name) for machine in ("m", "n") for name in NAMES}
    assert len(prefixes) == 2 * len(NAMES)


def test_a_prefix_that_is_taken_is_followed_by_the_next() -> None:
    first = HELD["a"][1]
    [_, second] = choose(networks(a=None), taken=[first])["a"]
    assert second.supernet(new_prefix=48) == first.supernet(new_prefix=48)
    assert int(second.network_address) == int(first.network_address) + (1 << 64)


def test_the_last_prefix_is_followed_by_the_first() -> None:
    """Of the 65536 that a host has."""
    whole = ula(MACHINE, "a").supernet(new_prefix=48)
    only = IPv6Network((whole.network_address, 64))
    assert choose(networks(a=None), taken=list(whole.address_exclude(only)))["a"][1] == only


def test_overlaps_of_one_family_say_nothing_of_the_other() -> None:
    overlaps = overlap_with([ip_network("10.0.0.0/24"), ip_network("::/0")])
    assert overlaps(IPv4Network("10.0.0.0/8"))
    assert not overlaps(IPv4Network("10.0.1.0/24"))
    assert not overlap_with([ip_network("::/0")])(IPv4Network("0.0.0.0/0"))


def test_a_new_network_takes_nothing_from_one_without_appliances() -> None:
    had = choose(networks(zoo=None))
    assert choose(networks(auto=None, zoo=None), previous=kept(had))["zoo"] == had["zoo"]


def test_a_host_without_ipv6() -> None:
    both = choose(networks(lan=None))
    assert choose_subnets(
        networks(lan=None),
        previous=kept(both, "lan"),
        machine_id=MACHINE,
        taken=tuple,
        ipv6=False,
    ) == {"lan": both["lan"][:1]}
    fresh = choose_subnets(
        networks(lan=None), previous=Assignments(), machine_id=MACHINE, taken=tuple, ipv6=False
    )
    assert [subnet.version for subnet in fresh["lan"]] == [4]
