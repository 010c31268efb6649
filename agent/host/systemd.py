"""PID 1 as seen over D-Bus: unit state, jobs, unit files. Source: org.freedesktop.systemd1(5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from signal import SIGKILL
from typing import Any

from agent.host.bus import Bus, Signal
from agent.model.errors import ApplianceError, Problem, UnitError
from agent.model.health import UnitStatus
from agent.model.names import appliance_of, unit_of

DESTINATION = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"
PROPERTIES = "org.freedesktop.DBus.Properties"
_UNIT_PATHS = "/org/freedesktop/systemd1/unit"

JOB_TIMEOUT_S = 600.0

_StatusHandler = Callable[[str, UnitStatus], None]

# D-Bus property → field of UnitStatus
_FIELDS = {
    "ActiveState": "active_state",
    "SubState": "sub_state",
    "Result": "result",
    "StatusText": "status_text",
    "ExecMainCode": "main_code",
    "ExecMainStatus": "main_status",
    "MainPID": "main_pid",
    "NRestarts": "restarts",
    "NeedDaemonReload": "needs_reload",
    "ExecMainStartTimestamp": "started_at_us",
    "StateChangeTimestamp": "state_changed_us",
}


def escape_path(text: str) -> str:
    """Escape a string as systemd does for one element of an object path (sd_bus_path_encode(3))."""
    escaped = "".join(
        character
        if character.isascii() and character.isalnum() and (index or not character.isdigit())
        else "".join(f"_{byte:02x}" for byte in character.encode())
        for index, character in enumerate(text)
    )
    return escaped or "_"


def unit_path(unit: str) -> str:
    """Object path of a unit, whether it is loaded or not."""
    return f"{_UNIT_PATHS}/{escape_path(unit)}"


class Systemd:
    """Units of appliances, watched without polling: `on_status` is called with every change of one."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._handler: _StatusHandler = _ignore
        self._properties: dict[str, dict[str, Any]] = {}
        self._appliances: dict[str, str] = {}
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._waiting = 0

    async def subscribe(self, handler: _StatusHandler) -> None:
        """Begin to receive signals; call it before reading any state, so that no change falls in between."""
        self._handler = handler
        source = f"sender='{DESTINATION}'"
        changes = (
            f"{source},interface='{PROPERTIES}',member='PropertiesChanged',path_namespace='{_UNIT_PATHS}'"
        )
        await self._bus.subscribe(changes, self._on_signal)
        await self._bus.subscribe(f"{source},interface='{MANAGER}',member='JobRemoved'", self._on_job)
        await self._manager("Subscribe")

    async def watch(self, appliance: str) -> UnitStatus:
        """Report changes of this appliance's unit from now on; its status as it is."""
        path = unit_path(unit_of(appliance))
        self._appliances[path] = appliance
        return await self._read(path)

    def unwatch(self, appliance: str) -> None:
        """Report no more of this appliance."""
        path = unit_path(unit_of(appliance))
        self._appliances.pop(path, None)
        self._properties.pop(path, None)

    async def loaded_appliances(self) -> dict[str, str]:
        """Appliances whose unit systemd has loaded, with its ActiveState."""
        [units] = await self._manager("ListUnitsByPatterns", [], ["appliance@*.service"], signature="asas")
        found = ((appliance_of(unit[0]), unit[3]) for unit in units)
        return {appliance: active for appliance, active in found if appliance}

    async def reload(self) -> None:
        """Have systemd read unit files again (daemon-reload)."""
        await self._manager("Reload", timeout_s=90.0)

    async def restart(self, appliance: str) -> None:
        """Restart the unit if it runs; UnitError unless the job succeeds."""
        await self._job("TryRestartUnit", appliance)

    async def start(self, appliance: str) -> None:
        """Start the unit; UnitError unless the job succeeds."""
        await self._job("StartUnit", appliance)

    async def stop(self, appliance: str) -> None:
        """Stop the unit; UnitError unless the job succeeds."""
        await self._job("StopUnit", appliance)

    async def run(self, instance: str) -> UnitStatus:
        """Start a oneshot instance and wait for its end; its status then. It is not kept as failed."""
        path = unit_path(unit_of(instance))
        failed: UnitError | None = None
        try:
            await self._job("StartUnit", instance)
        except UnitError as error:
            failed = error
        status = await self._read(path)
        self._properties.pop(path, None)
        if failed:
            if status.result == "success":  # it was not even tried
                raise failed
            await self.forget_failure(instance)
        return status

    async def is_going_down(self) -> bool:
        """Whether the host is shutting down: nothing can be started any more."""
        return await self._system_state() == "stopping"

    async def is_booting(self) -> bool:
        """Whether units are still being started that the boot is to start."""
        return await self._system_state() in {"initializing", "starting"}

    async def _system_state(self) -> str:
        arguments = (MANAGER, "SystemState")
        [value] = await self._bus.call(
            DESTINATION, MANAGER_PATH, f"{PROPERTIES}.Get", *arguments, signature="ss"
        )
        return str(value.value)

    async def kill(self, appliance: str) -> None:
        """Kill every process of the unit at once; nothing where it has none."""
        try:
            await self._manager("KillUnit", unit_of(appliance), "all", SIGKILL, signature="ssi")
        except ApplianceError as error:
            if error.problem is not Problem.NOT_FOUND:
                raise

    async def forget_failure(self, instance: str) -> None:
        """Reset the failed state of a unit, and its count of starts."""
        try:
            await self._manager("ResetFailedUnit", unit_of(instance), signature="s")
        except ApplianceError as error:
            if error.problem is not Problem.NOT_FOUND:  # what is not loaded has not failed
                raise

    async def _manager(
        self, method: str, *arguments: Any, signature: str = "", timeout_s: float = 25.0
    ) -> list[Any]:
        return await self._bus.call(
            DESTINATION,
            MANAGER_PATH,
            f"{MANAGER}.{method}",
            *arguments,
            signature=signature,
            timeout_s=timeout_s,
        )

    async def _job(self, method: str, appliance: str) -> None:
        unit = unit_of(appliance)
        self._waiting += 1
        try:
            [job] = await self._manager(method, unit, "replace", signature="ss")
            async with asyncio.timeout(JOB_TIMEOUT_S):
                result = await self._job_result(job)
        except TimeoutError as error:
            raise UnitError(f"{unit}: the job did not end.", problem=Problem.TIMED_OUT) from error
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._jobs.clear()
        if result not in {"done", "skipped"}:
            raise UnitError(f"{unit}: {result}", remedy=f"`journalctl -u {unit}` shows why.")

    def _job_result(self, job: str) -> asyncio.Future[str]:
        # JobRemoved may come before the reply that names the job: whichever is first makes the future.
        return self._jobs.setdefault(job, asyncio.get_running_loop().create_future())

    async def _read(self, path: str) -> UnitStatus:
        # An unloaded unit is loaded by the call, so there is always an answer.
        for interface in (UNIT, SERVICE):
            [values] = await self._bus.call(
                DESTINATION, path, f"{PROPERTIES}.GetAll", interface, signature="s"
            )
            self._merge(path, values)
        return self._status(path)

    def _merge(self, path: str, values: Mapping[str, Any]) -> None:
        known = self._properties.setdefault(path, {})
        known.update({_FIELDS[name]: value.value for name, value in values.items() if name in _FIELDS})

    def _status(self, path: str) -> UnitStatus:
        status = UnitStatus(**self._properties.get(path, {}))
        # A guest wrote it, and it goes to terminals.
        text = "".join(character if character.isprintable() else "?" for character in status.status_text)
        return replace(status, status_text=text)

    def _on_signal(self, signal: Signal) -> None:
        if signal.member == "PropertiesChanged" and signal.path in self._appliances:
            _, changed, _ = signal.body
            before = self._status(signal.path)
            self._merge(signal.path, changed)
            after = self._status(signal.path)
            if after != before:
                self._handler(self._appliances[signal.path], after)

    def _on_job(self, signal: Signal) -> None:
        if signal.member == "JobRemoved" and signal.interface == MANAGER:
            _, job, _, result = signal.body
            if self._waiting and not self._job_result(job).done():
                self._job_result(job).set_result(result)


def _ignore(_appliance: str, _status: UnitStatus) -> None:
    """Nobody has subscribed yet."""
