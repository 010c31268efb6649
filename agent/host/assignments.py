"""Keeps assignments in /var/lib/appliance/assignments.json:
`{"version": 1, "addresses": …, "cores": …, "subnets": …}`."""

from __future__ import annotations

import ipaddress
import json
import logging
from pathlib import Path

from agent.model.assignments import Assignments
from agent.util.files import ensure_file

VERSION = 1
_log = logging.getLogger(__name__)


def read_assignments(path: Path) -> Assignments:
    """What was kept; nothing where there is no file, or none that can be read: it will be chosen anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        return Assignments(
            addresses={
                network: {name: tuple(map(ipaddress.ip_address, texts)) for name, texts in leases.items()}
                for network, leases in content["addresses"].items()
            },
            cores={str(name): int(core) for name, core in content["cores"].items()},
            subnets={
                network: tuple(map(ipaddress.ip_network, texts))
                for network, texts in content.get("subnets", {}).items()
            },
        )
    except FileNotFoundError:
        return Assignments()
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        _log.warning("%s cannot be read (%s): addresses are assigned anew, ignoring", path, error)
        return Assignments()


def write_assignments(path: Path, assignments: Assignments) -> bool:
    """Keep them; whether they differ from what was kept."""
    content = {
        "version": VERSION,
        "addresses": {
            network: {name: list(map(str, addresses)) for name, addresses in leases.items()}
            for network, leases in assignments.addresses.items()
        },
        "cores": dict(assignments.cores),
        "subnets": {name: list(map(str, subnets)) for name, subnets in assignments.subnets.items()},
    }
    return ensure_file(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
