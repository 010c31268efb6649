"""How taps and uplinks are attached: port flags, limits, bridges of others."""

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

from agent.host.netlink import LinkMonitor, Netlink
from agent.model.change import Change
from agent.model.errors import HostError, Problem
from agent.model.network import Bridge, Tap
from tests.kernel.conftest import OtherNetwork
from tests.kernel.links import ip, links

# linux/if_tun.h; linux/if_ether.h: for local experiments
TUNSETIFF, IFF_TAP_NO_PI, EXPERIMENTAL = 0x400454CA, 0x1002, 0x88B5
BRIDGE = Bridge(
    name="br-lan",
    label="network lan",
    mac="02:11:22:33:44:55",
    addresses=frozenset({"10.88.0.1/24"}),
    mtu=1500,
)
TAP = Tap(name="ap-dns", bridge="br-lan", owner_uid=61000, mtu=1500, appliance="dns")
UPLINK = Bridge(
    name="br.eth1",
    label="uplink eth1",
    mac="02:11:22:33:44:66",
    addresses=frozenset(),
    mtu=1500,
    uplink="eth1",
)


@pytest.fixture
def net() -> Iterator[Netlink]:
    found = Netlink()
    yield found
    found.close()


@pytest.fixture
def cable() -> Iterator[OtherNetwork]:
    """The interface eth1, with a cable to another machine."""
    other = OtherNetwork()
    ip("link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", other.path)
    yield other
    other.close()


def apply(changes: list[Change]) -> list[str]:
    for change in changes:
        change.apply()
    return [str(change) for change in changes]


def port_of(name: str) -> dict[str, object]:
    found = links()[name]["linkinfo"]["info_slave_data"]
    return dict(found)


def qdiscs(name: str) -> list[dict[str, object]]:
    text = subprocess.run(["tc", "-json", "qdisc", "show", "dev", name], capture_output=True, check=True)
    return [dict(entry) for entry in json.loads(text.stdout)]


# --- flags of ports


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("hairpin", [True, False])
def test_flags(net: Netlink, *, isolated: bool, hairpin: bool) -> None:
    tap = replace(TAP, isolated=isolated, hairpin=hairpin)
    apply(net.plan([BRIDGE], [tap]))
    assert (port_of("ap-dns")["isolated"], port_of("ap-dns")["hairpin"]) == (isolated, hairpin)
    assert net.plan([BRIDGE], [tap]) == []
    other = replace(TAP, isolated=not isolated, hairpin=not hairpin)
    assert apply(net.plan([BRIDGE], [other])) == ["dns: attach tap ap-dns to br-lan"]
    assert (port_of("ap-dns")["isolated"], port_of("ap-dns")["hairpin"]) == (not isolated, not hairpin)


def test_a_flag_that_somebody_has_changed(net: Netlink) -> None:
    tap = replace(TAP, isolated=True)
    apply(net.plan([BRIDGE], [tap]))
    monitor = LinkMonitor()
    ip("link", "set", "ap-dns", "type", "bridge_slave", "isolated", "off")
    monitor.drain()
    monitor.close()
    assert apply(net.plan([BRIDGE], [tap])) == ["dns: attach tap ap-dns to br-lan"]
    assert port_of("ap-dns")["isolated"] is True


def test_a_flag_is_read_back(net: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that does not know it would leave it out without a word."""
    apply(net.plan([BRIDGE], [TAP]))
    monkeypatch.setattr(net._route, "brport", lambda *_args, **_values: None)
    with pytest.raises(HostError, match="ap-dns did not take its isolation"):
        apply(net.plan([BRIDGE], [replace(TAP, isolated=True)]))


# --- limits


def test_a_limit(net: Netlink) -> None:
    tap = replace(TAP, bandwidth=20_000_000)
    apply(net.plan([BRIDGE], [tap]))
    [queue] = qdiscs("ap-dns")
    assert queue["kind"] == "tbf"
    assert queue["options"]["rate"] == 20_000_000 // 8  # type: ignore[index]
    assert net.plan([BRIDGE], [tap]) == []
    apply(net.plan([BRIDGE], [replace(tap, bandwidth=8_000_000)]))
    assert qdiscs("ap-dns")[0]["options"]["rate"] == 1_000_000  # type: ignore[index]
    apply(net.plan([BRIDGE], [TAP]))
    assert all(queue["kind"] != "tbf" for queue in qdiscs("ap-dns"))
    assert net.plan([BRIDGE], [TAP]) == []


def test_a_limit_that_somebody_has_removed(net: Netlink) -> None:
    tap = replace(TAP, bandwidth=20_000_000)
    apply(net.plan([BRIDGE], [tap]))
    subprocess.run(["tc", "qdisc", "del", "dev", "ap-dns", "root"], check=True)
    assert apply(net.plan([BRIDGE], [tap])) == ["dns: attach tap ap-dns to br-lan"]


# --- uplinks


def test_an_uplink(net: Netlink, cable: OtherNetwork) -> None:
    assert apply(net.plan([UPLINK], [])) == ["create bridge br.eth1", "attach uplink eth1 to br.eth1"]
    assert links()["eth1"]["master"] == "br.eth1"
    assert net.plan([UPLINK], []) == []
    ip("link", "set", "eth1", "nomaster")
    assert apply(net.plan([UPLINK], [])) == ["attach uplink eth1 to br.eth1"]
    assert apply(net.plan([], [])) == ["remove bridge br.eth1"]
    assert "master" not in links()["eth1"]


def test_an_uplink_that_does_not_exist_yet(net: Netlink) -> None:
    """Everything else is done, and the uplink when it has come."""
    changes = net.plan([UPLINK, BRIDGE], [TAP])
    failed = [change for change in changes if "eth1" in change.text and "br." not in change.text]
    with pytest.raises(HostError, match=r"There is no interface eth1 \(yet\)") as caught:
        failed[0].apply()
    assert caught.value.problem is Problem.NOT_FOUND
    apply([change for change in changes if change not in failed])
    assert links()["ap-dns"]["master"] == "br-lan"
    ip("link", "add", "eth1", "type", "veth", "peer", "name", "other")
    assert apply(net.plan([UPLINK, BRIDGE], [TAP])) == ["attach uplink eth1 to br.eth1"]


def test_an_uplink_with_the_host_s_own_addresses(net: Netlink, cable: OtherNetwork) -> None:
    ip("address", "add", "192.0.2.1/24", "dev", "eth1")
    with pytest.raises(HostError, match=r"has addresses of the host \(192\.0\.2\.1/24\)"):
        apply(net.plan([UPLINK], []))
    assert "master" not in links()["eth1"]


def test_an_uplink_in_somebody_else_s_bridge(net: Netlink, cable: OtherNetwork) -> None:
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "eth1", "master", "br0")
    with pytest.raises(HostError, match="in another bridge"):
        apply(net.plan([UPLINK], []))
    assert links()["eth1"]["master"] == "br0"


# --- bridges of others


def test_a_tap_on_somebody_else_s_bridge(net: Netlink) -> None:
    tap = replace(TAP, bridge="br0")
    with pytest.raises(HostError, match=r"There is no bridge br0 \(yet\)"):
        apply(net.plan([], [tap]))
    ip("link", "add", "br0", "address", "02:00:00:00:00:b0", "type", "bridge")
    before = links()["br0"]
    assert apply(net.plan([], [tap])) == ["dns: create tap ap-dns"]
    assert links()["ap-dns"]["master"] == "br0"
    after = links()["br0"]
    assert (after["address"], after["flags"], after.get("ifalias")) == (
        before["address"],
        before["flags"],
        before.get("ifalias"),
    )
    assert apply(net.plan([], [])) == ["remove tun ap-dns"]
    assert "br0" in links()


def test_a_vlan_of_a_bridge_that_does_not_filter(net: Netlink) -> None:
    ip("link", "add", "br0", "type", "bridge")
    with pytest.raises(HostError, match="br0 does not filter by VLAN") as caught:
        apply(net.plan([], [replace(TAP, bridge="br0", vlan=10)]))
    assert caught.value.remedy == "`ip link set br0 type bridge vlan_filtering 1`"


# --- VLANs, where the kernel has them


@pytest.fixture
def filtering() -> None:
    """A kernel that filters bridges by VLAN (CONFIG_BRIDGE_VLAN_FILTERING)."""
    made = subprocess.run(
        ["ip", "link", "add", "try", "type", "bridge", "vlan_filtering", "1"],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("this kernel has no VLAN filtering")
    ip("link", "del", "try")


@pytest.mark.usefixtures("filtering")
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


@pytest.mark.usefixtures("filtering")
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


@pytest.mark.usefixtures("filtering")
def test_an_appliance_that_is_in_a_vlan_no_more(net: Netlink, cable: OtherNetwork) -> None:
    bridge = replace(UPLINK, vlans=frozenset({10}))
    tap = replace(TAP, bridge="br.eth1")
    apply(net.plan([bridge], [replace(tap, vlan=10)]))
    apply(net.plan([bridge], [tap]))
    assert vlans_of_ports()["ap-dns"] == vlans_of_ports()["br.eth1"] == {1}
    assert net.plan([bridge], [tap]) == []


@pytest.mark.usefixtures("filtering")
def test_an_uplink_without_vlans_is_not_filtered_by_them(net: Netlink, cable: OtherNetwork) -> None:
    tap = replace(TAP, bridge="br.eth1")
    apply(net.plan([replace(UPLINK, vlans=frozenset({10}))], [replace(tap, vlan=10)]))
    apply(net.plan([UPLINK], [tap]))
    assert Path("/sys/class/net/br.eth1/bridge/vlan_filtering").read_text() == "0\n"
    assert net.plan([UPLINK], [tap]) == []
    apply(net.plan([replace(UPLINK, vlans=frozenset({10}))], [tap]))
    assert vlans_of_ports()["ap-dns"] == {1}


@pytest.mark.usefixtures("filtering")
def test_a_vlan_of_somebody_else_s_bridge(net: Netlink) -> None:
    ip("link", "add", "br0", "type", "bridge", "vlan_filtering", "1", "vlan_default_pvid", "5")
    taps = [
        replace(TAP, bridge="br0", vlan=10),
        replace(TAP, name="ap-web", appliance="web", bridge="br0"),
    ]
    apply(net.plan([], taps))
    assert vlans_of_ports() == {"br0": {5}, "ap-dns": {10}, "ap-web": {5}}
    assert net.plan([], taps) == []


# --- forwarding


def test_the_host_forwards_where_a_network_leads_out(net: Netlink) -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("0")
    assert not any("forward" in str(change) for change in net.plan([BRIDGE], []))
    assert "let the host forward IPv4" in apply(net.plan([replace(BRIDGE, routes=True)], []))
    assert forwarding.read_text().strip() == "1"


def test_a_host_that_forwards_ipv6_goes_on_listening_to_routers(net: Netlink) -> None:
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    heard = {name: Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra") for name in ("up0", "up1")}
    heard["up1"].write_text("0")
    routed = replace(BRIDGE, routes=True, addresses=frozenset({"fd00::1/64"}))
    assert "let the host forward IPv6" in apply(net.plan([routed], []))
    assert [heard[name].read_text().strip() for name in ("up0", "up1")] == ["2", "0"]
