"""The network of appliances on a booted host: published ports, names, DHCP, and whatever else changes the
network or the firewall."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.system.conftest import Make
from tests.system.lab import PROJECT, Host
from tests.system.test_first_appliance import ask

HERE, THERE = "192.0.2.1", "192.0.2.2"
TABLES = ("inet", "bridge")


@pytest.fixture
def outside(host: Host) -> Iterator[str]:
    """Another machine, beyond a cable of the host; the name of its network namespace."""
    host.run("sh", "-euc", _OUTSIDE)
    yield "outside"
    host.run("ip", "netns", "del", "outside")
    host.wait("the end of its cable", lambda: host.try_run("ip", "link", "show", "up0").returncode != 0)


_OUTSIDE = f"""\
ip netns add outside
ip link add up0 type veth peer name eth0 netns outside
ip address add {HERE}/24 dev up0
ip link set up0 up
ip -n outside address add {THERE}/24 dev eth0
ip -n outside link set eth0 up
ip -n outside link set lo up
"""


def fetch_from(host: Host, namespace: str, url: str) -> str:
    """What a web server says to a client in another network namespace; '' where it says nothing."""
    curl = ("curl", "--silent", "--max-time", "3", url)
    return host.run("ip", "netns", "exec", namespace, *curl, check=False)


def restored(host: Host, since: str) -> list[str]:
    """What the agent says it has restored."""
    entries = host.journal("--unit=appliance-agent", since=since)
    return [str(entry["MESSAGE"]) for entry in entries if "Network restored" in str(entry["MESSAGE"])]


def has_rules(host: Host) -> bool:
    """Whether both tables are there, and not empty."""
    listed = (host.run("nft", "list", "table", family, "appliance", check=False) for family in TABLES)
    return all("chain prerouting" in text for text in listed)


# --- where packets go


def test_published_ports_are_reached_from_outside_and_from_the_host(
    host: Host, outside: str, web: str
) -> None:
    path = f"/etc/appliance/appliances/{web}.yaml"
    host.run("sh", "-c", f"echo 'publish: [8080:80]' >>{path}")
    since = host.unit(web, "MainPID")
    assert "tcp-8080" in host.run("appliancectl", "apply")
    assert host.unit(web, "MainPID") == since, "a guest does not start anew for that"
    assert fetch_from(host, outside, f"http://{HERE}:8080/") == "misbehave 1\n"
    assert fetch_from(host, outside, "http://10.88.0.80/") == ""
    for address in ("127.0.0.1", HERE, "10.88.0.1"):
        assert host.run("curl", "--silent", f"http://{address}:8080/") == "misbehave 1\n"


def test_guests_reach_the_outside_and_not_the_host(host: Host, outside: str, web: str) -> None:
    serve = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=80)"
    for name, argv in (("there", ["ip", "netns", "exec", outside]), ("here", [])):
        server = [*argv, "python3", "-c", serve]
        host.run("systemd-run", f"--unit=server-{name}", *server)
    try:
        host.wait("the servers", lambda: host.run("curl", "-s", f"http://{HERE}/", check=False))
        host.wait("the other one", lambda: fetch_from(host, outside, f"http://{THERE}/"))
        asked = "http://10.88.0.80/cgi-bin/fetch?"
        assert "Directory listing" in host.run("curl", "--silent", "--max-time", "5", asked + THERE)
        for address in (HERE, "10.88.0.1"):
            assert "no answer" in host.run("curl", "--silent", "--max-time", "9", asked + address)
    finally:
        host.run("systemctl", "stop", "server-here", "server-there", check=False)
    assert host.appliance(web)["health"] == "healthy"


def test_a_port_that_the_host_uses_is_not_published(host: Host, outside: str, web: str) -> None:
    listen = "import socket, time; s = socket.create_server(('', 8080)); time.sleep(60)"
    host.run("systemd-run", "--unit=holder", "python3", "-c", listen)
    try:
        host.wait("the port", lambda: ":8080 " in host.run("ss", "-lnt"))
        host.run("sh", "-c", f"echo 'publish: [8080:80, 8081:80]' >>/etc/appliance/appliances/{web}.yaml")
        done = host.try_run("appliancectl", "apply")
        assert done.returncode == 1
        assert (
            "port 8080:80/tcp is not published: holder.service uses it on this host"
            in done.stdout + done.stderr
        )
        assert fetch_from(host, outside, f"http://{HERE}:8080/") == ""
        assert fetch_from(host, outside, f"http://{HERE}:8081/") == "misbehave 1\n"
    finally:
        host.run("systemctl", "stop", "holder")
    host.run("appliancectl", "apply")
    assert fetch_from(host, outside, f"http://{HERE}:8080/") == "misbehave 1\n"


def test_a_subnet_that_collides_is_not_taken(host: Host) -> None:
    host.run("sh", "-euc", _TAKE)
    try:
        host.write("/etc/appliance/networks/auto.yaml", "kind: isolated\n")
        host.run("appliancectl", "apply")
        addresses = host.run("ip", "-4", "-o", "address", "show", "dev", "br-auto")
        assert "10.88.2.1/24" in addresses
    finally:
        host.run("rm", "/etc/appliance/networks/auto.yaml")
        host.run("ip", "link", "del", "taken")
        host.run("appliancectl", "apply")


_TAKE = """\
ip link add taken type bridge
ip address add 10.88.1.7/24 dev taken
ip link set taken up
"""


_TAKE = """\
ip link add taken type bridge
ip address add 10.88.1.7/24 dev taken
ip link set taken up
"""


# --- others who change the network


DEEDS = (
    "nft flush ruleset",
    "nft delete table bridge appliance",
    "nft flush chain inet appliance guest-in",
    "ip link set ap-dns nomaster",
    "ip link set br-default down",
    "ip link del br-default",
    "sysctl -q net.ipv4.ip_forward=0",
    "ip address del 10.88.0.1/24 dev br-default",
    "bridge link set dev ap-dns isolated off",
)


def test_what_others_undo_is_restored_and_said_once(host: Host, dns: str) -> None:
    rules, started = host.run("nft", "list", "ruleset"), host.unit(dns, "MainPID")
    for deed in DEEDS:
        since = host.cursor()
        host.run("sh", "-euc", deed)
        host.wait(f"the end of {deed}", partial(restored, host, since))
        assert host.run("appliancectl", "apply") == "Nothing to change.\n", deed
        assert ask(host) == "10.88.0.80", deed
        assert len(restored(host, since)) == 1, (deed, restored(host, since))
        assert _without_counts(host.run("nft", "list", "ruleset")) == _without_counts(rules), deed
    assert host.run("sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
    assert host.unit(dns, "MainPID") == started


def test_the_host_s_own_rules_are_loaded_anew(host: Host, dns: str) -> None:
    since = host.cursor()
    host.run("systemctl", "restart", "nftables")
    host.wait("what it says", lambda: restored(host, since))
    host.wait("our rules", lambda: has_rules(host))
    assert "table inet filter" in host.run("nft", "list", "tables")
    assert ask(host) == "10.88.0.80"


def _without_counts(rules: str) -> list[str]:
    """In any order: that of chains is that in which they were made."""
    return [line for line in sorted(rules.splitlines()) if "packets" not in line]


def test_what_belongs_to_others_is_left_alone(host: Host, dns: str) -> None:
    host.run("sh", "-euc", OTHERS)
    try:
        theirs = host.run("nft", "list", "table", "inet", "theirs")
        host.run("nft", "flush", "chain", "inet", "appliance", "forward")
        host.wait(
            "the rules",
            lambda: "guest-in" in host.run("nft", "list", "chain", "inet", "appliance", "forward"),
        )
        host.run("appliancectl", "apply")
        assert host.run("nft", "list", "table", "inet", "theirs") == theirs
        assert "theirs0" in host.run("ip", "link")
        assert ask(host) == "10.88.0.80"
    finally:
        host.run("sh", "-euc", "nft delete table inet theirs; ip link del theirs0")


def test_a_network_manager_that_starts_later_leaves_it_alone(host: Host, dns: str) -> None:
    everything = "[Match]\nName=*\n\n[Network]\nDHCP=yes\nAddress=203.0.113.7/24\n"
    host.write("/etc/systemd/network/99-everything.network", everything)
    host.run("ip", "link", "add", "other0", "type", "bridge")
    since = host.cursor()
    try:
        host.run("systemctl", "start", "systemd-networkd")
        host.wait("it", lambda: "203.0.113.7" in host.run("ip", "address", "show", "dev", "other0"))
        for name in ("br-default", "ap-dns"):
            assert "unmanaged" in host.run("networkctl", "list", "--no-legend", name)
            assert "203.0.113.7" not in host.run("ip", "address", "show", "dev", name)
        assert ask(host) == "10.88.0.80"
        assert restored(host, since) == []
    finally:
        host.run("systemctl", "stop", "systemd-networkd.socket", "systemd-networkd")
        host.run("rm", "/etc/systemd/network/99-everything.network")
        host.run("ip", "link", "del", "other0")


OTHERS = """\
nft -f - <<EOF
table inet theirs {
	chain forward { type filter hook forward priority 0; policy accept; tcp dport 9 drop; }
}
EOF
ip link add theirs0 type bridge
"""


# --- to see it


def test_the_way_of_a_guest_is_walked_and_the_broken_hop_named(host: Host, outside: str, dns: str) -> None:
    def broken() -> dict[str, str]:
        done = host.try_run("appliancectl", "network", "diagnose", dns, "--json")
        hops = json.loads(done.stdout)
        found = {hop["hop"]: hop["reason"] for hop in hops if hop["verdict"] == "failed"}
        assert done.returncode == (1 if found else 0), done.stdout
        return found

    host.run("ip", "route", "add", "default", "via", THERE)
    assert broken() == {}
    chain = "{ type filter hook forward priority 0; policy drop; }"
    host.run("nft", f"add table ip theirs; add chain ip theirs f {chain}")
    try:
        assert "table ip theirs drops in its chain f" in broken()["firewall"]
    finally:
        host.run("nft", "delete", "table", "ip", "theirs")
    host.run("ip", "route", "del", "default")
    assert set(broken()) == {"outside"}
    host.run("systemctl", "stop", "appliance@dns")
    assert {"tap", "guest"} <= broken().keys()


def test_networks_leases_and_their_picture(host: Host, dns: str) -> None:
    host.run("sh", "-c", "echo 'publish: 53/udp' >>/etc/appliance/appliances/dns.yaml")
    host.run("appliancectl", "apply")
    [network] = [found for found in host.json("network", "list") if found["name"] == "default"]
    assert (network["kind"], network["bridge"]) == ("nat", "br-default")
    [lease] = host.json("network", "leases")
    assert (lease["appliance"], lease["addresses"][0]) == (dns, {"address": "10.88.0.53", "fixed": True})
    assert "Published: 53/udp to 10.88.0.53:53" in host.run("appliancectl", "network", "show", "default")
    picture = host.run("env", "LC_ALL=C.UTF-8", "appliancectl", "network", "picture")
    assert "dns  10.88.0.53" in picture
    assert '"outside" -> "appliance dns"' in host.run("appliancectl", "network", "picture", "--dot")


# --- names


def test_appliances_are_known_by_name(host: Host, web: str) -> None:
    def told() -> str:
        return host.run("curl", "--silent", "http://10.88.0.80/cgi-bin/hosts")

    assert "10.88.0.80 web" in told()
    assert "10.88.0.80" in host.run("getent", "ahostsv4", "web")
    started = host.unit(web, "MainPID")
    host.write(
        "/etc/appliance/appliances/later.yaml",
        "image: misbehave:1\nnetwork: {name: default, address: 10.88.0.9}\n",
    )
    host.run("appliancectl", "apply")
    host.wait("the new name", lambda: "10.88.0.9 later" in told())
    assert "10.88.0.9" in host.run("getent", "ahostsv4", "later")
    host.run("rm", "/etc/appliance/appliances/later.yaml")
    host.run("appliancectl", "apply")
    host.wait("its end", lambda: "later" not in told())
    assert "later" not in host.run("cat", "/etc/hosts")
    assert host.unit(web, "MainPID") == started
    host.run("systemctl", "restart", "appliance@web")
    assert "10.88.0.80 web" in told()


# --- DHCP

_SUBNET = "subnet 10.88.0.0/24\nrange 10.88.0.100 10.88.0.199\ngateway 10.88.0.1\nlease-time 12h\n"
_CLIENT = """\
import socket, sys
sys.path.insert(0, "/var/tmp")
import dhcp
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 3))
client = dhcp.Client(wire=wire, mac=bytes.fromhex("020000000007"))
offer = client.discover(timeout_s=float(sys.argv[1]))
print(client.lease().address if offer else "none")
"""


@pytest.fixture
def client(host: Host) -> Iterator[str]:
    """A machine on the bridge of the default network; the name of its network namespace."""
    host.write("/var/tmp/dhcp.py", (PROJECT / "tests/guest/dhcp.py").read_text())
    host.run("sh", "-euc", _ON_THE_BRIDGE)
    yield "client"
    host.run("ip", "netns", "del", "client")


_ON_THE_BRIDGE = """\
ip netns add client
ip link add cable type veth peer name eth0 netns client
ip link set cable master br-default up
ip -n client link set eth0 address 02:00:00:00:00:07 up
"""


def lease(host: Host, client: str, *, timeout_s: float = 20) -> str:
    """The address that a DHCP client gets, or none."""
    argv = ("python3", "-c", _CLIENT, str(timeout_s))
    return host.run("ip", "netns", "exec", client, *argv, timeout_s=60).strip()


def test_a_granted_dhcp_server_keeps_its_leases_over_a_swap(
    host: Host, make: Make, client: str, tmp_path: Path
) -> None:
    host.write("/etc/appliance/config/dhcp/subnets/lan.subnet", _SUBNET)
    text = "image: dhcp-dnsmasq\ndata: 8M\nupdate: {soak: 1s}\n"
    host.write("/etc/appliance/appliances/dhcp.yaml", text)
    done = host.try_run("appliancectl", "apply")
    assert (done.returncode, "`grants: [dhcp-server]` is missing" in done.stderr) == (1, True)
    host.run("systemctl", "start", "appliance@dhcp")
    assert lease(host, client, timeout_s=4) == "none"
    make("dhcp", f"{text}grants: dhcp-server\n")
    given = lease(host, client)
    assert given.startswith("10.88.0.1")
    host.write("/var/tmp/next.squashfs", _next_version(tmp_path).read_bytes())
    host.run("appliancectl", "image", "import", "/var/tmp/next.squashfs")
    host.run("appliancectl", "swap", "dhcp", "dhcp-dnsmasq:99", timeout_s=120)
    assert host.appliance("dhcp")["image"] == "dhcp-dnsmasq:99"
    assert lease(host, client) == given


def _next_version(directory: Path) -> Path:
    """The image dhcp-dnsmasq under another version."""
    import os

    source = Path(os.environ["APPLIANCE_IMAGES"]) / "dhcp-dnsmasq.squashfs"
    tree, target = directory / "tree", directory / "next.squashfs"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", tree, source], check=True)
    manifest = tree / "usr/lib/appliance/manifest.yaml"
    lines = manifest.read_text().splitlines()
    changed = ['version: "99"' if line.startswith("version:") else line for line in lines]
    manifest.write_text("\n".join(changed) + "\n")
    subprocess.run(["mksquashfs", tree, target, "-quiet", "-no-progress", "-comp", "lz4"], check=True)
    return target
