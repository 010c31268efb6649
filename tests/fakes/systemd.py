"""PID 1 on a test's message bus: org.freedesktop.systemd1 as far as the agent asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.host.bus import Bus, Reply, Request, RequestError, Variant
from agent.host.systemd import DESTINATION, MANAGER, MANAGER_PATH, PROPERTIES, SERVICE, UNIT, unit_path
from agent.model.names import unit_of
from tests.fakes.bus import connected, settled

INACTIVE: dict[str, Variant] = {
    "ActiveState": Variant("s", "inactive"),
    "SubState": Variant("s", "dead"),
    "StateChangeTimestamp": Variant("t", 0),
}
FRESH: dict[str, Variant] = {
    "Result": Variant("s", "success"),
    "StatusText": Variant("s", ""),
    "ExecMainCode": Variant("i", 0),
    "ExecMainStatus": Variant("i", 0),
    "MainPID": Variant("u", 0),
    "NRestarts": Variant("u", 0),
    "ExecMainStartTimestamp": Variant("t", 0),
}


@dataclass
class FakeSystemd:
    """Answers requests, and sends signals only while somebody has subscribed, as systemd does.

    `job_result` decides how jobs end; `early` has JobRemoved come before the reply that names the job.
    `before_reply` is awaited before every answer.
    """

    bus: Bus
    calls: list[str] = field(default_factory=list)
    units: dict[str, dict[str, Variant]] = field(default_factory=dict)
    services: dict[str, dict[str, Variant]] = field(default_factory=dict)
    job_result: str = "done"
    early: bool = False
    before_reply: Callable[[Request], Awaitable[None]] | None = None
    _subscribed: bool = False
    _jobs: int = 0

    async def serve(self) -> None:
        """Take the name."""
        self.bus.serve(self._answer)
        await self.bus.own(DESTINATION)

    async def change(self, appliance: str, interface: str = UNIT, **values: Variant) -> None:
        """Change properties of a unit, and tell who listens."""
        unit = unit_of(appliance)
        known = self.units if interface == UNIT else self.services
        known.setdefault(unit, {}).update(values)
        self._emit(unit_path(unit), f"{PROPERTIES}.PropertiesChanged", "sa{sv}as", interface, values, [])
        await settled(self.bus)

    def _emit(self, path: str, member: str, signature: str, *body: Any) -> None:
        if self._subscribed:
            self.bus.emit(path, member, signature, *body)

    async def _answer(self, request: Request) -> Reply:
        self.calls.append(
            " ".join([request.member, *(text for text in request.body if isinstance(text, str))])
        )
        if self.before_reply:
            await self.before_reply(request)
        match request.interface, request.member:
            case "org.freedesktop.DBus.Properties", "GetAll":
                return Reply("a{sv}", (self._properties(request.path, request.body[0]),))
            case "org.freedesktop.systemd1.Manager", member:
                return await self._manage(member, request)
            case _:
                raise RequestError("org.freedesktop.DBus.Error.UnknownMethod", f"no {request.member}")

    def _properties(self, path: str, interface: str) -> dict[str, Variant]:
        unit = next((unit for unit in (*self.units, *self.services) if unit_path(unit) == path), "")
        known, defaults = (self.units, INACTIVE) if interface == UNIT else (self.services, FRESH)
        # There is much more in reality, of other types too.
        return {**defaults, **known.get(unit, {}), "Names": Variant("as", [unit])}

    async def _manage(self, member: str, request: Request) -> Reply:
        match member:
            case "Subscribe":
                self._subscribed = True
                return Reply()
            case "Reload":
                return Reply()
            case "ListUnitsByPatterns":
                return Reply("a(ssssssouso)", ([self._listed(unit) for unit in self.units],))
            case "ResetFailedUnit" if request.body[0] in self.units:
                return Reply()
            case "ResetFailedUnit":
                raise RequestError(f"{DESTINATION}.NoSuchUnit", f"Unit {request.body[0]} not loaded.")
            case "StartUnit" | "StopUnit" | "TryRestartUnit":
                return await self._job(request.body[0])
            case _:
                raise RequestError("org.freedesktop.DBus.Error.UnknownMethod", f"no {member}")

    def _listed(self, unit: str) -> list[Any]:
        active = self.units[unit].get("ActiveState", INACTIVE["ActiveState"]).value
        return [unit, "", "loaded", active, "", "", unit_path(unit), 0, "", "/"]

    async def _job(self, unit: str) -> Reply:
        self._jobs += 1
        number, job = self._jobs, f"{MANAGER_PATH}/job/{self._jobs}"

        def end() -> None:
            self._emit(MANAGER_PATH, f"{MANAGER}.JobRemoved", "uoss", number, job, unit, self.job_result)

        if self.early:
            end()
        else:
            asyncio.get_running_loop().call_later(0.01, end)
        return Reply("o", (job,))


@asynccontextmanager
async def fake_systemd(address: str) -> AsyncIterator[FakeSystemd]:
    """PID 1 for the time of the block."""
    async with connected(address) as bus:
        systemd = FakeSystemd(bus)
        await systemd.serve()
        yield systemd


__all__ = ["SERVICE", "UNIT", "FakeSystemd", "fake_systemd"]
