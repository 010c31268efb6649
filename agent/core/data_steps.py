"""The steps of a snapshot and of a restore, as agent.plan.data draws them; agent.core.data begins them.

snapshot   stop, copy, start
restore    copy the snapshot beside the volume; stop, exchange; start, first answer
turn back  stop, the data of before, start
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from agent.core.health import is_settled
from agent.core.operations import Operation, Operations
from agent.core.outside import ask_patiently
from agent.core.reconcile import Reconciler
from agent.core.swap_steps import CANCELLED
from agent.core.watch import Watch
from agent.core.world import Files, Outside, StateKeeper, Units, Volumes
from agent.model.data import DataPhase, DataWork, SnapshotNote
from agent.model.errors import ApplianceError
from agent.model.health import Health
from agent.model.swap import ApplianceState
from agent.plan.data import INTERRUPTED
from agent.plan.dropin import START_MARGIN_S
from agent.plan.host import AppliancePlan

_log = logging.getLogger(__name__)

ADMINISTRATOR = "the administrator"


@dataclass(slots=True)
class DataJob:
    """Work under way, with the state around it as it is on disk. `message` is what came of it, as a
    clause; `stopped_at_s` when the guest was stopped (monotonic), 0 for not at all, and `stopped_s` for how
    long."""

    operation: Operation | None
    plan: AppliancePlan
    state: ApplianceState
    work: DataWork
    message: str = ""
    stopped_at_s: float = 0.0
    stopped_s: float = 0.0

    @property
    def name(self) -> str:
        """The appliance's."""
        return self.plan.appliance.name


class DataSteps:
    """Takes the steps."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        operations: Operations,
        watch: Watch,
        units: Units,
        files: Files,
        states: StateKeeper,
        volumes: Volumes,
        outside: Outside,
    ) -> None:
        self._reconciler = reconciler
        self._operations = operations
        self._watch = watch
        self._units = units
        self._files = files
        self._states = states
        self._volumes = volumes
        self._outside = outside
        self._run = reconciler.run

    # --- snapshots

    async def take_snapshot(self, job: DataJob) -> None:
        """Copy the volume of a guest that is stopped meanwhile; ApplianceError where either fails."""
        failure: ApplianceError | OSError | None = None
        try:
            await self._stop(job, f"stopping for snapshot {job.work.snapshot}")
            self._say(job, f"taking snapshot {job.work.snapshot}")
            note = SnapshotNote(ADMINISTRATOR, job.work.old_format, job.work.started_at_us)
            await _copying(partial(self._volumes.take, job.name, job.work.snapshot, note))
        except (ApplianceError, OSError) as error:
            failure = error
        await self._start_again(job)
        if failure:
            raise failure
        job.message = f"snapshot {job.work.snapshot} taken{_stopped_for(job)}."

    async def end_snapshot(self, job: DataJob) -> None:
        """After an agent that died meanwhile: start the guest again."""
        there = await self._run(partial(self._volumes.has, job.name, job.work.snapshot))
        await self._start_again(job)
        if not there:
            raise ApplianceError(f"snapshot {job.work.snapshot} was not taken: {INTERRUPTED}.")
        job.message = f"snapshot {job.work.snapshot} taken."

    async def _start_again(self, job: DataJob) -> None:
        failure: ApplianceError | None = None
        if job.work.running:
            self._say(job, "starting again")
            try:
                await self._start(job)
            except ApplianceError as error:
                failure = error
        await self._end(job)
        if failure:
            raise failure

    # --- restoring

    async def restore(self, job: DataJob) -> None:
        """Make the snapshot the volume, from the phase in which that is; an error leaves it in the phase in
        which it occurred."""
        if job.work.phase is DataPhase.ROLLBACK:
            raise ApplianceError(job.work.reason)
        if job.work.phase is DataPhase.PREPARE:
            await self._prepare(job)
            await self._enter(job, DataPhase.SWITCH)
        if job.work.phase is DataPhase.SWITCH:
            await self._switch(job)
            await self._enter(job, DataPhase.TRIAL, data_format=job.work.new_format)
        if job.work.running:
            await self._try(job)
        await self._end(job)
        job.message = (
            f"{job.work.snapshot} is the data volume{_stopped_for(job)}; the data of before are snapshot "
            f"{job.work.aside}."
        )

    async def turn_back(self, job: DataJob, reason: str) -> None:
        """Have everything as before; ApplianceError where that fails."""
        untouched = job.work.phase is DataPhase.PREPARE
        job.work = replace(job.work, reason=reason)
        if not untouched:
            await self._enter(job, DataPhase.ROLLBACK, ignoring=True)
            self._say(job, f"going back: {reason}")
            if await self._run(partial(self._volumes.has, job.name, job.work.aside)):
                await self._units.stop(job.name)
        await self._run(partial(self._volumes.put_back, job.name, job.work.aside))
        job.state = replace(job.state, data_format=job.work.old_format)
        failure = ""
        if job.work.running and not untouched:
            try:
                await self._start(job)
            except ApplianceError as error:
                failure = f"; it does not start with them either: {error}"
        await self._end(job)
        job.message = (
            f"{job.work.snapshot} was not restored, the data are those of before: {reason}{failure}"
        )

    async def _prepare(self, job: DataJob) -> None:
        """Everything that takes time and needs no stop."""
        self._say(job, f"copying {job.work.snapshot}")
        await _copying(partial(self._volumes.bring, job.name, job.work.snapshot))
        if job.work.running:
            job.work = replace(job.work, baseline=await ask_patiently(self._outside, job.plan))
        if job.operation and job.operation.cancel_requested:
            raise ApplianceError(CANCELLED)

    async def _switch(self, job: DataJob) -> None:
        await self._stop(job, f"making {job.work.snapshot} the data volume")
        maker = f"restore of {job.work.snapshot}"
        note = SnapshotNote(maker, job.work.old_format, job.work.started_at_us)
        await self._run(partial(self._volumes.switch, job.name, job.work.aside, note))
        if await self._run(partial(self._files.needs_growth, job.plan)):
            await self._run(partial(self._files.grow, job.plan))

    async def _try(self, job: DataJob) -> None:
        """Start on the restored data, and ask."""
        self._say(job, f"starting with {job.work.snapshot}")
        await self._start(job)
        image = job.plan.image
        ready_s = image.manifest.service.ready_timeout_s if image else 0.0
        try:
            settled = self._watch.until(job.name, is_settled)
            await asyncio.wait_for(settled, ready_s + START_MARGIN_S)
        except TimeoutError as error:
            raise ApplianceError("it does not get ready") from error
        health = self._watch.health(job.name)
        excused = bool(job.work.baseline) and health.health is Health.DEGRADED
        if health.health is not Health.HEALTHY and not excused:
            raise ApplianceError(health.reason or f"it is {health.health}")
        if not job.work.baseline and (why := await ask_patiently(self._outside, job.plan)):
            raise ApplianceError(f"it does not answer from outside: {why}")
        if job.operation and job.operation.cancel_requested:
            raise ApplianceError(CANCELLED)

    # --- parts of them

    async def _stop(self, job: DataJob, message: str) -> None:
        self._say(job, message)
        if job.work.running:
            job.stopped_at_s = time.monotonic()
        await self._units.stop(job.name)

    async def _start(self, job: DataJob) -> None:
        await self._units.forget_failure(job.name)
        try:
            await self._units.start(job.name)
        except ApplianceError as error:
            self._watch.update(job.name, await self._units.watch(job.name))
            raise ApplianceError(self._watch.health(job.name).reason or str(error)) from error
        self._watch.update(job.name, await self._units.watch(job.name))
        if job.stopped_at_s:
            job.stopped_s = time.monotonic() - job.stopped_at_s

    async def keep(self, job: DataJob) -> None:
        """Have the work on disk before its first step."""
        await self._persist(job, job.work)

    async def _enter(
        self, job: DataJob, phase: DataPhase, *, data_format: int | None = None, ignoring: bool = False
    ) -> None:
        """Go on to a phase. Before a guest is given other data the disk has to know of it; later a full disk
        must not keep it from running."""
        work = replace(job.work, phase=phase)
        if data_format is not None:
            job.state = replace(job.state, data_format=data_format)
        await self._persist(job, work, ignoring=ignoring)
        job.work = work

    async def _end(self, job: DataJob) -> None:
        await self._persist(job, None, ignoring=True)

    async def _persist(self, job: DataJob, work: DataWork | None, *, ignoring: bool = False) -> None:
        job.state = replace(job.state, work=work)
        try:
            await self._run(partial(self._states.write, job.name, job.state))
        except (ApplianceError, OSError) as error:
            if not ignoring:
                raise
            _log.error("%s: %s, ignoring", job.name, error)

    def _say(self, job: DataJob, message: str) -> None:
        if job.operation:
            self._operations.progress(job.operation, str(job.work.phase), message)


async def _copying(copy: Callable[[], None]) -> None:
    """Copy in a thread of its own: where blocks are not shared it takes minutes, and everything else of the
    host is done in one thread."""
    await asyncio.get_running_loop().run_in_executor(None, copy)


def _stopped_for(job: DataJob) -> str:
    """How long the guest did not run, or ''."""
    return f"; stopped for {job.stopped_s * 1000:.0f} ms" if job.stopped_s else ""
