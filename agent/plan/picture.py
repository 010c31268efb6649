"""A picture of networks, the appliances on them, and published ports: as a tree of text, or as source for
graphviz(7). Pure; agent.cli.network prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.model.network import NetworkKind
from agent.model.network_status import Lease, NetworkStatus, Published

_LINES = ("├── ", "└── ", "│   ", "    ", " → ")
_ASCII_LINES = ("|-- ", "`-- ", "|   ", "    ", " -> ")
LINE_CHARACTERS = "".join(_LINES)
"""What a tree is drawn with, where the output's encoding has it."""

_FONT = 'fontname="sans-serif"'
# How a network is connected with what is outside of the host; an isolated one is not.
_DIRECTIONS: dict[str, str] = {
    NetworkKind.NAT: "back",
    NetworkKind.ROUTED: "both",
    NetworkKind.BRIDGED: "both",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be seen."""

    networks: Sequence[NetworkStatus]
    leases: Sequence[Lease]
    published: Sequence[Published]

    def on(self, network: str) -> list[Lease]:
        """Who is on a network."""
        return [lease for lease in self.leases if lease.network == network]

    def ports_of(self, lease: Lease) -> list[Published]:
        """Published ports that lead to an appliance on this network."""
        place = (lease.appliance, lease.network)
        return [one for one in self.published if (one.appliance, one.network) == place]


# --- text


def as_tree(scene: Scene, *, ascii_only: bool = False) -> str:
    """A tree: networks below the host, appliances below networks, ports below appliances."""
    lines = _ASCII_LINES if ascii_only else _LINES
    branches = [(_network_line(network), _appliances(scene, network, lines)) for network in scene.networks]
    return "".join(f"{line}\n" for line in ("this host", *_drawn(branches, lines)))


_Branch = tuple[str, Sequence["_Branch"]]


def _appliances(scene: Scene, network: NetworkStatus, lines: Sequence[str]) -> list[_Branch]:
    return [
        (
            f"{lease.appliance}  {_addresses(lease)}",
            [(_port_line(port, lines), ()) for port in scene.ports_of(lease)],
        )
        for lease in scene.on(network.name)
    ]


def _drawn(branches: Sequence[_Branch], lines: Sequence[str]) -> Iterator[str]:
    fork, end, along, past, _ = lines
    for number, (text, below) in enumerate(branches, 1):
        last = number == len(branches)
        yield (end if last else fork) + text
        yield from ((past if last else along) + line for line in _drawn(below, lines))


def _network_line(network: NetworkStatus) -> str:
    return f"{network.name}  {', '.join(_facts(network))}"


def _facts(network: NetworkStatus) -> list[str]:
    via = f"by {network.uplink}" if network.uplink else network.bridge
    vlan = [f"VLAN {network.vlan}"] if network.vlan else []
    return [network.kind, via, *vlan, *network.subnets]


def _addresses(lease: Lease) -> str:
    return ", ".join(one.address for one in lease.addresses)


def _port_line(port: Published, lines: Sequence[str]) -> str:
    if port.reason:
        return f"{port.publication} is not published: {port.reason}"
    return f"{port.publication}{lines[-1]}{', '.join(port.targets)}"


# --- graphviz


def as_dot(scene: Scene) -> str:
    """A directed graph. Networks lead outside, published ports from there to appliances; those that are
    not published are dashed."""
    lines = [
        "rankdir=LR;",
        f"node [{_FONT}, fontsize=11, shape=box];",
        f"edge [{_FONT}, fontsize=9];",
        f"{_id('outside')} [label={_quoted('outside')}, shape=plaintext];",
        *_network_nodes(scene.networks),
        *_appliance_nodes(scene),
        *_port_edges(scene.published),
    ]
    return "digraph appliances {\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def _network_nodes(networks: Iterable[NetworkStatus]) -> Iterator[str]:
    for network in networks:
        name = _id("network", network.name)
        kind, via, *rest = _facts(network)
        label = "\n".join((network.name, f"{kind}, {via}", *rest))
        yield f"{name} [label={_quoted(label)}, style=rounded];"
        if direction := _DIRECTIONS.get(network.kind):
            yield f"{_id('outside')} -> {name} [dir={direction}];"


def _appliance_nodes(scene: Scene) -> Iterator[str]:
    for name in sorted({lease.appliance for lease in scene.leases}):
        yield f"{_id('appliance', name)} [label={_quoted(name)}];"
    for lease in scene.leases:
        label = "\n".join(one.address for one in lease.addresses)
        ends = f"{_id('network', lease.network)} -> {_id('appliance', lease.appliance)}"
        yield f"{ends} [label={_quoted(label)}, dir=none];"


def _port_edges(published: Iterable[Published]) -> Iterator[str]:
    for port in published:
        label = "\n".join((port.publication, *([f"not published: {port.reason}"] if port.reason else ())))
        style = ", style=dashed" if port.reason else ""
        ends = f"{_id('outside')} -> {_id('appliance', port.appliance)}"
        yield f"{ends} [label={_quoted(label)}{style}];"


def _id(*words: str) -> str:
    return _quoted(" ".join(words))


def _quoted(text: str) -> str:
    """A string in quotes: nothing in it ends the string, or is one of the escapes of labels (graphviz's
    escString). Lines end with `\\n`, and no other control character comes through."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(one if one.isprintable() else "?" for one in escaped) + '"'
