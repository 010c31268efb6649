"""Networks of org.appliance1 from the command line's side. For agent.cli.network, which is loaded when it is
asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from agent.cli.client import MANAGER, call, text_of
from agent.model.diagnosis import HopReport
from agent.model.network_status import Lease, LeasedAddress, NetworkStatus, Published, TapCounters

_T = TypeVar("_T")


def networks() -> list[NetworkStatus]:
    """All networks, by name."""
    return [_made(NetworkStatus, entry) for entry in call(MANAGER, b"GetNetworks")]


def leases(network: str = "") -> list[Lease]:
    """What appliances have on a network, on all where the name is ''."""
    found = call(MANAGER, b"GetLeases", b"s", network.encode())
    return [
        _made(Lease, [*facts, [_made(LeasedAddress, address) for address in addresses]])
        for *facts, addresses in found
    ]


def published() -> list[Published]:
    """All ports that are to be published."""
    return [_made(Published, entry) for entry in call(MANAGER, b"GetPublications")]


def counters() -> list[TapCounters]:
    """What has passed every tap that is there."""
    return [_made(TapCounters, entry) for entry in call(MANAGER, b"GetNetworkCounters")]


def diagnose(appliance: str) -> list[HopReport]:
    """The hops of every network that an appliance is on."""
    found = call(MANAGER, b"DiagnoseNetwork", b"s", appliance.encode())
    return [_made(HopReport, entry) for entry in found]


def _made(kind: type[_T], entry: Sequence[Any]) -> _T:
    """A structure as its class has it: libsystemd delivers arrays as lists, and booleans as numbers."""
    types = (field.type for field in fields(kind))  # type: ignore[arg-type]
    values = zip(types, text_of(list(entry)), strict=True)
    return kind(*(_value(str(kind_of), value) for kind_of, value in values))


def _value(kind: str, value: Any) -> Any:
    if kind == "bool":
        return bool(value)
    return tuple(value) if isinstance(value, list) else value
