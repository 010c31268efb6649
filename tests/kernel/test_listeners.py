"""The listening sockets of a real kernel, by the real ss(8)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from agent.host.listeners import listeners
from agent.model.listener import Listener
from agent.model.traffic import Protocol
from tests.kernel.links import ip

TCP, UDP = Protocol.TCP, Protocol.UDP


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    ip("link", "set", "lo", "up")
    with contextlib.ExitStack() as stack:
        yield stack


def listen(stack: contextlib.ExitStack, address: str, port: int, *, only_ipv6: bool = False) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = stack.enter_context(socket.socket(family))
    if family is socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_ipv6))
    server.bind((address, port))
    server.listen()


def receive(stack: contextlib.ExitStack, address: str, port: int, *, device: str = "") -> socket.socket:
    receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    if device:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    receiver.bind((address, port))
    return receiver


def found() -> set[tuple[Protocol, str, int, int]]:
    """But for their owners: what groups there are depends on the host."""
    return {(one.protocol, str(one.address or "*"), one.version, one.port) for one in listeners()}


def test_a_host_without_any() -> None:
    assert listeners() == []


def test_sockets_of_every_kind(sockets: contextlib.ExitStack) -> None:
    listen(sockets, "0.0.0.0", 1001)
    listen(sockets, "127.0.0.1", 1002)
    listen(sockets, "::", 1003)
    listen(sockets, "::", 1004, only_ipv6=True)
    listen(sockets, "::1", 1005)
    listen(sockets, "::ffff:127.0.0.1", 1006)
    receive(sockets, "127.0.0.53", 53, device="lo")
    receive(sockets, "0.0.0.0", 1007)
    assert found() == {
        (TCP, "*", 4, 1001),
        (TCP, "127.0.0.1", 4, 1002),
        (TCP, "*", 0, 1003),
        (TCP, "*", 6, 1004),
        (TCP, "::1", 6, 1005),
        (TCP, "127.0.0.1", 4, 1006),
        (UDP, "127.0.0.53", 4, 53),
        (UDP, "*", 4, 1007),
    }


def test_connections_are_no_listeners(sockets: contextlib.ExitStack) -> None:
    listen(sockets, "127.0.0.1", 1001)
    sockets.enter_context(socket.create_connection(("127.0.0.1", 1001)))
    receive(sockets, "127.0.0.1", 1002).connect(("127.0.0.1", 1003))
    assert found() == {(TCP, "127.0.0.1", 4, 1001)}


def test_a_link_local_address_has_a_scope(sockets: contextlib.ExitStack) -> None:
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    ip("address", "add", "fe80::77/64", "dev", "eth0", "nodad")
    ip("link", "set", "eth0", "up")
    server = sockets.enter_context(socket.socket(socket.AF_INET6))
    server.bind(("fe80::77", 1001, 0, socket.if_nametoindex("eth0")))
    server.listen()
    [one] = listeners()
    assert one == Listener(TCP, ip_address("fe80::77"), 6, 1001, one.owner)
