"""How every appliance is doing: unit states and verdicts from outside come in, health states go out, each
change an event in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from agent.core.health import health_of
from agent.model.health import Health, HealthState, UnitStatus
from agent.util.journal import Event, log_event

Failure = tuple[HealthState, UnitStatus]
_Condition = Callable[[HealthState], bool]

_START_LIMIT = "start-limit-hit"
_PHRASES = {
    Health.STARTING: "is starting",
    Health.HEALTHY: "is healthy",
    Health.DEGRADED: "is degraded",
    Health.FAILED: "failed",
    Health.STOPPED: "stopped",
}


class Watch:
    """Keeps unit status and health by appliance. `on_change` is called with the name after either has
    changed."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._status: dict[str, UnitStatus] = {}
        self._outside: dict[str, str] = {}
        self._health: dict[str, HealthState] = {}
        self._waiting: list[tuple[str, _Condition, asyncio.Future[HealthState]]] = []
        self._noting: list[tuple[str, list[Failure]]] = []
        self.titles: dict[str, str] = {}

    def status(self, appliance: str) -> UnitStatus:
        """What systemd said last."""
        return self._status.get(appliance, UnitStatus())

    def health(self, appliance: str) -> HealthState:
        """How it is doing."""
        return self._health.get(appliance, HealthState(Health.STOPPED))

    async def until(self, appliance: str, condition: _Condition) -> HealthState:
        """Wait until an appliance is as wished; how it was then. It is looked at with every change, so
        that not even the shortest state is missed."""
        if condition(self.health(appliance)):
            return self.health(appliance)
        wish: asyncio.Future[HealthState] = asyncio.get_running_loop().create_future()
        entry = (appliance, condition, wish)
        self._waiting.append(entry)
        try:
            return await wish
        finally:
            self._waiting.remove(entry)

    @contextmanager
    def noting_failures(self, appliance: str) -> Iterator[list[Failure]]:
        """What goes wrong with an appliance during the block: systemd may be starting it again already, and
        know nothing of that any more, when somebody asks."""
        noted: list[Failure] = []
        self._noting.append((appliance, noted))
        try:
            yield noted
        finally:
            self._noting = [entry for entry in self._noting if entry[1] is not noted]

    def adopt(self, appliance: str, status: UnitStatus) -> None:
        """Take a state as it is found, without an event: nothing has changed."""
        self._status[appliance] = status
        self._health[appliance] = self._health_of(appliance)
        self._on_change(appliance)

    def update(self, appliance: str, status: UnitStatus) -> None:
        """Take a new state; the first one of an appliance is adopted."""
        if appliance not in self._status:
            self.adopt(appliance, status)
            return
        self._status[appliance] = status
        self._reconsider(appliance)
        self._on_change(appliance)

    def judge(self, appliance: str, outside: str) -> None:
        """Take a verdict from outside: what is wrong, or ''. Nothing is told where it changes nothing."""
        if appliance not in self._status or self._outside.get(appliance, "") == outside:
            return
        self._outside[appliance] = outside
        self._reconsider(appliance)
        self._on_change(appliance)

    def forget(self, appliance: str) -> None:
        """Keep nothing of an appliance that is gone."""
        for kept in (self._status, self._outside, self._health, self.titles):
            kept.pop(appliance, None)

    def _health_of(self, appliance: str) -> HealthState:
        return health_of(self._status[appliance], self._outside.get(appliance, ""))

    def _reconsider(self, appliance: str) -> None:
        before, after = self._health[appliance], self._health_of(appliance)
        if before.health is after.health is Health.FAILED:
            result = self._status[appliance].result
            after = replace(after, reason=_combined(before.reason, after.reason, result))
        self._health[appliance] = after
        if after != before:
            self._report(appliance, before, after)
        for name, condition, wish in self._waiting:
            if name == appliance and not wish.done() and condition(after):
                wish.set_result(after)
        for name, noted in self._noting:
            if name == appliance and after.health is Health.FAILED:
                noted.append((after, self._status[appliance]))

    def _report(self, appliance: str, before: HealthState, after: HealthState) -> None:
        # While it starts or stops, the reason is a progress report and no event.
        if after.health is Health.STARTING and before.health is Health.STARTING:
            return
        if after.health is Health.STOPPED and after.reason:
            return
        reason = f": {after.reason}" if after.reason else ""
        log_event(
            Event[after.health.name],
            f"Appliance {appliance} {_PHRASES[after.health]}{reason}.",
            appliance=appliance,
            health=after.health,
            health_before=before.health,
            reason=after.reason,
            image=self.titles.get(appliance, ""),
        )


def _combined(before: str, after: str, result: str) -> str:
    """The reason of a failure that goes on: systemd forgets the first one, its administrator wants to know
    it."""
    if not after or before.endswith(after):
        return before
    return f"{before}; {after}" if before and result == _START_LIMIT else after
