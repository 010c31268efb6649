"""What is read of links, routes and neighbours, in a real kernel."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.links import LinkReader
from agent.host.tun import new_tap
from agent.model.errors import HostError
from agent.model.link import Neighbour, Route, Way
from tests.kernel.conftest import OtherNetwork
from tests.kernel.links import ip

FAR, FAR_6 = ipaddress.ip_address("198.51.100.1"), ipaddress.ip_address("2001:db8:99::1")
GUEST, GUEST_6 = ipaddress.ip_address("10.88.0.2"), ipaddress.ip_address("fd00:88::2")


@pytest.fixture
def reader() -> Iterator[LinkReader]:
    found = LinkReader()
    yield found
    found.close()


@pytest.fixture
def other() -> Iterator[OtherNetwork]:
    found = OtherNetwork()
    yield found
    found.close()


@pytest.fixture
def host(other: OtherNetwork) -> OtherNetwork:
    """A bridge for guests, and an uplink to another machine with the way to everywhere."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "br-a", "type", "bridge")
    ip("link", "set", "br-a", "up")
    ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", other.path)
    ip("link", "set", "up0", "up")
    with other.entered():
        ip("link", "set", "eth0", "up")
    for address, device in (
        ("10.88.0.1/24", "br-a"),
        ("fd00:88::1/64", "br-a"),
        ("192.0.2.1/24", "up0"),
        ("2001:db8::1/64", "up0"),
    ):
        ip("address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
    ip("route", "add", "default", "via", "192.0.2.2")
    ip("-6", "route", "add", "default", "via", "2001:db8::2")
    forward(4, "1")
    return other


def forward(version: int, value: str) -> None:
    keys = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
    Path(f"/proc/sys/net/{keys[version]}").write_text(value)


def test_a_tap_has_a_carrier_while_somebody_is_attached(reader: LinkReader) -> None:
    with new_tap("ap-dns", os.getuid()):
        ip("link", "set", "ap-dns", "up")
        assert reader.links()["ap-dns"].carrier
    link = reader.links()["ap-dns"]
    assert (link.up, link.carrier, link.kind, link.ours) == (True, False, "tun", False)
    assert reader.owner("ap-dns") == os.getuid()


@pytest.mark.usefixtures("host")
def test_what_has_passed_is_counted(reader: LinkReader) -> None:
    before = reader.links()["up0"]
    ip("neighbour", "replace", "192.0.2.3", "dev", "up0", "lladdr", "02:00:00:00:00:03", "nud", "permanent")
    with socket_for("192.0.2.3") as udp:
        udp.send(b"x" * 100)
    after = reader.links()["up0"]
    # Ethernet, IP, UDP and what they carry; IPv6 may have said something of its own.
    assert after.sent.packets > before.sent.packets
    assert after.sent.size_bytes >= before.sent.size_bytes + 14 + 20 + 8 + 100


def socket_for(address: str) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect((address, 9))
    return udp


@pytest.mark.usefixtures("host")
def test_ways(reader: LinkReader) -> None:
    assert reader.way(FAR) == Way("up0", ipaddress.ip_address("192.0.2.2"))
    assert reader.way(FAR_6) == Way("up0", ipaddress.ip_address("2001:db8::2"))
    assert reader.way(GUEST) == Way("br-a")
    assert reader.way(ipaddress.ip_address("192.0.2.1")) == Way("lo")
    assert reader.way(FAR, source=GUEST, interface="br-a") == Way("up0", ipaddress.ip_address("192.0.2.2"))
    assert reader.way(FAR_6, source=GUEST_6, interface="br-a").interface == "up0"


@pytest.mark.usefixtures("host")
def test_ways_that_lead_nowhere(reader: LinkReader) -> None:
    ip("route", "add", "unreachable", "198.51.100.0/24")
    ip("route", "add", "blackhole", "203.0.113.0/24")
    ip("-6", "route", "del", "default")
    forward(4, "0")
    for found in (
        reader.way(FAR),
        reader.way(FAR_6),
        reader.way(ipaddress.ip_address("203.0.113.1")),
        reader.way(ipaddress.ip_address("192.0.2.2"), source=GUEST, interface="br-a"),
    ):
        assert (found.interface, found.gateway, bool(found.refusal)) == ("", None, True)


@pytest.mark.usefixtures("host")
def test_a_rule_may_send_guests_elsewhere(reader: LinkReader) -> None:
    """The lookup is the kernel's own, with everything that has a part in it."""
    ip("route", "add", "table", "7", "blackhole", "default")
    ip("rule", "add", "from", "10.88.0.0/24", "table", "7")
    assert reader.way(FAR).interface == "up0"
    assert reader.way(FAR, source=GUEST, interface="br-a").refusal


def test_an_interface_that_is_not_there(reader: LinkReader) -> None:
    with pytest.raises(HostError, match=r"looking up the way to 198\.51\.100\.1"):
        reader.way(FAR, source=GUEST, interface="br-none")


@pytest.mark.usefixtures("host")
def test_neighbours(reader: LinkReader) -> None:
    mac = "02:00:00:00:00:07"
    ip("neighbour", "replace", str(GUEST), "dev", "br-a", "lladdr", mac, "nud", "permanent")
    ip("neighbour", "replace", "192.0.2.9", "dev", "up0", "nud", "failed")
    found = reader.neighbours()
    assert Neighbour("br-a", GUEST, mac) in found
    assert Neighbour("up0", ipaddress.ip_address("192.0.2.9"), "") in found


@pytest.mark.usefixtures("host")
def test_foreign_routes(reader: LinkReader) -> None:
    ip("link", "set", "br-a", "alias", "appliance-agent: network a")
    ip("route", "add", "198.51.100.0/24", "via", "192.0.2.2")
    ip("route", "add", "unreachable", "203.0.113.0/24")
    texts = {(str(route.subnet), route.interface) for route in reader.foreign_routes()}
    assert texts == {
        ("192.0.2.0/24", "up0"),
        ("2001:db8::/64", "up0"),
        ("198.51.100.0/24", "up0"),
        ("203.0.113.0/24", ""),
    }
    assert Route(ipaddress.ip_network("192.0.2.0/24"), "up0") in reader.foreign_routes()


@pytest.mark.usefixtures("host")
def test_forwarding_is_that_of_the_interface(reader: LinkReader) -> None:
    assert reader.forwards(4, "br-a")
    Path("/proc/sys/net/ipv4/conf/br-a/forwarding").write_text("0")
    assert not reader.forwards(4, "br-a")
    assert reader.forwards(4, "up0")
    assert not reader.forwards(6, "br-a")
    forward(6, "1")
    assert reader.forwards(6, "br-a")


def test_whether_bridged_packets_are_filtered(reader: LinkReader) -> None:
    for version, name in ((4, "iptables"), (6, "ip6tables")):
        for value in ("0", "1"):
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}").write_text(value)
            assert reader.filters_bridged(version) == (value == "1")
