"""The network as the kernel has it: links, addresses, routes, neighbours. It changes nothing;
agent.host.netlink does.

Links are read by ip(8): for two hundred taps that takes a fifth of the time of decoding them in Python, and
they are read whenever anything happens to one.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agent.host import sysctl
from agent.host.listeners import listeners
from agent.host.tun import tap_owner
from agent.model.address import Address, Subnet
from agent.model.errors import HostError, Problem
from agent.model.link import Count, Link, Neighbour, Route, Way
from agent.model.listener import Listener
from agent.util.lean import skip_init
from agent.util.run import run

skip_init("pyroute2")
from pyroute2.iproute.linux import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

ALIAS = "appliance-agent"

Vlans = dict[int, int]
"""Flags by VLAN, of one port of a bridge."""

_IP_LINKS = ("ip", "-json", "-details", "-statistics", "link", "show")

# linux/rtnetlink.h, linux/neighbour.h
_RT_TABLE_MAIN = 254
_NUD_INCOMPLETE, _NUD_FAILED = 0x01, 0x20
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# What the kernel answers where a route forbids (Documentation/networking/ip-sysctl.rst has no list).
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES, errno.ENETDOWN, errno.EXDEV)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns the library's errors in the block into HostError."""
    try:
        yield
    except NetlinkError as error:
        denied = error.code in {errno.EPERM, errno.EACCES}
        problem = Problem.ACCESS_DENIED if denied else Problem.FAILED
        raise HostError(f"{what}: {os.strerror(error.code)}", problem=problem) from error
    except OSError as error:
        raise HostError(f"{what}: {error.strerror}") from error


class LinkReader:
    """Blocking; one thread at a time."""

    def __init__(self) -> None:
        self._route = IPRoute()

    def close(self) -> None:
        """Close the netlink socket."""
        self._route.close()

    def links(self) -> dict[str, Link]:
        """All of them, by name."""
        entries = json.loads(run(_IP_LINKS))
        indexes = {entry["ifname"]: entry["ifindex"] for entry in entries}
        return {entry["ifname"]: _read_link(entry, indexes) for entry in entries}

    def addresses(self, index: int) -> set[str]:
        """Addresses of an interface with prefix length, but for link-local ones."""
        messages = self._route.get_addr(index=index)
        found = (f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}" for message in messages)
        return {text for text in found if not ipaddress.ip_interface(text).is_link_local}

    def owner(self, tap: str) -> int:
        """The uid that may attach to a tap, -1 for anybody."""
        with explained(f"owner of tap {tap}"):
            return tap_owner(tap)

    def vlans(self) -> dict[int, Vlans]:
        """Of every port of a bridge that filters by them, by index."""
        found: dict[int, Vlans] = {}
        with explained("reading VLANs"):
            for message in self._route.get_vlans():
                specification = message.get_attr("IFLA_AF_SPEC")
                entries = specification.get_attrs("IFLA_BRIDGE_VLAN_INFO") if specification else ()
                found[message["index"]] = {entry["vid"]: entry["flags"] for entry in entries}
        return found

    def bandwidth(self, link: Link) -> int:
        """The limit of what a link is sent, in bits per second; 0 for none."""
        if link.qdisc != "tbf":
            return 0
        for message in self._route.get_qdiscs(index=link.index):
            if message.get_attr("TCA_KIND") == "tbf":
                return int(message.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")["rate"]) * 8
        return 0

    def foreign_routes(self) -> list[Route]:
        """Routes of the host, but for default routes and those to bridges of ours."""
        names = {link.index: link.name for link in self.links().values() if not link.ours}
        found = []
        with explained("reading routes"):
            for message in self._route.get_routes(table=_RT_TABLE_MAIN):
                destination, index = message.get_attr("RTA_DST"), message.get_attr("RTA_OIF")
                if destination and message["dst_len"] and (index is None or index in names):
                    subnet = ipaddress.ip_network(f"{destination}/{message['dst_len']}")
                    if not (subnet.is_link_local or subnet.is_multicast):
                        found.append(Route(subnet, names.get(index, "")))
        return found

    def routes(self) -> list[Subnet]:
        """Subnets that the host has routes to, but for default routes and those to bridges of ours."""
        return [route.subnet for route in self.foreign_routes()]

    def way(self, destination: Address, *, source: Address | None = None, interface: str = "") -> Way:
        """Where a packet of this host's goes; with `interface`, one of `source` that came in by it."""
        question: dict[str, Any] = {"family": _FAMILIES[destination.version], "dst": str(destination)}
        with explained(f"looking up the way to {destination}"):
            if interface:
                question.update(src=str(source), iif=socket.if_nametoindex(interface))
            try:
                [message] = self._route.route("get", **question)
            except NetlinkError as error:
                if error.code not in _NO_WAY:
                    raise
                return Way(refusal=os.strerror(error.code))
            out = socket.if_indextoname(message.get_attr("RTA_OIF"))
        gateway = message.get_attr("RTA_GATEWAY")
        return Way(out, ipaddress.ip_address(gateway) if gateway else None)

    def neighbours(self) -> list[Neighbour]:
        """Everybody that the host has spoken to, or wanted to."""
        names = {link.index: link.name for link in self.links().values()}
        with explained("reading neighbours"):
            return [
                Neighbour(names[message["ifindex"]], ipaddress.ip_address(address), _mac(message))
                for message in self._route.get_neighbours()
                if (address := message.get_attr("NDA_DST")) and message["ifindex"] in names
            ]

    def forwards(self, version: int, interface: str) -> bool:
        """Whether the host passes on packets of this IP version that come in by an interface."""
        with explained(f"forwarding of IPv{version}"):
            return sysctl.forwards(version, interface)

    def filters_bridged(self, version: int) -> bool:
        """Whether packets that stay on a bridge go through the chains of the IP families, too."""
        with explained("br_netfilter"):
            return sysctl.filters_bridged(version)

    def listeners(self) -> list[Listener]:
        """The host's own listening sockets."""
        return listeners()


def _mac(message: Any) -> str:
    known = not message["state"] & (_NUD_INCOMPLETE | _NUD_FAILED)
    return (message.get_attr("NDA_LLADDR") or "") if known else ""


def _read_link(entry: Mapping[str, Any], indexes: Mapping[str, int]) -> Link:
    """Absent is what an interface does not have."""
    info: Mapping[str, Any] = entry.get("linkinfo", {})
    port = info.get("info_slave_data", {})
    counters = entry.get("stats64", {})
    return Link(
        index=entry["ifindex"],
        name=entry["ifname"],
        kind=info.get("info_kind", ""),
        up="UP" in entry["flags"],
        carrier="LOWER_UP" in entry["flags"],
        mtu=entry.get("mtu", 0),
        mac=entry.get("address", ""),
        master=indexes.get(entry.get("master", ""), 0),
        ours=entry.get("ifalias", "").startswith(f"{ALIAS}: "),
        isolated=port.get("isolated", False),
        hairpin=port.get("hairpin", False),
        qdisc=entry.get("qdisc", ""),
        filters_vlans=bool(info.get("info_data", {}).get("vlan_filtering")),
        received=_count(counters.get("rx", {})),
        sent=_count(counters.get("tx", {})),
    )


def _count(counters: Mapping[str, int]) -> Count:
    return Count(counters.get("packets", 0), counters.get("bytes", 0))
