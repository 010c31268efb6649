"""The walk along the way of an appliance's packets in a real kernel: each hop broken in turn is the one that
is named."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.core.diagnose import Diagnosis
from agent.core.network import HostNetwork
from agent.core.networks import Networks
from agent.host import probes
from agent.host.netlink import Netlink
from agent.host.nftables import Firewall
from agent.model.diagnosis import Hop, HopReport
from agent.model.errors import HostError
from tests.fakes.events import catch_events
from tests.fakes.links import FakeManagers
from tests.fakes.world import World
from tests.kernel.conftest import OtherNetwork
from tests.kernel.guests import Guest, running
from tests.kernel.links import identities, ip

NAT = "subnets: [10.88.0.0/24, 'fd00:88::/64']\n"
LAN = "kind: bridged\nsubnets: [192.0.2.0/24]\ngateway: 192.0.2.2\npool: 192.0.2.64/26\n"
ROUTER, ROUTER_6 = "192.0.2.2", "2001:db8::2"
GUEST = "10.88.0.2"
OTHER_MAC = "02:66:66:66:66:66"


@pytest.fixture(autouse=True)
def _events(monkeypatch: pytest.MonkeyPatch) -> None:
    catch_events(monkeypatch)


@dataclass
class Host:
    """This host with its appliance `dns`, and the router beyond it."""

    world: World
    networks: Networks
    guest: Guest
    router: OtherNetwork

    async def reports(self) -> dict[str, HopReport]:
        return {report.hop: report for report in await self.networks.diagnose("dns")}

    async def broken(self) -> dict[str, str]:
        return {
            hop: report.verdict for hop, report in (await self.reports()).items() if report.verdict != "ok"
        }

    async def first(self) -> HopReport:
        """The first hop that is not ok."""
        return next(report for report in (await self.reports()).values() if report.verdict != "ok")


@pytest.fixture
def router() -> Iterator[OtherNetwork]:
    """The way out of this host, by up0."""
    found = OtherNetwork()
    ip("link", "set", "lo", "up")
    ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", found.path)
    ip("link", "set", "up0", "up")
    with found.entered():
        ip("link", "set", "eth0", "up")
        for address in (f"{ROUTER}/24", f"{ROUTER_6}/64"):
            ip("address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    sysctl("ipv4/ping_group_range", "0 0")
    yield found
    found.close()


def to_router() -> None:
    """The host's own addresses beside the router, and the default route."""
    for address in ("192.0.2.1/24", "2001:db8::1/64"):
        ip("address", "add", address, "dev", "up0", *(["nodad"] if ":" in address else []))
    for version, gateway in ((4, ROUTER), (6, ROUTER_6)):
        ip(f"-{version}", "route", "add", "default", "via", gateway)


@asynccontextmanager
async def host(router: OtherNetwork, network: str = NAT) -> AsyncIterator[Host]:
    """The network as planned is in the kernel, and a guest at its tap."""
    world, netlink, firewall = World(), Netlink(), Firewall()
    with contextlib.ExitStack() as stack:
        stack.callback(netlink.close)
        stack.callback(world.close)
        world.files.write("networks/default.yaml", network)
        world.files.write("appliances/dns.yaml", "image: dns-nsd\n")
        await world.reconciler.apply(restart=True)
        await world.units.start("dns")
        own = HostNetwork(netlink, firewall, FakeManagers(), world.files)
        plan = world.reconciler.plan
        for change in own.plan(plan):
            change.apply()
        diagnosis = Diagnosis(
            reconciler=world.reconciler,
            network=own,
            sight=netlink,
            firewall=firewall,
            echo=probes.echo,
            watch=world.watch,
        )
        networks = Networks(
            reconciler=world.reconciler, network=own, sight=netlink, firewall=firewall, diagnosis=diagnosis
        )
        guest = stack.enter_context(running(plan.appliances["dns"].ports[0]))
        yield Host(world, networks, guest, router)


def sysctl(key: str, value: str) -> None:
    (Path("/proc/sys/net") / key).write_text(value)


def do(command: str) -> None:
    """One of ip(8) or nft(8); words that belong together are in quotes there, too."""
    subprocess.run(command, shell=True, check=True, capture_output=True)


async def test_a_sound_way(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        before = identities(), rules()
        reports = await found.reports()
        assert await found.broken() == {}
        assert (identities(), rules()) == before
    assert list(reports) == list(Hop)
    assert f"IPv4 leaves by up0 to {ROUTER}" in reports["outside"].looked_at
    assert f"IPv6 leaves by up0 to {ROUTER_6}" in reports["outside"].looked_at


DELETE_OWN_CHAIN = """
    nft flush chain bridge appliance prerouting
    nft delete map bridge appliance taps
    nft delete chain bridge appliance ap-dns
"""


def rules() -> str:
    """All there are, without counters and the like."""
    return subprocess.run(
        ["nft", "--stateless", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout


FORWARD_DROP = "{ type filter hook forward priority 0; policy drop; }"
FORWARD_ACCEPT = FORWARD_DROP.replace("drop", "accept")
FIREWALLD = f"""
    nft add table inet firewalld
    nft add chain inet firewalld filter_FORWARD '{FORWARD_ACCEPT}'
    nft add rule inet firewalld filter_FORWARD counter reject with icmpx admin-prohibited
"""


@pytest.mark.parametrize(
    ("command", "hop", "reason"),
    [
        ("sysctl -qw net.ipv4.ip_forward=0", "host", "IPv4 packets from br-default are not forwarded"),
        ("sysctl -qw net.ipv4.conf.br-default.forwarding=0", "host", "IPv4 packets from br-default are not"),
        ("sysctl -qw net.ipv6.conf.all.forwarding=0", "host", "IPv6 packets from br-default are not"),
        ("ip route add 10.88.0.0/25 dev up0", "host", "10.88.0.0/25 is also behind up0"),
        ("ip -6 route add fd00:88::2/128 dev up0", "host", "fd00:88::2/128 is also behind up0"),
        ("ip address add 10.88.0.9/24 dev up0", "host", "10.88.0.0/24 is also behind up0"),
        (
            "ip route add table 7 default via 192.0.2.2; ip rule add to 10.88.0.2 table 7",
            "host",
            "packets to 10.88.0.2 go to up0",
        ),
        ("nft delete table inet appliance", "firewall", "table inet appliance is not in the kernel"),
        ("nft delete table bridge appliance", "firewall", "table bridge appliance is not in the kernel"),
        (
            DELETE_OWN_CHAIN,
            "firewall",
            "chain ap-dns of table bridge appliance is not in the kernel",
        ),
        (
            f"nft add table ip filter; nft add chain ip filter FORWARD '{FORWARD_DROP}'",
            "firewall",
            "table ip filter drops in its chain FORWARD what none of its rules accepts",
        ),
        (
            f"nft add table inet mine; nft add chain inet mine f '{FORWARD_DROP}'",
            "firewall",
            "table inet mine drops in its chain f what none of its rules accepts",
        ),
        (
            FIREWALLD,
            "firewall",
            "table inet firewalld drops in its chain filter_FORWARD what none of its rules accepts",
        ),
        ("ip link set br-default down", "bridge", "it is down"),
        ("ip address del 10.88.0.1/24 dev br-default", "bridge", "10.88.0.1/24 is missing"),
        ("ip link set br-default address 02:00:00:00:00:99", "bridge", "its MAC is 02:00:00:00:00:99, not"),
        ("ip link set br-default alias mine", "bridge", "it was not made by the agent"),
        ("ip link del br-default", "bridge", "there is no interface br-default"),
        ("ip link set ap-dns nomaster", "tap", "it is not in br-default"),
        ("ip link set ap-dns down", "tap", "it is down"),
        ("ip link set ap-dns mtu 1300", "tap", "its MTU is 1300, not 1500"),
        ("ip link set ap-dns type bridge_slave isolated off", "tap", "it is not isolated from others"),
        ("ip link set ap-dns type bridge_slave hairpin on", "tap", "it is open to what it has sent itself"),
        ("ip route del default; ip -6 route del default", "outside", "the host itself has no way out"),
        (
            "ip route add table 7 unreachable default; ip rule add iif br-default table 7",
            "outside",
            "IPv4 packets of dns go nowhere",
        ),
    ],
)
async def test_a_broken_hop_is_the_first_that_is_named(
    router: OtherNetwork, command: str, hop: str, reason: str
) -> None:
    to_router()
    async with host(router) as found:
        do(command)
        report = await found.first()
    assert (report.hop, report.verdict) == (hop, "failed"), report
    assert reason in report.reason
    assert report.remedy


async def test_a_guest_that_has_gone(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        found.guest.stop()
        report = await found.first()
        assert (report.hop, report.reason) == ("tap", "no guest is attached")
        assert "systemctl restart" in report.remedy
        await found.world.units.stop("dns")
        assert "systemctl start" in (await found.first()).remedy


async def test_a_guest_that_is_silent(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        found.guest.run("link", "set", "vec0", "down")
        assert await found.broken() == {"guest": "failed", "gateway": "unknown"}
        reason = (await found.reports())["guest"].reason
    assert reason == f"no answer from {GUEST}, fd00:88::2"


async def test_an_address_that_is_believed_to_be_elsewhere(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        ip("neighbour", "replace", GUEST, "dev", "br-default", "lladdr", OTHER_MAC, "nud", "permanent")
        reports = await found.reports()
    assert reports["guest"].reason == f"no answer from {GUEST}"
    assert f"{GUEST} is at {OTHER_MAC}, and dns has 02:" in reports["gateway"].reason


async def test_rules_of_others_about_the_network_leave_it_open(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        do(f"nft add table ip filter; nft add chain ip filter FORWARD '{FORWARD_DROP}'")
        do("nft add rule ip filter FORWARD iifname 'br-*' accept")
        assert await found.broken() == {"firewall": "unknown"}


async def test_chains_of_others_that_drop_only_something(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        do(f"nft add table inet mine; nft add chain inet mine f '{FORWARD_ACCEPT}'")
        assert await found.broken() == {}
        do("nft add rule inet mine f tcp dport 9 drop")
        assert await found.broken() == {}


async def test_a_router_that_is_silent(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        with router.entered():
            ip("address", "flush", "dev", "eth0")
        assert await found.broken() == {"outside": "unknown"}


async def test_a_host_with_ipv4_only(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        ip("-6", "route", "del", "default")
        assert await found.broken() == {}
        assert "no IPv6" in (await found.reports())["outside"].looked_at


async def test_a_router_that_is_known_by_its_link_only(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        ip("-6", "route", "del", "default")
        with router.entered():
            mac = ip("-brief", "link", "show", "eth0").split()[2]
        ip("-6", "route", "add", "default", "via", "fe80::1", "dev", "up0")
        assert await found.broken() == {"outside": "unknown"}
        ip("neighbour", "replace", "fe80::1", "dev", "up0", "lladdr", mac, "nud", "reachable")
        assert await found.broken() == {}


async def test_a_host_that_may_not_ping(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        sysctl("ipv4/ping_group_range", "1 0")
        assert await found.broken() == {"guest": "unknown", "gateway": "unknown", "outside": "unknown"}


async def test_an_isolated_network(router: OtherNetwork) -> None:
    async with host(router, f"kind: isolated\n{NAT}") as found:
        sysctl("ipv4/ip_forward", "0")
        assert await found.broken() == {}


# --- bridged networks


def own_bridge() -> None:
    """A bridge of the administrator's with the host's own address, to which the router is connected."""
    do("ip link add br0 type bridge; ip link set br0 up; ip link set up0 master br0")
    do("ip address add 192.0.2.1/24 dev br0")


async def test_a_bridge_of_somebody_else(router: OtherNetwork) -> None:
    own_bridge()
    async with host(router, f"{LAN}bridge: br0\n") as found:
        assert await found.broken() == {"outside": "unknown"}
        with router.entered():
            ip("address", "flush", "dev", "eth0")
        ip("neighbour", "flush", "dev", "br0")
        assert (await found.reports())["gateway"].reason == f"nobody has {ROUTER}"


async def test_chains_that_see_what_is_bridged(router: OtherNetwork) -> None:
    own_bridge()
    async with host(router, f"{LAN}bridge: br0\n") as found:
        do(f"nft add table ip filter; nft add chain ip filter FORWARD '{FORWARD_DROP}'")
        sysctl("bridge/bridge-nf-call-iptables", "0")
        assert await found.broken() == {"outside": "unknown"}
        sysctl("bridge/bridge-nf-call-iptables", "1")
        assert (await found.first()).hop == "firewall"
        sysctl("bridge/bridge-nf-call-iptables", "0")
        do(f"nft add table bridge mine; nft add chain bridge mine f '{FORWARD_DROP}'")
        assert "table bridge mine" in (await found.first()).reason


@pytest.mark.parametrize(
    ("command", "hop", "reason"),
    [
        ("ip link set up0 down", "bridge", "up0 is down"),
        ("ip link set up0 nomaster", "bridge", "up0 is not in it"),
        ("ip link del up0", "bridge", "there is no interface up0"),
        ("ip link set br.up0 type bridge vlan_filtering 0", "bridge", "it does not filter by VLAN"),
        ("bridge vlan add dev ap-dns vid 30", "tap", "it is in VLAN 20, 30, not in 20 alone"),
    ],
)
@pytest.mark.vlans
async def test_an_uplink_with_a_vlan(router: OtherNetwork, command: str, hop: str, reason: str) -> None:
    async with host(router, f"{LAN}uplink: up0\nvlan: 20\n") as found:
        # From here nobody in that VLAN can be asked.
        assert await found.broken() == {"guest": "unknown", "gateway": "unknown", "outside": "unknown"}
        do(command)
        report = await found.first()
    assert (report.hop, report.reason) == (hop, reason)


async def test_an_uplink_without_a_carrier(router: OtherNetwork) -> None:
    async with host(router, f"{LAN}uplink: up0\n") as found:
        with router.entered():
            ip("link", "set", "eth0", "down")
        assert (await found.first()).reason == "up0 has no carrier"


# --- counters


async def test_counters_are_those_of_the_guest(router: OtherNetwork) -> None:
    to_router()
    async with host(router) as found:
        [before] = await found.networks.counters()
        await found.reports()
        # What comes from another MAC is refused.
        found.guest.run("link", "set", "vec0", "address", OTHER_MAC)
        found.guest.run("neighbour", "replace", "10.88.0.1", "dev", "vec0", "lladdr", OTHER_MAC)
        with found.guest.namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"x", ("10.88.0.1", 9))
        await until_counted(found, before.refused_packets)
        [after] = await found.networks.counters()
        do("nft delete table bridge appliance")
        with pytest.raises(HostError, match="nft failed"):
            await found.networks.counters()
    assert (after.network, after.appliance, after.tap) == ("default", "dns", "ap-dns")
    assert after.received_packets > before.received_packets
    assert after.received_bytes > before.received_bytes
    assert after.sent_packets > before.sent_packets
    assert after.sent_bytes > before.sent_bytes
    assert after.refused_bytes > before.refused_bytes


async def until_counted(found: Host, before: int) -> None:
    """Until more was refused; a test that waits in vain runs into its time limit."""
    while (await found.networks.counters())[0].refused_packets == before:  # noqa: ASYNC110 (it is in the kernel)
        await asyncio.sleep(0.01)
