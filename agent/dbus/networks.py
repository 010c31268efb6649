"""The methods of org.appliance1.Manager that show networks: parse, call core, reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from agent.core.networks import Networks


class NetworkMethods:
    """See org.appliance1.Manager.xml. Structures there have the fields of the classes in
    agent.model.network_status and agent.model.diagnosis, in their order."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def methods(self) -> Mapping[str, Callable[..., Awaitable[tuple[Any, ...]]]]:
        """Coroutines by method name."""
        return {
            "GetNetworks": self._all,
            "GetLeases": self._leases,
            "GetPublications": self._publications,
            "GetNetworkCounters": self._counters,
            "DiagnoseNetwork": self._diagnose,
        }

    async def _all(self, _sender: str) -> tuple[Any, ...]:
        return (_structures(self._networks.all()),)

    async def _leases(self, _sender: str, network: str) -> tuple[Any, ...]:
        return (_structures(self._networks.leases(network)),)

    async def _publications(self, _sender: str) -> tuple[Any, ...]:
        return (_structures(await self._networks.publications()),)

    async def _counters(self, _sender: str) -> tuple[Any, ...]:
        return (_structures(await self._networks.counters()),)

    async def _diagnose(self, _sender: str, appliance: str) -> tuple[Any, ...]:
        return (_structures(await self._networks.diagnose(appliance)),)


def _structures(values: Iterable[Any]) -> list[Any]:
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """As D-Bus has it: structures and arrays are lists."""
    if is_dataclass(value):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    return _structures(value) if isinstance(value, tuple) else value
