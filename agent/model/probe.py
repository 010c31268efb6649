"""Probes: what the agent asks an appliance over the network, as one of its clients would.

Each probe says what counts as an answer; agent/host/probes.py asks, docs/interface-1.md tells vendors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProbeKind(StrEnum):
    """The word for a probe in configuration files and manifests."""

    TCP = "tcp"
    UDP = "udp"
    DNS = "dns"
    HTTP = "http"
    PING = "ping"
    NTP = "ntp"
    SMTP = "smtp"


class DnsType(StrEnum):
    """Types of records that can be asked for."""

    SOA = "SOA"
    NS = "NS"
    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    MX = "MX"
    TXT = "TXT"
    PTR = "PTR"
    SRV = "SRV"


class DnsStatus(StrEnum):
    """Which answers of a name server count; the first is a response code (RFC 1035, RCODE 0)."""

    NOERROR = "NOERROR"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A connection to the port is accepted."""

    port: int


@dataclass(frozen=True, slots=True)
class UdpProbe:
    """Nothing says that the port is closed, and the appliance is there.

    Most UDP services are silent to what they do not understand, so silence alone proves neither.
    """

    port: int


@dataclass(frozen=True, slots=True)
class DnsProbe:
    """A query over UDP. With NOERROR the answer must have a record of the type; with ANY every response
    counts."""

    name: str
    type: DnsType = DnsType.SOA
    status: DnsStatus = DnsStatus.NOERROR
    port: int = 53


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """GET of `path` has this status, or any if that is 0, and `contains` in the first 64 KiB.

    Redirects are not followed: they are answers.
    """

    path: str = "/"
    status: int = 200
    contains: str = ""
    port: int = 80


@dataclass(frozen=True, slots=True)
class PingProbe:
    """An ICMP echo request is answered."""


@dataclass(frozen=True, slots=True)
class NtpProbe:
    """A time server answers, and its own clock is synchronized."""

    port: int = 123


@dataclass(frozen=True, slots=True)
class SmtpProbe:
    """A mail server greets with 220 and takes leave with 221."""

    port: int = 25


Probe = TcpProbe | UdpProbe | DnsProbe | HttpProbe | PingProbe | NtpProbe | SmtpProbe
