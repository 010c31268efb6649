"""org.appliance1.Manager: the agent as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from agent import __version__
from agent.config.common import parse_reference
from agent.core.agent import Agent
from agent.core.swap_steps import Request
from agent.dbus.appliance import path_of
from agent.dbus.networks import NetworkMethods
from agent.dbus.objects import ROOT, Interface
from agent.dbus.operation import operation_number, operation_path
from agent.host.bus import RequestError
from agent.model.data import Snapshot
from agent.model.errors import ApplianceError, ImageError, Problem
from agent.model.swap import HistoryEntry
from agent.model.update import RunEntry, Update


class ManagerFace:
    """See org.appliance1.Manager.xml. Who may call what changes something is decided by the bus
    (conf/dbus/org.appliance1.conf)."""

    interface = Interface.load("org.appliance1.Manager")
    path = ROOT

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._networks = NetworkMethods(agent.networks)

    def properties(self) -> Mapping[str, Any]:
        """Every property's value."""
        return {"Version": __version__}

    def methods(self) -> Mapping[str, Callable[..., Awaitable[tuple[Any, ...]]]]:
        """Coroutines by method name."""
        return {
            "ListAppliances": self._list,
            "GetAppliance": self._get,
            "Apply": self._apply,
            "Swap": self._swap,
            "Rollback": self._rollback,
            "GetHistory": self._history,
            "GetQuarantine": self._quarantine,
            "ClearQuarantine": self._clear_quarantine,
            "GetData": self._data,
            "GetSnapshots": self._snapshots,
            "TakeSnapshot": self._take_snapshot,
            "RestoreSnapshot": self._restore_snapshot,
            "RemoveSnapshot": self._remove_snapshot,
            "CheckUpdates": self._check_updates,
            "Update": self._update,
            "GetUpdateRun": self._update_run,
            **self._networks.methods(),
        }

    async def _list(self, _sender: str) -> tuple[Any, ...]:
        return ([[name, path_of(name)] for name in self._agent.appliances()],)

    async def _get(self, _sender: str, name: str) -> tuple[Any, ...]:
        if name not in self._agent.appliances():
            raise ApplianceError(f"There is no appliance “{name}”.", problem=Problem.NOT_FOUND)
        return (path_of(name),)

    async def _swap(self, _sender: str, name: str, image: str, options: Collection[str]) -> tuple[Any, ...]:
        reference = parse_reference(image) if image else None
        if image and reference is None:
            raise ImageError(f"“{image}” is no image: NAME, NAME:VERSION or sha256:DIGEST expected.")
        request = Request(accept=_flag(options, "accept", {"accept"}))
        return (operation_path((await self._agent.swap(name, reference, request)).number),)

    async def _rollback(self, _sender: str, name: str, options: Collection[str]) -> tuple[Any, ...]:
        with_data = _flag(options, "with-data", {"with-data"})
        return (operation_path((await self._agent.rollback(name, with_data=with_data)).number),)

    async def _history(self, _sender: str, name: str) -> tuple[Any, ...]:
        return ([_described(entry) for entry in (await self._agent.state(name)).history],)

    async def _quarantine(self, _sender: str) -> tuple[Any, ...]:
        states = {name: await self._agent.state(name) for name in self._agent.appliances()}
        found = (
            [name, entry.image.reference, str(entry.image.digest), entry.reason, entry.since_us]
            for name, state in states.items()
            for entry in state.quarantine
        )
        return (list(found),)

    async def _clear_quarantine(self, _sender: str, name: str, digest: str) -> tuple[Any, ...]:
        return (await self._agent.clear_quarantine(name, digest),)

    async def _data(self, _sender: str, name: str) -> tuple[Any, ...]:
        view = await self._agent.data.view(name)
        volume = view.volume
        return volume.path, volume.size_bytes, volume.used_bytes, view.data_format, view.shares

    async def _snapshots(self, _sender: str, name: str) -> tuple[Any, ...]:
        return ([_snapshot(entry) for entry in (await self._agent.data.view(name)).snapshots],)

    async def _take_snapshot(self, _sender: str, name: str, snapshot: str) -> tuple[Any, ...]:
        operation, taken = await self._agent.data.take(name, snapshot)
        return operation_path(operation.number), taken

    async def _restore_snapshot(self, _sender: str, name: str, snapshot: str) -> tuple[Any, ...]:
        operation, aside = await self._agent.data.restore(name, snapshot)
        return operation_path(operation.number), aside

    async def _remove_snapshot(self, _sender: str, name: str, snapshot: str) -> tuple[Any, ...]:
        await self._agent.data.remove(name, snapshot)
        return ()

    async def _check_updates(self, _sender: str, names: Collection[str]) -> tuple[Any, ...]:
        found = await self._agent.check_updates(names)
        return ([_described_update(update) for update in found],)

    async def _update(
        self, _sender: str, names: Collection[str], options: Collection[str]
    ) -> tuple[Any, ...]:
        run = self._agent.update(names, retry=_flag(options, "retry", {"retry"}))
        return (operation_path(run.number),)

    async def _update_run(self, _sender: str, operation: str) -> tuple[Any, ...]:
        entries = self._agent.run_entries(operation_number(operation))
        found = ([entry.name, _swap_path(entry), str(entry.result), entry.message] for entry in entries)
        return (list(found),)

    async def _apply(self, _sender: str, options: Collection[str]) -> tuple[Any, ...]:
        known = {"dry-run", "retry"}
        dry_run, retry = (_flag(options, name, known) for name in ("dry-run", "retry"))
        if dry_run:
            outcome = await self._agent.check(retry=retry)
            return list(outcome.changes), list(outcome.problems), []
        outcome, operations = await self._agent.apply(retry=retry)
        paths = [operation_path(operation.number) for operation in operations]
        return list(outcome.changes), list(outcome.problems), paths


def _flag(options: Collection[str], name: str, known: set[str]) -> bool:
    """Whether an option is given; RequestError for one that nobody knows."""
    if unknown := sorted(set(options) - known):
        raise RequestError("org.freedesktop.DBus.Error.InvalidArgs", f"There is no option {unknown[0]}.")
    return name in options


def _described(entry: HistoryEntry) -> list[Any]:
    return [
        entry.number,
        entry.old.reference,
        str(entry.old.digest),
        entry.new.reference,
        str(entry.new.digest),
        str(entry.result),
        entry.reason,
        entry.snapshot,
        entry.started_at_us,
        entry.ended_at_us,
        round(entry.downtime_ms * 1000),
        entry.old_generation,
        entry.new_generation,
    ]


def _snapshot(entry: Snapshot) -> list[Any]:
    data_format, maker = (entry.note.data_format, entry.note.maker) if entry.note else (0, "")
    return [entry.name, entry.taken_at_us, entry.size_bytes, entry.used_bytes, data_format, maker]


def _swap_path(entry: RunEntry) -> str:
    return operation_path(entry.operation) if entry.operation else "/"


def _described_update(update: Update) -> list[Any]:
    return [
        update.name,
        str(update.policy),
        update.group,
        update.image.reference if update.image else "",
        str(update.image.digest) if update.image else "",
        update.newest.reference if update.newest else "",
        str(update.newest.digest) if update.newest else "",
        str(update.outlook.standing),
        update.outlook.reason,
    ]
