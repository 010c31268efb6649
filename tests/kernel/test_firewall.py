"""What appliances can send and receive, by real packets."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.kernel.rack import (
    BRIEF_S,
    HOST,
    HOST_6,
    OUTSIDE,
    OUTSIDE_6,
    PATIENT_S,
    Machine,
    Rack,
    arp,
    ethernet,
    icmp6,
    is_kept_out,
    reach,
    reaches,
    tcp_server,
    udp,
)

ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
BROADCAST = "ff:ff:ff:ff:ff:ff"
OTHER_MAC = "02:66:66:66:66:66"
GATEWAY, GATEWAY_6 = "10.88.0.1", "fd00:88::1"


@pytest.fixture
def rack() -> Iterator[Rack]:
    with contextlib.ExitStack() as stack:
        yield Rack(stack)


# --- where connections go


def test_a_nat_network_leads_out_under_the_address_of_the_host(rack: Rack) -> None:
    rack.set_up({"web": {}})
    with tcp_server(rack.outside, 80) as server:
        assert reach(rack.machines["web"], OUTSIDE, 80, server) == HOST
        assert reach(rack.machines["web"], OUTSIDE_6, 80, server) == HOST_6


def test_nobody_outside_gets_into_a_nat_network(rack: Rack) -> None:
    rack.set_up({"web": {}})
    web = rack.machines["web"]
    rack.outside.run("route", "add", "10.88.0.0/24", "via", HOST)
    with tcp_server(web, 80) as server:
        assert is_kept_out(rack.outside, web.address(), 80, server)
        # The host itself does: it is what looks after it.
        assert reaches(None, web.address(), 80, server)
        assert reaches(None, web.address(6), 80, server)


def test_a_routed_network_is_reached_under_its_own_addresses(rack: Rack) -> None:
    rack.set_up({"web": {}}, {"default": "kind: routed\nsubnets: [10.88.0.0/24]\n"})
    web = rack.machines["web"]
    rack.outside.run("route", "add", "10.88.0.0/24", "via", HOST)
    with tcp_server(web, 80) as server:
        assert reach(rack.outside, web.address(), 80, server) == OUTSIDE
    with tcp_server(rack.outside, 80) as server:
        assert reach(web, OUTSIDE, 80, server) == web.address()


def test_an_isolated_network_leads_nowhere(rack: Rack) -> None:
    rack.set_up({"web": {}}, {"default": "kind: isolated\nsubnets: [10.88.0.0/24]\n"})
    web = rack.machines["web"]
    web.run("route", "add", "default", "via", GATEWAY)
    rack.outside.run("route", "add", "10.88.0.0/24", "via", HOST)
    with tcp_server(rack.outside, 80) as server:
        assert is_kept_out(web, OUTSIDE, 80, server)
    with tcp_server(web, 80) as server:
        assert is_kept_out(rack.outside, web.address(), 80, server)
        assert reaches(None, web.address(), 80, server)


def test_networks_do_not_lead_to_each_other(rack: Rack) -> None:
    networks = {name: f"subnets: [10.{number}.0.0/24]" for number, name in enumerate(("a", "b"), 88)}
    rack.set_up({"one": {"network": "a"}, "two": {"network": "b"}}, networks)
    with tcp_server(rack.machines["two"], 80) as server:
        assert is_kept_out(rack.machines["one"], rack.machines["two"].address(), 80, server)


# --- published ports


@pytest.mark.parametrize(
    ("publication", "reached", "refused"),
    [
        ("8080:80", [(HOST, 8080), (HOST_6, 8080)], [(HOST, 80)]),
        ("80/tcp", [(HOST, 80), (HOST_6, 80)], [(HOST, 8080)]),
        (f"{HOST}:8080:80", [(HOST, 8080)], [(HOST_6, 8080)]),
        ("[::]:8080:80", [(HOST_6, 8080)], [(HOST, 8080)]),
        ("0.0.0.0:8080:80", [(HOST, 8080)], [(HOST_6, 8080)]),
        ("8078-8081:78-81", [(HOST, 8080), (HOST_6, 8080)], [(HOST, 8079), (HOST, 8082)]),
    ],
)
def test_published_ports(
    rack: Rack, publication: str, reached: list[tuple[str, int]], refused: list[tuple[str, int]]
) -> None:
    rack.set_up({"web": {"publish": publication}})
    with tcp_server(rack.machines["web"], 80) as server:
        for address, port in reached:
            assert reach(rack.outside, address, port, server) == (OUTSIDE_6 if ":" in address else OUTSIDE)
        for address, port in refused:
            assert is_kept_out(rack.outside, address, port, server)


def test_published_ports_are_reached_from_everywhere(rack: Rack) -> None:
    """From the host by every address of its own, from other appliances, and from the appliance itself."""
    rack.set_up({"dns": {}, "web": {"publish": "8080:80"}})
    web, dns = rack.machines["web"], rack.machines["dns"]
    with tcp_server(web, 80) as server:
        for address in (HOST, HOST_6, "127.0.0.1", GATEWAY):
            assert reaches(None, address, 8080, server), address
        for client in (dns, web):
            for address in (HOST, HOST_6, GATEWAY, GATEWAY_6):
                assert reaches(client, address, 8080, server), (client.name, address)
        assert is_kept_out(None, "127.0.0.2", 8080, server)


def test_what_is_no_longer_published(rack: Rack) -> None:
    rack.set_up({"web": {"publish": ["8080:80", "8081:80"]}})
    rack.set_up({"web": {"publish": ["8081:80"]}})
    with tcp_server(rack.machines["web"], 80) as server:
        assert is_kept_out(rack.outside, HOST, 8080, server)
        assert reaches(rack.outside, HOST, 8081, server)


# --- guests, their peers and the host


def test_appliances_reach_only_their_peers(rack: Rack) -> None:
    rack.set_up({"web": {"peers": ["db"]}, "db": {}, "dns": {}})
    web, db, dns = (rack.machines[name] for name in ("web", "db", "dns"))
    with tcp_server(db, 80) as server:
        for version in (4, 6):
            assert reaches(web, db.address(version), 80, server)
            assert is_kept_out(dns, db.address(version), 80, server)
    with tcp_server(web, 80) as server:
        assert reaches(db, web.address(), 80, server)


def test_the_host_is_no_way_around_that(rack: Rack) -> None:
    """Neither by a route over the host, nor by a frame to the host's own MAC."""
    rack.set_up({"web": {}, "dns": {}})
    web, dns = rack.machines["web"], rack.machines["dns"]
    dns.run("route", "add", f"{web.address()}/32", "via", GATEWAY)
    dns.run("-6", "route", "add", f"{web.address(6)}/128", "via", GATEWAY_6)
    with tcp_server(web, 80) as server:
        for version in (4, 6):
            assert is_kept_out(dns, web.address(version), 80, server)


def test_a_network_of_peers(rack: Rack) -> None:
    rack.set_up({"web": {}, "dns": {}}, {"default": "subnets: [10.88.0.0/24]\npeers: all\n"})
    with tcp_server(rack.machines["web"], 80) as server:
        assert reaches(rack.machines["dns"], rack.machines["web"].address(), 80, server)


@pytest.mark.parametrize("filtering", ["0", "1"])
def test_peers_with_and_without_br_netfilter(rack: Rack, filtering: str) -> None:
    path = "/proc/sys/net/bridge/bridge-nf-call-"
    for kind in ("iptables", "ip6tables"):
        with open(path + kind, "w", encoding="ascii") as file:
            file.write(filtering)
    rack.set_up({"web": {"peers": ["db"], "publish": "8080:80"}, "db": {}, "dns": {}})
    web, db, dns = (rack.machines[name] for name in ("web", "db", "dns"))
    with tcp_server(web, 80) as server:
        assert reaches(db, web.address(), 80, server)
        assert is_kept_out(dns, web.address(), 80, server)
        assert reach(rack.outside, HOST, 8080, server) == OUTSIDE
        assert reaches(dns, HOST, 8080, server)
    with tcp_server(rack.outside, 80) as server:
        assert reach(web, OUTSIDE, 80, server) == HOST


@pytest.mark.parametrize("address", [GATEWAY, GATEWAY_6, HOST, HOST_6])
@pytest.mark.parametrize(
    ("grants", "port", "allowed"),
    [
        ([], 22, False),
        (["host"], 22, True),
        (["host:22"], 22, True),
        (["host:22", "host:25/udp"], 25, False),
    ],
)
def test_the_host_is_reached_only_as_granted(
    rack: Rack, address: str, grants: list[str], port: int, allowed: bool
) -> None:
    rack.set_up({"web": {"grants": grants}, "dns": {}})
    with tcp_server(None, port) as server:
        meets = reaches if allowed else is_kept_out
        assert meets(rack.machines["web"], address, port, server)
        assert is_kept_out(rack.machines["dns"], address, port, server)
        assert reaches(rack.outside, HOST, port, server), "not our business"


def test_egress_lists(rack: Rack) -> None:
    rack.set_up(
        {
            "web": {"egress": [f"{OUTSIDE}:80", "[2001:db8::/64]"]},
            "dns": {"egress": []},
            "mail": {"egress": ["*:25/tcp"], "publish": "8080:80"},
            "free": {},
        }
    )
    with tcp_server(rack.outside, 80) as server:
        assert reaches(rack.machines["web"], OUTSIDE, 80, server)
        assert reaches(rack.machines["web"], OUTSIDE_6, 80, server)
        assert is_kept_out(rack.machines["dns"], OUTSIDE, 80, server)
        assert is_kept_out(rack.machines["mail"], OUTSIDE_6, 80, server)
        assert reaches(rack.machines["free"], OUTSIDE, 80, server)
    with tcp_server(rack.outside, 25) as server:
        assert is_kept_out(rack.machines["web"], OUTSIDE, 25, server)
        assert reaches(rack.machines["mail"], OUTSIDE, 25, server)
    # It may answer whom it may not ask.
    with tcp_server(rack.machines["mail"], 80) as server:
        assert reaches(rack.outside, HOST, 8080, server)


def test_as_many_new_connections_as_allowed(rack: Rack) -> None:
    rack.set_up({"web": {"limits": {"connections": 1}}, "dns": {}})
    with tcp_server(rack.outside, 80) as server:
        kept_out = [is_kept_out(rack.machines["web"], OUTSIDE, 80, server) for _ in range(8)]
        assert not kept_out[0]
        assert any(kept_out)
        assert all(reaches(rack.machines["dns"], OUTSIDE, 80, server) for _ in range(8))


# --- frames that no guest may send


def _passes(
    receiver: Machine, mark: bytes, sender: Machine, frame: bytes, *, timeout_s: float = PATIENT_S
) -> bool:
    """Whether a machine has a frame that another one sends."""
    with receiver.listening() as raw:
        raw.settimeout(timeout_s)
        sender.send(frame)
        with contextlib.suppress(TimeoutError):
            while True:
                if mark in raw.recv(2048):
                    return True
    return False


def _is_dropped(receiver: Machine, mark: bytes, sender: Machine, frame: bytes) -> bool:
    """Whether it has not."""
    return not _passes(receiver, mark, sender, frame, timeout_s=BRIEF_S)


MARK = b"the mark of this test"


@pytest.fixture
def pair(rack: Rack) -> tuple[Machine, Machine]:
    """Two that may reach each other, the first of which behaves badly."""
    rack.set_up({"bad": {"peers": ["good"]}, "good": {}, "third": {}})
    return rack.machines["bad"], rack.machines["good"]


def _mac(machine: Machine) -> str:
    assert machine.port
    return machine.port.mac


def _datagram(version: int, source: str, destination: str) -> bytes:
    return udp(source, destination, 5000, 5001, MARK)


def test_its_own_addresses_are_no_problem(pair: tuple[Machine, Machine]) -> None:
    bad, good = pair
    for version, kind in ((4, IPV4), (6, IPV6)):
        content = _datagram(version, bad.address(version), good.address(version))
        assert _passes(good, MARK, bad, ethernet(_mac(good), _mac(bad), kind, content))


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (IPV4, "10.88.0.4"),
        (IPV4, GATEWAY),
        (IPV4, "192.0.2.77"),
        (IPV4, "0.0.0.0"),
        (IPV4, "127.0.0.1"),
        (IPV6, "fd00:88::4"),
        (IPV6, GATEWAY_6),
        (IPV6, "2001:db8::77"),
        (IPV6, "fe80::66:66ff:fe66:6666"),
        (IPV6, "::"),
    ],
)
def test_addresses_of_others(pair: tuple[Machine, Machine], kind: int, source: str) -> None:
    bad, good = pair
    content = _datagram(4, source, good.address(6 if ":" in source else 4))
    assert _is_dropped(good, MARK, bad, ethernet(_mac(good), _mac(bad), kind, content))


def test_the_mac_of_others(pair: tuple[Machine, Machine]) -> None:
    bad, good = pair
    content = _datagram(4, bad.address(), good.address())
    assert _is_dropped(good, MARK, bad, ethernet(_mac(good), OTHER_MAC, IPV4, content))


@pytest.mark.parametrize("operation", [1, 2])
@pytest.mark.parametrize(
    ("mac", "address", "allowed"),
    [("", "", True), (OTHER_MAC, "", False), ("", "10.88.0.4", False), ("", GATEWAY, False)],
)
def test_arp(pair: tuple[Machine, Machine], operation: int, mac: str, address: str, allowed: bool) -> None:
    bad, good = pair
    sender = mac or _mac(bad), address or bad.address()
    message = arp(operation, *sender, "00:00:00:00:00:00", good.address())
    meets = _passes if allowed else _is_dropped
    assert meets(good, message, bad, ethernet(BROADCAST, _mac(bad), ARP, message))


def test_neighbour_advertisements(pair: tuple[Machine, Machine]) -> None:
    bad, good = pair
    for target, allowed in ((bad.address(6), True), (good.address(6), False), (GATEWAY_6, False)):
        body = struct.pack("!I", 0x20000000) + socket.inet_pton(socket.AF_INET6, target)
        message = icmp6(bad.address(6), good.address(6), 136, body)
        meets = _passes if allowed else _is_dropped
        assert meets(good, message, bad, ethernet(_mac(good), _mac(bad), IPV6, message)), target


def _router_advertisement(source: str) -> bytes:
    return icmp6(source, "ff02::1", 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0))


def test_router_advertisements(rack: Rack) -> None:
    rack.set_up(
        {"bad": {"peers": ["good"]}, "router": {"peers": ["good"], "grants": ["router"]}, "good": {}}
    )
    for name, allowed in (("bad", False), ("router", True)):
        sender = rack.machines[name]
        message = _router_advertisement(sender.address(6))
        frame = ethernet("33:33:00:00:00:01", _mac(sender), IPV6, message)
        meets = _passes if allowed else _is_dropped
        assert meets(rack.machines["good"], message, sender, frame)


def test_a_router_advertisement_behind_extension_headers(pair: tuple[Machine, Machine]) -> None:
    """RFC 7113: a guard that looks at the first header only is none."""
    bad, good = pair
    plain = _router_advertisement(bad.address(6))
    options = bytes((58, 0, 1, 4, 0, 0, 0, 0))  # destination options: ICMPv6 follows, padding
    message = (
        plain[:4] + struct.pack("!HBB", len(plain) - 40 + 8, 60, 255) + plain[8:40] + options + plain[40:]
    )
    frame = ethernet("33:33:00:00:00:01", _mac(bad), IPV6, message)
    assert _is_dropped(good, plain[40:], bad, frame)


def test_redirects(pair: tuple[Machine, Machine]) -> None:
    bad, good = pair
    message = icmp6(bad.address(6), good.address(6), 137, MARK)
    assert _is_dropped(good, MARK, bad, ethernet(_mac(good), _mac(bad), IPV6, message))


def test_dhcp_servers(rack: Rack) -> None:
    rack.set_up(
        {"bad": {"peers": ["good"]}, "dhcp": {"peers": ["good"], "grants": ["dhcp-server"]}, "good": {}}
    )
    for name, allowed in (("bad", False), ("dhcp", True)):
        sender = rack.machines[name]
        offers = (
            (IPV4, udp(sender.address(), "255.255.255.255", 67, 68, MARK)),
            (IPV6, udp(sender.address(6), "ff02::1", 547, 546, MARK)),
        )
        for kind, message in offers:
            frame = ethernet(BROADCAST, _mac(sender), kind, message)
            meets = _passes if allowed else _is_dropped
            assert meets(rack.machines["good"], MARK, sender, frame), (name, kind)


@pytest.mark.parametrize("kind", [VLAN, 0x88A8, 0x88CC, 0x8863, 0x0026])
def test_other_kinds_of_frames(pair: tuple[Machine, Machine], kind: int) -> None:
    """VLAN tags, LLDP, PPPoE, and 802.3 frames such as those of the spanning tree."""
    bad, good = pair
    inner = _datagram(4, bad.address(), good.address())
    content = struct.pack("!HH", 5, IPV4) + inner if kind in {VLAN, 0x88A8} else MARK
    assert _is_dropped(good, MARK, bad, ethernet(_mac(good), _mac(bad), kind, content))


def test_what_is_refused_is_counted(rack: Rack) -> None:
    rack.set_up({"bad": {}, "good": {}})
    bad = rack.machines["bad"]
    before = rack.firewall.refused()
    for _ in range(5):
        bad.send(ethernet(BROADCAST, OTHER_MAC, ARP, MARK))
    after = rack.firewall.refused()
    assert after["ap-bad"][0] == before["ap-bad"][0] + 5
    assert after["ap-good"] == before["ap-good"]


def test_what_comes_faster_than_allowed_is_dropped(rack: Rack) -> None:
    slow = {"peers": ["good"], "limits": {"bandwidth": "8K"}}
    rack.set_up({"slow": slow, "fast": {"peers": ["good"]}, "good": {}})
    good = rack.machines["good"]
    for name, complete in (("fast", True), ("slow", False)):
        sender = rack.machines[name]
        content = udp(sender.address(), good.address(), 5000, 5001, MARK + bytes(1300))
        frame = ethernet(_mac(good), _mac(sender), IPV4, content)
        with good.listening() as raw:
            raw.settimeout(BRIEF_S)
            for _ in range(70):
                sender.send(frame)
            heard = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    heard += raw.recv(2048) == frame
        # 64 kB go at once.
        assert heard == 70 if complete else 30 < heard < 60, (name, heard)
