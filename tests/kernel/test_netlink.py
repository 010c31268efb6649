"""Bridges and taps in a real kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import daemon
from agent.host import tun
from agent.host.links import ALIAS
from agent.host.netlink import LinkMonitor, Netlink
from agent.host.tun import tap_owner
from agent.model.change import Change, Effect
from agent.model.errors import HostError, Problem
from agent.model.network import Bridge, Tap
from tests.kernel.conftest import mount
from tests.kernel.links import addresses, identities, ip, links

LAUNCHER = Path(__file__).parents[2] / "agent/launcher"
OWNER, OTHER = 61000, 61001
BRIDGE = Bridge(
    name="br-lan",
    label="network lan",
    mac="02:11:22:33:44:55",
    addresses=frozenset({"10.88.0.1/24", "fd00::1/64"}),
    mtu=1400,
)
TAP = Tap(name="ap-dns", bridge="br-lan", owner_uid=OWNER, mtu=1400, appliance="dns")
SECOND = replace(TAP, name="ap-web", appliance="web", owner_uid=OTHER)


def apply(changes: list[Change]) -> list[str]:
    for change in changes:
        change.apply()
    return [str(change) for change in changes]


def everything(net: Netlink, bridge: Bridge = BRIDGE) -> list[str]:
    return apply(net.plan([bridge], [TAP, SECOND]))


# --- making


def test_a_bridge(net: Netlink) -> None:
    assert apply(net.plan([BRIDGE], [])) == ["create bridge br-lan"]
    link = links()["br-lan"]
    assert link["linkinfo"]["info_kind"] == "bridge"
    assert (link["address"], link["mtu"], link["ifalias"]) == (BRIDGE.mac, 1400, f"{ALIAS}: network lan")
    assert "UP" in link["flags"]
    assert link["linkinfo"]["info_data"]["stp_state"] == 0
    assert link["linkinfo"]["info_data"]["forward_delay"] == 0
    assert addresses("br-lan") == BRIDGE.addresses
    assert "tentative" not in ip("address", "show", "dev", "br-lan", "scope", "global")
    assert "broadcast 10.88.0.255" in ip("route", "show", "table", "local")


def test_taps(net: Netlink) -> None:
    assert everything(net) == ["create bridge br-lan", "dns: create tap ap-dns", "web: create tap ap-web"]
    found = links()
    for tap in (TAP, SECOND):
        link = found[tap.name]
        assert (link["linkinfo"]["info_kind"], link["linkinfo"]["info_data"]["type"]) == ("tun", "tap")
        assert link["linkinfo"]["info_data"]["persist"] is True
        assert link["linkinfo"]["info_data"]["pi"] is False
        assert (link["master"], link["mtu"], link["ifalias"]) == ("br-lan", 1400, f"{ALIAS}: tap on br-lan")
        assert "UP" in link["flags"]
        assert tap_owner(tap.name) == tap.owner_uid
    assert "fe80" not in ip("address", "show", "dev", "ap-dns")


def test_what_is_there_is_left_alone(net: Netlink) -> None:
    everything(net)
    before = identities()
    assert net.plan([BRIDGE], [TAP, SECOND]) == []
    assert identities() == before


def test_nothing_is_done_before_a_change_is_applied(net: Netlink) -> None:
    changes = net.plan([BRIDGE], [TAP])
    assert [(change.appliance, change.effect) for change in changes] == [
        ("", Effect.NONE),
        ("dns", Effect.RESTART | Effect.CUT_OFF),
    ]
    assert links() == {}


def test_a_bridge_keeps_its_address_whatever_joins_it(net: Netlink) -> None:
    everything(net)
    ip("tuntap", "add", "low", "mode", "tap")
    ip("link", "set", "low", "address", "00:00:00:00:00:02")
    ip("link", "set", "low", "master", "br-lan")
    assert links()["br-lan"]["address"] == BRIDGE.mac


def test_several_networks(net: Netlink) -> None:
    other = Bridge("br-b", "network b", "02:00:00:00:00:0b", frozenset({"10.89.0.1/24"}), 1500)
    tap = replace(TAP, name="ap-dns.1", bridge="br-b", mtu=1500)
    apply(net.plan([BRIDGE, other], [TAP, tap]))
    assert {name: link.get("master") for name, link in links().items()} == {
        "br-lan": None,
        "br-b": None,
        "ap-dns": "br-lan",
        "ap-dns.1": "br-b",
    }
    assert net.plan([BRIDGE, other], [TAP, tap]) == []


# --- mending


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (("link", "set", "br-lan", "down"), ["set up bridge br-lan", "add fd00::1/64 on br-lan"]),
        (("link", "set", "br-lan", "mtu", "1300"), ["set up bridge br-lan"]),
        (("link", "set", "br-lan", "address", "02:00:00:00:00:99"), ["set up bridge br-lan"]),
        (("address", "del", "10.88.0.1/24", "dev", "br-lan"), ["add 10.88.0.1/24 on br-lan"]),
        (("address", "add", "10.99.0.1/24", "dev", "br-lan"), ["del 10.99.0.1/24 on br-lan"]),
        (("address", "add", "fd99::1/64", "dev", "br-lan"), ["del fd99::1/64 on br-lan"]),
        (("link", "set", "ap-dns", "nomaster"), ["dns: attach tap ap-dns to br-lan"]),
        (("link", "set", "ap-dns", "down"), ["dns: attach tap ap-dns to br-lan"]),
        (("link", "set", "ap-dns", "mtu", "1300"), ["dns: attach tap ap-dns to br-lan"]),
        (("link", "del", "ap-dns"), ["dns: create tap ap-dns"]),
        (
            ("link", "del", "br-lan"),
            ["create bridge br-lan", "dns: attach tap ap-dns to br-lan", "web: attach tap ap-web to br-lan"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_somebody_did_by_hand_is_undone(
    net: Netlink, spoil: tuple[str, ...], expected: list[str]
) -> None:
    everything(net)
    before = {
        name: (link["address"], link["mtu"], link.get("master"))
        for name, link in links().items()
        if name == "br-lan"
    }
    ip(*spoil)
    assert everything(net) == expected
    assert net.plan([BRIDGE], [TAP, SECOND]) == []
    found = links()
    assert before["br-lan"] == (found["br-lan"]["address"], found["br-lan"]["mtu"], None)
    assert {found[name]["master"] for name in ("ap-dns", "ap-web")} == {"br-lan"}
    assert addresses("br-lan") == BRIDGE.addresses


def test_a_network_s_new_settings(net: Netlink) -> None:
    everything(net)
    changed = replace(BRIDGE, addresses=frozenset({"10.99.0.1/24", "fd00::1/64"}), mtu=1500)
    assert everything(net, changed) == [
        "set up bridge br-lan",
        "add 10.99.0.1/24 on br-lan",
        "del 10.88.0.1/24 on br-lan",
    ]
    assert addresses("br-lan") == changed.addresses


def test_a_tap_of_another_owner_is_made_anew(net: Netlink) -> None:
    everything(net)
    index = links()["ap-dns"]["ifindex"]
    [change] = net.plan([BRIDGE], [replace(TAP, owner_uid=OTHER), SECOND])
    assert change.text == "create tap ap-dns anew: it has another owner"
    assert Effect.CUT_OFF in change.effect
    change.apply()
    assert tap_owner("ap-dns") == OTHER
    assert links()["ap-dns"]["ifindex"] != index


def test_so_is_one_that_anybody_may_use(net: Netlink) -> None:
    everything(net)
    ip("link", "del", "ap-dns")
    ip("tuntap", "add", "ap-dns", "mode", "tap")
    ip("link", "set", "ap-dns", "alias", f"{ALIAS}: tap on br-lan")
    assert tap_owner("ap-dns") == -1
    assert everything(net) == ["dns: create tap ap-dns anew: it has another owner"]
    assert tap_owner("ap-dns") == OWNER


# --- removing


def test_ours_that_nobody_wants_are_removed(net: Netlink) -> None:
    everything(net)
    assert apply(net.plan([BRIDGE], [TAP])) == ["remove tun ap-web"]
    assert set(links()) == {"br-lan", "ap-dns"}
    assert sorted(apply(net.plan([], []))) == ["remove bridge br-lan", "remove tun ap-dns"]
    assert links() == {}


FOREIGN = (
    ("link", "add", "br-foreign", "type", "bridge"),
    ("tuntap", "add", "ap-foreign", "mode", "tap"),
    ("link", "set", "br-foreign", "alias", "made by appliance-agent: not really"),
    ("link", "set", "ap-foreign", "alias", ALIAS),
)


def test_those_of_others_never_are(net: Netlink) -> None:
    for command in FOREIGN:
        ip(*command)
    before = identities()
    everything(net)
    apply(net.plan([], []))
    assert identities() == before


@pytest.mark.parametrize(
    "make",
    [
        ("link", "add", "br-lan", "type", "bridge"),
        ("tuntap", "add", "br-lan", "mode", "tap"),
        ("tuntap", "add", "ap-dns", "mode", "tap", "user", str(OWNER)),
        ("link", "add", "ap-dns", "type", "bridge"),
    ],
    ids=" ".join,
)
def test_a_foreign_link_of_our_name_is_refused_and_untouched(net: Netlink, make: tuple[str, ...]) -> None:
    ip(*make)
    before = identities()
    with pytest.raises(
        HostError, match=r"Interface (br-lan|ap-dns) exists and was not made by the agent\."
    ) as caught:
        apply([change for change in net.plan([BRIDGE], [TAP]) if change.text.startswith("use interface")])
    assert caught.value.problem is Problem.ALREADY_EXISTS
    assert caught.value.remedy
    assert identities() == before


def test_our_mark_on_another_kind_of_link_does_not_make_it_ours_to_mend(net: Netlink) -> None:
    ip("tuntap", "add", "br-lan", "mode", "tap")
    ip("link", "set", "br-lan", "alias", f"{ALIAS}: network lan")
    with pytest.raises(HostError, match="was not made by the agent"):
        apply(net.plan([BRIDGE], []))


def test_a_bridge_without_our_mark_is_known_by_its_mac(net: Netlink) -> None:
    everything(net)
    ip("link", "set", "br-lan", "alias", "")
    apply(net.plan([BRIDGE], [TAP, SECOND]))
    assert everything(net) == []


def test_the_package_s_removal_takes_ours_away(net: Netlink) -> None:
    everything(net)
    ip("link", "add", "br-foreign", "type", "bridge")
    daemon._clean_up()
    assert set(links()) == {"br-foreign"}
    daemon._clean_up()


# --- going wrong


def test_a_link_that_vanishes_meanwhile_is_an_answer(net: Netlink) -> None:
    everything(net)
    ip("link", "set", "ap-dns", "nomaster")
    attach = net.plan([BRIDGE], [TAP, SECOND])
    ip("link", "del", "ap-dns")
    with pytest.raises(HostError, match="ap-dns"):
        apply(attach)
    with pytest.raises(FileNotFoundError, match="ap-dns"):
        tap_owner("ap-dns")
    assert everything(net) == ["dns: create tap ap-dns"]


def test_a_bridge_that_is_not_there_when_a_tap_is_attached(net: Netlink) -> None:
    with pytest.raises(HostError, match="br-lan"):
        apply(net.plan([], [TAP]))


@pytest.mark.parametrize("step", [tun._TUNSETOWNER, tun._TUNSETPERSIST])
def test_a_tap_that_could_not_be_made_is_not_left_behind(
    net: Netlink, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Least of all without an owner, when any user could attach to it."""
    apply(net.plan([BRIDGE], []))
    real: Callable[..., object] = fcntl.ioctl

    def fail(descriptor: int, request: int, argument: object) -> object:
        if request == step:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return real(descriptor, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", fail)
    with pytest.raises(HostError, match="creating tap ap-dns: Operation not permitted"):
        apply(net.plan([BRIDGE], [TAP]))
    assert set(links()) == {"br-lan"}


def test_a_host_without_ipv6(net: Netlink) -> None:
    mount("tmpfs", "/proc/sys/net/ipv6", "tmpfs")
    bridge = replace(BRIDGE, addresses=frozenset({"10.88.0.1/24"}))
    everything(net, bridge)
    assert set(links()) == {"br-lan", "ap-dns", "ap-web"}
    assert net.plan([bridge], [TAP, SECOND]) == []


def test_an_address_that_the_kernel_refuses(net: Netlink) -> None:
    apply(net.plan([BRIDGE], []))
    with pytest.raises(HostError, match=r"add 10\.88\.0\.1/24 on br-lan: File exists") as caught:
        net._address("add", "br-lan", "10.88.0.1/24")
    assert caught.value.problem is Problem.FAILED


# --- who may attach

ATTACH = """
import fcntl, struct, sys
try:
    fcntl.ioctl(int(sys.argv[1]), 0x400454CA, struct.pack("16sH22x", sys.argv[2].encode(), 0x1002))
except OSError as error:
    sys.exit(error.errno)
"""


def attach_as(uid: int, name: str) -> int:
    """0, or the error that keeps this user from a tap; the device is opened by root, as systemd does."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        command = ["/usr/bin/python3", "-ISsc", ATTACH, str(tun), name]
        done = subprocess.run(command, pass_fds=[tun], user=uid, group=uid, extra_groups=[], check=False)
        return done.returncode
    finally:
        os.close(tun)


def test_only_its_owner_may_attach_to_a_tap(net: Netlink) -> None:
    everything(net)
    assert attach_as(OWNER, "ap-dns") == 0
    assert attach_as(OTHER, "ap-dns") == errno.EPERM
    assert attach_as(65534, "ap-dns") == errno.EPERM
    assert attach_as(OTHER, "ap-web") == 0
    assert attach_as(OWNER, "ap-new") == errno.EPERM


ARP = b"\x08\x06"


def frame_of(tun: int, kind: bytes) -> bytes:
    """The next frame of this EtherType; bridges talk about multicast as well."""
    deadline = time.monotonic() + 5
    while select.select([tun], [], [], max(0, deadline - time.monotonic()))[0]:
        frame = os.read(tun, 2048)
        if frame[12:14] == kind:
            return frame
    pytest.fail("it did not come")


def launch(tmp_path: Path, tun: int) -> subprocess.CompletedProcess[str]:
    """Start a guest whose kernel is true(1), with `tun` for its tap."""
    if not (tmp_path / "launch").exists():
        define = f'-DRUNTIME_DIRECTORY="{tmp_path}"'
        subprocess.run([LAUNCHER / "build", "--output", tmp_path / "launch", define], check=True)
        (tmp_path / "dns").mkdir()
        (tmp_path / "dns/launch").write_text("tap ap-dns\nexec /usr/bin/true\n")
    return subprocess.run(
        ["bash", "-c", 'exec 3<&"$1" 4>/dev/null "$2" dns', "bash", str(tun), tmp_path / "launch"],
        env={"LISTEN_FDS": "2", "LISTEN_FDNAMES": "tun0:notify", "TMPDIR": "/tmp"},
        pass_fds=[tun],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_launcher_attaches_and_frames_arrive(net: Netlink, tmp_path: Path) -> None:
    everything(net)
    tun, second = (os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC) for _ in range(2))
    try:
        assert launch(tmp_path, tun).returncode == 0
        assert "LOWER_UP" in links()["ap-dns"]["flags"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("10.88.0.77", 9))
        # Somebody asks who has the address: a broadcast by the bridge; no packet information before it.
        assert frame_of(tun, ARP)[:12] == b"\xff" * 6 + bytes.fromhex(BRIDGE.mac.replace(":", ""))
        refused = launch(tmp_path, second)
        assert refused.returncode == os.EX_TEMPFAIL
        assert "cannot attach to tap ap-dns: Resource busy; " in refused.stderr
    finally:
        os.close(tun)
        os.close(second)


# --- noticing


def is_readable(monitor: LinkMonitor, timeout_s: float = 0.0) -> bool:
    return bool(select.select([monitor], [], [], timeout_s)[0])


@pytest.fixture
def monitor() -> Iterator[LinkMonitor]:
    found = LinkMonitor()
    yield found
    found.close()


@pytest.mark.parametrize(
    "spoil",
    [
        ("link", "del", "ap-dns"),
        ("link", "set", "ap-dns", "nomaster"),
        ("link", "set", "br-lan", "down"),
        ("address", "del", "10.88.0.1/24", "dev", "br-lan"),
        ("address", "del", "fd00::1/64", "dev", "br-lan"),
    ],
    ids=" ".join,
)
def test_a_change_is_noticed(net: Netlink, monitor: LinkMonitor, spoil: tuple[str, ...]) -> None:
    everything(net)
    quiet(monitor)
    ip(*spoil)
    # The kernel tells before ip(8) returns.
    assert is_readable(monitor)


def quiet(monitor: LinkMonitor) -> None:
    """Wait until nothing more is heard; what a change sets off comes a little later."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        monitor.drain()
        if not is_readable(monitor, 0.2):
            return
    pytest.fail("links do not come to rest")


def test_more_changes_than_can_be_remembered_are_a_change(monitor: LinkMonitor) -> None:
    monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    ip("link", "add", "d0", "type", "bridge")
    for _ in range(20):
        ip("link", "set", "d0", "mtu", "1400")
        ip("link", "set", "d0", "mtu", "1500")
    assert is_readable(monitor)
    monitor.drain()
    assert not is_readable(monitor)


def test_descriptors_are_not_passed_on(net: Netlink, monitor: LinkMonitor) -> None:
    del net
    assert not os.get_inheritable(monitor.fileno())
    sockets = [
        path
        for path in Path("/proc/self/fd").iterdir()
        if path.is_symlink() and "socket" in str(path.readlink())
    ]
    assert not any(os.get_inheritable(int(path.name)) for path in sockets)
