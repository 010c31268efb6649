"""Reads what the plans need to know of this host."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from agent.config.common import parse_address
from agent.config.tree import parse_cores
from agent.model.address import Address
from agent.model.host import HostFacts
from agent.util.run import run

GUEST_HZ = 100
_FALLBACK_BOGOMIPS = 4000.0


def read_facts(root: Path = Path("/")) -> HostFacts:
    """Facts of the host whose file system is at `root`."""
    return HostFacts(
        systemd_version=systemd_version(),
        machine_id=(root / "etc/machine-id").read_text(encoding="ascii").strip(),
        cores=parse_cores((root / "sys/devices/system/cpu/online").read_text(encoding="ascii")),
        loops_per_jiffy=loops_per_jiffy(
            (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        ),
        nameservers=_nameservers(root),
        time_zone=_time_zone(root),
        ipv6=_has_ipv6(root),
    )


def _has_ipv6(root: Path) -> bool:
    """Neither ipv6.disable=1 on the kernel's command line, nor switched off for every interface to come."""
    try:
        setting = root / "proc/sys/net/ipv6/conf/default/disable_ipv6"
        return setting.read_text(encoding="ascii").strip() == "0"
    except FileNotFoundError:
        return False


def local_time() -> datetime:
    """Now, as the clocks of this host show it, even if its time zone was changed a moment ago."""
    time.tzset()  # localtime_r(3) alone would not look at /etc/localtime again
    return datetime.now()  # noqa: DTZ005 (clocks show no zone)


def systemd_version() -> int:
    """The major version of the systemd that is installed; 0 where it cannot be told."""
    match = re.match(rb"systemd (\d+)", run(["systemctl", "--version"]))
    return int(match[1]) if match else 0


def loops_per_jiffy(cpuinfo: str) -> int:
    """A guest's `lpj=`. Its delay loop runs about once a cycle as the host's does, and nothing in it is
    timed by that, so the host's own figure will do: bogomips = lpj × HZ / 500000 (init/calibrate.c)."""
    match = re.search(r"^bogomips\s*:\s*([0-9.]+)", cpuinfo, re.MULTILINE)
    return round((float(match[1]) if match else _FALLBACK_BOGOMIPS) * 500_000 / GUEST_HZ)


def _nameservers(root: Path) -> tuple[Address, ...]:
    """The host's resolvers that a guest can reach too: not those on loopback. systemd-resolved lists its own
    upstreams."""
    for name in ("run/systemd/resolve/resolv.conf", "etc/resolv.conf"):
        try:
            text = (root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        return tuple(parse_nameservers(text))
    return ()


def parse_nameservers(text: str) -> Iterator[Address]:
    """The addresses in a resolv.conf(5) that can be reached from elsewhere; what is none is ignored, as the
    resolver does."""
    for server in re.findall(r"^nameserver\s+([0-9a-fA-F.:]+)\s*$", text, re.MULTILINE):
        address = parse_address(server)
        if address and not (address.is_loopback or address.is_link_local):
            yield address


def _time_zone(root: Path) -> str:
    try:
        target = str((root / "etc/localtime").readlink())
    except OSError:
        return "UTC"
    _, _, name = target.partition("zoneinfo/")
    return name or "UTC"
