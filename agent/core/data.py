"""Data volumes: what they hold and take, snapshots that an administrator asks for, and going back to one.

The phases are drawn in agent.plan.data. As with swaps, what is under way is kept on disk, and taken up by
the next agent: a guest that was stopped for a snapshot is started again, a restore is undone or tried again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

from agent.core.data_steps import DataJob, DataSteps
from agent.core.operations import Operation, Operations, OperationState, now_us
from agent.core.reconcile import Reconciler
from agent.core.swap_steps import CANCELLED
from agent.core.watch import Watch
from agent.core.world import StateKeeper, Units, Volumes
from agent.model.data import DataKind, DataPhase, DataWork, Snapshot, Volume
from agent.model.errors import ApplianceError, Problem
from agent.model.names import is_snapshot_name
from agent.model.swap import SWAP_PREFIX, ApplianceState
from agent.plan.data import attributed, goes_back, snapshot_name, taken_up, unused_name, why_not_restored
from agent.plan.host import AppliancePlan
from agent.util.journal import Event, log_event

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataView:
    """A data volume, its format (0 where nobody wrote to it), its snapshots, and whether these share blocks
    with it."""

    volume: Volume
    data_format: int
    shares: bool
    snapshots: tuple[Snapshot, ...]


class DataKeeper:
    """Shows data volumes, and begins what is done with them: one thing at a time for each appliance."""

    def __init__(
        self,
        *,
        steps: DataSteps,
        reconciler: Reconciler,
        operations: Operations,
        watch: Watch,
        units: Units,
        states: StateKeeper,
        volumes: Volumes,
    ) -> None:
        self._steps = steps
        self._reconciler = reconciler
        self._operations = operations
        self._watch = watch
        self._units = units
        self._states = states
        self._volumes = volumes
        self._run = reconciler.run

    # --- looking

    async def view(self, name: str) -> DataView:
        """Everything about the data of an appliance; ApplianceError where there is none of that name."""
        self._reconciler.plan_of(name)
        return await self._run(partial(self._look, name))

    def _look(self, name: str) -> DataView:
        state, volume = self._states.read(name), self._volumes.volume(name)
        shares = bool(volume.size_bytes) and self._volumes.can_share(name)
        found = tuple(attributed(self._volumes.snapshot_files(name), state))
        return DataView(volume, state.data_format, shares, found)

    # --- beginning

    async def take(self, name: str, snapshot: str) -> tuple[Operation, str]:
        """Begin to take a snapshot, and what it will be called: as asked, or by the time where that is ''.

        A guest that runs is stopped meanwhile. ApplianceError where there is no volume, or no room for
        that name, or an operation is under way.
        """
        plan, view = await self._usable(name)
        used = [entry.name for entry in view.snapshots]
        if snapshot in used:
            raise ApplianceError(f"{name} has a snapshot “{snapshot}”.", problem=Problem.ALREADY_EXISTS)
        chosen = snapshot or unused_name(snapshot_name(now_us()), used)
        _check_name(chosen)
        running = self._is_running(plan)
        work = DataWork(DataKind.SNAPSHOT, DataPhase.SWITCH, chosen, running, now_us())
        return self._begin(plan, work), chosen

    async def restore(self, name: str, snapshot: str) -> tuple[Operation, str]:
        """Begin to make a snapshot the volume, and what the data of before will be called as one.

        ApplianceError where there is no such snapshot, the image cannot read it, or an operation is under
        way.
        """
        plan, view = await self._usable(name)
        found = _find(view, name, snapshot)
        if plan.image is None:
            raise ApplianceError(f"{name} has no image.", problem=Problem.NOT_SUPPORTED)
        if wrong := why_not_restored(found, plan.image.manifest, data_bytes=plan.data_bytes):
            message = f"{name}: “{snapshot}” cannot become the data volume: {wrong}."
            raise ApplianceError(message, problem=Problem.NOT_SUPPORTED)
        running = self._is_running(plan)
        aside = unused_name(f"before-{snapshot_name(now_us())}", [entry.name for entry in view.snapshots])
        work = DataWork(
            kind=DataKind.RESTORE,
            phase=DataPhase.PREPARE,
            snapshot=snapshot,
            running=running,
            started_at_us=now_us(),
            aside=aside,
            new_format=found.note.data_format if found.note else 0,
        )
        return self._begin(plan, work), aside

    async def remove(self, name: str, snapshot: str) -> None:
        """Remove a snapshot; ApplianceError where it is not there, or belongs to a swap, or something is
        under way."""
        view = await self.view(name)
        self._operations.check_free(name)
        found = _find(view, name, snapshot)
        if found.name.startswith(SWAP_PREFIX) and found.note:
            raise ApplianceError(
                f"“{snapshot}” belongs to {found.note.maker}.",
                problem=Problem.IN_USE,
                remedy="It goes when the image of before is not kept any longer (`update: keep:`).",
            )
        await self._run(partial(self._volumes.delete, name, snapshot))

    async def _usable(self, name: str) -> tuple[AppliancePlan, DataView]:
        plan, view = self._reconciler.plan_of(name), await self.view(name)
        if not plan.data_bytes or not view.volume.size_bytes:
            raise ApplianceError(f"{name} has no data volume.", problem=Problem.NOT_FOUND)
        return plan, view

    def _is_running(self, plan: AppliancePlan) -> bool:
        """Whether its guest runs; ApplianceError where it does and could not start again."""
        name = plan.appliance.name
        if not self._watch.status(name).is_running:
            return False
        if not plan.can_start:
            raise ApplianceError(
                f"{name} is not stopped for that, it could not start again: {plan.inputs.refusal}.",
                problem=Problem.NOT_SUPPORTED,
                remedy="Stop it first, if it is to be.",
            )
        return True

    def _begin(self, plan: AppliancePlan, work: DataWork) -> Operation:
        name = plan.appliance.name

        async def act(operation: Operation) -> OperationState:
            # Nobody else writes the state from here on; until now, somebody may have.
            state = await self._run(partial(self._states.read, name))
            if state.swap:
                raise ApplianceError(f"{name}: a swap is under way.", problem=Problem.BUSY)
            job = DataJob(operation, plan, state, replace(work, old_format=state.data_format))
            await self._steps.keep(job)
            return await self._carry_through(job)

        return self._operations.begin(str(work.kind), name, act)

    # --- after a crash

    async def settle(self) -> None:
        """Put right what must not be seen by anything that starts: called before the first plan is made.

        A restore whose data no guest has been given is undone, and one that was going back is back.
        """
        for name in await self._run(self._states.names):
            try:
                await self._settle(name)
            except (ApplianceError, OSError) as error:
                _log.error("%s: %s", name, error)

    async def _settle(self, name: str) -> None:
        state = await self._run(partial(self._states.read, name))
        there = await self._is_aside(name, state)
        after = taken_up(state, aside_there=there)
        if state.work is None or not goes_back(after):
            return
        if there:
            await self._units.stop(name)
        # The data first: should there be no space for the state, they are those of before.
        await self._run(partial(self._volumes.put_back, name, state.work.aside))
        await self._run(partial(self._states.write, name, after))

    async def _is_aside(self, name: str, state: ApplianceState) -> bool:
        aside = state.work.aside if state.work else ""
        return bool(aside) and await self._run(partial(self._volumes.has, name, aside))

    async def resume(self) -> None:
        """Take up what is under way. Units are started: not while the agent itself is starting."""
        for name, plan in list(self._reconciler.plan.appliances.items()):
            try:
                await self._resume(plan)
            except (ApplianceError, OSError) as error:
                _log.error("%s: what was done with its data cannot be taken up: %s", name, error)

    async def _resume(self, plan: AppliancePlan) -> None:
        name = plan.appliance.name
        found = await self._run(partial(self._states.read, name))
        state = taken_up(found, aside_there=await self._is_aside(name, found))
        if state.work is None:
            return
        job = DataJob(None, plan, state, state.work)

        async def act(operation: Operation) -> OperationState:
            job.operation = operation
            return await self._carry_through(job, resumed=True)

        self._operations.begin(str(state.work.kind), name, act)

    # --- acting

    async def _carry_through(self, job: DataJob, *, resumed: bool = False) -> OperationState:
        if job.work.kind is DataKind.SNAPSHOT:
            await (self._steps.end_snapshot(job) if resumed else self._steps.take_snapshot(job))
            return self._ended(job, Event.SNAPSHOT_TAKEN)
        try:
            await self._steps.restore(job)
        except (ApplianceError, OSError) as error:
            reason = str(error)
            await self._steps.turn_back(job, reason)
            self._ended(job, Event.RESTORE_FAILED)
            return OperationState.CANCELLED if reason == CANCELLED else OperationState.FAILED
        return self._ended(job, Event.DATA_RESTORED)

    def _ended(self, job: DataJob, event: Event) -> OperationState:
        if job.operation:
            job.operation.message = job.message
        fields = {"snapshot": job.work.snapshot, "reason": job.work.reason}
        log_event(event, f"Appliance {job.name}: {job.message}", appliance=job.name, **fields)
        return OperationState.SUCCEEDED


def _check_name(snapshot: str) -> None:
    if not is_snapshot_name(snapshot):
        rule = "41 or fewer lower-case letters, digits, dots and dashes, not beginning with . or -"
        raise ApplianceError(
            f"“{snapshot}” is no name for a snapshot: {rule}.", problem=Problem.NOT_SUPPORTED
        )
    if snapshot.startswith(SWAP_PREFIX):
        message = f"“{snapshot}”: names that begin with {SWAP_PREFIX} belong to swaps."
        raise ApplianceError(message, problem=Problem.NOT_SUPPORTED)


def _find(view: DataView, name: str, snapshot: str) -> Snapshot:
    found = next((entry for entry in view.snapshots if entry.name == snapshot), None)
    if found is None:
        raise ApplianceError(
            f"{name} has no snapshot “{snapshot}”.",
            problem=Problem.NOT_FOUND,
            remedy=f"`appliancectl data snapshots {name}` lists them.",
        )
    return found
