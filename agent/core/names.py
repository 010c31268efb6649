"""Brings the names of appliances to who asks for them: to guests that start on a disk, to those that run by
their management console, to the host in /etc/hosts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from agent.core.watch import Watch
from agent.core.world import Console, NameKeeper
from agent.model.change import Change
from agent.model.errors import ApplianceError
from agent.plan.host import HostPlan
from agent.plan.names import all_names, neighbours_of

_log = logging.getLogger(__name__)
_THREADS = 2


class Names:
    """`plan` is called in the reconciler's thread, everything else in the loop."""

    def __init__(
        self, keeper: NameKeeper, console: Console, watch: Watch, *, busy: Callable[[], Collection[str]]
    ) -> None:
        self._keeper = keeper
        self._console = console
        self._watch = watch
        self._busy = busy
        self._due = asyncio.Event()
        self._stale = set[str]()
        self._known = set[str]()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="names")

    def close(self) -> None:
        """Wait for what is being done, then do no more."""
        self._threads.shutdown()

    def plan(self, plan: HostPlan) -> list[Change]:
        """What it takes to have all names written; running guests have them only after `deliver`."""
        ports = {name: appliance.ports for name, appliance in plan.appliances.items()}
        changes = self._keeper.plan_host(all_names(ports) if plan.names_on_host else "")
        for name in ports:
            for change in self._keeper.plan_guest(name, neighbours_of(name, ports)):
                changes.append(replace(change, apply=partial(self._write, name, change.apply)))
        # What a guest has that runs since before this agent is not known.
        self._stale |= ports.keys() - self._known
        self._known = set(ports)
        return changes

    def _write(self, name: str, write: Callable[[], object]) -> None:
        write()
        self._stale.add(name)

    def nudge(self) -> None:
        """Something has changed: look whether a guest can be told now."""
        if self._stale:
            self._due.set()

    async def run(self) -> None:
        """Tell guests, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self.deliver()

    async def deliver(self) -> None:
        """Tell every guest that runs and has old names; one that starts reads the new ones, and one that an
        operation is under way of is told later."""
        busy = self._busy()
        for name in sorted(self._stale):
            state = self._watch.status(name).active_state
            if name in busy or state in {"activating", "reloading", "refreshing"}:
                continue
            self._stale.discard(name)
            if state == "active":
                await self._tell(name)

    async def _tell(self, name: str) -> None:
        tell = partial(self._console.deliver, name, str(self._keeper.disk(name)))
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, tell)
        except ApplianceError as error:
            _log.warning("%s: it was not told new names: %s", name, error)
