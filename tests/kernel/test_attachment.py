"""How taps and uplinks are attached: port flags, limits, bridges of others."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agent.host.netlink import LinkMonitor, Netlink
from agent.model.change import Change
from agent.model.errors import HostError, Problem
from agent.model.network import Bridge, Tap
from tests.kernel.conftest import OtherNetwork
from tests.kernel.links import ip, links

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
