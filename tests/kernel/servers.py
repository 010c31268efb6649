"""Servers for clients to be tested with, each in a thread of its own: good ones, and any that misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.message
import dns.rcode
import dns.rrset

Talk = Callable[[socket.socket], None]
Reply = Callable[[bytes], list[bytes]]

ANY_IPV4, ANY_IPV6 = "127.0.0.1", "::1"


def _bound(address: str, kind: socket.SocketKind, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    return server


@contextmanager
def _thread(work: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work, name="server")
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join()


@contextmanager
def tcp_server(talk: Talk, *, address: str = ANY_IPV4, port: int = 0) -> Iterator[int]:
    """Gives the port. `talk` has each connection, one after the other; that the client goes away is no
    error."""
    with _bound(address, socket.SOCK_STREAM, port) as server:
        server.listen(64)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(10)
                    talk(connection)

        with _thread(serve, lambda: server.shutdown(socket.SHUT_RDWR)):
            yield server.getsockname()[1]


@contextmanager
def udp_server(reply: Reply, *, address: str = ANY_IPV4, port: int = 0) -> Iterator[int]:
    """Gives the port. `reply` makes the datagrams that answer one."""
    with _bound(address, socket.SOCK_DGRAM, port) as server:
        server.settimeout(0.02)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    datagram, client = server.recvfrom(4096)
                    for answer in reply(datagram):
                        server.sendto(answer, client)

        with _thread(serve, ended.set):
            yield server.getsockname()[1]


def silence(_datagram: bytes) -> list[bytes]:
    """The reply of a server that has nothing to say."""
    return []


def wait_for_the_end(connection: socket.socket) -> None:
    """The talk of a server that has nothing to say."""
    while connection.recv(4096):
        pass


def say(*pieces: bytes, every_s: float = 0.0, times: int = 1) -> Talk:
    """A talk: hear what the client has to say, and send these pieces with a pause behind each."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        for _ in range(times):
            for piece in pieces:
                connection.sendall(piece)
                if every_s:
                    threading.Event().wait(every_s)
        # A reset would throw away what the client has not read.
        connection.shutdown(socket.SHUT_WR)
        wait_for_the_end(connection)

    return talk


def name_server(*records: str, rcode: str = "NOERROR", flags: int = 0) -> Reply:
    """A reply with these records, each as in a zone file: `example.test. 300 IN A 10.88.0.53`."""

    def reply(datagram: bytes) -> list[bytes]:
        answer = dns.message.make_response(dns.message.from_wire(datagram))
        answer.set_rcode(dns.rcode.from_text(rcode))
        answer.flags |= flags
        answer.answer = [_rrset(record) for record in records]
        return [answer.to_wire()]

    return reply


def _rrset(record: str) -> dns.rrset.RRset:
    name, ttl, rdclass, rdtype, data = record.split(maxsplit=4)
    return dns.rrset.from_text(name, int(ttl), rdclass, rdtype, data)
