"""The way of an appliance's packets, hop by hop, and what was found at each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Hop(StrEnum):
    """In the order of the way out."""

    HOST = "host"
    FIREWALL = "firewall"
    BRIDGE = "bridge"
    TAP = "tap"
    GUEST = "guest"
    GATEWAY = "gateway"
    OUTSIDE = "outside"


class Verdict(StrEnum):
    """Unknown is what cannot be told from here."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HopReport:
    """One hop on one network: what was looked at, and, where it is not ok, why and what to do. The fields
    are in the order of the structure in org.appliance1.Manager.xml."""

    hop: str
    network: str
    verdict: str
    looked_at: str
    reason: str = ""
    remedy: str = ""
