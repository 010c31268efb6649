"""How long an appliance does not answer while its guest is switched, as its clients see it.

    meter = OutageMeter(probes, address)
    meter.start()
    ...                          # switch
    longest_ms = meter.stop()    # None if it never answered

One thread asks at a steady pace and waits for no answer, so a lost question costs the next one nothing. What
is asked depends on the first probe that can be asked this way:

dns               a query every 2 ms over one socket; an answer counts if its status would please the probe
udp               an empty datagram every 2 ms; any answer counts, and many services never give one
tcp, http, smtp   a connection every 10 ms, reset once accepted; that is the guest's kernel, for its service
ping, ntp         nothing: echoes tell nothing of the service, and time servers limit the rate of questions
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from agent.host.probes import dns_question, family_of
from agent.model.address import Address
from agent.model.probe import DnsProbe, DnsStatus, HttpProbe, Probe, SmtpProbe, TcpProbe, UdpProbe

LIMIT_S = 120.0
"""An owner that never stops the meter has it asking no longer than this."""

_QUERIES = 256
_MAX_ANSWERS = 64  # of one turn: who answers without end must not keep the meter from stopping
_PATIENCE_S = 0.25
# struct linger, socket(7): close by a reset, and no port is kept waiting.
_NO_LINGER = struct.pack("ii", 1, 0)


class _Questions(Protocol):
    """One way to ask without waiting. Errors of the network are lost questions."""

    interval_s: float

    def ask(self) -> None:
        """Send one more question."""

    def answered(self) -> bool:
        """Whether an answer that counts has come since the last call."""

    def close(self) -> None:
        """Give up what was not answered."""


class OutageMeter:
    """Measures once; `start` it when the appliance answers, `stop` it when it does so again."""

    def __init__(self, probes: Iterable[Probe], address: Address, *, limit_s: float = LIMIT_S) -> None:
        self._questions = next(_ways_to_ask(probes, address), None)
        self._limit_s = limit_s
        self._stop = threading.Event()
        # A daemon thread: it must not keep the process from ending either.
        self._thread = threading.Thread(target=self._run, name="outage", daemon=True)
        self._last: float | None = None
        self._longest_s = 0.0

    def start(self) -> None:
        """Begin to ask."""
        if self._questions:
            self._thread.start()

    def stop(self) -> float | None:
        """The longest time without an answer, in milliseconds, counted from the first one; None without any.

        One that has not ended yet counts as far as it went.
        """
        self._stop.set()
        if self._thread.ident:
            self._thread.join()
        elif self._questions:
            self._questions.close()
        return None if self._last is None else self._longest_s * 1000

    def _run(self) -> None:
        questions = self._questions
        if questions is None:
            return
        with contextlib.closing(questions):
            due = time.monotonic()
            end = due + self._limit_s
            while not self._stop.wait(max(0.0, due - time.monotonic())) and due < end:
                questions.ask()
                if questions.answered():
                    self._note()
                # A late tick is not made up for: that would be a burst.
                due = max(due, time.monotonic() - questions.interval_s) + questions.interval_s
            if questions.answered():
                self._note()
            elif self._last is not None:
                self._longest_s = max(self._longest_s, time.monotonic() - self._last)

    def _note(self) -> None:
        now = time.monotonic()
        if self._last is not None:
            self._longest_s = max(self._longest_s, now - self._last)
        self._last = now


def _ways_to_ask(probes: Iterable[Probe], address: Address) -> Iterator[_Questions]:
    for probe in probes:
        match probe:
            case DnsProbe():
                yield _Queries(probe, address)
            case UdpProbe(port):
                yield _EmptyDatagrams(address, port)
            case TcpProbe() | HttpProbe() | SmtpProbe():
                yield _Connections(address, probe.port)


class _EmptyDatagrams:
    """Over one connected UDP socket, which goes on through every error."""

    interval_s = 0.002

    def __init__(self, address: Address, port: int) -> None:
        self._address = str(address), port
        self._socket = socket.socket(family_of(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._connected = False

    def ask(self) -> None:
        with contextlib.suppress(OSError):
            if not self._connected:
                # Fails without a route, and then says nothing of the next time.
                self._socket.connect(self._address)
                self._connected = True
            self._socket.send(self._question())

    def answered(self) -> bool:
        counts = False
        for _ in range(_MAX_ANSWERS):
            try:
                counts = self._counts(self._socket.recv(512)) or counts
            except BlockingIOError:
                break
            except OSError:
                continue  # one error that was pending, such as a port unreachable
        return counts

    def close(self) -> None:
        self._socket.close()

    def _question(self) -> bytes:
        return b""

    def _counts(self, _answer: bytes) -> bool:
        return True


class _Queries(_EmptyDatagrams):
    """DNS queries made beforehand: to make or to parse one takes a tenth of a millisecond."""

    def __init__(self, probe: DnsProbe, address: Address) -> None:
        super().__init__(address, probe.port)
        self._any_status = probe.status is DnsStatus.ANY
        first = int.from_bytes(os.urandom(2), "big")
        numbers = [(first + number) & 0xFFFF for number in range(_QUERIES)]
        self._queries = [dns_question(probe, number).to_wire() for number in numbers]
        self._numbers = {query[:2] for query in self._queries}
        self._next = 0

    def _question(self) -> bytes:
        self._next = (self._next + 1) % _QUERIES
        return self._queries[self._next]

    def _counts(self, answer: bytes) -> bool:
        # RFC 1035, 4.1.1: ID, QR in the third byte, RCODE in the fourth.
        is_ours = len(answer) >= 12 and answer[:2] in self._numbers and bool(answer[2] & 0x80)
        return is_ours and (self._any_status or answer[3] & 0x0F == 0)


class _Connections:
    """TCP connections, several under way at a time."""

    interval_s = 0.01

    def __init__(self, address: Address, port: int) -> None:
        self._family, self._address = family_of(address), (str(address), port)
        self._pending: dict[int, tuple[socket.socket, float]] = {}
        self._poll = select.poll()

    def ask(self) -> None:
        try:
            connection = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        connection.connect_ex(self._address)
        self._pending[connection.fileno()] = connection, time.monotonic() + _PATIENCE_S
        self._poll.register(connection, select.POLLOUT)

    def answered(self) -> bool:
        counts = False
        for descriptor, _ in self._poll.poll(0):
            connection, _ = self._pending[descriptor]
            # An attempt that failed before it began has no error pending, and no peer either.
            accepted = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and _has_peer(
                connection
            )
            counts = counts or accepted
            self._drop(descriptor)
        now = time.monotonic()
        for descriptor in [number for number, (_, until) in self._pending.items() if until < now]:
            self._drop(descriptor)
        return counts

    def close(self) -> None:
        for descriptor in list(self._pending):
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        connection, _ = self._pending.pop(descriptor)
        self._poll.unregister(descriptor)
        connection.close()


def _has_peer(connection: socket.socket) -> bool:
    try:
        connection.getpeername()
    except OSError:
        return False
    return True
