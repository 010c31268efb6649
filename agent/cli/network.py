"""Verbs about networks: list, show, leases, diagnose, picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from agent.cli import client_network as client
from agent.cli.output import format_bytes, print_json, print_table
from agent.cli.verbs import Subparsers, add_verb
from agent.model.diagnosis import HopReport, Verdict
from agent.model.errors import ApplianceError, HostError, Problem
from agent.model.network_status import Lease, NetworkStatus, Published, TapCounters
from agent.plan.picture import LINE_CHARACTERS, Scene, as_dot, as_tree
from agent.util.run import run

_PAINTS = {"ok": "good", "failed": "bad", "unknown": "warn"}
_LABEL_WIDTH = 13
_DOT = ("dot", "-Tsvg")


def add_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register `network` and its own verbs."""
    network = add_verb(
        verbs, common, "network", _list, help="show networks, and find what is broken in them"
    )
    own = network.add_subparsers(title="verbs", metavar="VERB", dest="network_verb")
    add_verb(own, common, "list", _list, help="list all networks (the default verb)")
    shown = add_verb(own, common, "show", _show, help="show one network, and who is on it")
    shown.add_argument("name", metavar="NAME", help="the network")
    leases = add_verb(own, common, "leases", _leases, help="list the addresses of appliances")
    leases.add_argument("name", metavar="NETWORK", nargs="?", default="", help="those on this network only")
    diagnosed = add_verb(
        own,
        common,
        "diagnose",
        _diagnose,
        help="follow the way of an appliance's packets to where it is broken",
    )
    diagnosed.add_argument("name", metavar="APPLIANCE")
    picture = add_verb(
        own, common, "picture", _picture, help="draw networks, appliances and published ports"
    )
    form = picture.add_mutually_exclusive_group()
    form.add_argument("--dot", action="store_true", help="print source for Graphviz")
    form.add_argument("--svg", action="store_true", help="print an SVG image, drawn by Graphviz")


# --- list, leases


def _list(arguments: argparse.Namespace) -> int:
    networks = client.networks()
    if arguments.style.json:
        print_json([asdict(network) for network in networks], arguments.style)
        return 0
    rows = [
        [
            network.name,
            network.kind,
            network.bridge,
            _subnets(network),
            str(len(network.appliances)),
        ]
        for network in networks
    ]
    columns = ["NAME", "KIND", "BRIDGE", "SUBNETS", "APPLIANCES"]
    print_table(columns, rows, arguments.style, what="network")
    return 0


def _subnets(network: NetworkStatus) -> str:
    text = _joined(network.subnets)
    return f"{text} (automatic)" if network.automatic else text


def _leases(arguments: argparse.Namespace) -> int:
    leases = client.leases(arguments.name)
    if arguments.style.json:
        print_json([asdict(lease) for lease in leases], arguments.style)
        return 0
    rows = [
        [lease.network, lease.appliance, one.address, _origin(fixed=one.fixed), lease.mac]
        for lease in leases
        for one in lease.addresses
    ]
    columns = ["NETWORK", "APPLIANCE", "ADDRESS", "ORIGIN", "MAC"]
    print_table(columns, rows, arguments.style, what="lease")
    return 0


def _origin(*, fixed: bool) -> str:
    return "fixed" if fixed else "allocated"


# --- show


def _show(arguments: argparse.Namespace) -> int:
    name = arguments.name
    network = next((one for one in client.networks() if one.name == name), None)
    if network is None:
        raise ApplianceError(
            f"There is no network “{name}”.",
            problem=Problem.NOT_FOUND,
            remedy="`appliancectl network` lists all; a file in /etc/appliance/networks makes a new one.",
        )
    leases = client.leases(name)
    ports = [one for one in client.published() if one.network == name]
    counters, unknown = _counters(name)
    if arguments.style.json:
        members = [_member(lease, ports, counters.get(lease.tap)) for lease in leases]
        print_json({**asdict(network), "appliances": members}, arguments.style)
        return 0
    _print_facts(_network_facts(network))
    for lease in leases:
        print(f"\n{lease.appliance}")
        count = counters.get(lease.tap)
        facts = _counter_facts(count) if count else {"Received": unknown or "there is no such interface"}
        _print_facts({**_lease_facts(lease), **facts, **_port_facts(lease, ports)})
    return 0


def _counters(network: str) -> tuple[dict[str, TapCounters], str]:
    """By tap; and why they are not known, or ''. The rest is worth showing without them."""
    try:
        return {one.tap: one for one in client.counters() if one.network == network}, ""
    except ApplianceError as error:
        if error.problem is not Problem.FAILED:
            raise
        return {}, f"unknown: {error.message}"


def _member(lease: Lease, ports: Iterable[Published], count: TapCounters | None) -> dict[str, Any]:
    own = [asdict(port) for port in ports if port.appliance == lease.appliance]
    return {**asdict(lease), "counters": asdict(count) if count else None, "published": own}


def _print_facts(facts: Mapping[str, str]) -> None:
    for label, text in facts.items():
        first, *more = text.split("\n")
        print(f"{label:>{_LABEL_WIDTH}}: {first}")
        for line in more:
            print(f"{'':{_LABEL_WIDTH}}  {line}")


def _network_facts(network: NetworkStatus) -> dict[str, str]:
    vlan = f", VLAN {network.vlan}" if network.vlan else ""
    egress = _joined(network.egress, nothing="nowhere") if network.limited else "no limit"
    return {
        "Network": network.name,
        "Kind": network.kind,
        "Bridge": network.bridge + ("" if network.uplink else vlan),
        **({"Uplink": network.uplink + vlan} if network.uplink else {}),
        "Subnets": _subnets(network),
        "Host": _joined(network.host_addresses),
        "Gateway": _joined(network.gateways),
        "MTU": str(network.mtu),
        "Nameservers": _joined(network.nameservers, nothing="those of the host"),
        "Search": _joined(network.search),
        "Peers": "all of its appliances" if network.peers else "those that name each other",
        "Egress": egress,
        "Appliances": str(len(network.appliances)),
    }


def _lease_facts(lease: Lease) -> dict[str, str]:
    vlan = f", VLAN {lease.vlan}" if lease.vlan else ""
    addresses = (f"{one.address} ({_origin(fixed=one.fixed)})" for one in lease.addresses)
    return {
        "Tap": lease.tap + vlan,
        "MAC": lease.mac,
        "Addresses": _joined(addresses),
        "Default route": "yes" if lease.default_route else "no",
    }


def _counter_facts(count: TapCounters) -> dict[str, str]:
    return {
        "Received": _amount(count.received_packets, count.received_bytes),
        "Sent": _amount(count.sent_packets, count.sent_bytes),
        "Refused": _amount(count.refused_packets, count.refused_bytes),
    }


def _amount(packets: int, size_bytes: int) -> str:
    return f"{packets} packet{'' if packets == 1 else 's'}, {format_bytes(size_bytes)}"


def _port_facts(lease: Lease, ports: Iterable[Published]) -> dict[str, str]:
    lines = [
        f"{port.publication} is not published: {port.reason}"
        if port.reason
        else f"{port.publication} to {_joined(port.targets)}"
        for port in ports
        if port.appliance == lease.appliance
    ]
    return {"Published": "\n".join(lines)} if lines else {}


def _joined(texts: Iterable[str], *, nothing: str = "-") -> str:
    return ", ".join(texts) or nothing


# --- diagnose


def _diagnose(arguments: argparse.Namespace) -> int:
    hops = client.diagnose(arguments.name)
    if arguments.style.json:
        print_json([asdict(hop) for hop in hops], arguments.style)
    else:
        _print_hops(hops, arguments)
    return 1 if any(hop.verdict == Verdict.FAILED for hop in hops) else 0


def _print_hops(hops: list[HopReport], arguments: argparse.Namespace) -> None:
    if not hops:
        print(f"{arguments.name} is on no network.")
        return
    rows = [[hop.hop, hop.network, hop.verdict, hop.looked_at] for hop in hops]
    print_table(["HOP", "NETWORK", "VERDICT", "LOOKED AT"], rows, arguments.style, paints=_PAINTS)
    several = len({hop.network for hop in hops}) > 1
    for hop in hops:
        if hop.reason:
            where = f"{hop.hop} of {hop.network}" if several else hop.hop
            print(f"\n{where}: {hop.reason}.")
            if hop.remedy:
                print(f"    {hop.remedy}")


# --- picture


def _picture(arguments: argparse.Namespace) -> int:
    scene = Scene(client.networks(), client.leases(), client.published())
    if arguments.style.json:
        print_json(asdict(scene), arguments.style)
    elif arguments.svg:
        _write(_drawn(as_dot(scene).encode()))
    elif arguments.dot:
        _write(as_dot(scene).encode())
    else:
        _print_tree(scene)
    return 0


def _print_tree(scene: Scene) -> None:
    """What the output's encoding lacks is left out: a picture is no reason to fail."""
    encoding = sys.stdout.encoding or "ascii"
    text = as_tree(scene, ascii_only=not _is_known(LINE_CHARACTERS, encoding))
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))


def _is_known(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _write(content: bytes) -> None:
    """Both formats are UTF-8, whatever the terminal has."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)


def _drawn(source: bytes) -> bytes:
    try:
        return run(_DOT, stdin=source)
    except HostError as error:
        if error.problem is not Problem.NOT_SUPPORTED:
            raise
        raise ApplianceError(
            "Graphviz, which draws the image, is not installed.",
            problem=Problem.NOT_SUPPORTED,
            remedy="`apt install graphviz`; or draw what `--dot` prints somewhere else.",
        ) from error
