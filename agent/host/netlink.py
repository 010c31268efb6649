"""Bridges and taps through rtnetlink: makes what agent.host.links reads. These two know pyroute2 (0.7), and
nobody else.

Links of ours carry an alias that says so; a link of the same name without it is somebody else's and is never
touched. pyroute2 drops attributes it does not know without a word, so what matters for security is read
back.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from agent.host import sysctl
from agent.host.links import ALIAS, LinkReader, Vlans, explained
from agent.host.tun import new_tap
from agent.model.change import Change, Effect
from agent.model.errors import HostError, Problem
from agent.model.link import Link
from agent.model.network import Bridge, Tap
from agent.util.lean import skip_init

skip_init("pyroute2")
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK  # noqa: E402

# A guest holds on to the tap it was started with, even when that is gone.
_NEW_TAP = Effect.RESTART | Effect.CUT_OFF

# net/if_bridge.h
_PVID_UNTAGGED = ["pvid", "untagged"]
_PVID, _UNTAGGED = 2, 4
_RTMGRP_TC, _RTMGRP_IPV4_NETCONF, _RTMGRP_IPV6_NETCONF = 0x8, 1 << 23, 1 << 24
_WATCHED = (
    RTMGRP_LINK
    | RTMGRP_IPV4_IFADDR
    | RTMGRP_IPV6_IFADDR
    | _RTMGRP_TC
    | _RTMGRP_IPV4_NETCONF
    | _RTMGRP_IPV6_NETCONF
)
# Time that a packet may wait for its turn, where an appliance's bandwidth is limited; and packets of so many
# milliseconds may go at once.
_TBF_LATENCY = "50ms"
_TBF_BURST_MS = 10


class Netlink(LinkReader):
    """Blocking; one thread at a time. `plan` compares what is with what shall be, and returns what to do."""

    def plan(self, bridges: Sequence[Bridge], taps: Sequence[Tap]) -> list[Change]:
        """What it takes to have exactly these bridges and taps: missing ones made, wrong ones mended, stray
        ones removed."""
        links = self.links()
        wanted = {bridge.name for bridge in bridges} | {tap.name for tap in taps}
        filtering = {link.name for link in links.values() if link.filters_vlans}
        filtering.update(bridge.name for bridge in bridges if bridge.vlans)
        vlans = self.vlans() if filtering else {}
        changes = [
            Change(f"remove {link.kind} {link.name}", partial(self._remove, link))
            for link in links.values()
            if link.ours and link.name not in wanted
        ]
        changes += _plan_forwarding(bridges)
        for bridge in bridges:
            changes += _or_refusal(partial(self._plan_bridge, bridge, links.get(bridge.name)), bridge.name)
            if bridge.uplink:
                plan = partial(self._plan_uplink, bridge, links, vlans)
                changes += _or_refusal(plan, bridge.uplink)
        own = {bridge.name for bridge in bridges}
        for tap in taps:
            vlan = _vlan_of(tap) if tap.bridge in filtering else 0
            plan = partial(self._plan_tap, tap, links, vlans, vlan=vlan, own_bridge=tap.bridge in own)
            changes += _or_refusal(plan, tap.name, tap.appliance)
        return changes

    def _plan_bridge(self, bridge: Bridge, link: Link | None) -> list[Change]:
        if link is None:
            return [Change(f"create bridge {bridge.name}", partial(self._create_bridge, bridge))]
        # The alias comes after the bridge; a crash in between leaves our MAC to know it by.
        if link.mac != bridge.mac:
            _check_ours(link, "bridge")
        changes = []
        right = (
            link.ours
            and link.up
            and (link.mtu, link.mac) == (bridge.mtu, bridge.mac)
            and link.filters_vlans == bool(bridge.vlans)
        )
        if not right:
            changes.append(Change(f"set up bridge {bridge.name}", partial(self._set_up, bridge)))
        present = self.addresses(link.index)
        changes += [
            Change(
                f"{command} {address} on {bridge.name}",
                partial(self._address, command, bridge.name, address),
            )
            for command, addresses in (
                ("add", bridge.addresses - present),
                ("del", present - bridge.addresses),
            )
            for address in sorted(addresses)
        ]
        return changes

    def _plan_uplink(
        self, bridge: Bridge, links: Mapping[str, Link], vlans: Mapping[int, Vlans]
    ) -> list[Change]:
        link, master = links.get(bridge.uplink), links.get(bridge.name)
        if link is None:
            raise HostError(f"There is no interface {bridge.uplink} (yet).", problem=Problem.NOT_FOUND)
        joined = master is not None and link.master == master.index
        if link.master and not joined:
            raise HostError(
                f"Interface {bridge.uplink} is in another bridge or bond.",
                problem=Problem.IN_USE,
                remedy="Name that bridge with `bridge:` in place of `uplink:`.",
            )
        if addresses := self.addresses(link.index):
            raise HostError(
                f"Interface {bridge.uplink} has addresses of the host ({', '.join(sorted(addresses))}), "
                "which would be lost in a bridge.",
                problem=Problem.IN_USE,
                remedy="Give them to a bridge, e.g. with systemd-networkd, and name that with `bridge:`.",
            )
        if joined and link.up and bridge.vlans <= vlans.get(link.index, {}).keys():
            return []
        text = f"attach uplink {bridge.uplink} to {bridge.name}"
        return [Change(text, partial(self._attach_uplink, bridge))]

    def _plan_tap(
        self,
        tap: Tap,
        links: Mapping[str, Link],
        vlans: Mapping[int, Vlans],
        *,
        vlan: int,
        own_bridge: bool,
    ) -> list[Change]:
        link, bridge = links.get(tap.name), links.get(tap.bridge)
        if not own_bridge:
            _check_foreign(bridge, tap)
        if link is None:
            create = f"create tap {tap.name}"
            return [Change(create, lambda: self._create_tap(tap), tap.appliance, _NEW_TAP)]
        _check_ours(link, "tun")
        if self.owner(tap.name) != tap.owner_uid:
            anew = f"create tap {tap.name} anew: it has another owner"
            return [Change(anew, lambda: self._recreate_tap(link, tap), tap.appliance, _NEW_TAP)]
        right = (
            bridge is not None
            and link.master == bridge.index
            and link.up
            and (link.mtu, link.isolated, link.hairpin) == (tap.mtu, tap.isolated, tap.hairpin)
            and (not vlan or vlans.get(link.index) == {vlan: _PVID | _UNTAGGED})
            and self.bandwidth(link) == tap.bandwidth
        )
        if right:
            return []
        return [Change(f"attach tap {tap.name} to {tap.bridge}", lambda: self._attach(tap), tap.appliance)]

    def _index(self, name: str) -> int:
        with explained(f"interface {name}"):
            return socket.if_nametoindex(name)

    def _create_bridge(self, bridge: Bridge) -> None:
        with explained(f"creating bridge {bridge.name}"):
            options = {"br_stp_state": 0, "br_forward_delay": 0}
            if bridge.vlans:
                options["br_vlan_filtering"] = 1
            self._route.link("add", ifname=bridge.name, kind="bridge", address=bridge.mac, **options)
        self._set_up(bridge)
        for address in sorted(bridge.addresses):
            self._address("add", bridge.name, address)

    def _set_up(self, bridge: Bridge) -> None:
        # Without a guest the bridge has no carrier, and its addresses must not wait for that as tentative.
        with explained(f"setting up {bridge.name}"):
            sysctl.set_of("ipv6", bridge.name, "accept_dad", "0")
            # Published ports are reached by 127.0.0.1, too; guests cannot use loopback addresses.
            sysctl.set_of("ipv4", bridge.name, "route_localnet", str(int(bridge.routes)))
            index = self._index(bridge.name)
            self._route.link("set", index=index, ifalias=f"{ALIAS}: {bridge.label}")
            if bridge.vlans or _filters_vlans(bridge.name):
                filtering = int(bool(bridge.vlans))
                self._route.link("set", index=index, kind="bridge", br_vlan_filtering=filtering)
            self._route.link("set", index=index, mtu=bridge.mtu, address=bridge.mac, state="up")

    def _address(self, command: str, name: str, address: str) -> None:
        text, _, length = address.partition("/")
        extra = (
            {"broadcast": str(ipaddress.ip_interface(address).network.broadcast_address)}
            if "." in text
            else {}
        )
        with explained(f"{command} {address} on {name}"):
            self._route.addr(command, index=self._index(name), address=text, prefixlen=int(length), **extra)

    def _create_tap(self, tap: Tap) -> None:
        with explained(f"creating tap {tap.name}"), new_tap(tap.name, tap.owner_uid):
            alias = f"{ALIAS}: tap on {tap.bridge}"
            self._route.link("set", index=self._index(tap.name), ifalias=alias)
        self._attach(tap)

    def _recreate_tap(self, link: Link, tap: Tap) -> None:
        self._remove(link)
        self._create_tap(tap)

    def _attach(self, tap: Tap) -> None:
        index = self._index(tap.name)
        with explained(f"attaching {tap.name} to {tap.bridge}"):
            # The host has no business on a guest's own link; its link-local traffic would wake the guest.
            sysctl.set_of("ipv6", tap.name, "disable_ipv6", "1")
            self._route.link("set", index=index, mtu=tap.mtu, master=self._index(tap.bridge))
            # Before it is up: nothing passes without.
            self._isolate(tap, index)
            if _filters_vlans(tap.bridge):
                self._join_vlan(index, _vlan_of(tap))
            elif tap.vlan:
                raise HostError(f"bridge {tap.bridge} does not filter by VLAN")
            self._limit(tap, index)
            self._route.link("set", index=index, state="up")

    def _isolate(self, tap: Tap, index: int) -> None:
        self._route.brport("set", index=index, isolated=int(tap.isolated), mode=int(tap.hairpin))
        flag = Path(f"/sys/class/net/{tap.name}/brport/isolated").read_text(encoding="ascii").strip()
        if flag != str(int(tap.isolated)):
            raise HostError(f"tap {tap.name} did not take its isolation")

    def _join_vlan(self, index: int, vlan: int) -> None:
        for other in self.vlans().get(index, {}):
            if other != vlan:
                self._route.vlan_filter("del", index=index, vlan_info={"vid": other})
        if vlan:
            self._route.vlan_filter("add", index=index, vlan_info={"vid": vlan, "flags": _PVID_UNTAGGED})

    def _limit(self, tap: Tap, index: int) -> None:
        if tap.bandwidth:
            burst = max(tap.bandwidth * _TBF_BURST_MS // 8000, 2 * tap.mtu)
            rate = f"{tap.bandwidth}bit"
            self._route.tc(
                "replace", "tbf", index, handle="1:", rate=rate, latency=_TBF_LATENCY, burst=burst
            )
        else:
            with suppress(NetlinkError):
                self._route.tc("del", index=index, handle="1:", parent=0xFFFFFFFF)

    def _attach_uplink(self, bridge: Bridge) -> None:
        index = self._index(bridge.uplink)
        with explained(f"attaching {bridge.uplink} to {bridge.name}"):
            self._route.link("set", index=index, master=self._index(bridge.name), state="up")
            for vlan in sorted(bridge.vlans):
                self._route.vlan_filter("add", index=index, vlan_info={"vid": vlan})

    def _remove(self, link: Link) -> None:
        with explained(f"removing {link.name}"):
            self._route.link("del", index=link.index)


def _vlan_of(tap: Tap) -> int:
    """The one VLAN of its bridge that a tap is to be in: where it says none, that of every new port."""
    return tap.vlan or _bridge_setting(tap.bridge, "default_pvid")


def _filters_vlans(bridge: str) -> bool:
    return bool(_bridge_setting(bridge, "vlan_filtering"))


def _bridge_setting(bridge: str, key: str) -> int:
    """0 where there is no such bridge yet, or the kernel does not filter by VLAN."""
    try:
        return int(Path(f"/sys/class/net/{bridge}/bridge/{key}").read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0


def _plan_forwarding(bridges: Sequence[Bridge]) -> list[Change]:
    """The host is a router for guests of networks that lead out."""
    addresses = [
        ipaddress.ip_interface(text) for bridge in bridges if bridge.routes for text in bridge.addresses
    ]
    return [
        Change(f"let the host forward IPv{version}", partial(_let_forward, version))
        for version in sorted({address.version for address in addresses})
        if not sysctl.forwards(version)
    ]


def _let_forward(version: int) -> None:
    with explained(f"letting the host forward IPv{version}"):
        sysctl.let_forward(version)


def _check_foreign(bridge: Link | None, tap: Tap) -> None:
    if bridge is None or bridge.kind != "bridge":
        raise HostError(f"There is no bridge {tap.bridge} (yet).", problem=Problem.NOT_FOUND)
    if tap.vlan and not bridge.filters_vlans:
        raise HostError(
            f"Bridge {tap.bridge} does not filter by VLAN.",
            problem=Problem.NOT_SUPPORTED,
            remedy=f"`ip link set {tap.bridge} type bridge vlan_filtering 1`",
        )


def _or_refusal(plan: Callable[[], list[Change]], name: str, appliance: str = "") -> list[Change]:
    """The plan, or a change that fails as planning did: one link's trouble is not the others'."""
    try:
        return plan()
    except HostError as error:
        return [Change(f"use interface {name}", partial(_refuse, error), appliance)]


def _refuse(error: HostError) -> None:
    raise error


def _check_ours(link: Link, kind: str) -> None:
    if not link.ours or link.kind != kind:
        raise HostError(
            f"Interface {link.name} exists and was not made by the agent.",
            problem=Problem.ALREADY_EXISTS,
            remedy="Rename or remove it, or choose another name in the configuration.",
        )


class LinkMonitor:
    """A socket that becomes readable when a link, an address, a queue or forwarding changed; for the event
    loop."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _WATCHED))

    def fileno(self) -> int:
        """For loop.add_reader."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Forget what was received; an overflow counts as a change like any other."""
        while True:
            try:
                self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
