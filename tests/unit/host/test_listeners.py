"""The host's own listening sockets as ss(8) shows them, and which ports they keep from being published."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.traffic import parse_publication
from agent.host.listeners import parse_line
from agent.model.listener import Listener
from agent.model.traffic import Protocol

TCP, UDP = Protocol.TCP, Protocol.UDP
SYSTEM = "cgroup:/system.slice"


@pytest.mark.parametrize(
    ("line", "listener"),
    [
        (
            f"udp UNCONN 0      0           127.0.0.53%lo:53   0.0.0.0:* {SYSTEM}/systemd-resolved.service",
            Listener(UDP, ip_address("127.0.0.53"), 4, 53, "systemd-resolved.service"),
        ),
        (
            f"tcp LISTEN 0      128               0.0.0.0:22   0.0.0.0:* {SYSTEM}/ssh.service",
            Listener(TCP, None, 4, 22, "ssh.service"),
        ),
        (
            f"tcp LISTEN 0      128                  [::]:22      [::]:* {SYSTEM}/ssh.service",
            Listener(TCP, None, 6, 22, "ssh.service"),
        ),
        (
            f"tcp LISTEN 0      511                     *:80         *:* {SYSTEM}/nginx.service",
            Listener(TCP, None, 0, 80, "nginx.service"),
        ),
        (
            "tcp LISTEN 0      4096       192.0.2.1:8080   0.0.0.0:* cgroup:/user.slice/session-3.scope",
            Listener(TCP, ip_address("192.0.2.1"), 4, 8080, "session-3.scope"),
        ),
        ("tcp LISTEN 0 10 [::1]:953 [::]:*", Listener(TCP, ip_address("::1"), 6, 953, "")),
        ("udp UNCONN 0 0 *%eth0:547 *:* cgroup:/", Listener(UDP, None, 0, 547, "")),
        ("udp UNCONN 0 0 0.0.0.0%virbr0:67 0.0.0.0:*", Listener(UDP, None, 4, 67, "")),
        (
            "udp UNCONN 0 0 [fe80::77]%eth0:546 [::]:* cgroup:unreachable:21d9",
            Listener(UDP, ip_address("fe80::77"), 6, 546, ""),
        ),
        (
            "tcp LISTEN 0 50 [::ffff:127.0.0.1]:8005 *:* cgroup:/system.slice/tomcat10.service",
            Listener(TCP, ip_address("127.0.0.1"), 4, 8005, "tomcat10.service"),
        ),
    ],
)
def test_what_ss_shows(line: str, listener: Listener) -> None:
    assert parse_line(line) == listener


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Netid State Recv-Q Send-Q Local Address:Port Peer Address:Port",
        "u_str LISTEN 0 4096 /run/systemd/private 1234 * 0",
        "tcp LISTEN 0 128 0.0.0.0:ssh 0.0.0.0:*",
        "tcp LISTEN 0 128 0.0.0.0:22",
        "udp UNCONN 0 0 0.0.0.0:* 0.0.0.0:*",
    ],
)
def test_what_else_it_shows(line: str) -> None:
    assert parse_line(line) is None


@given(st.text(alphabet="tcpudpLISTEN0123456789.:[]%*/ cgroup-", max_size=80))
def test_whatever_it_shows(text: str) -> None:
    for line in (text, f"tcp LISTEN 0 0 {text}", f"udp UNCONN 0 0 {text}:80 *:* cgroup:{text}"):
        found = parse_line(line)
        assert found is None or found.version in {0, 4, 6}


@pytest.mark.parametrize(
    ("line", "publication", "taken"),
    [
        # By its port and protocol.
        ("tcp L 0 0 *:80 *:*", "80", True),
        ("tcp L 0 0 *:80 *:*", "80:8080", True),
        ("tcp L 0 0 *:80 *:*", "8080:80", False),
        ("tcp L 0 0 *:80 *:*", "80/udp", False),
        ("tcp L 0 0 *:80 *:*", "70-80", True),
        ("tcp L 0 0 *:80 *:*", "81-90", False),
        # By its addresses.
        ("tcp L 0 0 *:80 *:*", "192.0.2.1:80", True),
        ("tcp L 0 0 *:80 *:*", "[2001:db8::1]:80", True),
        ("tcp L 0 0 *:80 *:*", "[::]:80", True),
        ("tcp L 0 0 0.0.0.0:80 *:*", "0.0.0.0:80", True),
        ("tcp L 0 0 0.0.0.0:80 *:*", "80", True),
        ("tcp L 0 0 0.0.0.0:80 *:*", "[::]:80", False),
        ("tcp L 0 0 [::]:80 *:*", "0.0.0.0:80", False),
        ("tcp L 0 0 [::]:80 *:*", "[2001:db8::1]:80", True),
        ("tcp L 0 0 192.0.2.1:80 *:*", "80", True),
        ("tcp L 0 0 192.0.2.1:80 *:*", "192.0.2.1:80", True),
        ("tcp L 0 0 192.0.2.1:80 *:*", "192.0.2.2:80", False),
        ("tcp L 0 0 192.0.2.1:80 *:*", "[::]:80", False),
        ("tcp L 0 0 [::ffff:192.0.2.1]:80 *:*", "192.0.2.1:80", True),
        ("tcp L 0 0 [2001:db8::1]:80 *:*", "80", True),
        ("tcp L 0 0 [2001:db8::1]:80 *:*", "[2001:db8::2]:80", False),
        # On the loopback interface: what is published comes to 127.0.0.1, and to no other address there.
        ("tcp L 0 0 127.0.0.1:80 *:*", "80", True),
        ("tcp L 0 0 127.0.0.1:80 *:*", "127.0.0.1:80", True),
        ("tcp L 0 0 127.0.0.1:80 *:*", "192.0.2.1:80", False),
        ("udp L 0 0 127.0.0.53%lo:53 *:*", "53/udp", False),
        ("tcp L 0 0 [::1]:80 *:*", "80", False),
        ("tcp L 0 0 [::ffff:127.0.0.1]:80 *:*", "80", True),
    ],
)
def test_what_keeps_a_port_from_being_published(line: str, publication: str, taken: bool) -> None:
    listener, wanted = parse_line(line), parse_publication(publication)
    assert listener
    assert wanted
    assert listener.keeps_from(wanted) is taken
