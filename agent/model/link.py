"""The network as the kernel has it: links, routes, neighbours, and chains of nftables."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.address import Address, Subnet


@dataclass(frozen=True, slots=True)
class Count:
    """So much has passed."""

    packets: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `ours` is one that the agent has made; `master` is the index of the bridge it is in, 0
    for none. `carrier` says whether somebody is at the other end: of a tap, whether a guest is attached."""

    index: int
    name: str
    kind: str
    up: bool
    carrier: bool
    mtu: int
    mac: str
    master: int
    ours: bool
    isolated: bool
    hairpin: bool
    qdisc: str
    filters_vlans: bool
    received: Count
    sent: Count


@dataclass(frozen=True, slots=True)
class Route:
    """An entry of the main routing table; `interface` is '' where it is not exactly one."""

    subnet: Subnet
    interface: str


@dataclass(frozen=True, slots=True)
class Way:
    """What the kernel does with a packet: it leaves by `interface`, to `gateway` or straight to its
    destination; `refusal` says why it goes nowhere, or ''. What is the host's own stays with `interface`
    lo."""

    interface: str = ""
    gateway: Address | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who has an address on the link of an interface; the MAC is '' where nobody has answered."""

    interface: str
    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class FilterChain:
    """A chain of nftables. Those that the kernel calls have a `hook`, and a `policy` for what no rule has
    decided, which the last one may be, too."""

    family: str
    table: str
    name: str
    hook: str = ""
    policy: str = ""
