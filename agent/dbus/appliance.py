"""org.appliance1.Appliance: one appliance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.core.agent import Agent
from agent.dbus.objects import ROOT, Interface
from agent.host.systemd import escape_path


def path_of(appliance: str) -> str:
    """Object path of an appliance."""
    return f"{ROOT}/appliance/{escape_path(appliance)}"


class ApplianceFace:
    """See org.appliance1.Appliance.xml."""

    interface = Interface.load("org.appliance1.Appliance")

    def __init__(self, agent: Agent, name: str) -> None:
        self._agent = agent
        self._name = name
        self.path = path_of(name)

    def properties(self) -> Mapping[str, Any]:
        """Every property's value."""
        view = self._agent.view(self._name)
        return {
            "Name": self._name,
            "Unit": view.plan.appliance.unit,
            "Image": f"{view.plan.image.manifest.name}:{view.plan.image.manifest.version}"
            if view.plan.image
            else "",
            "Digest": str(view.plan.image.digest) if view.plan.image else "",
            "State": view.status.active_state,
            "Health": str(view.health.health),
            "Reason": view.health.reason,
            "Address": [str(address) for port in view.plan.ports for address in port.addresses],
            "Since": view.status.state_changed_us,
            "Restarts": view.status.restarts,
            "Core": view.plan.core,
            "RestartPending": view.restart_pending,
        }

    def methods(self) -> Mapping[str, Callable[..., Awaitable[tuple[Any, ...]]]]:
        """None: starting and stopping is systemd's."""
        return {}
