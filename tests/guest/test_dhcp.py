"""Images of the role dhcp/1: what a client at the other end of the guest's network device gets from them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.model.image import Image
from tests.guest.dhcp import ACK, DNS_SERVER, DOMAIN, HOST_NAME, MASK, NAK, NTP_SERVER, ROUTER, Client
from tests.guest.images import Network, assert_serves, check, hear, start, telling, with_health
from tests.guest.uml import SHELL, Boot

NAME = "dhcp-dnsmasq"
NO_ANSWER_S = 5.0
"""Longer than the ping before an offer."""
Wire = tuple[socket.socket, Network]
"""The clients' end of the network, and the guest's."""

SERVER = IPv4Address("192.0.2.2")
RELAY = IPv4Address("198.51.100.1")
FIRST, SECOND, THIRD = (bytes((2, 0, 0, 0, 1, number)) for number in (1, 2, 3))

SUBNET = b"""\
# The whole of it.
subnet       192.0.2.0/24
range        192.0.2.100 192.0.2.199
range        192.0.2.20 192.0.2.29  # and some more
gateway      192.0.2.1
nameservers  192.0.2.53 198.51.100.53
domain       example.test
lease-time   12h
ntp-servers  192.0.2.123
"""
BARE_SUBNET = b"subnet 192.0.2.0/24\nrange 192.0.2.100 192.0.2.199"
ONE_ADDRESS = b"subnet 192.0.2.0/24\nrange 192.0.2.100 192.0.2.100\n"
ONLY_RESERVATIONS = b"subnet 192.0.2.0/24\n"
RESERVATIONS = b"""\
# MAC address      address    name
02:00:00:00:01:01  192.0.2.9  printer
02:00:00:00:01:02  192.0.2.8
"""
WRONG_LINES = {
    "range 192.0.2.3": "range is no setting, or has too few values or too many.",
    "speed 9": "speed is no setting, or has too few values or too many.",
    "nameservers": "nameservers is no setting, or has too few values or too many.",
    "nameservers 192.0.2.53,192.0.2.54": "192.0.2.53,192.0.2.54 is not an IPv4 address.",
    "nameservers 192.0.2.256": "192.0.2.256 is not an IPv4 address.",
    "ntp-servers *": "* is not an IPv4 address.",
    "range 192.0.2.9 192.0.2.3": "192.0.2.3 comes before 192.0.2.9.",
    "range 192.0.2.9 192.0.3.3": "192.0.3.3 is not an address for a host of this subnet.",
    "range 192.0.2.0 192.0.2.3": "192.0.2.0 is not an address for a host of this subnet.",
    "range 192.0.2.40 192.0.2.60": "a range overlaps another one or has the gateway in it.",
    "gateway 192.0.2.45": "a range overlaps another one or has the gateway in it.",
    "gateway 192.0.3.1": "192.0.3.1 is not an address for a host of this subnet.",
    "domain a..b": "a..b is not a name.",
    "lease-time 1m": "1m is not a lease time from 2m to 365d, in s, m, h or d.",
    "lease-time 12": "12 is not a lease time from 2m to 365d, in s, m, h or d.",
    "lease-time 1h\nlease-time 1h": "lease-time is given twice.",
}
WRONG_RESERVATIONS = {
    "02:00:00:00:01:0g 192.0.2.8": "a MAC address such as 52:54:00:12:34:56, an address and perhaps a name",
    "02:00:00:00:01:02": "a MAC address such as 52:54:00:12:34:56, an address and perhaps a name",
    "02:00:00:00:01:02 192.0.2.9": "192.0.2.9 is taken already.",
    "02:00:00:00:01:AA 192.0.2.8": "02:00:00:00:01:AA has an address in this subnet already.",
    "02:00:00:00:01:02 198.51.100.8": "198.51.100.8 is in none of the subnets.",
    "02:00:00:00:01:02 192.0.2.255": "192.0.2.255 is not an address for a host of this subnet.",
    "02:00:00:00:01:02 192.0.2.8 a.b": "a.b is not a host name.",
}
FILES = {"subnets/lan.subnet": SUBNET, "reservations": RESERVATIONS}


@pytest.fixture
def image(shipped: Callable[[str], Image]) -> Image:
    return shipped(NAME)


@pytest.fixture
def wire() -> Iterator[Wire]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        yield ours, Network(device=theirs, lines=[f"address=vec0 {SERVER}/24", "gateway=192.0.2.1"])


def test_starts_and_stops(image: Image, boot: Boot, data: Path, wire: Wire) -> None:
    assert_serves(start(boot, image, config=FILES, data=data, network=wire[1]))


def test_without_subnets_it_serves_nobody(image: Image, boot: Boot, data: Path, wire: Wire) -> None:
    guest = start(boot, image, data=data, network=wire[1])
    guest.wait_ready()
    assert Client(wire=wire[0], mac=FIRST).discover(timeout_s=NO_ANSWER_S) is None
    assert_serves(guest)
    assert (
        "<4>No files in the configuration's subnets directory; no client will get an address." in guest.lines
    )


def test_client_gets_what_the_subnet_says(image: Image, boot: Boot, data: Path, wire: Wire) -> None:
    guest = start(boot, image, config={"subnets/lan.subnet": SUBNET}, data=data, network=wire[1])
    guest.wait_ready()
    answer = Client(wire=wire[0], mac=FIRST).lease()
    assert (answer.kind, answer.mac) == (ACK, FIRST), "a client without an address is reached by its MAC"
    assert 20 <= int(answer.address.removeprefix("192.0.2.")) < 200
    assert answer.addresses(MASK) == ["255.255.255.0"]
    assert answer.addresses(ROUTER) == ["192.0.2.1"]
    assert answer.addresses(DNS_SERVER) == ["192.0.2.53", "198.51.100.53"]
    assert answer.addresses(NTP_SERVER) == ["192.0.2.123"]
    assert answer.options[DOMAIN] == b"example.test"
    assert answer.lease_s == 12 * 3600
    assert_serves(guest)


def test_client_gets_nothing_that_the_subnet_does_not_say(
    image: Image, boot: Boot, data: Path, wire: Wire
) -> None:
    guest = start(boot, image, config={"subnets/lan.subnet": BARE_SUBNET}, data=data, network=wire[1])
    guest.wait_ready()
    answer = Client(wire=wire[0], mac=FIRST).lease()
    assert not {ROUTER, DNS_SERVER, NTP_SERVER, DOMAIN, HOST_NAME} & answer.options.keys()
    assert answer.lease_s == 3600


@pytest.mark.parametrize("subnet", [SUBNET, ONLY_RESERVATIONS], ids=["ranges", "no-ranges"])
def test_reservations(image: Image, boot: Boot, data: Path, wire: Wire, subnet: bytes) -> None:
    config = {"subnets/lan.subnet": subnet, "reservations": RESERVATIONS}
    start(boot, image, config=config, data=data, network=wire[1]).wait_ready()
    first, second = (Client(wire=wire[0], mac=mac).lease() for mac in (FIRST, SECOND))
    assert (first.address, first.options[HOST_NAME]) == ("192.0.2.9", b"printer")
    assert second.address == "192.0.2.8"
    assert HOST_NAME not in second.options
    if subnet is ONLY_RESERVATIONS:
        assert Client(wire=wire[0], mac=THIRD).discover(timeout_s=NO_ANSWER_S) is None


def test_reserved_address_is_for_its_client_only(image: Image, boot: Boot, data: Path, wire: Wire) -> None:
    config = {"subnets/lan.subnet": ONE_ADDRESS, "reservations": b"02:00:00:00:01:01 192.0.2.100\n"}
    start(boot, image, config=config, data=data, network=wire[1]).wait_ready()
    assert Client(wire=wire[0], mac=SECOND).discover(timeout_s=NO_ANSWER_S) is None
    assert Client(wire=wire[0], mac=FIRST).lease().address == "192.0.2.100"


def test_client_of_another_subnet_is_told(image: Image, boot: Boot, data: Path, wire: Wire) -> None:
    start(boot, image, config=FILES, data=data, network=wire[1]).wait_ready()
    answer = Client(wire=wire[0], mac=THIRD).request("198.51.100.7")
    assert answer is not None
    assert answer.kind == NAK


def test_client_behind_a_relay(image: Image, boot: Boot, data: Path, wire: Wire) -> None:
    config = FILES | {"subnets/far.subnet": b"subnet 198.51.100.0/24\nrange 198.51.100.7 198.51.100.7\n"}
    start(boot, image, config=config, data=data, network=wire[1]).wait_ready()
    client = Client(wire=wire[0], mac=THIRD, relay=RELAY, server=SERVER)
    assert client.lease().address == "198.51.100.7"


def test_leases_outlive_the_guest(image: Image, boot: Boot, data: Path, wire: Wire) -> None:
    """There is one address: whoever has it is remembered where nobody else gets it."""
    config = {"subnets/lan.subnet": ONE_ADDRESS}
    guest = start(boot, image, config=config, data=data, network=wire[1])
    guest.wait_ready()
    assert Client(wire=wire[0], mac=FIRST).lease().address == "192.0.2.100"
    assert_serves(guest)
    start(boot, image, config=config, data=data, network=wire[1]).wait_ready()
    assert Client(wire=wire[0], mac=SECOND).discover(timeout_s=NO_ANSWER_S) is None
    answer = Client(wire=wire[0], mac=FIRST).request("192.0.2.100")
    assert answer is not None
    assert answer.kind == ACK


def test_leases_are_written_as_the_role_says(image: Image, boot: Boot, data: Path, wire: Wire) -> None:
    config = FILES | {"subnets/lan.subnet": ONLY_RESERVATIONS}
    guest = start(boot, image, config=config, data=data, network=wire[1])
    guest.wait_ready()
    for mac in (FIRST, SECOND):
        Client(wire=wire[0], mac=mac).lease()
    assert_serves(guest)
    heard = hear(start(boot, telling(image, "cat /data/leases"), config=config, data=data))
    rests = {line.split(" ", 1)[1] for line in heard}
    assert rests == {"02:00:00:00:01:01 192.0.2.9 printer *", "02:00:00:00:01:02 192.0.2.8 * *"}
    assert all(int(line.split(" ", 1)[0]) > time.time() for line in heard)


def test_nothing_but_dhcp_is_served_and_not_by_root(
    image: Image, boot: Boot, data: Path, wire: Wire
) -> None:
    script = "netstat -lntu | grep : ; grep Uid /proc/$(pidof dnsmasq)/status"
    heard = hear(start(boot, telling(image, script), config=FILES, data=data, network=wire[1]))
    *sockets, user = (line.split() for line in heard)
    # TFTP is for the health check.
    assert {fields[3] for fields in sockets} == {"0.0.0.0:67", "127.0.0.1:69", "::1:69"}
    assert user == ["Uid:", "101", "101", "101", "101"]


def test_server_that_hangs_is_unhealthy(image: Image, boot: Boot, data: Path) -> None:
    own = " ".join(image.manifest.health)
    once = f"[ -e /tmp/hangs ] || {{ {own} && >/tmp/hangs && killall -STOP dnsmasq; }}"
    guest = start(boot, with_health(image, SHELL, "-c", f"{once}; exec {own}"), config=FILES, data=data)
    guest.wait_ready()
    guest.wait_until(lambda: any(status.startswith("unhealthy") for status in guest.statuses))


def test_health_check_leaves_nothing_in_the_log(image: Image, boot: Boot, data: Path) -> None:
    guest = start(boot, image, config=FILES, data=data)
    guest.wait_until(lambda: guest.watchdog_count > 0)
    lines = len(guest.lines)
    guest.wait_until(lambda: guest.watchdog_count > 3)
    assert guest.lines[lines:] == []


def refusal(boot: Boot, image: Image, config: dict[str, bytes]) -> str:
    """Why the image does not start with these files; it is an error in the log as well."""
    guest = check(boot, image, config=config)
    assert guest.wait_end() == 85, guest.describe()
    reason = guest.statuses[-1].removeprefix("prepare failed: <3>")
    assert f"<3>{reason}" in guest.lines
    return reason


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("lan", b"# nothing\n", ": there is no subnet in this file."),
        ("lan", b"# first\nrange 192.0.2.3 192.0.2.4\n", ":2: the subnet comes first."),
        ("lan", b"subnet 192.0.2.0", ":1: 192.0.2.0 is not a subnet such as 192.0.2.0/24, with a prefix"),
        ("lan", b"subnet 192.0.2.0/31", ":1: 192.0.2.0/31 is not a subnet such as 192.0.2.0/24, with a"),
        ("lan", b"subnet 192.0.2.1/24", ":1: 192.0.2.1/24 has bits beyond its prefix."),
        ("lan", b"subnet 192.0.2/24", ":1: 192.0.2 is not an IPv4 address."),
        ("wlan", SUBNET, ":2: 192.0.2.0/24 overlaps another subnet."),
        ("w lan", SUBNET, ": the file name has other characters than letters, digits, - and _."),
    ],
)
def test_refuses_a_wrong_subnet(image: Image, boot: Boot, name: str, text: bytes, reason: str) -> None:
    path = f"subnets/{name}.subnet"
    assert refusal(boot, image, FILES | {path: text}).startswith(f"{path}{reason}")


@pytest.mark.parametrize(("line", "reason"), WRONG_LINES.items(), ids=WRONG_LINES)
def test_refuses_a_wrong_line_of_a_subnet(image: Image, boot: Boot, line: str, reason: str) -> None:
    text = f"subnet 192.0.2.0/24\nrange 192.0.2.44 192.0.2.50\n{line}\n"
    place = f"subnets/lan.subnet:{text.count(chr(10))}"
    assert refusal(boot, image, {"subnets/lan.subnet": text.encode()}) == f"{place}: {reason}"


@pytest.mark.parametrize(("line", "reason"), WRONG_RESERVATIONS.items(), ids=WRONG_RESERVATIONS)
def test_refuses_a_wrong_reservation(image: Image, boot: Boot, line: str, reason: str) -> None:
    text = f"02:00:00:00:01:aa 192.0.2.9\n{line}\n"
    assert refusal(boot, image, FILES | {"reservations": text.encode()}).startswith(
        f"reservations:2: {reason}"
    )


def test_checks_what_the_administrator_added(image: Image, boot: Boot) -> None:
    assert check(boot, image, config=FILES | {"dnsmasq/more.conf": b"log-dhcp\n"}).wait_end() == 0
    guest = check(boot, image, config=FILES | {"dnsmasq/more.conf": b"no-such-option\n"})
    assert guest.wait_end() == 86
    assert "bad option at line 1 of /run/appliance/config/dnsmasq/more.conf" in guest.statuses[-1]
