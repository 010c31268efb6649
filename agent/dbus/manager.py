"""org.appliance1.Manager: the agent as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent import __version__
from agent.core.agent import Agent
from agent.dbus.appliance import path_of
from agent.dbus.objects import ROOT, Interface
from agent.model.errors import ApplianceError, Problem


class ManagerFace:
    """See org.appliance1.Manager.xml. Who may call Apply is decided by the bus
    (conf/dbus/org.appliance1.conf)."""

    interface = Interface.load("org.appliance1.Manager")
    path = ROOT

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def properties(self) -> Mapping[str, Any]:
        """Every property's value."""
        return {"Version": __version__}

    def methods(self) -> Mapping[str, Callable[..., Awaitable[tuple[Any, ...]]]]:
        """Coroutines by method name."""
        return {"ListAppliances": self._list, "GetAppliance": self._get, "Apply": self._apply}

    async def _list(self, _sender: str) -> tuple[Any, ...]:
        return ([[name, path_of(name)] for name in self._agent.appliances()],)

    async def _get(self, _sender: str, name: str) -> tuple[Any, ...]:
        if name not in self._agent.appliances():
            raise ApplianceError(f"There is no appliance “{name}”.", problem=Problem.NOT_FOUND)
        return (path_of(name),)

    async def _apply(self, _sender: str, dry_run: bool) -> tuple[Any, ...]:  # noqa: FBT001 (the bus has no keywords)
        outcome = await (self._agent.check() if dry_run else self._agent.apply())
        return list(outcome.changes), list(outcome.problems)
