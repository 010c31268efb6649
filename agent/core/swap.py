"""Swaps: keeps the state machine of agent.plan.swap on disk, has agent.core.swap_steps take its steps, and
takes up after a crash what was under way.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from agent.core.operations import Operation, Operations, OperationState, now_us
from agent.core.reconcile import Reconciler
from agent.core.swap_steps import CANCELLED, Job, Request, Steps, SwapError
from agent.core.watch import Watch
from agent.core.world import Files, Images, StateKeeper, Units, Volumes
from agent.model.errors import ApplianceError, HostError, ImageError, Problem
from agent.model.image import Image, ImageReference
from agent.model.names import check_instance_of
from agent.model.swap import ApplianceState, HistoryEntry, ImageTitle, Phase, Result, Swap
from agent.plan.host import AppliancePlan
from agent.plan.swap import Step, advance, begin, reads_back
from agent.util.journal import Event, log_event

_log = logging.getLogger(__name__)

_EVENTS = {
    Result.COMMITTED: Event.SWAP_COMMITTED,
    Result.REFUSED: Event.SWAP_REFUSED,
    Result.ROLLED_BACK: Event.SWAP_ROLLED_BACK,
    Result.FAILED: Event.SWAP_FAILED,
}
_INTERRUPTED = "the agent was interrupted"
_MUST_BE_KEPT = {Step.PREPARED, Step.SWITCHED}
"""Before the new image writes anything, the disk has to know of it; later a full disk must not keep an
appliance from running."""


class Swapper:
    """Begins swaps, one for each appliance at a time."""

    def __init__(
        self,
        *,
        steps: Steps,
        reconciler: Reconciler,
        operations: Operations,
        watch: Watch,
        units: Units,
        files: Files,
        images: Images,
        states: StateKeeper,
        volumes: Volumes,
    ) -> None:
        self._steps = steps
        self._reconciler = reconciler
        self._operations = operations
        self._watch = watch
        self._units = units
        self._files = files
        self._images = images
        self._states = states
        self._volumes = volumes
        self._run = reconciler.run

    # --- beginning

    async def swap(self, name: str, reference: ImageReference | None, request: Request) -> Operation:
        """Begin to replace an appliance's image by the newest one that `reference` may mean; without one,
        by the newest that its configuration may mean.

        ApplianceError where there is no such appliance or image, it runs that image, or an operation is
        under way.
        """
        plan = self._reconciler.plan_of(name)
        image = await self._run(partial(self._images.resolve, reference or plan.appliance.image))
        return await self._begin(name, image, request)

    async def rollback(self, name: str, *, with_data: bool) -> Operation:
        """Begin to go back to the image before the last swap; `with_data` also to the data volume of
        then."""
        plan = self._reconciler.plan_of(name)
        entry = _last_committed(await self._read(name), plan.image)
        if entry is None:
            raise ApplianceError(f"{name}: there is no swap to go back from.", problem=Problem.NOT_FOUND)
        if with_data and not entry.snapshot:
            raise ApplianceError(
                f"{name}: no snapshot of its data was made at that swap.",
                problem=Problem.NOT_FOUND,
                remedy="`appliancectl rollback` without --with-data keeps the data as it is.",
            )
        if with_data and not await self._run(partial(self._volumes.has, name, entry.snapshot)):
            raise ApplianceError(
                f"{name}: the snapshot {entry.snapshot} is gone.", problem=Problem.NOT_FOUND
            )
        image = await self._run(partial(self._images.get, entry.old.digest))
        restore = entry.snapshot if with_data else ""
        return await self._begin(name, image, Request(kind="rollback", accept=True, restore=restore))

    async def _begin(self, name: str, image: Image, request: Request) -> Operation:
        old = self._reconciler.plan_of(name)
        state = await self._read(name)
        _check_free(name, state)
        if old.image is None or not old.can_start:
            raise ApplianceError(f"{name} has no image that could start.", problem=Problem.NOT_SUPPORTED)
        if old.image.digest == image.digest:
            raise ImageError(f"{name} has {image.manifest.title} already.", problem=Problem.ALREADY_EXISTS)
        if request.automatic and (bad := state.quarantined(image.digest)):
            raise ImageError(
                f"{name}: {bad.image} is quarantined: {bad.reason}", problem=Problem.NOT_SUPPORTED
            )
        swap = Swap(
            number=state.swaps + 1,
            phase=Phase.PREPARE,
            old=title_of(old.image),
            new=title_of(image),
            wanted=str(old.appliance.image),
            running=self._watch.status(name).is_running,
            soak_s=old.appliance.update.soak_s,
            started_at_us=now_us(),
            automatic=request.automatic,
            restore=request.restore,
            old_format=state.data_format,
            to_old_data=bool(request.restore) or not reads_back(old.image.manifest, image.manifest),
        )
        new = await self._steps.plan_with(old, title_of(image))

        async def work(operation: Operation) -> OperationState:
            # Nobody else writes the state from here on; until now, somebody may have.
            latest = await self._read(name)
            _check_free(name, latest)
            begun = replace(swap, number=latest.swaps + 1, old_format=latest.data_format)
            job = Job(name, operation, begin(latest, begun), old, new, accept=request.accept)
            await self._persist(name, job.state)
            return await self._carry_through(job)

        return self._operations.begin(request.kind, name, work)

    async def examine(self, name: str, image: Image) -> None:
        """Find out what a swap would before it stops anything; ApplianceError as it would fail.

        An operation of its own: neither a swap nor another check may come across it.
        """
        old, state = self._reconciler.plan_of(name), await self._read(name)
        new = await self._steps.plan_with(old, title_of(image))
        errors: list[ApplianceError] = []

        async def work(operation: Operation) -> OperationState:
            phrase = f"checking {image.manifest.reference}"
            self._operations.progress(operation, str(Phase.PREPARE), phrase)
            try:
                await self._steps.examine(old, new, data_format=state.data_format, accept=False)
            except ApplianceError as error:
                errors.append(error)
                raise
            except OSError as error:
                errors.append(HostError(f"{error.filename or 'the host'}: {error.strerror}"))
                raise errors[0] from error
            operation.message = f"{image.manifest.reference} can stand in"
            return OperationState.SUCCEEDED

        await self._operations.finished(self._operations.begin("check", name, work))
        for error in errors:
            raise error

    async def state(self, name: str) -> ApplianceState:
        """What is remembered of an appliance; ApplianceError where there is none of that name."""
        self._reconciler.plan_of(name)
        return await self._read(name)

    async def clear_quarantine(self, name: str, image: str) -> int:
        """Let images be tried again by themselves; how many. `image` is a digest, '' for all.

        ApplianceError where an operation is under way: it has the state in its hands.
        """
        state = await self.state(name)
        _check_free(name, state)
        self._operations.check_free(name)
        kept = tuple(entry for entry in state.quarantine if image and str(entry.image.digest) != image)
        await self._run(partial(self._states.write, name, replace(state, quarantine=kept)))
        return len(state.quarantine) - len(kept)

    # --- after a crash

    async def settle(self) -> None:
        """Put right what must not be seen by anything that starts: called before the first plan is made.

        A swap that had not switched is undone, and data that was to be restored is.
        """
        for name in await self._run(self._states.names):
            try:
                await self._settle(name)
            except (ApplianceError, OSError) as error:
                _log.error("%s: %s", name, error)

    async def _settle(self, name: str) -> None:
        state = await self._read(name)
        if state.swap is None:
            return
        if state.swap.phase is Phase.PREPARE:
            await self._end_check(name)
        state = await self._settled(name)
        # The data first: should there be no space for the state, they are those of the image in force.
        if (swap := state.swap) and swap.phase is Phase.ROLLBACK and swap.to_old_data and swap.snapshot:
            # What it would still write is going to be thrown away, and it may take its time.
            await self._units.kill(name)
            await self._units.stop(name)
            restore = partial(self._volumes.restore, name, swap.snapshot, aside=swap.restore)
            await self._run(restore)
            state = replace(state, data_format=swap.old_format)
        await self._persist(name, state)
        if state.swap is None:
            self._report(name, state.history[-1])

    async def _settled(self, name: str) -> ApplianceState:
        """As a swap is taken up: what had not switched goes back, what was watched is tried from the start.

        Where its snapshot is gone, it has gone back already, but there was no space to say so.
        """
        state = await self._read(name)
        swap = state.swap
        if swap is None or swap.phase is Phase.ROLLBACK:
            return state
        written = state.data_format
        if swap.phase not in {Phase.PREPARE, Phase.SWITCH}:
            if not swap.snapshot or await self._run(partial(self._volumes.has, name, swap.snapshot)):
                return replace(state, swap=replace(swap, phase=Phase.TRIAL))
            written = swap.old_format if swap.to_old_data else written
        return advance(state, Step.FAILED, now_us=now_us(), reason=_INTERRUPTED, data_format=written)

    async def _end_check(self, name: str) -> None:
        """Nobody waits any more for what the check has to say."""
        try:
            await self._units.stop(check_instance_of(name))
            await self._run(partial(self._files.remove_check, name))
        except ApplianceError as error:
            _log.warning("%s: %s, ignoring", name, error)

    async def resume(self) -> None:
        """Take up every swap that is under way. Units are started: not while the agent itself is
        starting."""
        for name in list(self._reconciler.plan.appliances):
            try:
                await self._resume(name)
            except (ApplianceError, OSError) as error:
                _log.error("%s: the swap cannot be taken up: %s", name, error)

    async def _resume(self, name: str) -> None:
        state, plan = await self._settled(name), self._reconciler.plan_of(name)
        if state.swap is None:
            await self._tidy(name, plan, state)
            return
        old = await self._steps.plan_with(plan, state.swap.old)
        new = await self._steps.plan_with(plan, state.swap.new)

        async def work(operation: Operation) -> OperationState:
            return await self._carry_through(Job(name, operation, state, old, new))

        self._operations.begin("swap", name, work)

    # --- the machine

    async def _carry_through(self, job: Job) -> OperationState:
        """Take step after step until the swap has ended; how it did."""
        await self._reconciler.idle()
        try:
            await self._take_steps(job)
        finally:
            if job.measurement:
                job.measurement.stop()
        if job.state.swap is not None:
            job.operation.message = "the host is going down; the next agent goes on with it"
            return OperationState.CANCELLED
        entry = job.state.history[-1]
        await self._end(job, entry)
        job.operation.message = _sentence(entry)
        if entry.result is Result.COMMITTED:
            return OperationState.SUCCEEDED
        return OperationState.CANCELLED if entry.reason == CANCELLED else OperationState.FAILED

    async def _take_steps(self, job: Job) -> None:
        while (swap := job.state.swap) is not None:
            phrase = _PHRASES[swap.phase].format(swap=swap)
            self._operations.progress(job.operation, str(swap.phase), phrase)
            try:
                await self._take_step(job)
            except (ApplianceError, OSError) as error:
                if await self._is_going_down(error):
                    return
                await self._fail(job, error)

    async def _is_going_down(self, error: Exception) -> bool:
        """Whether a step failed because nothing can be started and stopped any more: that proves nothing."""
        if isinstance(error, ApplianceError) and error.problem is Problem.UNAVAILABLE:
            return True
        try:
            return await self._units.is_going_down()
        except ApplianceError:
            return True

    async def _take_step(self, job: Job) -> None:
        step = await self._steps.take(job)
        written = _format_of(job.new) or job.state.data_format
        state = advance(job.state, step, now_us=now_us(), data_format=written)
        await self._persist(job.name, state, ignoring=step not in _MUST_BE_KEPT)
        job.state = state

    async def _fail(self, job: Job, error: Exception) -> None:
        """Turn back; the data volume is as it is until it is restored. Who was stopped stays stopped."""
        if isinstance(error, SwapError) and error.stopped:
            job.state = replace(job.state, swap=replace(job.swap, running=False))
        job.state = advance(
            job.state,
            Step.FAILED,
            now_us=now_us(),
            reason=str(error),
            blame=isinstance(error, SwapError) and error.blame,
            data_format=job.state.data_format,
        )
        await self._persist(job.name, job.state, ignoring=True)

    async def _end(self, job: Job, entry: HistoryEntry) -> None:
        self._report(job.name, entry)
        if entry.result is Result.FAILED:
            await self._steps.give_up(job, entry)
        try:
            await self._tidy(job.name, job.old, job.state)
        except (ApplianceError, OSError) as error:
            _log.error("%s: %s, ignoring", job.name, error)
        # There may have been no space to say how it ended, before what it left was removed.
        await self._persist(job.name, job.state, ignoring=True)

    async def _tidy(self, name: str, plan: AppliancePlan, state: ApplianceState) -> None:
        """Keep the images and snapshots that one may go back to, and nothing else."""
        lasting = [entry for entry in state.history if entry.result in {Result.COMMITTED, Result.FAILED}]
        kept = lasting[-plan.appliance.update.keep :]
        failed = [entry for entry in kept if entry.result is Result.FAILED]
        previous = [*(entry.new.digest for entry in failed), *(entry.old.digest for entry in reversed(kept))]

        def tidy() -> None:
            self._files.link_previous(name, previous)
            self._files.link_next(name, None)
            self._volumes.remove(name, but={entry.snapshot for entry in kept})

        if state.history:
            await self._run(tidy)

    async def _read(self, name: str) -> ApplianceState:
        return await self._run(partial(self._states.read, name))

    async def _persist(self, name: str, state: ApplianceState, *, ignoring: bool = False) -> None:
        """Keep a state on disk; with `ignoring`, go on even where there is no space for it."""
        try:
            await self._run(partial(self._states.write, name, state))
        except (ApplianceError, OSError) as error:
            if not ignoring:
                raise
            _log.error("%s: %s, ignoring", name, error)

    def _report(self, name: str, entry: HistoryEntry) -> None:
        log_event(
            _EVENTS[entry.result],
            f"Appliance {name}: {_sentence(entry)}",
            appliance=name,
            image=entry.new.reference,
            image_digest=str(entry.new.digest),
            old_image=entry.old.reference,
            old_image_digest=str(entry.old.digest),
            operation=str(entry.number),
            result=str(entry.result),
            reason=entry.reason,
            downtime_msec=str(round(entry.downtime_ms)) if entry.downtime_ms else "",
        )


_PHRASES = {
    Phase.PREPARE: "checking {swap.new.reference}",
    Phase.SWITCH: "stopping {swap.old.reference}",
    Phase.TRIAL: "starting {swap.new.reference}",
    Phase.SOAK: "watching {swap.new.reference} for {swap.soak_s:g} s",
    Phase.ROLLBACK: "going back to {swap.old.reference}: {swap.reason}",
}


def _check_free(name: str, state: ApplianceState) -> None:
    """ApplianceError BUSY where a swap is under way, even if no agent has taken it up yet."""
    if state.swap:
        raise ApplianceError(
            f"{name}: a swap is under way ({state.swap.phase}).",
            problem=Problem.BUSY,
            remedy=f"`appliancectl history {name}` shows how it ends.",
        )


def title_of(image: Image) -> ImageTitle:
    """An image as history names it."""
    return ImageTitle(image.digest, image.manifest.reference)


def _format_of(plan: AppliancePlan) -> int:
    data = plan.image.manifest.data if plan.image else None
    return data.format if data else 0


def _last_committed(state: ApplianceState, image: Image | None) -> HistoryEntry | None:
    """The swap that led to the image it has."""
    committed = (entry for entry in reversed(state.history) if entry.result is Result.COMMITTED)
    return next((entry for entry in committed if image and entry.new.digest == image.digest), None)


def _sentence(entry: HistoryEntry) -> str:
    outage = f"; no answer for {entry.downtime_ms:.0f} ms" if entry.downtime_ms else ""
    match entry.result:
        case Result.COMMITTED:
            return f"swapped from {entry.old.reference} to {entry.new.reference}{outage}."
        case Result.REFUSED:
            return f"stays with {entry.old.reference}, {entry.new.reference} was refused: {entry.reason}"
        case Result.ROLLED_BACK:
            return f"back to {entry.old.reference}, {entry.new.reference} failed: {entry.reason}"
        case Result.FAILED:
            return f"neither {entry.new.reference} nor {entry.old.reference} runs: {entry.reason}"
