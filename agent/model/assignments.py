"""What the agent once chose for an appliance and keeps: addresses and a core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.model.network import Address


@dataclass(frozen=True, slots=True)
class Assignments:
    """`addresses` by network and appliance, `cores` by appliance; kept in
    /var/lib/appliance/assignments.json."""

    addresses: Mapping[str, Mapping[str, tuple[Address, ...]]] = field(default_factory=dict)
    cores: Mapping[str, int] = field(default_factory=dict)
