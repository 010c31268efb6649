"""The hops of a diagnosis that are this host's own: routing, firewall, bridge and tap. Pure; part of
agent.plan.diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.model.diagnosis import Hop
from agent.model.link import FilterChain, Link, Route
from agent.model.network import Bridge, Network
from agent.plan.diagnosis_facts import Facts, Findings, Subject
from agent.plan.firewall import TABLES

_APPLY = (
    "`appliancectl apply` puts it right; `journalctl -u appliance-agent` says what keeps the agent from it."
)
_RELOAD = (
    "`systemctl restart appliance-agent` loads it; `journalctl -u appliance-agent` names who takes it away."
)
_SYSCTLS = {
    4: "net.ipv4.ip_forward and net.ipv4.conf.{bridge}.forwarding",
    6: "net.ipv6.conf.all.forwarding",
}
_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
# A chain beside the one that drops, and how its owner wants to be told.
_ADVICE = {
    "DOCKER-USER": "docker: `iptables -I DOCKER-USER -i {bridge} -j ACCEPT`, and the same with `-o`",
    "filter_FORWARD": "firewalld: `firewall-cmd --permanent --zone=trusted --add-interface={bridge}`,"
    " and `firewall-cmd --reload`",
    "ufw-user-forward": "ufw: `ufw route allow in on {bridge}` and `ufw route allow out on {bridge}`",
    "ufw6-user-forward": "ufw: `ufw route allow in on {bridge}` and `ufw route allow out on {bridge}`",
}


def judge_host(subject: Subject, facts: Facts) -> Findings:
    """Whether the host forwards, and has no other route to the network's subnets."""
    found, network = Findings(Hop.HOST), subject.network
    if network.lan:
        found.see("a bridged network: the host does not route")
        return found
    if network.leads_out:
        _judge_forwarding(subject, facts, found)
    else:
        found.see("an isolated network: nothing is to be forwarded")
    subnets = ", ".join(map(str, network.subnets))
    found.see(f"other routes to {subnets}")
    for route in facts.foreign_routes:
        if _collides(route, network):
            via = f"behind {route.interface}" if route.interface else "in a route of its own"
            found.fail(
                f"{route.subnet} is also {via}",
                "Give the network other `subnets:`, or remove that route: see `ip route`.",
            )
    if not found.wrong and facts.bridge_is_sound(subject):
        _judge_ways(subject, facts, found)
    return found


def _judge_forwarding(subject: Subject, facts: Facts, found: Findings) -> None:
    versions = sorted({subnet.version for subnet in subject.network.subnets})
    found.see(f"forwarding of {' and '.join(f'IPv{version}' for version in versions)}")
    for version in versions:
        if version not in facts.forwards:
            keys = _SYSCTLS[version].format(bridge=subject.network.bridge)
            found.fail(
                f"IPv{version} packets from {subject.network.bridge} are not forwarded",
                f"Set {keys} to 1 (sysctl(8)), and look for what sets it to 0 (sysctl.d(5)).",
            )


def _collides(route: Route, network: Network) -> bool:
    """Whether packets to the network may take this route: it is as narrow, or narrower."""
    return route.interface != network.bridge and any(
        route.subnet.version == subnet.version
        and route.subnet.prefixlen >= subnet.prefixlen
        and route.subnet.overlaps(subnet)
        for subnet in network.subnets
    )


def _judge_ways(subject: Subject, facts: Facts, found: Findings) -> None:
    """Rules of policy routing, too, may send packets elsewhere."""
    for address in subject.port.addresses:
        way = facts.ways.get(address)
        if way and way.interface != subject.network.bridge:
            where = f"to {way.interface}" if way.interface else f"nowhere ({way.refusal})"
            found.fail(
                f"packets to {address} go {where}",
                f"See `ip route get {address}` and `ip rule`.",
            )


# --- firewall


def judge_firewall(subject: Subject, facts: Facts) -> Findings:
    """Whether our own rules are in the kernel, and nobody else's drop what they let pass."""
    found = Findings(Hop.FIREWALL)
    present = {(chain.family, chain.table, chain.name) for chain in facts.chains}
    tables = {(family, table) for family, table, _ in present}
    found.see(f"tables {' and '.join(f'{family} {table}' for family, table in TABLES)}")
    found.see("chains of others for what is forwarded")
    if facts.unreadable:
        found.doubt(f"they could not be read: {facts.unreadable}", "`nft list tables` may say more.")
        return found
    for family, table in TABLES:
        if (family, table) not in tables:
            found.fail(f"table {family} {table} is not in the kernel", _RELOAD)
            continue
        missing = sorted(
            chain for chain in subject.chains if chain[:2] == (family, table) and chain not in present
        )
        for _, _, name in missing:
            found.fail(f"chain {name} of table {family} {table} is not in the kernel", _RELOAD)
    for chain in stopping_chains(subject, facts):
        _judge_stopping(chain, subject, facts, found)
    return found


def stopping_chains(subject: Subject, facts: Facts) -> Iterator[FilterChain]:
    """Chains of others that drop what they are not told to accept, and see packets of this appliance."""
    for chain in facts.chains:
        others = (chain.family, chain.table) not in TABLES
        drops = (chain.hook, chain.policy) == ("forward", "drop")
        if others and drops and _sees(chain, subject, facts):
            yield chain


def _sees(chain: FilterChain, subject: Subject, facts: Facts) -> bool:
    """Whether packets of the appliance come to a chain: those that the host routes, those to others on its
    bridge, or both."""
    lan = subject.network.lan is not None
    routed, bridged = subject.network.is_routed, lan or not subject.tap.isolated
    if chain.family == "bridge":
        return bridged
    versions = set(_FAMILIES.get(chain.family, ())) & set(subject.versions)
    return bool((routed and versions) or (bridged and versions & set(facts.filters_bridged)))


def _judge_stopping(chain: FilterChain, subject: Subject, facts: Facts, found: Findings) -> None:
    bridge = subject.network.bridge
    what = (
        f"table {chain.family} {chain.table} drops in its chain {chain.name} what none of its rules accepts"
    )
    if chain in facts.related:
        look = f"See `nft list table {chain.family} {chain.table}`."
        found.doubt(f"{what}; it has rules about this network", look)
        return
    beside = {
        other.name for other in facts.chains if (other.family, other.table) == (chain.family, chain.table)
    }
    advice = next((text for name, text in _ADVICE.items() if name in beside), "")
    remedy = f"Have it accept what comes from and goes to {bridge}"
    found.fail(
        f"{what}, and none is about this network",
        f"{remedy}; {advice.format(bridge=bridge)}." if advice else f"{remedy}.",
    )


# --- bridge


def judge_bridge(subject: Subject, facts: Facts) -> Findings:
    """Whether the bridge is there, is the one it is to be, and is up."""
    found, name = Findings(Hop.BRIDGE), subject.network.bridge
    link = facts.links.get(name)
    addresses = sorted(facts.host_addresses)
    found.see(f"{name} with {', '.join(addresses)}" if link and addresses else name)
    if link is None:
        found.fail(f"there is no interface {name}", _APPLY if subject.bridge else _make(name))
        return found
    if link.kind != "bridge":
        found.fail(f"{name} is no bridge", "Rename that interface, or the network.")
        return found
    if not link.up:
        found.fail("it is down", _APPLY if subject.bridge else f"`ip link set {name} up`")
    if subject.port.vlan and not link.filters_vlans:
        found.fail("it does not filter by VLAN", f"`ip link set {name} type bridge vlan_filtering 1`")
    if subject.bridge:
        _judge_own_bridge(subject.bridge, link, facts, found)
    return found


def _make(bridge: str) -> str:
    return f"Make {bridge}, e.g. with systemd-networkd, or name another bridge with `bridge:`."


def _judge_own_bridge(bridge: Bridge, link: Link, facts: Facts, found: Findings) -> None:
    if not link.ours:
        found.fail("it was not made by the agent", "Rename or remove it, then `appliancectl apply`.")
    if link.mac != bridge.mac:
        found.fail(f"its MAC is {link.mac}, not {bridge.mac}", _APPLY)
    for address in sorted(bridge.addresses - set(facts.host_addresses)):
        found.fail(f"{address} is missing", _APPLY)
    if bridge.uplink:
        _judge_uplink(bridge.uplink, link, facts, found)


def _judge_uplink(uplink: str, bridge: Link, facts: Facts, found: Findings) -> None:
    found.see(f"its uplink {uplink}")
    link = facts.links.get(uplink)
    if link is None:
        found.fail(f"there is no interface {uplink}", "Correct `uplink:`, or see why it is not there.")
        return
    if link.master != bridge.index:
        found.fail(f"{uplink} is not in it", _APPLY)
    if not link.up:
        found.fail(f"{uplink} is down", _APPLY)
    elif not link.carrier:
        found.fail(f"{uplink} has no carrier", "See to its cable, and to the other end of it.")


# --- tap


def judge_tap(subject: Subject, facts: Facts) -> Findings:
    """Whether the tap is there as it is to be, and a guest attached to it."""
    found, tap = Findings(Hop.TAP), subject.tap
    found.see(f"{tap.name} in {tap.bridge}")
    link, bridge = facts.links.get(tap.name), facts.links.get(tap.bridge)
    if link is None:
        found.fail(f"there is no interface {tap.name}", _APPLY)
        return found
    if not link.ours:
        found.fail("it was not made by the agent", "Rename or remove it, then `appliancectl apply`.")
    if bridge is None or link.master != bridge.index:
        found.fail(f"it is not in {tap.bridge}", _APPLY)
    if facts.owner != tap.owner_uid:
        found.fail(f"its owner is {facts.owner}, not {tap.owner_uid}", _APPLY)
    for text, has, wanted in (
        ("isolated from others on the bridge", link.isolated, tap.isolated),
        ("open to what it has sent itself", link.hairpin, tap.hairpin),
    ):
        if has != wanted:
            found.fail(f"it is {'' if has else 'not '}{text}", _APPLY)
    if link.mtu != tap.mtu:
        found.fail(f"its MTU is {link.mtu}, not {tap.mtu}", _APPLY)
    if tap.vlan and set(facts.vlans) != {tap.vlan}:
        where = f"VLAN {', '.join(map(str, sorted(facts.vlans)))}" if facts.vlans else "no VLAN"
        found.fail(f"it is in {where}, not in {tap.vlan} alone", _APPLY)
    _judge_carrier(link, subject, found)
    return found


def _judge_carrier(link: Link, subject: Subject, found: Findings) -> None:
    unit = subject.unit_name
    if not link.up:
        found.fail("it is down", _APPLY)
    elif not link.carrier:
        remedy = (
            f"The guest holds on to a tap of before: `systemctl restart {unit}`."
            if subject.runs
            else f"`systemctl start {unit}`"
        )
        found.fail("no guest is attached", remedy)
