"""Bridges and taps through rtnetlink. The only module that knows pyroute2 (0.7).

Links of ours carry an alias that says so; a link of the same name without it is somebody else's and is never
touched. pyroute2 drops attributes it does not know without a word, so what matters for security is read
back.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.model.change import Change, Effect
from agent.model.errors import HostError, Problem
from agent.model.network import Bridge, Tap
from agent.util.lean import skip_init

skip_init("pyroute2")
from pyroute2.iproute.linux import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK  # noqa: E402

ALIAS = "appliance-agent"

# A guest holds on to the tap it was started with, even when that is gone.
_NEW_TAP = Effect.RESTART | Effect.CUT_OFF

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP_NO_PI = 0x1002


@dataclass(frozen=True, slots=True)
class _Link:
    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    master: int
    ours: bool


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        denied = error.code in {errno.EPERM, errno.EACCES}
        problem = Problem.ACCESS_DENIED if denied else Problem.FAILED
        raise HostError(f"{what}: {os.strerror(error.code)}", problem=problem) from error
    except OSError as error:
        raise HostError(f"{what}: {error.strerror}") from error


class Netlink:
    """Blocking; one thread at a time. Every `plan_…` compares what is with what shall be and returns what to
    do."""

    def __init__(self) -> None:
        self._route = IPRoute()

    def close(self) -> None:
        """Close the netlink socket."""
        self._route.close()

    def _links(self) -> dict[str, _Link]:
        with _explained("reading links"):
            links = [_read_link(message) for message in self._route.get_links()]
        return {link.name: link for link in links}

    def plan(self, bridges: Sequence[Bridge], taps: Sequence[Tap]) -> list[Change]:
        """What it takes to have exactly these bridges and taps: missing ones made, wrong ones mended, stray
        ones removed."""
        links = self._links()
        wanted = {bridge.name for bridge in bridges} | {tap.name for tap in taps}
        changes = [
            Change(f"remove {link.kind} {link.name}", partial(self._remove, link))
            for link in links.values()
            if link.ours and link.name not in wanted
        ]
        for bridge in bridges:
            changes += _or_refusal(partial(self._plan_bridge, bridge, links.get(bridge.name)), bridge.name)
        for tap in taps:
            plan = partial(self._plan_tap, tap, links.get(tap.name), links.get(tap.bridge))
            changes += _or_refusal(plan, tap.name, tap.appliance)
        return changes

    def _plan_bridge(self, bridge: Bridge, link: _Link | None) -> list[Change]:
        if link is None:
            return [Change(f"create bridge {bridge.name}", partial(self._create_bridge, bridge))]
        # The alias comes after the bridge; a crash in between leaves our MAC to know it by.
        if link.mac != bridge.mac:
            _check_ours(link, "bridge")
        changes = []
        if not link.ours or not link.up or link.mtu != bridge.mtu or link.mac != bridge.mac:
            changes.append(Change(f"set up bridge {bridge.name}", partial(self._set_up, bridge)))
        present = self._addresses(link.index)
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

    def _plan_tap(self, tap: Tap, link: _Link | None, bridge: _Link | None) -> list[Change]:
        if link is None:
            create = f"create tap {tap.name}"
            return [Change(create, lambda: self._create_tap(tap), tap.appliance, _NEW_TAP)]
        _check_ours(link, "tun")
        if tap_owner(tap.name) != tap.owner_uid:
            anew = f"create tap {tap.name} anew: it has another owner"
            return [Change(anew, lambda: self._recreate_tap(link, tap), tap.appliance, _NEW_TAP)]
        if bridge is None or link.master != bridge.index or not link.up or link.mtu != tap.mtu:
            return [
                Change(f"attach tap {tap.name} to {tap.bridge}", lambda: self._attach(tap), tap.appliance)
            ]
        return []

    def _index(self, name: str) -> int:
        with _explained(f"interface {name}"):
            return socket.if_nametoindex(name)

    def _addresses(self, index: int) -> set[str]:
        messages = self._route.get_addr(index=index)
        found = (f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}" for message in messages)
        return {text for text in found if not ipaddress.ip_interface(text).is_link_local}

    def _create_bridge(self, bridge: Bridge) -> None:
        with _explained(f"creating bridge {bridge.name}"):
            options = {"br_stp_state": 0, "br_forward_delay": 0}
            self._route.link("add", ifname=bridge.name, kind="bridge", address=bridge.mac, **options)
        self._set_up(bridge)
        for address in sorted(bridge.addresses):
            self._address("add", bridge.name, address)

    def _set_up(self, bridge: Bridge) -> None:
        # Without a guest the bridge has no carrier, and its addresses must not wait for that as tentative.
        _set_ipv6(bridge.name, "accept_dad", "0")
        with _explained(f"setting up {bridge.name}"):
            index = self._index(bridge.name)
            self._route.link("set", index=index, ifalias=f"{ALIAS}: network {bridge.network}")
            self._route.link("set", index=index, mtu=bridge.mtu, address=bridge.mac, state="up")

    def _address(self, command: str, name: str, address: str) -> None:
        text, _, length = address.partition("/")
        extra = (
            {"broadcast": str(ipaddress.ip_interface(address).network.broadcast_address)}
            if "." in text
            else {}
        )
        with _explained(f"{command} {address} on {name}"):
            self._route.addr(command, index=self._index(name), address=text, prefixlen=int(length), **extra)

    def _create_tap(self, tap: Tap) -> None:
        with _explained(f"creating tap {tap.name}"):
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", tap.name.encode(), _IFF_TAP_NO_PI))
                fcntl.ioctl(tun, _TUNSETOWNER, tap.owner_uid)
                alias = f"{ALIAS}: tap on {tap.bridge}"
                self._route.link("set", index=self._index(tap.name), ifalias=alias)
                # Last: whatever fails before it, or a crash, leaves nothing.
                fcntl.ioctl(tun, _TUNSETPERSIST, 1)
            finally:
                os.close(tun)
        # Without an owner any local user may attach.
        if tap_owner(tap.name) != tap.owner_uid:
            raise HostError(f"tap {tap.name} did not take its owner")
        self._attach(tap)

    def _recreate_tap(self, link: _Link, tap: Tap) -> None:
        self._remove(link)
        self._create_tap(tap)

    def _attach(self, tap: Tap) -> None:
        index = self._index(tap.name)
        # The host has no business on a guest's own link, and its link-local traffic would wake the guest.
        _set_ipv6(tap.name, "disable_ipv6", "1")
        with _explained(f"attaching {tap.name} to {tap.bridge}"):
            self._route.link("set", index=index, mtu=tap.mtu, master=self._index(tap.bridge), state="up")

    def _remove(self, link: _Link) -> None:
        with _explained(f"removing {link.name}"):
            self._route.link("del", index=link.index)


def _read_link(message: Any) -> _Link:
    info = message.get_attr("IFLA_LINKINFO")
    return _Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else "") or "",
        up=bool(message["flags"] & 1),
        mtu=message.get_attr("IFLA_MTU") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        master=message.get_attr("IFLA_MASTER") or 0,
        ours=(message.get_attr("IFLA_IFALIAS") or "").startswith(f"{ALIAS}: "),
    )


def _or_refusal(plan: Callable[[], list[Change]], name: str, appliance: str = "") -> list[Change]:
    """The plan, or a change that fails as planning did: one link's trouble is not the others'."""
    try:
        return plan()
    except HostError as error:
        return [Change(f"use interface {name}", partial(_refuse, error), appliance)]


def _refuse(error: HostError) -> None:
    raise error


def _check_ours(link: _Link, kind: str) -> None:
    if not link.ours or link.kind != kind:
        raise HostError(
            f"Interface {link.name} exists and was not made by the agent.",
            problem=Problem.ALREADY_EXISTS,
            remedy="Rename or remove it, or choose another name in the configuration.",
        )


def tap_owner(name: str) -> int:
    """The uid that may attach to a tap, -1 for anybody; from sysfs, because netlink libraries may not know
    it."""
    with _explained(f"owner of tap {name}"):
        return int(Path(f"/sys/class/net/{name}/owner").read_text(encoding="ascii"))


def _set_ipv6(name: str, key: str, value: str) -> None:
    """Set a sysctl of an interface; nothing where the host has no IPv6 (ipv6.disable=1)."""
    with _explained(f"{key} of {name}"), suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/{key}").write_text(value, encoding="ascii")


class LinkMonitor:
    """A socket that becomes readable when a link or an address changed; for the event loop."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))

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
