"""Links as ip(8) shows them and makes them: independent of the library that is tested."""

from __future__ import annotations

import json
import subprocess
from typing import Any


def ip(*arguments: str) -> str:
    """Run ip(8)."""
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def links() -> dict[str, dict[str, Any]]:
    """Every link but the loopback, with details, by name."""
    found = json.loads(ip("-json", "-details", "link", "show"))
    return {link["ifname"]: link for link in found if link["ifname"] != "lo"}


def identities() -> dict[str, tuple[Any, ...]]:
    """What makes every link the one it is, and nothing that changes by itself (timers, carrier)."""
    names = ("ifindex", "address", "mtu", "master", "ifalias")
    return {
        name: ("UP" in link["flags"], link["linkinfo"]["info_kind"], *map(link.get, names))
        for name, link in links().items()
    }


def addresses(name: str) -> set[str]:
    """Addresses with prefix length, without link-local ones."""
    [link] = json.loads(ip("-json", "address", "show", "dev", name))
    return {
        f"{address['local']}/{address['prefixlen']}"
        for address in link["addr_info"]
        if address["scope"] != "link"
    }
