"""Asks an appliance over the network what a client would ask: one function for each kind of probe.

    reason = ask(DnsProbe("example.test"), address, timeout_s=2.0)      # "" where it answers

Called by agent.core.prober, in threads: it blocks, and several may ask at once. What comes from a guest is
foreign: a question ends at its deadline and after 64 KiB, whatever the guest does, and no text of a guest
gets into a reason. Protocols are the libraries' business. These are imported when first needed, for a host
that asks nobody.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from agent.model.address import Address
from agent.model.diagnosis import Verdict
from agent.model.probe import (
    DnsProbe,
    DnsStatus,
    HttpProbe,
    NtpProbe,
    PingProbe,
    Probe,
    SmtpProbe,
    TcpProbe,
    UdpProbe,
)

if TYPE_CHECKING:
    from dns.message import QueryMessage

MAX_BYTES = 64 << 10
"""Of a connection's answer no more than this is looked at."""

AGENT = "appliance-agent"
# For a port unreachable that was sent before the answer to the echo request behind it.
_GRACE_S = 0.05
_DATAGRAM_BYTES = 4096
_NTP_SERVER, _NTP_UNSYNCHRONIZED, _NTP_MAX_STRATUM = 4, 3, 15  # RFC 5905, 7.3


def ask(probe: Probe, address: Address, *, timeout_s: float) -> str:
    """Ask once; "" where the answer is as the probe wants it, else a clause that says why not.

    Returns within `timeout_s`, give or take what the scheduler takes.
    """
    try:
        return _ask(probe, address, time.monotonic() + timeout_s)
    except ConnectionRefusedError:
        return f"{_place(probe, address)} is closed"
    except TimeoutError:
        return f"no answer from {_place(probe, address)} within {timeout_s:g} s"
    except OSError as error:
        return f"{_place(probe, address)}: {error.strerror or error}"


def _ask(probe: Probe, address: Address, until: float) -> str:
    match probe:
        case TcpProbe(port):
            _Connection(address, port, until).close()
            return ""
        case UdpProbe(port):
            return _ask_udp(address, port, until)
        case DnsProbe():
            return _ask_dns(probe, address, until)
        case HttpProbe():
            return _ask_http(probe, address, until)
        case PingProbe():
            return _ask_ping(address, until)
        case NtpProbe(port):
            return _ask_ntp(address, port, until)
        case SmtpProbe(port):
            return _ask_smtp(address, port, until)


def _place(probe: Probe, address: Address) -> str:
    match probe:
        case PingProbe():
            return str(address)
        case TcpProbe() | HttpProbe() | SmtpProbe():
            return f"{address} port {probe.port}/tcp"
        case UdpProbe() | DnsProbe() | NtpProbe():
            return f"{address} port {probe.port}/udp"


def _left(until: float) -> float:
    """Seconds that are left; TimeoutError where there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def family_of(address: Address) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET


# --- datagrams


class _Datagrams(socket.socket):
    """A connected UDP socket: the kernel drops what comes from elsewhere, and tells of closed ports."""

    def __init__(self, address: Address, port: int, until: float) -> None:
        super().__init__(family_of(address), socket.SOCK_DGRAM)
        self._until = until
        try:
            self.connect((str(address), port))
        except BaseException:
            self.close()
            raise

    def next(self) -> bytes:
        """The next answer; TimeoutError where none came until the deadline."""
        self.settimeout(_left(self._until))
        return self.recv(_DATAGRAM_BYTES)


def _ask_udp(address: Address, port: int, until: float) -> str:
    """An empty datagram, and an echo request behind it: one of them must be answered.

    A port unreachable, if there is one, comes before the answer to the second, for the guest handles one
    packet after the other.
    """
    with _Datagrams(address, port, until) as datagrams:
        datagrams.send(b"")
        try:
            away = _ask_ping(address, until)
        except TimeoutError:
            away = f"no answer from {address} to anything"
        datagrams.settimeout(_GRACE_S)
        try:
            datagrams.recv(1)
            return ""
        except TimeoutError:
            return away


def dns_question(probe: DnsProbe, number: int | None = None) -> QueryMessage:
    """The query; `number` identifies it, or one drawn at random."""
    from dns.message import make_query

    return make_query(probe.name, str(probe.type), use_edns=0, payload=1232, id=number)


def _ask_dns(probe: DnsProbe, address: Address, until: float) -> str:
    from dns import flags, rcode
    from dns.exception import DNSException
    from dns.message import from_wire

    question = dns_question(probe)
    with _Datagrams(address, probe.port, until) as datagrams:
        datagrams.send(question.to_wire())
        while True:
            try:
                answer = from_wire(datagrams.next(), ignore_trailing=True)
            except (DNSException, ValueError):
                continue
            if question.is_response(answer):
                break
    if probe.status is DnsStatus.ANY:
        return ""
    if answer.rcode() != rcode.NOERROR:
        return f"{rcode.to_text(answer.rcode())} for {probe.name} {probe.type}"
    wanted = question.question[0].rdtype
    found = any(record.rdtype == wanted for record in answer.answer)
    return "" if found or answer.flags & flags.TC else f"no {probe.type} record for {probe.name}"


def _ask_ntp(address: Address, port: int, until: float) -> str:
    from ntplib import NTPException, NTPPacket, system_to_ntp_time

    sent_at = system_to_ntp_time(time.time())
    question = NTPPacket(version=4, mode=3, tx_timestamp=sent_at)
    answer = NTPPacket()
    with _Datagrams(address, port, until) as datagrams:
        datagrams.send(question.to_data())
        while True:
            try:
                answer.from_data(datagrams.next())
            except NTPException:
                continue
            # The server's copy of our time, to which the library rounds differently each way.
            if answer.mode == _NTP_SERVER and abs(answer.orig_timestamp - sent_at) < 1e-3:
                break
    synchronized = answer.leap != _NTP_UNSYNCHRONIZED and 0 < answer.stratum <= _NTP_MAX_STRATUM
    return "" if synchronized else "it answers that its clock is not synchronized"


def echo(address: Address, *, timeout_s: float) -> Verdict:
    """Whether an address answers an echo request; unknown where this host does not let the agent ask."""
    try:
        return Verdict.UNKNOWN if _ask_ping(address, time.monotonic() + timeout_s) else Verdict.OK
    except OSError:
        return Verdict.FAILED


def _ask_ping(address: Address, until: float) -> str:
    """With a ping socket, which needs no rights but membership in a group (icmp(7), ping_group_range).

    Not by ping(8): in Debian 12 that file has a capability, and what the agent's unit may not have cannot be
    executed there.
    """
    from icmplib import ICMPRequest, ICMPv4Socket, ICMPv6Socket, TimeoutExceeded
    from icmplib.exceptions import ICMPLibError, SocketPermissionError

    request = ICMPRequest(str(address), id=0, sequence=1)
    try:
        with (ICMPv6Socket if address.version == 6 else ICMPv4Socket)(privileged=False) as echo:
            echo.send(request)
            echo.receive(request, timeout=_left(until))
    except SocketPermissionError:
        return "this host does not let the agent ping (sysctl net.ipv4.ping_group_range)"
    except TimeoutExceeded:
        raise TimeoutError from None
    except ICMPLibError as error:
        raise OSError(str(error)) from error
    return ""


# --- connections


class _Connection(socket.socket):
    """A TCP connection that ends at a deadline and after MAX_BYTES, however slowly they come.

    For libraries that know a timeout for each read only.
    """

    def __init__(self, address: Address, port: int, until: float) -> None:
        super().__init__(family_of(address), socket.SOCK_STREAM)
        self._until = until
        self._bytes_left = MAX_BYTES
        try:
            self.settimeout(_left(until))
            self.connect((str(address), port))
        except BaseException:
            self.close()
            raise

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As socket.recv_into; the end of the stream where nothing more may come."""
        place = memoryview(buffer)[: self._bytes_left]
        if not place:
            return 0
        self.settimeout(_left(self._until))
        received = super().recv_into(place, nbytes, flags)
        self._bytes_left -= received
        return received

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As socket.sendall."""
        self.settimeout(_left(self._until))
        super().sendall(data, flags)


def _ask_http(probe: HttpProbe, address: Address, until: float) -> str:
    from http.client import HTTPConnection, HTTPException, RemoteDisconnected

    with _Connection(address, probe.port, until) as connection:
        http = HTTPConnection(str(address), probe.port)
        http.sock = connection
        try:
            http.request("GET", probe.path, headers={"User-Agent": AGENT, "Connection": "close"})
            with http.getresponse() as response:
                if probe.status and response.status != probe.status:
                    return f"HTTP status {response.status} instead of {probe.status}"
                found = not probe.contains or _contains(response, probe.contains.encode())
        except RemoteDisconnected:
            raise
        except (HTTPException, ValueError):
            return f"{_place(probe, address)} does not speak HTTP"
        finally:
            http.close()
    return "" if found else f"“{probe.contains}” is not in the page {probe.path}"


def _contains(response: Any, wanted: bytes) -> bool:
    """Whether the body has `wanted`; read no further than to its first occurrence."""
    seen = bytearray()
    while piece := response.read1(MAX_BYTES):
        # What was searched is not searched again: a guest may send byte by byte.
        start = max(0, len(seen) - len(wanted) + 1)
        seen += piece
        if seen.find(wanted, start) >= 0:
            return True
    return False


def _ask_smtp(address: Address, port: int, until: float) -> str:
    from smtplib import SMTP, SMTPException

    with _Connection(address, port, until) as connection:
        # Without a name of its own it would look one up.
        smtp = SMTP(local_hostname="localhost")
        smtp.sock = connection
        try:
            greeting, _ = smtp.getreply()
            if greeting == 220:
                farewell, _ = smtp.quit()
                return "" if farewell == 221 else f"SMTP reply {farewell} to QUIT instead of 221"
            if greeting >= 0:  # else it begins with no number
                return f"SMTP greeting {greeting} instead of 220"
        except SMTPException:
            _left(until)  # the library hides a timeout in its own errors
        finally:
            smtp.close()
    return f"{address} port {port}/tcp does not speak SMTP"
