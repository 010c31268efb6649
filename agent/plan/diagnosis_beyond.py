"""The hops of a diagnosis beyond the tap: guest, gateway, and what is outside. Pure; part of
agent.plan.diagnosis.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from agent.model.address import Address
from agent.model.diagnosis import Hop, Verdict
from agent.model.link import Way
from agent.model.network import Lan
from agent.plan.diagnosis_facts import Facts, Findings, Subject, is_near

FAR: dict[int, Address] = {
    4: ipaddress.ip_address("198.41.0.4"),
    6: ipaddress.ip_address("2001:503:ba3e::2:30"),
}
"""Addresses far away, to ask the kernel for the way there: a.root-servers.net. Nothing is sent to them."""

# What is said of those who were to answer.
_SILENT = "no answer from {}"
_CUT_OFF = "no answer from {}: the way there is broken"
_NOT_ASKED = "not asked: {}, for the way there is broken"
_NO_WAY = "not asked: {}, for the host has no way there"
_NOT_ALLOWED = "not asked: {}, for this host does not let the agent ping"
_PING_GROUP = "Let the agent ask: `sysctl net.ipv4.ping_group_range='0 0'`."


# --- guest


def judge_guest(subject: Subject, facts: Facts, *, reachable: bool) -> Findings:
    """Whether there is a guest that answers. `reachable` says whether the way to its tap is sound."""
    found, unit = Findings(Hop.GUEST), subject.unit_name
    found.see(unit)
    if not subject.runs:
        state = subject.unit.active_state
        if state == "failed":
            found.fail(f"{unit} has failed", f"`journalctl -u {unit}` says why.")
        else:
            found.fail(f"{unit} is {state}", f"`systemctl start {unit}`")
        return found
    if subject.unit.active_state == "activating":
        found.doubt(f"{unit} is still starting", f"`systemctl status {unit}` says what it waits for.")
    found.see(f"echo from {_listed(subject.port.addresses)}")
    said = {
        address: _answer(address, subject, facts, reachable=reachable) for address in subject.port.addresses
    }
    for text in dict.fromkeys(text for text in said.values() if text):
        addresses = _listed(address for address, own in said.items() if own == text)
        if text == _SILENT:
            found.fail(text.format(addresses), f"`journalctl -u {unit}`; `systemctl restart {unit}`.")
        else:
            found.doubt(text.format(addresses), _PING_GROUP if text == _NOT_ALLOWED else "")
    return found


def _answer(address: Address, subject: Subject, facts: Facts, *, reachable: bool) -> str:
    """What is to be said of its answer, with a place for its address; '' where it has answered."""
    answer, way = facts.echoes.get(address), facts.ways.get(address, Way())
    if answer is Verdict.OK:
        return ""
    if answer is Verdict.UNKNOWN:
        return _NOT_ALLOWED
    if answer is None:
        return _NO_WAY if subject.network.lan and reachable else _NOT_ASKED
    if not reachable:
        return _CUT_OFF
    return _SILENT if is_near(way) else f"{_SILENT}, asked by way of {way.gateway}"


def _listed(addresses: Iterable[Address]) -> str:
    return ", ".join(map(str, addresses))


# --- gateway


def judge_gateway(subject: Subject, facts: Facts) -> Findings:
    """Whether guest and gateway can speak to each other."""
    found = Findings(Hop.GATEWAY)
    if subject.network.lan:
        _judge_lan_gateways(subject.network.lan, facts, found)
    else:
        _judge_host_addresses(subject, facts, found)
    _judge_macs(subject, facts, found)
    return found


def _judge_host_addresses(subject: Subject, facts: Facts, found: Findings) -> None:
    network = subject.network
    own = [network.host_address(subnet) for subnet in network.subnets]
    found.see(f"the host's own {_listed(address for address in own if address)}")
    for subnet, address in zip(network.subnets, own, strict=True):
        if f"{address}/{subnet.prefixlen}" not in facts.host_addresses:
            found.fail(f"{address} is not on {network.bridge}", "`appliancectl apply` puts it there.")


def _judge_lan_gateways(lan: Lan, facts: Facts, found: Findings) -> None:
    if not lan.gateways:
        found.see("there is no `gateway:`")
    for address in lan.gateways:
        found.see(f"echo from {address}")
        answer, way = facts.echoes.get(address), facts.ways.get(address, Way())
        if answer is None:
            found.doubt(_NO_WAY.format(address))
        elif answer is Verdict.UNKNOWN:
            found.doubt(_NOT_ALLOWED.format(address), _PING_GROUP)
        elif answer is Verdict.FAILED and is_near(way) and not facts.mac_of(address):
            found.fail(f"nobody has {address}", "Correct `gateway:`, or see to that router.")
        elif answer is Verdict.FAILED:
            found.doubt(_SILENT.format(address))


def _judge_macs(subject: Subject, facts: Facts, found: Findings) -> None:
    """Who has its addresses, as the host has learnt when it asked for an echo."""
    planned, unknown = subject.port.mac, []
    near = [
        address
        for address in subject.port.addresses
        if subject.network.lan is None or is_near(facts.ways.get(address, Way()))
    ]
    for address in near:
        mac = facts.mac_of(address, facts.ways.get(address, Way()).interface)
        if mac and mac != planned:
            found.fail(
                f"{address} is at {mac}, and {subject.name} has {planned}",
                "Find who else has that address, and give one of them another.",
            )
        elif facts.echoes.get(address) is not Verdict.OK:
            unknown.append(address)
    if near:
        found.see(f"MAC of {_listed(near)}")
    if unknown:
        found.doubt(f"nobody says who has {_listed(unknown)}")


# --- outside


def judge_outside(subject: Subject, facts: Facts, *, sound: bool) -> Findings:
    """Whether packets find their way out, and in to published ports. `sound` says whether the bridge is."""
    found, network = Findings(Hop.OUTSIDE), subject.network
    if not network.leads_out:
        found.see("the network leads nowhere, as it is to")
    elif not subject.port.default_route:
        found.see(f"the default route of {subject.name} is not on this network")
    elif network.lan:
        found.see("what is behind the gateway")
        found.doubt("what is behind the gateway cannot be seen from this host")
    elif sound:
        _judge_ways_out(subject, facts, found)
    else:
        found.see("the way out")
        found.doubt("the way there is broken")
    for text in subject.withheld:
        found.fail(text, "Stop or move what uses the port, or publish another; then `appliancectl apply`.")
    return found


def _judge_ways_out(subject: Subject, facts: Facts, found: Findings) -> None:
    nowhere = []
    for version in subject.versions:
        way, own = (ways.get(version, Way()) for ways in (facts.ways_out, facts.own_ways_out))
        if way.interface:
            _judge_way_out(version, way, facts, found)
        elif own.interface:
            far = FAR[version]
            source = next(address for address in subject.port.addresses if address.version == version)
            found.fail(
                f"IPv{version} packets of {subject.name} go nowhere ({way.refusal})",
                f"See `ip route get {far} from {source} iif {subject.network.bridge}`.",
            )
        else:
            nowhere.append(f"IPv{version}")
    if nowhere == [f"IPv{version}" for version in subject.versions]:
        found.see("the way of the host itself")
        found.fail("the host itself has no way out", "Give it a default route.")
    elif nowhere:
        found.see(f"no {' and '.join(nowhere)}, for the host itself has no way out")
    if subject.egress is not None:
        only = ", ".join(map(str, subject.egress)) or "nowhere"
        found.see(f"`egress:` lets it out to {only}")


def _judge_way_out(version: int, way: Way, facts: Facts, found: Findings) -> None:
    if way.gateway is None:
        found.see(f"IPv{version} leaves by {way.interface}")
        return
    found.see(f"IPv{version} leaves by {way.interface} to {way.gateway}")
    # A link-local address says nothing without its link, which icmplib cannot be told.
    known = way.gateway.is_link_local and facts.mac_of(way.gateway, way.interface)
    answer = Verdict.OK if known else facts.echoes.get(way.gateway)
    if answer is Verdict.UNKNOWN:
        found.doubt(_NOT_ALLOWED.format(way.gateway), _PING_GROUP)
    elif answer is not Verdict.OK:
        found.doubt(_SILENT.format(way.gateway), "It may be silent by intention: look beyond it.")
