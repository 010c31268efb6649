"""Guest, gateway and outside: what is broken, and what cannot be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config.traffic import parse_destination
from agent.model.diagnosis import Verdict
from agent.model.link import Neighbour, Way
from agent.plan.diagnosis import to_ask
from tests.unit.plan.diagnosing import (
    FOREIGN,
    GUEST,
    GUEST_6,
    LAN_GATEWAY,
    LAN_GUEST,
    NAT,
    NO_WAY,
    OTHER_MAC,
    ROUTER,
    ROUTER_6,
    hops,
    neighbours,
    sound,
    subject_of,
    verdicts,
    with_link,
)

# --- tap and guest


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("active", "The guest holds on to a tap of before: `systemctl restart appliance@dns.service`."),
        ("inactive", "`systemctl start appliance@dns.service`"),
    ],
)
def test_what_to_do_without_a_guest_at_the_tap(state: str, remedy: str) -> None:
    subject = subject_of(state=state)
    facts = with_link(sound(subject), "ap-dns", carrier=False)
    assert hops(subject, facts)["tap"].remedy == remedy


@pytest.mark.parametrize(
    ("state", "reason", "remedy"),
    [
        ("inactive", "appliance@dns.service is inactive", "`systemctl start appliance@dns.service`"),
        ("failed", "appliance@dns.service has failed", "`journalctl -u appliance@dns.service` says why."),
    ],
)
def test_a_guest_that_does_not_run_is_not_asked(state: str, reason: str, remedy: str) -> None:
    subject = subject_of(state=state)
    facts = sound(subject)
    assert to_ask(subject, facts) == [ROUTER]
    silent = replace(facts, echoes={ROUTER: Verdict.OK}, neighbours=neighbours(subject.port, "br-default"))
    found = hops(subject, silent)
    assert (found["guest"].verdict, found["guest"].reason, found["guest"].remedy) == (
        "failed",
        reason,
        remedy,
    )
    # The host may remember where it was.
    assert (found["gateway"].verdict, found["outside"].verdict) == ("unknown", "ok")


def test_a_guest_that_starts_is_asked() -> None:
    subject = subject_of(state="activating")
    report = hops(subject, sound(subject))["guest"]
    assert (report.verdict, report.reason) == ("unknown", "appliance@dns.service is still starting")


def test_a_guest_behind_a_broken_bridge_is_unknown() -> None:
    subject = subject_of()
    facts = with_link(sound(subject, echoes={GUEST: Verdict.FAILED}), "br-default", up=False)
    report = hops(subject, facts)["guest"]
    assert report.verdict == "unknown"
    assert report.reason == (
        "no answer from 10.88.0.2: the way there is broken; "
        "not asked: fd00:88::2, for the way there is broken"
    )


def test_a_guest_that_answers_all_the_same_is_ok() -> None:
    subject = subject_of()
    facts = with_link(sound(subject), "ap-dns", isolated=False)
    assert verdicts(subject, facts) == {"tap": "failed"}


def test_a_host_that_may_not_ping_tells_what_would_let_it() -> None:
    subject = subject_of()
    facts = sound(subject)
    found = hops(subject, replace(facts, echoes=dict.fromkeys(facts.echoes, Verdict.UNKNOWN)))
    assert (found["guest"].verdict, found["outside"].verdict) == ("unknown", "unknown")
    for hop in ("guest", "outside"):
        assert "ping_group_range" in found[hop].remedy


@pytest.mark.parametrize(
    ("way", "asked", "answer", "verdict"),
    [
        (Way("br0"), True, Verdict.FAILED, "failed"),
        (Way("eth7"), True, Verdict.FAILED, "failed"),
        (Way("eth0", ROUTER), True, Verdict.FAILED, "unknown"),
        (Way("eth0", ROUTER), True, Verdict.OK, "ok"),
        (NO_WAY, False, None, "unknown"),
    ],
)
def test_a_guest_on_a_bridged_network_is_asked_from_wherever_the_host_is(
    way: Way, asked: bool, answer: Verdict | None, verdict: str
) -> None:
    subject = subject_of(FOREIGN)
    facts = sound(subject)
    facts = replace(facts, ways={**facts.ways, LAN_GUEST: way})
    assert (LAN_GUEST in to_ask(subject, facts)) == asked
    echoes = {LAN_GATEWAY: Verdict.OK, **({LAN_GUEST: answer} if answer else {})}
    assert hops(subject, replace(facts, echoes=echoes))["guest"].verdict == verdict


# --- gateway


def test_somebody_else_with_the_address_of_the_guest() -> None:
    for network, near in ((NAT, "br-default"), (FOREIGN, "br0")):
        subject = subject_of(network)
        facts = sound(subject, neighbours=neighbours(subject.port, near, OTHER_MAC))
        found = hops(subject, facts)
        assert verdicts(subject, facts)["gateway"] == "failed"
        assert f"is at {OTHER_MAC}, and dns has {subject.port.mac}" in found["gateway"].reason


def test_a_neighbour_on_another_link_is_another() -> None:
    subject = subject_of()
    facts = sound(subject)
    other = neighbours(subject.port, "eth0", OTHER_MAC)
    assert verdicts(subject, replace(facts, neighbours=[*other, *facts.neighbours])) == {}


def test_an_address_of_the_host_that_is_missing() -> None:
    subject = subject_of()
    report = hops(subject, sound(subject, host_addresses={"fd00:88::1/64"}))["gateway"]
    assert (report.verdict, report.reason) == ("failed", "10.88.0.1 is not on br-default")


@pytest.mark.parametrize(
    ("way", "answer", "known", "verdict"),
    [
        (Way("br0"), Verdict.OK, True, "ok"),
        (Way("br0"), Verdict.FAILED, True, "unknown"),
        (Way("br0"), Verdict.FAILED, False, "failed"),
        (Way("eth0", ROUTER), Verdict.FAILED, False, "unknown"),
        (Way("br0"), Verdict.UNKNOWN, False, "unknown"),
        (NO_WAY, None, False, "unknown"),
    ],
)
def test_the_gateway_of_a_bridged_network(
    way: Way, answer: Verdict | None, known: bool, verdict: str
) -> None:
    subject = subject_of(FOREIGN)
    facts = sound(subject)
    facts = replace(facts, ways={**facts.ways, LAN_GATEWAY: way})
    assert (LAN_GATEWAY in to_ask(subject, facts)) == bool(way.interface)
    gateway = Neighbour("br0", LAN_GATEWAY, OTHER_MAC)
    found = hops(
        subject,
        replace(
            facts,
            echoes={LAN_GUEST: Verdict.OK, **({LAN_GATEWAY: answer} if answer else {})},
            neighbours=[*facts.neighbours, *([gateway] if known else [])],
        ),
    )
    assert found["gateway"].verdict == verdict


def test_a_bridged_network_without_a_gateway() -> None:
    subject = subject_of(FOREIGN.replace("gateway: 192.0.2.254\n", ""))
    assert "there is no `gateway:`" in hops(subject, sound(subject))["gateway"].looked_at


# --- outside


def test_packets_that_go_nowhere_where_the_host_s_own_do() -> None:
    subject = subject_of()
    facts = sound(subject, ways_out={4: NO_WAY, 6: Way("eth0", ROUTER_6)})
    report = hops(subject, facts)["outside"]
    assert (report.verdict, report.reason) == ("failed", "IPv4 packets of dns go nowhere (No route to host)")
    assert "from 10.88.0.2 iif br-default" in report.remedy


def test_a_host_without_ipv6_is_no_fault_of_the_network() -> None:
    subject = subject_of()
    out = {4: Way("eth0", ROUTER), 6: NO_WAY}
    report = hops(subject, sound(subject, ways_out=out, own_ways_out=out))["outside"]
    assert report.verdict == "ok"
    assert report.looked_at == (
        f"IPv4 leaves by eth0 to {ROUTER}; no IPv6, for the host itself has no way out"
    )


def test_a_host_without_any_way_out() -> None:
    subject = subject_of()
    out = {4: NO_WAY, 6: NO_WAY}
    report = hops(subject, sound(subject, ways_out=out, own_ways_out=out))["outside"]
    assert (report.verdict, report.reason) == ("failed", "the host itself has no way out")


@pytest.mark.parametrize("answer", [Verdict.FAILED, None])
def test_a_router_that_is_silent_is_unknown(answer: Verdict | None) -> None:
    subject = subject_of()
    facts = sound(subject)
    assert ROUTER in to_ask(subject, facts)
    echoes = {**facts.echoes, ROUTER: answer} if answer else {GUEST: Verdict.OK, GUEST_6: Verdict.OK}
    report = hops(subject, replace(facts, echoes=echoes))["outside"]
    assert (report.verdict, report.reason) == ("unknown", f"no answer from {ROUTER}")


def test_a_router_that_is_known_by_its_link_only() -> None:
    """It cannot be asked; it is there if the host knows its MAC."""
    subject = subject_of()
    facts = sound(subject)
    assert ROUTER_6 not in to_ask(subject, facts)
    assert hops(subject, facts)["outside"].verdict == "ok"
    others = neighbours(subject.port, "br-default")[1:]
    assert hops(subject, replace(facts, neighbours=others))["outside"].verdict == "unknown"


def test_a_way_out_without_a_router() -> None:
    subject = subject_of()
    report = hops(subject, sound(subject, ways_out={4: Way("ppp0"), 6: Way("ppp0")}))["outside"]
    assert (report.verdict, report.looked_at) == ("ok", "IPv4 leaves by ppp0; IPv6 leaves by ppp0")


def test_outside_is_unknown_behind_a_broken_bridge() -> None:
    subject = subject_of()
    facts = replace(with_link(sound(subject), "br-default"), ways_out={})
    report = hops(subject, facts)["outside"]
    assert (report.verdict, report.reason) == ("unknown", "the way there is broken")


def test_a_network_without_the_default_route() -> None:
    subject = subject_of()
    subject = replace(subject, port=replace(subject.port, default_route=False))
    report = hops(subject, sound(subject))["outside"]
    assert (report.verdict, report.looked_at) == ("ok", "the default route of dns is not on this network")


def test_ports_that_are_withheld_are_named() -> None:
    text = "port 53/udp is not published: systemd-resolved.service uses it on this host"
    subject = replace(subject_of(), withheld=(text,))
    report = hops(subject, sound(subject))["outside"]
    assert (report.verdict, report.reason) == ("failed", text)


def test_an_egress_list_is_shown() -> None:
    destination = parse_destination("192.0.2.0/24")
    assert destination is not None
    for egress, text in (((destination,), "to 192.0.2.0/24"), ((), "to nowhere")):
        subject = replace(subject_of(), egress=egress)
        assert hops(subject, sound(subject))["outside"].looked_at.endswith(f"`egress:` lets it out {text}")
