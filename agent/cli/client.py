"""org.appliance1 from the command line's side, over libsystemd (pystemd)."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Self

from agent.model.errors import ApplianceError, Problem
from agent.util.lean import skip_init

BUS_NAME = b"org.appliance1"
ROOT = b"/org/appliance1"
MANAGER = b"org.appliance1.Manager"
APPLIANCE = "org.appliance1.Appliance"
OPERATION = "org.appliance1.Operation"
PROPERTIES = b"org.freedesktop.DBus.Properties"
_LOOK_US = 1_000_000
_ERROR_PREFIX = "org.appliance1.Error."
# Applying may wait for many guests to stop and start, a diagnosis for answers that do not come.
_TIMEOUTS = {b"Apply": "600s", b"DiagnoseNetwork": "60s"}
_READ_TIMEOUT = "5s"


@dataclass(frozen=True, slots=True)
class ApplianceStatus:
    """One appliance as the agent shows it (org.appliance1.Appliance.xml). `since_us` is CLOCK_REALTIME."""

    name: str
    unit: str
    image: str
    digest: str
    state: str
    health: str
    reason: str
    addresses: tuple[str, ...]
    since_us: int
    restarts: int
    core: int
    restart_pending: bool

    @classmethod
    def from_properties(cls, values: dict[str, Any]) -> Self:
        """From the properties of the object."""
        return cls(
            name=values["Name"],
            unit=values["Unit"],
            image=values["Image"],
            digest=values["Digest"],
            state=values["State"],
            health=values["Health"],
            reason=values["Reason"],
            addresses=tuple(values["Address"]),
            since_us=values["Since"],
            restarts=values["Restarts"],
            core=values["Core"],
            restart_pending=bool(values["RestartPending"]),
        )


def appliances() -> list[ApplianceStatus]:
    """All appliances, by name."""
    managed = call(b"org.freedesktop.DBus.ObjectManager", b"GetManagedObjects")
    # pystemd delivers an empty dictionary as an empty list.
    found = (text_of(interfaces).get(APPLIANCE) for interfaces in dict(managed).values())
    statuses = [ApplianceStatus.from_properties(properties) for properties in found if properties]
    return sorted(statuses, key=lambda status: status.name)


def appliance(name: str) -> ApplianceStatus:
    """One appliance; ApplianceError NotFound where there is none of that name."""
    for status in appliances():
        if status.name == name:
            return status
    raise unknown(name)


def unknown(name: str) -> ApplianceError:
    """What to raise for a name that no appliance has."""
    return ApplianceError(
        f"There is no appliance “{name}”.",
        problem=Problem.NOT_FOUND,
        remedy="`appliancectl list` shows all; a file in /etc/appliance/appliances makes a new one.",
    )


def apply(*, dry_run: bool = False, retry: bool = False) -> tuple[list[str], list[str], list[str]]:
    """Have the agent apply its configuration; changes, problems, and the operations that put new
    configurations on trial."""
    changes, problems, operations = call(MANAGER, b"Apply", b"as", _flags(dry_run=dry_run, retry=retry))
    return text_of(changes), text_of(problems), text_of(operations)


@dataclass(frozen=True, slots=True)
class OperationStatus:
    """An operation as the agent shows it (org.appliance1.Operation.xml)."""

    number: int
    kind: str
    appliance: str
    state: str
    phase: str
    message: str

    @classmethod
    def from_properties(cls, values: dict[str, Any]) -> Self:
        """From the properties of the object."""
        return cls(*(values[name] for name in ("Number", "Kind", "Appliance", "State", "Phase", "Message")))


def swap(name: str, image: str, *, accept: bool) -> str:
    """Begin a swap; the operation's object path."""
    return _begin(b"Swap", b"ssas", name.encode(), image.encode(), _flags(accept=accept))


def rollback(name: str, *, with_data: bool) -> str:
    """Begin to go back; the operation's object path."""
    return _begin(b"Rollback", b"sas", name.encode(), _flags(with_data=with_data))


def _begin(method: bytes, signature: bytes, *arguments: Any) -> str:
    return str(text_of(call(MANAGER, method, signature, *arguments)))


def _flags(**flags: bool) -> list[bytes]:
    return [name.replace("_", "-").encode() for name, given in flags.items() if given]


def cancel(operation: str) -> None:
    """Ask for an operation's end."""
    call(OPERATION.encode(), b"Cancel", path=operation.encode())


def follow(operation: str) -> Iterator[OperationStatus]:
    """How an operation is, now and after every change, until it has ended.

    ApplianceError UNAVAILABLE where the agent goes away: the next one takes the operation up, under
    another number.
    """
    skip_init("pystemd")
    from pystemd.dbuslib import DBus

    with DBus() as bus:
        bus.match_signal(
            BUS_NAME, operation.encode(), PROPERTIES, b"PropertiesChanged", _ignore_signal, None
        )
        last: OperationStatus | None = None
        while True:
            status = _operation(operation)
            if status != last:
                yield status
                last = status
            if status.state != "running":
                return
            # A signal ends the wait; without one it is only a look whether the agent is still there.
            bus.wait(_LOOK_US)
            while not bus.process().is_empty():
                pass


def _operation(path: str) -> OperationStatus:
    try:
        values = text_of(call(PROPERTIES, b"GetAll", b"s", OPERATION.encode(), path=path.encode()))
    except ApplianceError as error:
        if error.problem is not Problem.UNAVAILABLE:
            raise
        raise ApplianceError(
            "The agent was stopped or restarted meanwhile; the next one goes on.",
            problem=Problem.UNAVAILABLE,
            remedy="`appliancectl history` shows how it ends.",
        ) from error
    return OperationStatus.from_properties(values)


def _ignore_signal(*_arguments: Any, **_named: Any) -> None:
    """What has changed is read anew."""


@dataclass(frozen=True, slots=True)
class SwapRecord:
    """A swap that has ended, as the agent shows it (org.appliance1.Manager.xml)."""

    number: int
    old_image: str
    old_digest: str
    new_image: str
    new_digest: str
    result: str
    reason: str
    snapshot: str
    started_us: int
    ended_us: int
    downtime_us: int
    old_configuration: str
    new_configuration: str


def history(name: str) -> list[SwapRecord]:
    """The swaps of an appliance that have ended, oldest first."""
    return [SwapRecord(*text_of(entry)) for entry in call(MANAGER, b"GetHistory", b"s", name.encode())]


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """How an appliance stands to the newest image it may have (org.appliance1.Manager.xml)."""

    name: str
    policy: str
    group: str
    image: str
    digest: str
    new_image: str
    new_digest: str
    standing: str
    reason: str


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What has become of an appliance in a run of updates; `operation` is the path of its swap, / for
    none."""

    name: str
    operation: str
    result: str
    message: str


def check_updates(names: Collection[str]) -> list[UpdateStatus]:
    """How appliances stand to newer images; all where none is named."""
    found = call(MANAGER, b"CheckUpdates", b"as", [name.encode() for name in names])
    return [UpdateStatus(*text_of(entry)) for entry in found]


def update(names: Collection[str], *, retry: bool) -> str:
    """Begin a run of updates; the operation's object path."""
    return _begin(b"Update", b"asas", [name.encode() for name in names], _flags(retry=retry))


def update_run(operation: str) -> list[UpdateResult]:
    """What has become of each appliance in the last run so far."""
    found = call(MANAGER, b"GetUpdateRun", b"o", operation.encode())
    return [UpdateResult(*text_of(entry)) for entry in found]


def quarantine() -> list[tuple[str, str, str, str, int]]:
    """Appliance, image, digest, reason and time (microseconds since the epoch) of every quarantined
    image."""
    return [tuple(text_of(entry)) for entry in call(MANAGER, b"GetQuarantine")]


def clear_quarantine(name: str, digest: str) -> int:
    """Let images be tried again; how many. `digest` is '' for all."""
    return int(call(MANAGER, b"ClearQuarantine", b"ss", name.encode(), digest.encode()))


@dataclass(frozen=True, slots=True)
class DataStatus:
    """A data volume as the agent shows it (org.appliance1.Manager.xml)."""

    path: str
    size_bytes: int
    used_bytes: int
    format: int
    shared: bool


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """A snapshot of a data volume; `maker` is '' where nothing is known of it."""

    name: str
    taken_us: int
    size_bytes: int
    used_bytes: int
    format: int
    maker: str


def data(name: str) -> DataStatus:
    """The data volume of an appliance."""
    path, size, used, data_format, shared = text_of(call(MANAGER, b"GetData", b"s", name.encode()))
    return DataStatus(path, size, used, data_format, bool(shared))


def snapshots(name: str) -> list[SnapshotStatus]:
    """Snapshots of the data volume of an appliance, oldest first."""
    return [SnapshotStatus(*text_of(entry)) for entry in call(MANAGER, b"GetSnapshots", b"s", name.encode())]


def take_snapshot(name: str, snapshot: str) -> tuple[str, str]:
    """Begin to take a snapshot; the operation's object path, and what the snapshot will be called."""
    operation, taken = text_of(call(MANAGER, b"TakeSnapshot", b"ss", name.encode(), snapshot.encode()))
    return operation, taken


def restore_snapshot(name: str, snapshot: str) -> tuple[str, str]:
    """Begin to restore a snapshot; the operation's object path, and what the data of before will be
    called."""
    operation, aside = text_of(call(MANAGER, b"RestoreSnapshot", b"ss", name.encode(), snapshot.encode()))
    return operation, aside


def remove_snapshot(name: str, snapshot: str) -> None:
    """Remove a snapshot."""
    call(MANAGER, b"RemoveSnapshot", b"ss", name.encode(), snapshot.encode())


def call(
    interface: bytes, method: bytes, signature: bytes = b"", *arguments: Any, path: bytes = ROOT
) -> Any:
    """Call a method of the agent; the body of its reply, see `text_of`. ApplianceError where that fails."""
    # sd_bus_call(3) reads its timeout from here.
    os.environ["SYSTEMD_BUS_TIMEOUT"] = _TIMEOUTS.get(method, _READ_TIMEOUT)
    skip_init("pystemd")
    from pystemd.dbusexc import DBusBaseError
    from pystemd.dbuslib import DBus, apply_signature

    try:
        with DBus() as bus:
            message = bus.call_method(
                BUS_NAME, path, interface, method, apply_signature(signature, list(arguments))
            )
    except DBusBaseError as error:
        raise _translated(error) from error
    return message.body


def _translated(error: Exception) -> ApplianceError:
    name = str(text_of(getattr(error, "err_name", "")))
    text = str(text_of(getattr(error, "err_message", str(error))))
    if name.startswith(_ERROR_PREFIX):
        return ApplianceError(text, problem=_problem(name.removeprefix(_ERROR_PREFIX)))
    if getattr(error, "errno", 0) in {-errno.EACCES, -errno.EPERM}:
        return ApplianceError(text, problem=Problem.ACCESS_DENIED, remedy="Try it as root.")
    return ApplianceError(
        f"The agent does not answer: {text}",
        problem=Problem.UNAVAILABLE,
        remedy="`systemctl status appliance-agent` shows why. Appliances run on without it.",
    )


def _problem(word: str) -> Problem:
    """Of an agent that is newer than this program, a problem may be unknown here."""
    return Problem(word) if word in list(Problem) else Problem.FAILED


def text_of(value: Any) -> Any:
    """Bytes, as pystemd delivers strings, to text; at any depth."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {text_of(key): text_of(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [text_of(entry) for entry in value]
    return value
