"""Settings of the kernel's network stack, below /proc/sys/net (Documentation/networking/ip-sysctl.rst)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

ROOT = Path("/proc/sys/net")


def set_of(family: str, interface: str, key: str, value: str) -> None:
    """Set one of an interface, `family` being ipv4 or ipv6; nothing where the host has no IPv6
    (ipv6.disable=1). OSError."""
    with suppress(FileNotFoundError):
        (ROOT / family / "conf" / interface / key).write_text(value, encoding="ascii")


def forwards(version: int, interface: str = "") -> bool:
    """Whether the host passes on packets of this IP version, or of those the ones that come in by an
    interface; said also where it does not know the version at all.

    What counts is the interface's own setting for IPv4, and the one for all for IPv6.
    """
    own = ROOT / "ipv4/conf" / interface / "forwarding"
    path = own if interface and version == 4 else _forwarding(version)
    try:
        return path.read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        return True


def filters_bridged(version: int) -> bool:
    """Whether br_netfilter has packets on bridges filtered as if they were routed."""
    path = ROOT / "bridge" / ("bridge-nf-call-iptables" if version == 4 else "bridge-nf-call-ip6tables")
    try:
        return path.read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        return False


def let_forward(version: int) -> None:
    """Have the host pass on packets of this IP version. OSError.

    A host that forwards IPv6 no longer listens to router advertisements where it did by default, and would
    lose its own routes.
    """
    if version == 6:
        for path in (ROOT / "ipv6/conf").glob("*/accept_ra"):
            if path.read_text(encoding="ascii").strip() == "1":
                path.write_text("2", encoding="ascii")
    _forwarding(version).write_text("1", encoding="ascii")


def _forwarding(version: int) -> Path:
    return ROOT / ("ipv4/ip_forward" if version == 4 else "ipv6/conf/all/forwarding")
