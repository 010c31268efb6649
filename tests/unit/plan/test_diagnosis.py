"""Which hop is broken, and what is said of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.model.diagnosis import Hop, Verdict
from agent.model.link import FilterChain, Route, Way
from agent.plan.diagnosis import judge
from agent.plan.diagnosis_facts import Facts, Subject
from tests.unit.plan.diagnosing import (
    FOREIGN,
    GUEST,
    GUEST_6,
    ISOLATED,
    NAT,
    NO_WAY,
    OTHER_MAC,
    OWNER,
    ROUTER,
    UPLINK,
    hops,
    sound,
    subject_of,
    verdicts,
    with_link,
)


def route(subnet: str, interface: str = "tun0") -> Route:
    return Route(ipaddress.ip_network(subnet), interface)


# --- where everything is well


@pytest.mark.parametrize("network", [NAT, ISOLATED, NAT + "kind: routed"])
def test_a_sound_way_is_ok_at_every_hop(network: str) -> None:
    subject = subject_of(network)
    reports = judge(subject, sound(subject))
    assert [report.hop for report in reports] == list(Hop)
    assert {report.verdict for report in reports} == {"ok"}
    assert all(report.looked_at for report in reports)
    assert not any(report.reason or report.remedy for report in reports)
    assert {report.network for report in reports} == {"default"}


@pytest.mark.parametrize("network", [FOREIGN, UPLINK])
def test_of_a_bridged_network_only_what_is_behind_its_gateway_is_unknown(network: str) -> None:
    subject = subject_of(network)
    assert verdicts(subject, sound(subject)) == {"outside": "unknown"}


def test_an_isolated_network_leads_nowhere_and_that_is_well() -> None:
    subject = subject_of(ISOLATED)
    facts = sound(subject, forwards=(), ways_out={}, own_ways_out={4: NO_WAY, 6: NO_WAY})
    found = hops(subject, facts)
    assert verdicts(subject, facts) == {}
    assert found["outside"].looked_at == "the network leads nowhere, as it is to"


# --- where one hop is broken


def test_what_is_said_of_a_broken_hop() -> None:
    subject = subject_of()
    report = hops(subject, with_link(sound(subject), "br-default", up=False))["bridge"]
    assert report.looked_at == "br-default with 10.88.0.1/24, fd00:88::1/64"
    assert report.reason == "it is down"
    assert report.remedy.startswith("`appliancectl apply` puts it right; ")


Break = Callable[[Subject, Facts], Facts]


def missing(name: str) -> Break:
    return lambda _subject, facts: with_link(facts, name)


def changed(name: str, **changes: Any) -> Break:
    return lambda _subject, facts: with_link(facts, name, **changes)


def given(**changes: Any) -> Break:
    return lambda _subject, facts: replace(facts, **changes)


def without_chain(*gone: str) -> Break:
    return lambda _subject, facts: replace(
        facts, chains=[chain for chain in facts.chains if (chain.family, chain.name)[: len(gone)] != gone]
    )


@pytest.mark.parametrize(
    ("spoil", "hop", "reason"),
    [
        (given(forwards=(6,)), "host", "IPv4 packets from br-default are not forwarded"),
        (given(forwards=(4,)), "host", "IPv6 packets from br-default are not forwarded"),
        (given(foreign_routes=[route("10.88.0.0/24")]), "host", "10.88.0.0/24 is also behind tun0"),
        (given(foreign_routes=[route("10.88.0.128/25")]), "host", "10.88.0.128/25 is also behind tun0"),
        (given(foreign_routes=[route("fd00:88::7/128")]), "host", "fd00:88::7/128 is also behind tun0"),
        (given(foreign_routes=[route("10.88.0.0/24", "")]), "host", "10.88.0.0/24 is also in a route"),
        (without_chain("bridge"), "firewall", "table bridge appliance is not in the kernel"),
        (without_chain("inet"), "firewall", "table inet appliance is not in the kernel"),
        (missing("br-default"), "bridge", "there is no interface br-default"),
        (changed("br-default", kind="dummy"), "bridge", "br-default is no bridge"),
        (changed("br-default", up=False), "bridge", "it is down"),
        (changed("br-default", ours=False), "bridge", "it was not made by the agent"),
        (changed("br-default", mac=OTHER_MAC), "bridge", f"its MAC is {OTHER_MAC}, not 02:"),
        (given(host_addresses={"10.88.0.1/24"}), "bridge", "fd00:88::1/64 is missing"),
        (missing("ap-dns"), "tap", "there is no interface ap-dns"),
        (changed("ap-dns", ours=False), "tap", "it was not made by the agent"),
        (changed("ap-dns", master=0), "tap", "it is not in br-default"),
        (changed("ap-dns", up=False, carrier=False), "tap", "it is down"),
        (changed("ap-dns", carrier=False), "tap", "no guest is attached"),
        (changed("ap-dns", isolated=False), "tap", "it is not isolated from others on the bridge"),
        (changed("ap-dns", hairpin=True), "tap", "it is open to what it has sent itself"),
        (changed("ap-dns", mtu=1300), "tap", "its MTU is 1300, not 1500"),
        (given(owner=-1), "tap", f"its owner is -1, not {OWNER}"),
        (given(echoes={GUEST: Verdict.FAILED, GUEST_6: Verdict.OK}), "guest", "no answer from 10.88.0.2"),
        (given(echoes={GUEST: Verdict.OK, GUEST_6: Verdict.FAILED}), "guest", "no answer from fd00:88::2"),
    ],
)
def test_a_broken_hop_is_named_first(spoil: Break, hop: str, reason: str) -> None:
    subject = subject_of()
    found = hops(subject, spoil(subject, sound(subject)))
    first = next(report for report in found.values() if report.verdict != "ok")
    assert (first.hop, first.verdict) == (hop, "failed")
    assert reason in first.reason
    assert first.remedy


def test_several_things_may_be_wrong_with_a_hop() -> None:
    subject = subject_of()
    facts = with_link(sound(subject, owner=1), "ap-dns", isolated=False, mtu=1300)
    report = hops(subject, facts)["tap"]
    assert report.reason == (
        f"its owner is 1, not {OWNER}; it is not isolated from others on the bridge; "
        "its MTU is 1300, not 1500"
    )
    assert report.remedy.count("appliancectl apply") == 1


# --- host


@pytest.mark.parametrize(
    "subnet", ["10.0.0.0/8", "10.88.0.0/23", "10.88.1.0/24", "fd00::/16", "10.8.0.0/24"]
)
def test_a_route_that_is_wider_or_elsewhere_does_not_collide(subnet: str) -> None:
    subject = subject_of()
    assert verdicts(subject, sound(subject, foreign_routes=[route(subnet)])) == {}


def test_packets_that_a_rule_sends_elsewhere() -> None:
    subject = subject_of()
    facts = sound(subject)
    for way, text in ((Way("tun0"), "go to tun0"), (NO_WAY, "go nowhere (No route to host)")):
        found = hops(subject, replace(facts, ways={**facts.ways, GUEST: way}))
        assert found["host"].reason == f"packets to 10.88.0.2 {text}"


def test_the_way_to_a_bridge_that_is_down_is_no_collision() -> None:
    subject = subject_of()
    facts = with_link(sound(subject, ways={GUEST: Way("eth0", ROUTER), GUEST_6: NO_WAY}), "br-default")
    assert hops(subject, facts)["host"].verdict == "ok"


# --- firewall


def foreign(name: str = "FORWARD", family: str = "ip", table: str = "filter") -> FilterChain:
    return FilterChain(family, table, name, "forward", "drop")


def with_chains(facts: Facts, *chains: FilterChain, **changes: Any) -> Facts:
    return replace(facts, chains=[*facts.chains, *chains], **changes)


def test_a_chain_of_others_that_drops_what_is_forwarded_is_named() -> None:
    subject = subject_of()
    report = hops(subject, with_chains(sound(subject), foreign()))["firewall"]
    assert report.verdict == "failed"
    assert report.reason == (
        "table ip filter drops in its chain FORWARD what none of its rules accepts, and none is about this "
        "network"
    )
    assert report.remedy == "Have it accept what comes from and goes to br-default."


@pytest.mark.parametrize(
    ("beside", "advice"),
    [
        ("DOCKER-USER", "docker: `iptables -I DOCKER-USER -i br-default -j ACCEPT`"),
        ("ufw-user-forward", "ufw: `ufw route allow in on br-default`"),
    ],
)
def test_advice_for_those_who_often_do(beside: str, advice: str) -> None:
    subject = subject_of()
    other = FilterChain("ip", "filter", beside)
    elsewhere = FilterChain("ip", "nat", beside)
    report = hops(subject, with_chains(sound(subject), foreign(), other))["firewall"]
    assert advice in report.remedy
    report = hops(subject, with_chains(sound(subject), foreign(), elsewhere))["firewall"]
    assert advice not in report.remedy


def test_a_chain_with_rules_about_the_network_may_accept_it() -> None:
    subject = subject_of()
    report = hops(subject, with_chains(sound(subject), foreign(), related=[foreign()]))["firewall"]
    assert (report.verdict, report.remedy) == ("unknown", "See `nft list table ip filter`.")
    assert report.reason.endswith("it has rules about this network")


@pytest.mark.parametrize(
    ("network", "chain", "bridged", "verdict"),
    [
        (NAT, foreign(family="inet"), (), "failed"),
        (NAT, foreign(family="ip6"), (), "failed"),
        ("subnets: [10.88.0.0/24]", foreign(family="ip6"), (), "ok"),
        (NAT, foreign(family="bridge"), (), "ok"),
        (NAT, FilterChain("ip", "filter", "INPUT", "input", "drop"), (), "ok"),
        (NAT, FilterChain("ip", "filter", "FORWARD", "forward", "accept"), (), "ok"),
        (NAT, FilterChain("ip", "filter", "FORWARD"), (), "ok"),
        (ISOLATED, foreign(), (4, 6), "ok"),
        (f"{ISOLATED}peers: all\n", foreign(), (4, 6), "failed"),
        (f"{ISOLATED}peers: all\n", foreign(), (), "ok"),
        (f"{ISOLATED}peers: all\n", foreign(family="bridge"), (), "failed"),
        (FOREIGN, foreign(), (), "ok"),
        (FOREIGN, foreign(), (6,), "ok"),
        (FOREIGN, foreign(), (4,), "failed"),
        (FOREIGN, foreign(family="bridge"), (), "failed"),
    ],
)
def test_only_chains_that_see_its_packets_count(
    network: str, chain: FilterChain, bridged: tuple[int, ...], verdict: str
) -> None:
    subject = subject_of(network)
    facts = with_chains(sound(subject), chain, filters_bridged=bridged)
    assert hops(subject, facts)["firewall"].verdict == verdict


def test_single_chains_that_are_missing() -> None:
    subject = subject_of()
    report = hops(subject, without_chain("bridge", "ap-dns")(subject, with_spare_chain(subject)))["firewall"]
    assert report.reason == "chain ap-dns of table bridge appliance is not in the kernel"


def with_spare_chain(subject: Subject) -> Facts:
    return with_chains(sound(subject), FilterChain("bridge", "appliance", "forward", "forward", "accept"))


# --- bridges of others, and uplinks


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (missing("br0"), "there is no interface br0"),
        (changed("br0", up=False), "it is down"),
    ],
)
def test_a_bridge_of_somebody_else(spoil: Break, reason: str) -> None:
    subject = subject_of(FOREIGN)
    report = hops(subject, spoil(subject, sound(subject)))["bridge"]
    assert report.reason == reason
    assert "appliancectl apply" not in report.remedy


@pytest.mark.parametrize(
    ("spoil", "hop", "reason"),
    [
        (missing("eth1"), "bridge", "there is no interface eth1"),
        (changed("eth1", master=0), "bridge", "eth1 is not in it"),
        (changed("eth1", up=False, carrier=False), "bridge", "eth1 is down"),
        (changed("eth1", carrier=False), "bridge", "eth1 has no carrier"),
        (changed("br.eth1", filters_vlans=False), "bridge", "it does not filter by VLAN"),
        (given(vlans=()), "tap", "it is in no VLAN, not in 20 alone"),
        (given(vlans=(1, 20)), "tap", "it is in VLAN 1, 20, not in 20 alone"),
    ],
)
def test_an_uplink(spoil: Break, hop: str, reason: str) -> None:
    subject = subject_of(UPLINK)
    report = hops(subject, spoil(subject, sound(subject)))[hop]
    assert (report.verdict, report.reason) == ("failed", reason)
