"""Operations: what takes time and changes one appliance. One at a time for each; watched and cancelled by
number.

An operation ends with its work; that of an agent which is stopped is taken up again by the next one, from
what the work has kept on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from agent.model.errors import ApplianceError, Problem

ENDED_KEPT = 32
"""Operations that can still be looked at after their end."""


class OperationState(StrEnum):
    """How far it is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Operation:
    """One operation. `phase` is a word, `message` a clause for people: what is being done, or what came of
    it.

    Times are CLOCK_REALTIME in microseconds, 0 for not yet.
    """

    number: int
    kind: str
    appliance: str
    started_at_us: int
    phase: str = ""
    message: str = ""
    state: OperationState = OperationState.RUNNING
    ended_at_us: int = 0
    _cancel: asyncio.Event = field(default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody has asked for an end; the work looks at it where it can turn back."""
        return self._cancel.is_set()

    def request_cancel(self) -> None:
        """Ask for an end."""
        self._cancel.set()

    async def cancelled(self) -> None:
        """Until somebody asks for an end."""
        await self._cancel.wait()

    def request_hurry(self) -> None:
        """Ask the work not to watch any longer than it must."""
        self._hurry.set()

    async def hurried(self) -> None:
        """Until somebody asks for that."""
        await self._hurry.wait()


Work = Callable[[Operation], Awaitable[OperationState]]


class Operations:
    """All operations. `on_change` is called with each one that began, went on or ended.

    Numbers are greater than `before`: none of an earlier agent must come back, for somebody may still
    watch it.
    """

    def __init__(self, on_change: Callable[[Operation], None], *, before: int = 0) -> None:
        self._on_change = on_change
        self._operations: dict[int, Operation] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last = before
        self._surprise: BaseException | None = None
        self._surprised = asyncio.Event()

    def begin(self, kind: str, appliance: str, work: Work) -> Operation:
        """Start `work`; ApplianceError BUSY where this appliance has an operation already.

        The work says what it is doing by `progress`, and returns how it ended; an ApplianceError is a
        failure.
        """
        self.check_free(appliance)
        self._last += 1
        operation = Operation(self._last, kind, appliance, now_us())
        self._operations[operation.number] = operation
        self._forget_old()
        self._on_change(operation)
        task = asyncio.ensure_future(self._run(operation, work))
        self._tasks[operation.number] = task
        task.add_done_callback(partial(self._ended, operation.number))
        return operation

    def all(self) -> list[Operation]:
        """Those under way and the last that ended, oldest first."""
        return list(self._operations.values())

    def get(self, number: int) -> Operation:
        """One operation; ApplianceError NOT_FOUND where there is none of that number, or not any more."""
        if number not in self._operations:
            raise ApplianceError(f"There is no operation {number}.", problem=Problem.NOT_FOUND)
        return self._operations[number]

    def running(self, appliance: str) -> Operation | None:
        """The operation under way on an appliance."""
        return next(
            (
                operation
                for operation in self._operations.values()
                if operation.appliance == appliance and operation.state is OperationState.RUNNING
            ),
            None,
        )

    def check_free(self, appliance: str) -> None:
        """ApplianceError BUSY where an operation is under way on it."""
        if other := self.running(appliance):
            raise ApplianceError(
                f"{appliance}: a {other.kind} is under way ({other.phase or 'beginning'}).",
                problem=Problem.BUSY,
                remedy=f"`appliancectl status {appliance}` shows it.",
            )

    def busy(self) -> set[str]:
        """Appliances with an operation under way."""
        running = (
            entry for entry in list(self._operations.values()) if entry.state is OperationState.RUNNING
        )
        return {operation.appliance for operation in running}

    def progress(self, operation: Operation, phase: str, message: str) -> None:
        """Say what is being done."""
        operation.phase, operation.message = phase, message
        self._on_change(operation)

    def cancel(self, number: int) -> None:
        """Ask for an end: the work goes back as soon as it can. Nothing where it has ended."""
        self.get(number).request_cancel()

    async def finished(self, operation: Operation) -> Operation:
        """Wait for its end."""
        task = self._tasks.get(operation.number)
        if task:
            await asyncio.wait([task])
        return operation

    async def surprise(self) -> None:
        """Wait until a work ends with an error that nobody foresaw, and raise that: the agent must not go on
        as if nothing had happened. The next one takes up what the work has kept."""
        await self._surprised.wait()
        if self._surprise:
            raise self._surprise

    async def close(self) -> None:
        """Leave all work where it stands."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        self._tasks.pop(number, None)
        if not task.cancelled() and (error := task.exception()):
            self._surprise = error
            self._surprised.set()

    async def _run(self, operation: Operation, work: Work) -> None:
        try:
            operation.state = await work(operation)
        except ApplianceError as error:
            operation.state, operation.message = OperationState.FAILED, str(error)
        finally:
            # It was left where it stands, or a surprise ended it.
            if operation.state is OperationState.RUNNING:
                operation.state = OperationState.CANCELLED
            operation.ended_at_us = now_us()
            self._on_change(operation)

    def _forget_old(self) -> None:
        ended = [entry for entry in self._operations.values() if entry.state is not OperationState.RUNNING]
        for operation in ended[:-ENDED_KEPT]:
            del self._operations[operation.number]


def now_us() -> int:
    """CLOCK_REALTIME."""
    return time.time_ns() // 1000
