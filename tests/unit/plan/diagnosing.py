"""An appliance on a network, and a host on which everything is as it is to be; tests break what they are
about."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from agent.model.address import Address
from agent.model.diagnosis import HopReport, Verdict
from agent.model.health import UnitStatus
from agent.model.link import Count, FilterChain, Link, Neighbour, Way
from agent.model.network import Bridge, Port, Tap
from agent.plan.diagnosis import judge
from agent.plan.diagnosis_facts import Facts, Subject
from agent.plan.host import HostPlan
from agent.plan.ports import plan_taps, with_vlans
from tests.unit.plan.test_network_status import LINK, planned

NAT = "subnets: [10.88.0.0/24, 'fd00:88::/64']\n"
ISOLATED = f"kind: isolated\n{NAT}"
_LAN = "kind: bridged\nsubnets: [192.0.2.0/24]\ngateway: 192.0.2.254\npool: 192.0.2.64/26\n"
UPLINK, FOREIGN = f"{_LAN}uplink: eth1\nvlan: 20\n", f"{_LAN}bridge: br0\n"
OWNER = 900
GUEST, GUEST_6 = ipaddress.ip_address("10.88.0.2"), ipaddress.ip_address("fd00:88::2")
LAN_GUEST, LAN_GATEWAY = ipaddress.ip_address("192.0.2.64"), ipaddress.ip_address("192.0.2.254")
NO_WAY = Way(refusal="No route to host")
ROUTER, ROUTER_6 = ipaddress.ip_address("198.51.100.254"), ipaddress.ip_address("fe80::1")
OTHER_MAC = "02:66:66:66:66:66"


def plan_of(network: str) -> HostPlan:
    return planned({"default": network}, {"dns": {}})


def subject_of(network: str = NAT, *, state: str = "active") -> Subject:
    """`dns` on this network; the firewall is to have one chain of its own."""
    plan = plan_of(network)
    appliance = plan.appliances["dns"]
    port = appliance.ports[0]
    taps = plan_taps({"dns": (appliance.appliance, appliance.ports)}, {"dns": OWNER})
    bridges = with_vlans(plan.bridges, taps)
    return Subject(
        name="dns",
        port=port,
        tap=taps[0],
        bridge=next((bridge for bridge in bridges if bridge.name == port.network.bridge), None),
        unit=UnitStatus(active_state=state),
        chains=[("bridge", "appliance", "ap-dns"), ("inet", "appliance", "forward")],
    )


def link(name: str, index: int, kind: str, **changes: Any) -> Link:
    values = {"name": name, "index": index, "kind": kind, "master": 0, "isolated": False, **changes}
    return replace(LINK, received=Count(0, 0), sent=Count(0, 0), **values)


def bridge_link(name: str, bridge: Bridge | None) -> Link:
    if bridge is None:
        return link(name, 3, "bridge", ours=False)
    changes = {"mac": bridge.mac, "mtu": bridge.mtu, "filters_vlans": bool(bridge.vlans)}
    return link(name, 3, "bridge", **changes)


def tap_link(tap: Tap) -> Link:
    changes = {"mtu": tap.mtu, "isolated": tap.isolated, "hairpin": tap.hairpin}
    return link(tap.name, 4, "tun", master=3, **changes)


def sound(subject: Subject, **changes: Any) -> Facts:
    """Everything as it is to be, but for these."""
    port, bridge = subject.port, subject.bridge
    lan, name = port.network.lan, port.network.bridge
    uplink = bridge.uplink if bridge else ""
    links = [bridge_link(name, bridge), tap_link(subject.tap)]
    if uplink:
        links.append(link(uplink, 5, "", master=3, ours=False))
    near = "eth0" if uplink else name
    ways: dict[Address, Way] = {
        address: Way(near) for address in (*port.addresses, *(lan.gateways if lan else ()))
    }
    out = {4: Way("eth0", ROUTER), 6: Way("eth0", ROUTER_6)}
    values: dict[str, Any] = {
        "links": {one.name: one for one in links},
        "host_addresses": bridge.addresses if bridge else {"192.0.2.1/24"},
        "owner": OWNER,
        "vlans": [subject.tap.vlan] if subject.tap.vlan else [],
        "chains": [FilterChain(*chain) for chain in subject.chains],
        "ways": ways,
        "ways_out": {} if lan or not port.network.leads_out else out,
        "own_ways_out": out,
        "echoes": dict.fromkeys([*ways, ROUTER], Verdict.OK),
        "neighbours": neighbours(port, near),
    }
    return Facts(**{**values, **changes})


def neighbours(port: Port, interface: str, mac: str = "") -> list[Neighbour]:
    router = Neighbour("eth0", ROUTER_6, "02:00:00:00:00:fe")
    return [router, *(Neighbour(interface, address, mac or port.mac) for address in port.addresses)]


def with_link(facts: Facts, name: str, **changes: Any) -> Facts:
    """With a link that is otherwise; without it where nothing is said."""
    others = {key: one for key, one in facts.links.items() if key != name}
    if changes:
        others[name] = replace(facts.links[name], **changes)
    return replace(facts, links=others)


def hops(subject: Subject, facts: Facts) -> dict[str, HopReport]:
    return {report.hop: report for report in judge(subject, facts)}


def verdicts(subject: Subject, facts: Facts) -> dict[str, str]:
    """Of the hops that are not ok."""
    return {name: report.verdict for name, report in hops(subject, facts).items() if report.verdict != "ok"}
