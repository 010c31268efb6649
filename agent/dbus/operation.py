"""org.appliance1.Operation: something that takes time and changes one appliance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.core.operations import Operation, Operations
from agent.dbus.objects import ROOT, Interface


def operation_path(number: int) -> str:
    """Object path of an operation."""
    return f"{ROOT}/operation/{number}"


def operation_number(path: str) -> int:
    """Number of the operation at an object path; 0, which is none, for any other path."""
    digits = path.removeprefix(f"{ROOT}/operation/")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0


class OperationFace:
    """See org.appliance1.Operation.xml."""

    interface = Interface.load("org.appliance1.Operation")

    def __init__(self, operations: Operations, operation: Operation) -> None:
        self._operations = operations
        self._operation = operation
        self.path = operation_path(operation.number)

    def properties(self) -> Mapping[str, Any]:
        """Every property's value."""
        return {
            "Number": self._operation.number,
            "Kind": self._operation.kind,
            "Appliance": self._operation.appliance,
            "State": str(self._operation.state),
            "Phase": self._operation.phase,
            "Message": self._operation.message,
            "Started": self._operation.started_at_us,
            "Ended": self._operation.ended_at_us,
        }

    def methods(self) -> Mapping[str, Callable[..., Awaitable[tuple[Any, ...]]]]:
        """Coroutines by method name."""
        return {"Cancel": self._cancel}

    async def _cancel(self, _sender: str) -> tuple[Any, ...]:
        self._operations.cancel(self._operation.number)
        return ()
