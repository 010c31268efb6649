"""Asks running appliances from outside, at the pace their state deserves, and passes judgement.

    a unit is active ─► every second ── three answers in a row ──► every 15 seconds
                            ▲                                            │
                            └───────────── an answer that fails ─────────┘

Three failures in a row are a verdict, with the reason of the last; one success clears it. A verdict is a
state of health and nothing else: what ends a guest is its own check, and systemd's watchdog.

One task for each appliance that is running and has probes; it sleeps until the next question is due. The
daemon calls `follow` whenever a unit or the plan has changed, and waits in `run`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from agent.core.world import Probes
from agent.model.address import Address
from agent.model.health import UnitStatus
from agent.model.probe import Probe
from agent.plan.host import AppliancePlan
from agent.plan.probes import question_of

_log = logging.getLogger(__name__)

STEADY_S = 15.0
QUICK_S = 1.0
TIMEOUT_S = 2.0
IN_A_ROW = 3
# Each waits at most TIMEOUT_S for a guest that is silent; more than this are asked one after the other.
THREADS = 4

_RUNNING = frozenset({"active", "reloading", "refreshing"})


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked where, and of which guest: another start of the unit is another target."""

    probes: tuple[Probe, ...]
    address: Address
    main_pid: int
    started_at_us: int


def target_of(plan: AppliancePlan, status: UnitStatus) -> Target | None:
    """The target that an appliance is now; None where it does not run or nothing is to be asked."""
    question = question_of(plan)
    if status.active_state not in _RUNNING or question is None:
        return None
    probes, address = question
    return Target(probes, address, status.main_pid, status.started_at_us)


class Record:
    """What one target has answered, and what follows from it. No clock: the pace is a time to sleep."""

    def __init__(self) -> None:
        self._answers = 0
        self._failures = 0
        self._same = 0
        self._last = ""
        self.verdict: str | None = None
        """What is wrong, or ''; None as long as there is not enough to tell."""

    def note(self, reason: str) -> None:
        """One more answer; `reason` says what was wrong with it, or ''."""
        self._answers = 0 if reason else self._answers + 1
        self._failures = self._failures + 1 if reason else 0
        self._same = self._same + 1 if reason == self._last else 1
        self._last = reason
        if not reason:
            self.verdict = ""
        elif self._failures == IN_A_ROW or (self.verdict and self._same == IN_A_ROW):
            # Another reason has to hold as long to take its place: alternating ones make no noise.
            self.verdict = reason

    @property
    def interval_s(self) -> float:
        """How long to wait before the next question."""
        return STEADY_S if self._answers >= IN_A_ROW else QUICK_S


class Prober:
    """Owns the tasks and the threads. `on_verdict` is called with appliance and verdict, also where the
    verdict is the same as before."""

    def __init__(self, probes: Probes, on_verdict: Callable[[str, str], None]) -> None:
        self._probes = probes
        self._on_verdict = on_verdict
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="probe")
        self._targets: dict[str, Target] = {}
        self._records: dict[str, Record] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Ask until cancelled. An error in a task ends all of them and this one."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for name in self._targets:
                    self._start(name)
                await asyncio.Event().wait()
            finally:
                self._group = None
                self._tasks.clear()

    def close(self) -> None:
        """Wait for the questions that are under way, TIMEOUT_S at most for each, then ask no more."""
        self._executor.shutdown(cancel_futures=True)

    def follow(self, name: str, target: Target | None) -> None:
        """Ask this of an appliance from now on, or nothing; without effect where that is done already."""
        if self._targets.get(name) == target:
            return
        if task := self._tasks.pop(name, None):
            task.cancel()
        if target is None:
            del self._targets[name]
            self._records.pop(name, None)
            self._on_verdict(name, "")
            return
        self._targets[name] = target
        self._start(name)

    async def ask(self, name: str, plan_probes: tuple[Probe, ...], address: Address) -> str:
        """Ask once, at once; why the first of the probes failed, or ''.

        A success counts for the verdict on the appliance, a failure does not: who asks in between knows why.
        """
        reason = await self._ask_all(plan_probes, address)
        if not reason and name in self._records:
            self._note(name, reason)
        return reason

    def _start(self, name: str) -> None:
        if self._group:
            self._records[name] = Record()
            self._tasks[name] = self._group.create_task(self._watch(name, self._targets[name]))

    async def _watch(self, name: str, target: Target) -> None:
        while True:
            self._note(name, await self._ask_all(target.probes, target.address))
            await asyncio.sleep(self._records[name].interval_s)

    def _note(self, name: str, reason: str) -> None:
        record = self._records[name]
        record.note(reason)
        if record.verdict is not None:
            self._on_verdict(name, record.verdict)

    async def _ask_all(self, probes: tuple[Probe, ...], address: Address) -> str:
        for probe in probes:
            if reason := await self._ask(probe, address):
                return reason
        return ""

    async def _ask(self, probe: Probe, address: Address) -> str:
        question = partial(self._probes.ask, probe, address, timeout_s=TIMEOUT_S)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, question)
        except Exception as error:  # noqa: BLE001 (the other place: a guest must not end the agent)
            _log.debug("%s at %s", probe, address, exc_info=error)
            return f"its answer could not be read ({type(error).__name__})"
