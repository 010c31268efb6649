"""A DHCP client at the other end of a guest's network device (RFC 2131, RFC 2132)."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address

SERVER_PORT, CLIENT_PORT = 67, 68
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
MASK, ROUTER, DNS_SERVER, HOST_NAME, DOMAIN, NTP_SERVER = 1, 3, 6, 12, 15, 42
REQUESTED_ADDRESS, LEASE_TIME, MESSAGE_TYPE, SERVER_ID, WANTED = 50, 51, 53, 54, 55
ALL = bytes((MASK, ROUTER, DNS_SERVER, HOST_NAME, DOMAIN, NTP_SERVER, LEASE_TIME))
PAD, END = 0, 255

_ANYWHERE = IPv4Address(0)
_EVERYBODY = IPv4Address("255.255.255.255")
_COOKIE = bytes((99, 130, 83, 99))
_MESSAGE = struct.Struct("!BBBBIHH4s4s4s4s16s192x")
_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_ETHERTYPE_IPV4, _ETHERTYPE_ARP = 0x0800, 0x0806

Options = dict[int, bytes]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server sent: of which kind, for which address, to which MAC address."""

    kind: int
    address: str
    options: Options
    mac: bytes

    def addresses(self, option: int) -> list[str]:
        """An option that is a list of addresses."""
        value = self.options.get(option, b"")
        return [str(IPv4Address(value[at : at + 4])) for at in range(0, len(value), 4)]

    @property
    def lease_s(self) -> int:
        return int.from_bytes(self.options[LEASE_TIME], "big")


@dataclass(kw_only=True)
class Client:
    """One machine with this MAC address. `wire` takes and gives Ethernet frames.

    With a `relay` it is behind a relay of that address, and what is sent to `server` comes from there."""

    wire: socket.socket
    mac: bytes
    relay: IPv4Address = _ANYWHERE
    server: IPv4Address = _EVERYBODY
    transaction: int = field(default=0, init=False)

    def lease(self) -> Answer:
        """The answer to a request for what is offered."""
        offer = self.discover()
        assert offer is not None, "no offer"
        assert offer.kind == OFFER
        answer = self.request(offer.address, server=offer.options[SERVER_ID])
        assert answer is not None, "no answer"
        return answer

    def discover(self, *, timeout_s: float = 10) -> Answer | None:
        """What is offered, if anything is. A server pings the address first, and waits three seconds."""
        return self._ask(DISCOVER, {WANTED: ALL}, timeout_s=timeout_s)

    def request(self, address: str, *, server: bytes = b"", timeout_s: float = 10) -> Answer | None:
        """The answer to a request for this address: of this server, or as a client does after its reboot."""
        options = {REQUESTED_ADDRESS: IPv4Address(address).packed, WANTED: ALL}
        if server:
            options[SERVER_ID] = server
        return self._ask(REQUEST, options, timeout_s=timeout_s)

    def _ask(self, kind: int, options: Options, *, timeout_s: float) -> Answer | None:
        self.transaction += 1
        self.wire.send(self._frame(self._message({MESSAGE_TYPE: bytes((kind,)), **options})))
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            self.wire.settimeout(left)
            try:
                frame = self.wire.recv(2048)
            except TimeoutError:
                break
            answer = self._answer(frame)
            if answer is not None:
                return answer
        return None

    def _message(self, options: Options) -> bytes:
        none = _ANYWHERE.packed
        hops = 1 if self._is_relayed else 0
        head = _MESSAGE.pack(
            1, 1, len(self.mac), hops, self.transaction, 0, 0, none, none, none, self.relay.packed, self.mac
        )
        parts = (bytes((option, len(value))) + value for option, value in options.items())
        return head + _COOKIE + b"".join(parts) + bytes((END,))

    @property
    def _is_relayed(self) -> bool:
        return self.relay != _ANYWHERE

    @property
    def _port(self) -> int:
        """A relay sends and hears where servers do."""
        return SERVER_PORT if self._is_relayed else CLIENT_PORT

    def _frame(self, message: bytes) -> bytes:
        udp = _UDP.pack(self._port, SERVER_PORT, _UDP.size + len(message), 0) + message
        head = (0x45, 0, _IPV4.size + len(udp), 0, 0, 64, socket.IPPROTO_UDP)
        addresses = (self.relay.packed, self.server.packed)
        checksum = _checksum(_IPV4.pack(*head, 0, *addresses))
        return (
            _ETHERNET.pack(b"\xff" * 6, self.mac, _ETHERTYPE_IPV4)
            + _IPV4.pack(*head, checksum, *addresses)
            + udp
        )

    def _answer(self, frame: bytes) -> Answer | None:
        """The answer in a frame, if it is one to the last question."""
        mac, _, ethertype = _ETHERNET.unpack_from(frame)
        at = _ETHERNET.size + _IPV4.size
        if ethertype == _ETHERTYPE_ARP and self._is_relayed:
            self._be_found(frame)
        if ethertype != _ETHERTYPE_IPV4 or frame[_ETHERNET.size + 9] != socket.IPPROTO_UDP:
            return None
        if _UDP.unpack_from(frame, at)[:2] != (SERVER_PORT, self._port):
            return None
        at += _UDP.size
        fields = _MESSAGE.unpack_from(frame, at)
        if fields[4] != self.transaction or fields[11][:6] != self.mac:
            return None
        options = _options(frame[at + _MESSAGE.size + len(_COOKIE) :])
        address = str(IPv4Address(fields[8]))
        return Answer(kind=options[MESSAGE_TYPE][0], address=address, options=options, mac=mac)

    def _be_found(self, question: bytes) -> None:
        """The router on the way to the relay has the client's MAC address."""
        at = _ETHERNET.size
        theirs, router = question[at + 8 : at + 18], question[at + 24 : at + 28]
        answer = question[at : at + 6] + b"\0\2" + self.mac + router + theirs
        self.wire.send(_ETHERNET.pack(theirs[:6], self.mac, _ETHERTYPE_ARP) + answer)


def _options(text: bytes) -> Options:
    options: Options = {}
    while text and text[0] != END:
        if text[0] == PAD:
            text = text[1:]
            continue
        size = text[1]
        options[text[0]] = text[2 : 2 + size]
        text = text[2 + size :]
    return options


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
