"""Appliances in VLANs of an uplink or of a bridge, by real frames."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from agent.host.netlink import Netlink
from tests.kernel.conftest import OtherNetwork
from tests.kernel.links import ip
from tests.kernel.test_attachment import TAP, UPLINK, apply

# linux/if_tun.h; linux/if_ether.h: for local experiments
TUNSETIFF, IFF_TAP_NO_PI, EXPERIMENTAL = 0x400454CA, 0x1002, 0x88B5

pytestmark = pytest.mark.vlans


def test_vlans(net: Netlink, cable: OtherNetwork) -> None:
    bridge = replace(UPLINK, vlans=frozenset({10, 20}))
    taps = [
        replace(TAP, bridge="br.eth1", vlan=10),
        replace(TAP, name="ap-web", appliance="web", bridge="br.eth1", vlan=20),
    ]
    apply(net.plan([bridge], taps))
    vlans = vlans_of_ports()
    assert (vlans["ap-dns"], vlans["ap-web"]) == ({10}, {20})
    assert {10, 20} <= vlans["eth1"]
    assert net.plan([bridge], taps) == []
    apply(net.plan([bridge], [replace(taps[0], vlan=20), taps[1]]))
    assert net.plan([bridge], [replace(taps[0], vlan=20), taps[1]]) == []


def vlans_of_ports() -> dict[str, set[int]]:
    shown = json.loads(subprocess.run(["bridge", "-json", "vlan"], capture_output=True, check=True).stdout)
    return {entry["ifname"]: {vlan["vlan"] for vlan in entry["vlans"]} for entry in shown}


@contextmanager
def guest_on(tap: str) -> Iterator[int]:
    """A descriptor with every frame that a tap is sent, and by which it sends."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP_NO_PI))
        yield descriptor
    finally:
        os.close(descriptor)


def heard_by(guest: int) -> list[bytes]:
    """What it was sent so far of this kind: sender and content."""
    found = []
    with suppress(BlockingIOError):
        while True:
            frame = os.read(guest, 2048)
            if frame[12:14] == EXPERIMENTAL.to_bytes(2, "big"):
                found.append(frame[6:12] + frame[14:].strip())
    return found


def hear(guest: int) -> list[bytes]:
    """The same, when it was sent something."""
    while not (found := heard_by(guest)):
        assert select.select([guest], [], [], 5.0)[0]
    return found


def station_in(cable: OtherNetwork, vlan: str) -> socket.socket:
    """A machine in a VLAN at the other end of the cable."""
    name = f"eth0.{vlan}"
    with cable.entered():
        ip("link", "add", "link", "eth0", "name", name, "type", "vlan", "id", vlan)
        ip("link", "set", name, "up")
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EXPERIMENTAL))
    raw.bind((name, EXPERIMENTAL))
    raw.settimeout(5.0)
    return raw


def frame_of(sender: bytes, content: bytes) -> bytes:
    return b"\xff" * 6 + sender + EXPERIMENTAL.to_bytes(2, "big") + content.ljust(60)


def test_a_vlan_is_tagged_on_the_uplink_and_not_in_the_guest(net: Netlink, cable: OtherNetwork) -> None:
    guest_mac, station_mac = b"\x02" * 6, b"\x06" * 6
    vlans = {"ap-a": 10, "ap-b": 20, "ap-c": 0}
    taps = [replace(TAP, name=name, bridge="br.eth1", vlan=vlan) for name, vlan in vlans.items()]
    apply(net.plan([replace(UPLINK, vlans=frozenset({10, 20}))], taps))
    with cable.entered():
        ip("link", "set", "eth0", "up")
    with ExitStack() as stack:
        guests = {name: stack.enter_context(guest_on(name)) for name in vlans}
        stations = {
            name: stack.enter_context(station_in(cable, str(vlans[name]))) for name in ("ap-a", "ap-b")
        }
        for name, station in stations.items():
            os.write(guests[name], frame_of(guest_mac, name.encode()))
            assert station.recv(2048) == frame_of(guest_mac, name.encode())
            station.send(frame_of(station_mac, name.encode()))
            assert hear(guests[name]) == [station_mac + name.encode()]
        assert [heard_by(guest) for guest in guests.values()] == [[], [], []]


def test_an_appliance_that_is_in_a_vlan_no_more(net: Netlink, cable: OtherNetwork) -> None:
    bridge = replace(UPLINK, vlans=frozenset({10}))
    tap = replace(TAP, bridge="br.eth1")
    apply(net.plan([bridge], [replace(tap, vlan=10)]))
    apply(net.plan([bridge], [tap]))
    assert vlans_of_ports()["ap-dns"] == vlans_of_ports()["br.eth1"] == {1}
    assert net.plan([bridge], [tap]) == []


def test_an_uplink_without_vlans_is_not_filtered_by_them(net: Netlink, cable: OtherNetwork) -> None:
    tap = replace(TAP, bridge="br.eth1")
    apply(net.plan([replace(UPLINK, vlans=frozenset({10}))], [replace(tap, vlan=10)]))
    apply(net.plan([UPLINK], [tap]))
    assert Path("/sys/class/net/br.eth1/bridge/vlan_filtering").read_text() == "0\n"
    assert net.plan([UPLINK], [tap]) == []
    apply(net.plan([replace(UPLINK, vlans=frozenset({10}))], [tap]))
    assert vlans_of_ports()["ap-dns"] == {1}


def test_a_vlan_of_somebody_else_s_bridge(net: Netlink) -> None:
    ip("link", "add", "br0", "type", "bridge", "vlan_filtering", "1", "vlan_default_pvid", "5")
    taps = [
        replace(TAP, bridge="br0", vlan=10),
        replace(TAP, name="ap-web", appliance="web", bridge="br0"),
    ]
    apply(net.plan([], taps))
    assert vlans_of_ports() == {"br0": {5}, "ap-dns": {10}, "ap-web": {5}}
    assert net.plan([], taps) == []
