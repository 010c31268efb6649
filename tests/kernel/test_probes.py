"""Probes against real servers: what counts as an answer, and that no guest can hold one up."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.flags
import pytest
from aiosmtpd.controller import Controller
from ntplib import NTPPacket, system_to_ntp_time

from agent.host.probes import MAX_BYTES, ask, echo
from agent.model.address import Address
from agent.model.diagnosis import Verdict
from agent.model.probe import (
    DnsProbe,
    DnsStatus,
    DnsType,
    HttpProbe,
    NtpProbe,
    PingProbe,
    Probe,
    SmtpProbe,
    TcpProbe,
    UdpProbe,
)
from tests.kernel.links import ip
from tests.kernel.servers import (
    Reply,
    Talk,
    name_server,
    say,
    silence,
    tcp_server,
    udp_server,
    wait_for_the_end,
)

LOCAL, LOCAL6 = ip_address("127.0.0.1"), ip_address("::1")
# In a subnet of this host, and nobody has it.
ABSENT = ip_address("10.99.0.9")
# A machine may be busy: this only tells “at the deadline” from “when the guest feels like it”.
AT_ONCE_S = 10.0
SHORT_S = 0.3


@pytest.fixture(autouse=True)
def _network(_namespaces: None) -> None:
    """A loopback interface, a subnet, and the setting that the package brings."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "br-test", "type", "bridge")
    ip("address", "add", "10.99.0.1/24", "dev", "br-test")
    ip("link", "set", "br-test", "up")
    sysctl("ping_group_range", "0 0")


def sysctl(name: str, value: str) -> None:
    Path(f"/proc/sys/net/ipv4/{name}").write_text(value, encoding="ascii")


def asked(probe: Probe, address: Address = LOCAL, *, timeout_s: float = AT_ONCE_S) -> str:
    """The reason, which has to come in time."""
    begin = time.monotonic()
    reason = ask(probe, address, timeout_s=timeout_s)
    assert time.monotonic() - begin < timeout_s + AT_ONCE_S / 2
    return reason


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- tcp


@pytest.mark.parametrize("address", [LOCAL, LOCAL6])
def test_tcp_an_accepted_connection_is_an_answer(address: Address) -> None:
    with tcp_server(wait_for_the_end, address=str(address)) as port:
        assert asked(TcpProbe(port), address) == ""


def test_tcp_a_closed_port_is_told_from_silence() -> None:
    port = free_port(socket.SOCK_STREAM)
    assert asked(TcpProbe(port)) == f"127.0.0.1 port {port}/tcp is closed"
    absent = asked(TcpProbe(80), ABSENT, timeout_s=SHORT_S)
    assert absent == "no answer from 10.99.0.9 port 80/tcp within 0.3 s"


def test_an_address_without_a_route_is_an_answer_too() -> None:
    for probe, place in (
        (TcpProbe(80), "192.0.2.1 port 80/tcp"),
        (DnsProbe("example.test"), "192.0.2.1 port 53/udp"),
        (PingProbe(), "192.0.2.1"),
    ):
        reason = asked(probe, ip_address("192.0.2.1"))
        assert reason.startswith(f"{place}: ")
        assert "unreachable" in reason


# --- udp, ping


@pytest.mark.parametrize("address", [LOCAL, LOCAL6])
@pytest.mark.parametrize("reply", [silence, lambda _: [b"what?"]])
def test_udp_an_open_port_may_be_silent(reply: Reply, address: Address) -> None:
    with udp_server(reply, address=str(address)) as port:
        assert asked(UdpProbe(port), address) == ""


def test_udp_a_closed_port_is_seen() -> None:
    port = free_port(socket.SOCK_DGRAM)
    assert asked(UdpProbe(port)) == f"127.0.0.1 port {port}/udp is closed"


def test_udp_silence_of_who_is_not_there_is_none_of_an_open_port() -> None:
    assert asked(UdpProbe(53), ABSENT, timeout_s=SHORT_S) == "no answer from 10.99.0.9 to anything"


def test_udp_an_answer_needs_no_ping_beside_it() -> None:
    sysctl("icmp_echo_ignore_all", "1")
    with udp_server(lambda _: [b"what?"]) as port:
        assert asked(UdpProbe(port), timeout_s=SHORT_S) == ""
    with udp_server(silence) as port:
        assert asked(UdpProbe(port), timeout_s=SHORT_S) == "no answer from 127.0.0.1 to anything"


@pytest.mark.parametrize("address", [LOCAL, LOCAL6])
def test_ping(address: Address) -> None:
    assert asked(PingProbe(), address) == ""
    assert asked(PingProbe(), ABSENT, timeout_s=SHORT_S) == "no answer from 10.99.0.9 within 0.3 s"


def test_a_host_that_does_not_let_anybody_ping_is_told() -> None:
    sysctl("ping_group_range", "1 0")
    assert "net.ipv4.ping_group_range" in asked(PingProbe())
    assert echo(LOCAL, timeout_s=SHORT_S) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        (LOCAL, Verdict.OK),
        (LOCAL6, Verdict.OK),
        (ABSENT, Verdict.FAILED),
        # There is no way there at all.
        (ip_address("192.0.2.1"), Verdict.FAILED),
    ],
)
def test_an_echo(address: Address, verdict: Verdict) -> None:
    assert echo(address, timeout_s=SHORT_S) is verdict


# --- dns

SOA = "example.test. 300 IN SOA ns.example.test. hostmaster.example.test. 1 3600 600 86400 300"
ADDRESS = "example.test. 300 IN A 10.88.0.80"
ALIAS = "example.test. 300 IN CNAME www.example.test."


def dns_asked(
    reply: Reply, *, address: Address = LOCAL, timeout_s: float = AT_ONCE_S, **settings: Any
) -> str:
    with udp_server(reply, address=str(address)) as port:
        return asked(DnsProbe("example.test", port=port, **settings), address, timeout_s=timeout_s)


@pytest.mark.parametrize("address", [LOCAL, LOCAL6])
def test_dns_a_record_of_the_type_is_an_answer(address: Address) -> None:
    assert dns_asked(name_server(SOA), address=address) == ""
    assert dns_asked(name_server(ALIAS, ADDRESS), type=DnsType.A) == ""


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (name_server(rcode="REFUSED"), "REFUSED for example.test SOA"),
        (name_server(rcode="NXDOMAIN"), "NXDOMAIN for example.test SOA"),
        (name_server(SOA, rcode="SERVFAIL"), "SERVFAIL for example.test SOA"),
        (name_server(), "no SOA record for example.test"),
        (name_server(ADDRESS, ALIAS), "no SOA record for example.test"),
    ],
)
def test_dns_another_answer_counts_only_where_any_does(reply: Reply, reason: str) -> None:
    assert dns_asked(reply) == reason
    assert dns_asked(reply, status=DnsStatus.ANY) == ""


def test_dns_an_answer_that_did_not_fit_is_one() -> None:
    assert dns_asked(name_server(flags=dns.flags.TC), type=DnsType.TXT) == ""


def changed(reply: Reply, change: Callable[[bytes], bytes]) -> Reply:
    return lambda datagram: [change(answer) for answer in reply(datagram)]


@pytest.mark.parametrize(
    "reply",
    [
        silence,
        lambda datagram: [datagram],
        lambda datagram: [b"", b"\xff" * 600, datagram[:7]],
        changed(name_server(SOA), lambda answer: bytes([answer[0] ^ 1]) + answer[1:]),
        changed(name_server(SOA), lambda answer: answer[:-9]),
        changed(name_server(SOA), lambda answer: answer.replace(b"\x07example", b"\x07exempla")),
    ],
)
@pytest.mark.parametrize("status", DnsStatus)
def test_dns_what_is_no_response_to_the_query_is_none(reply: Reply, status: DnsStatus) -> None:
    reason = dns_asked(reply, timeout_s=SHORT_S, status=status)
    assert reason.startswith("no answer from 127.0.0.1 port ")
    assert reason.endswith("/udp within 0.3 s")


def test_dns_rubbish_before_the_answer_does_no_harm() -> None:
    assert dns_asked(lambda datagram: [b"\xff" * 600, datagram, *name_server(SOA)(datagram)]) == ""


# --- http


class Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, body = {
            "/": (200, b"it works"),
            "/a?b=c": (200, "ein schöner Tag".encode()),
            "/moved": (301, b""),
            "/broken": (500, b""),
            "/late": (200, b"x" * MAX_BYTES + b"it works"),
            "/long": (200, b"x" * (MAX_BYTES // 2) + b"it works" + b"x" * MAX_BYTES * 100),
        }.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Location", "/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class ThreadingHTTPServer6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture(params=[LOCAL, LOCAL6])
def site(request: pytest.FixtureRequest) -> Iterator[tuple[Address, int]]:
    kind = ThreadingHTTPServer if request.param.version == 4 else ThreadingHTTPServer6
    with kind((str(request.param), 0), Pages) as server:
        # Its threads are waited for when it is closed.
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield request.param, server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, ""),
        ({"contains": "works"}, ""),
        ({"contains": "it works!"}, "“it works!” is not in the page /"),
        ({"path": "/a?b=c", "contains": "schöner"}, ""),
        ({"path": "/moved"}, "HTTP status 301 instead of 200"),
        ({"path": "/moved", "status": 301}, ""),
        ({"path": "/broken"}, "HTTP status 500 instead of 200"),
        ({"path": "/broken", "status": 0}, ""),
        ({"path": "/nowhere", "status": 404}, ""),
        ({"path": "/long", "contains": "works"}, ""),
        ({"path": "/late", "contains": "works"}, "“works” is not in the page /late"),
    ],
)
def test_http(site: tuple[Address, int], settings: dict[str, Any], reason: str) -> None:
    address, port = site
    assert asked(HttpProbe(**settings, port=port), address) == reason


def test_http_goes_through_no_proxy(site: tuple[Address, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert asked(HttpProbe(port=site[1]), site[0]) == ""


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("talk", "settings", "reason"),
    [
        (wait_for_the_end, {}, "no answer from {} within 0.3 s"),
        (say(), {}, "Remote end closed connection without response"),
        (say(b"220 mail.example.test ESMTP\r\n"), {}, "{} does not speak HTTP"),
        (say(b"HTTP/1.1 twohundred OK\r\n\r\n"), {}, "{} does not speak HTTP"),
        (say(b"\xff\x00" * 500), {}, "{} does not speak HTTP"),
        (say(HEAD + b"A: b\r\n" * 200 + b"\r\n"), {}, "{} does not speak HTTP"),
        (say(b"HTTP/1.1 100 Continue\r\n\r\n", times=100_000), {}, "{} does not speak HTTP"),
        (say(b"HTTP/1.1 100 Continue\r\n\r\n", b"", every_s=0.02, times=400), {}, "within 0.3 s"),
        (say(b"H", every_s=0.05, times=400), {}, "within 0.3 s"),
        (say(HEAD, *[b"A: b\r\n"] * 90, every_s=0.05), {}, "within 0.3 s"),
        (say(HEAD + b"\r\n", *[b"x"] * 400, every_s=0.05), {"contains": "y"}, "within 0.3 s"),
        (say(HEAD + b"\r\n", *[b"x"] * 400, every_s=0.05), {}, ""),
        (say(HEAD + b"\r\n" + b"x" * MAX_BYTES * 200 + b"y"), {"contains": "y"}, "is not in the page"),
        (say(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"), {"contains": "abc"}, ""),
        (say(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"), {"contains": "d"}, "is not in the page"),
        (say(CHUNKED + b"zzz\r\n"), {"contains": "d"}, "{} does not speak HTTP"),
        (say(HEAD + b"Content-Length: -5\r\n\r\nabc"), {"contains": "abc"}, ""),
        (say(HEAD + b"Content-Length: 99\r\n\r\nabc"), {"contains": "d"}, "is not in the page"),
    ],
)
def test_http_whatever_is_sent_it_ends_in_time(talk: Talk, settings: dict[str, Any], reason: str) -> None:
    with tcp_server(talk) as port:
        found = asked(
            HttpProbe(**settings, port=port), timeout_s=SHORT_S if "0.3 s" in reason else AT_ONCE_S
        )
        place = f"127.0.0.1 port {port}/tcp"
    assert (reason.format(place) in found) if reason else found == ""


# --- smtp


def test_smtp_a_real_server() -> None:
    controller = Controller(object(), hostname="127.0.0.1", port=free_port(socket.SOCK_STREAM))
    controller.start()
    try:
        assert asked(SmtpProbe(controller.port)) == ""
    finally:
        controller.stop()


def smtp_talk(greeting: bytes, farewell: bytes) -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.sendall(greeting)
        assert connection.recv(100).strip().upper() == b"QUIT"
        connection.sendall(farewell)
        wait_for_the_end(connection)

    return talk


def greet(*pieces: bytes, every_s: float = 0.0, times: int = 1) -> Talk:
    """A talk that the server begins."""

    def talk(connection: socket.socket) -> None:
        for _ in range(times):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(every_s)
        wait_for_the_end(connection)

    return talk


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (smtp_talk(b"220 mail\r\n", b"221 bye\r\n"), ""),
        (smtp_talk(b"220-mail\r\n220 example\r\n", b"221 bye\r\n"), ""),
        (smtp_talk(b"220 mail\r\n", b"500 what?\r\n"), "SMTP reply 500 to QUIT instead of 221"),
        (greet(b"554 go away\r\n"), "SMTP greeting 554 instead of 220"),
        (greet(b"HTTP/1.1 400 Bad Request\r\n"), "{} does not speak SMTP"),
        (greet(b"\xff" * 100_000), "{} does not speak SMTP"),
        (greet(b"220-more\r\n", times=100_000), "{} does not speak SMTP"),
        (greet(b"220-more\r\n", every_s=0.05, times=400), "no answer from {} within 0.3 s"),
        (greet(b"2", every_s=0.05, times=400), "no answer from {} within 0.3 s"),
        (wait_for_the_end, "no answer from {} within 0.3 s"),
        (lambda _connection: None, "{} does not speak SMTP"),
    ],
)
def test_smtp(talk: Talk, reason: str) -> None:
    with tcp_server(talk) as port:
        found = asked(SmtpProbe(port), timeout_s=SHORT_S if "0.3 s" in reason else AT_ONCE_S)
        assert found == reason.format(f"127.0.0.1 port {port}/tcp")


def test_smtp_over_ipv6() -> None:
    with tcp_server(smtp_talk(b"220 mail\r\n", b"221 bye\r\n"), address="::1") as port:
        assert asked(SmtpProbe(port), LOCAL6) == ""


# --- ntp


def time_server(*, origin_s: float = 0.0, **fields: int) -> Reply:
    """As a server of stratum 2 answers, but for these fields."""

    def reply(datagram: bytes) -> list[bytes]:
        question, answer = (
            NTPPacket(),
            NTPPacket(version=4, mode=4, tx_timestamp=system_to_ntp_time(time.time())),
        )
        question.from_data(datagram)
        answer.orig_timestamp = question.tx_timestamp + origin_s
        for name, value in {"stratum": 2, "leap": 0, **fields}.items():
            setattr(answer, name, value)
        return [answer.to_data()]

    return reply


UNSYNCHRONIZED = "it answers that its clock is not synchronized"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (time_server(), ""),
        (lambda datagram: [b"short", *time_server()(datagram)], ""),
        (time_server(leap=3), UNSYNCHRONIZED),
        (time_server(stratum=0), UNSYNCHRONIZED),
        (time_server(stratum=16), UNSYNCHRONIZED),
        (time_server(mode=3), "no answer from {} within 0.3 s"),
        (time_server(origin_s=5), "no answer from {} within 0.3 s"),
        (silence, "no answer from {} within 0.3 s"),
    ],
)
def test_ntp(reply: Reply, reason: str) -> None:
    with udp_server(reply) as port:
        found = asked(NtpProbe(port), timeout_s=SHORT_S if "0.3 s" in reason else AT_ONCE_S)
        assert found == reason.format(f"127.0.0.1 port {port}/udp")


def test_ntp_over_ipv6() -> None:
    with udp_server(time_server(), address="::1") as port:
        assert asked(NtpProbe(port), LOCAL6) == ""


# --- all of them


@pytest.mark.parametrize("seed", range(8))
def test_no_rubbish_is_more_than_a_reason(seed: int) -> None:
    """Cut and altered answers: no other exception, and nothing of them in the reason."""
    dice = random.Random(seed)

    def altered(content: bytes) -> bytes:
        changed = bytearray(content[: dice.randrange(3, len(content))] if dice.random() < 0.3 else content)
        for _ in range(dice.randrange(1, 6)):
            changed[dice.randrange(2, len(changed))] = dice.choice(
                [0, 0x0C, 0xC0, 0xFF, dice.randrange(256)]
            )
        return bytes(changed)

    page = altered(CHUNKED + b"3\r\nabd\r\n0\r\n\r\n")
    with udp_server(changed(name_server(SOA), altered)) as port:
        reasons = [asked(DnsProbe("example.test", port=port), timeout_s=0.05) for _ in range(5)]
    with udp_server(changed(time_server(), altered)) as port:
        reasons += [asked(NtpProbe(port), timeout_s=0.05) for _ in range(5)]
    with tcp_server(say(page)) as port:
        reasons.append(asked(HttpProbe(contains="abc", port=port), timeout_s=0.2))
    with tcp_server(greet(altered(b"220-mail\r\n220 x\r\n"))) as port:
        reasons.append(asked(SmtpProbe(port), timeout_s=0.05))
    assert all(reason.isprintable() for reason in reasons)
