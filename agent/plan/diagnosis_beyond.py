"""The hops of a diagnosis beyond the tap: guest, gateway, and what is outside. Pure; part of
agent.plan.diagnosis.
"""

from __future__ import annotations

import ipaddress

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
    for address in subject.port.addresses:
        found.see(f"echo from {address}")
        _judge_answer(address, subject, facts, found, reachable=reachable)
    return found


def _judge_answer(
    address: Address, subject: Subject, facts: Facts, found: Findings, *, reachable: bool
) -> None:
    answer = facts.echoes.get(address)
    if answer is None and subject.network.lan and reachable:
        found.doubt(f"{address} was not asked: the host has no way there")
    elif answer is None:
        found.doubt(f"{address} was not asked: the way there is broken")
    elif answer is Verdict.UNKNOWN:
        found.doubt(f"{address} was not asked: this host does not let the agent ping", _PING_GROUP)
    elif answer is Verdict.FAILED and not reachable:
        found.doubt(f"no answer from {address}: the way there is broken")
    elif answer is Verdict.FAILED and not is_near(facts.ways[address]):
        found.doubt(f"no answer from {address}, which is asked by way of {facts.ways[address].gateway}")
    elif answer is Verdict.FAILED:
        unit = subject.unit_name
        found.fail(f"no answer from {address}", f"`journalctl -u {unit}`; `systemctl restart {unit}`.")


# --- gateway


def judge_gateway(subject: Subject, facts: Facts) -> Findings:
    """Whether guest and gateway can speak to each other."""
    found = Findings(Hop.GATEWAY)
    if subject.network.lan:
        _judge_lan_gateways(subject.network.lan, facts, found)
    else:
        _judge_host_addresses(subject, facts, found)
    for address in subject.port.addresses:
        _judge_mac(address, subject, facts, found)
    return found


def _judge_host_addresses(subject: Subject, facts: Facts, found: Findings) -> None:
    network = subject.network
    for subnet in network.subnets:
        address = network.host_address(subnet)
        found.see(f"the host's own {address}")
        if f"{address}/{subnet.prefixlen}" not in facts.host_addresses:
            found.fail(f"{address} is not on {network.bridge}", "`appliancectl apply` puts it there.")


def _judge_lan_gateways(lan: Lan, facts: Facts, found: Findings) -> None:
    if not lan.gateways:
        found.see("there is no `gateway:`")
    for address in lan.gateways:
        found.see(f"echo from {address}")
        answer, way = facts.echoes.get(address), facts.ways.get(address, Way())
        if answer is None:
            found.doubt(f"{address} was not asked: the host has no way there")
        elif answer is Verdict.UNKNOWN:
            found.doubt(f"{address} was not asked: this host does not let the agent ping", _PING_GROUP)
        elif answer is Verdict.FAILED and is_near(way) and not facts.mac_of(address):
            found.fail(f"nobody has {address}", "Correct `gateway:`, or see to that router.")
        elif answer is Verdict.FAILED:
            found.doubt(f"no answer from {address}")


def _judge_mac(address: Address, subject: Subject, facts: Facts, found: Findings) -> None:
    """Who has its address, as the host has learnt when it asked for an echo."""
    way = facts.ways.get(address, Way())
    if subject.network.lan and not is_near(way):
        return
    mac, planned = facts.mac_of(address, way.interface), subject.port.mac
    found.see(f"MAC of {address}")
    if mac and mac != planned:
        found.fail(
            f"{address} is at {mac}, and {subject.name} has {planned}",
            "Find who else has that address, and give one of them another.",
        )
    elif facts.echoes.get(address) is not Verdict.OK:
        found.doubt(f"nobody says where {address} is")


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
        found.doubt(f"{way.gateway} was not asked: this host does not let the agent ping", _PING_GROUP)
    elif answer is not Verdict.OK:
        found.doubt(f"no answer from {way.gateway}", "It may be silent by intention: look beyond it.")
