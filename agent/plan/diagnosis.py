"""Judges the way of an appliance's packets on one network, hop by hop. Pure; agent.core.diagnose gathers the
facts, in two steps: what `to_ask` names is asked after the rest was seen.

    host ─► firewall ─► bridge ─► tap ─► guest ─► gateway ─► outside

A hop behind a broken one is looked at for its own sake, and unknown where that says nothing.
"""

from __future__ import annotations

from agent.model.address import Address
from agent.model.diagnosis import HopReport
from agent.model.link import Way
from agent.plan.diagnosis_beyond import judge_gateway, judge_guest, judge_outside
from agent.plan.diagnosis_facts import Facts, Subject, is_near
from agent.plan.diagnosis_host import judge_bridge, judge_firewall, judge_host, judge_tap


def to_ask(subject: Subject, facts: Facts) -> list[Address]:
    """Who is to be asked for an echo: the guest, its gateway, and that of the host.

    On a network of its own only straight over the bridge: what is meant for a guest is sent to nobody else.
    """
    lan = subject.network.lan
    guest = [
        address
        for address in (subject.port.addresses if subject.runs else ())
        if _is_reached(facts.ways[address], subject)
    ]
    gateways = [address for address in (lan.gateways if lan else ()) if facts.ways[address].interface]
    beyond = [
        way.gateway for way in facts.ways_out.values() if way.gateway and not way.gateway.is_link_local
    ]
    return list(dict.fromkeys([*guest, *gateways, *beyond]))


def judge(subject: Subject, facts: Facts) -> list[HopReport]:
    """Every hop, in order."""
    host, firewall = judge_host(subject, facts), judge_firewall(subject, facts)
    bridge, tap = judge_bridge(subject, facts), judge_tap(subject, facts)
    reachable = not (bridge.wrong or tap.wrong)
    guest = judge_guest(subject, facts, reachable=reachable)
    gateway = judge_gateway(subject, facts)
    outside = judge_outside(subject, facts, sound=not bridge.wrong)
    found = (host, firewall, bridge, tap, guest, gateway, outside)
    return [one.report(subject.network.name) for one in found]


def _is_reached(way: Way, subject: Subject) -> bool:
    if subject.network.lan:
        return bool(way.interface)
    return is_near(way) and way.interface == subject.network.bridge
