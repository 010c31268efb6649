"""Swaps of images and configurations: keeps the state machine of agent.plan.swap on disk, has
agent.core.swap_steps take its steps, and takes up after a crash what was under way.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from agent.core.operations import Operation, Operations, OperationState, now_us
from agent.core.reconcile import Reconciler
from agent.core.swap_report import phrase, report, sentence
from agent.core.swap_steps import CANCELLED, Job, Request, Steps, SwapError
from agent.core.watch import Watch
from agent.core.world import Files, GenerationKeeper, Images, StateKeeper, Units, Volumes
from agent.model.errors import ApplianceError, HostError, ImageError, Problem
from agent.model.generation import Generation
from agent.model.image import Image, ImageReference
from agent.model.names import check_instance_of
from agent.model.swap import ApplianceState, HistoryEntry, ImageTitle, Phase, Result, Swap
from agent.plan.host import AppliancePlan
from agent.plan.swap import Step, advance, begin, reads_back

_log = logging.getLogger(__name__)

RECONFIGURATION = "reconfiguration"
"""What operations are called that put a configuration on trial."""

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
        generations: GenerationKeeper,
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
        self._generations = generations
        self._run = reconciler.run

    # --- beginning

    async def swap(self, name: str, reference: ImageReference | None, request: Request) -> Operation:
        """Begin to replace an appliance's image by the newest one that `reference` may mean; without one,
        by the newest that its configuration may mean.

        ApplianceError where there is no such appliance or image, it runs that image, or an operation is
        under way.
        """
        old = self._reconciler.plan_of(name)
        image = await self._run(partial(self._images.resolve, reference or old.appliance.image))
        return await self._begin_with(old, await self._steps.with_image(old, title_of(image)), request)

    async def configure(self, name: str, generation: Generation) -> Operation:
        """Begin to put a configuration on trial; ApplianceError as above."""
        old = self._reconciler.plan_of(name)
        new = await self._reconciler.plan_with(name, generation)
        return await self._begin_with(old, new, Request(kind=RECONFIGURATION, accept=True), generation)

    async def rollback(self, name: str, *, with_data: bool) -> Operation:
        """Begin to go back to the image and the configuration before the last swap; `with_data` also to the
        data volume of then."""
        old = self._reconciler.plan_of(name)
        entry = _last_committed(await self._read(name), old.image)
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
        restore = entry.snapshot if with_data else ""
        request = Request(kind="rollback", accept=True, back=True, restore=restore)
        generation = await self._steps.generation(name, entry.old_generation)
        new = await self._reconciler.plan_with(name, generation) if generation else old
        return await self._begin_with(old, await self._steps.with_image(new, entry.old), request, generation)

    async def _begin_with(
        self, old: AppliancePlan, new: AppliancePlan, request: Request, generation: Generation | None = None
    ) -> Operation:
        """Begin to go from one plan to another; `generation` is the new one's configuration, if it has one
        of its own."""
        name = old.appliance.name
        state = await self._read(name)
        _check_free(name, state)
        if old.image is None or not old.can_start:
            raise ApplianceError(f"{name} has no image that could start.", problem=Problem.NOT_SUPPORTED)
        if new.image is None:
            raise ApplianceError(f"{name}: {new.inputs.refusal}.", problem=Problem.NOT_FOUND)
        image = new.image
        if old.image.digest == image.digest and old.inputs.generation == new.inputs.generation:
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
            old_generation=old.inputs.generation,
            new_generation=new.inputs.generation,
            old_wanted=_wanted(old, state),
            new_wanted=_wanted(new, state) if request.kind == RECONFIGURATION else str(new.appliance.image),
            running=self._watch.status(name).is_running,
            soak_s=new.appliance.update.soak_s,
            started_at_us=now_us(),
            automatic=request.automatic,
            back=request.back,
            restore=request.restore,
            old_format=state.data_format,
            to_old_data=bool(request.restore) or not reads_back(old.image.manifest, image.manifest),
        )

        async def work(operation: Operation) -> OperationState:
            # Nobody else writes the state from here on; until now, somebody may have.
            latest = await self._read(name)
            _check_free(name, latest)
            begun = replace(swap, number=latest.swaps + 1, old_format=latest.data_format)
            job = Job(name, operation, begin(latest, begun), old, new, accept=request.accept)
            if generation:
                await self._run(partial(self._generations.write, name, generation))
            await self._persist(name, job.state)
            return await self._carry_through(job)

        return self._operations.begin(request.kind, name, work)

    async def examine(self, name: str, image: Image) -> None:
        """Find out what a swap would before it stops anything; ApplianceError as it would fail.

        An operation of its own: neither a swap nor another check may come across it.
        """
        old, state = self._reconciler.plan_of(name), await self._read(name)
        new = await self._steps.with_image(old, title_of(image))
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

    def watches(self) -> list[Operation]:
        """Operations by which configurations are only watched any more."""
        return [
            operation
            for operation in self._operations.all()
            if operation.kind == RECONFIGURATION
            and operation.phase == Phase.SOAK
            and operation.state is OperationState.RUNNING
        ]

    async def hurry(self) -> None:
        """Let these configurations count from now on, so that they can be followed by others."""
        for operation in self.watches():
            operation.request_hurry()
            await self._operations.finished(operation)

    async def trial_of(self, name: str, generation: Generation) -> Operation | None:
        """The operation by which just this configuration is tried."""
        operation, state = self._operations.running(name), await self._read(name)
        tried = state.swap is not None and state.swap.new_generation == generation.id
        return operation if tried else None

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
            report(name, state.history[-1])

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
        state = await self._settled(name)
        swap = state.swap
        if swap is None:
            plan = self._reconciler.plan_of(name)
            await self._tidy(name, plan, state)
            await self._forget_generations(name, plan, state)
            return
        old = await self._steps.plan_of(name, swap.old, swap.old_generation)
        new = await self._steps.plan_of(name, swap.new, swap.new_generation)

        async def work(operation: Operation) -> OperationState:
            return await self._carry_through(Job(name, operation, state, old, new))

        self._operations.begin("swap" if swap.changes_image else RECONFIGURATION, name, work)

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
        job.operation.message = sentence(entry)
        if entry.result is Result.COMMITTED:
            return OperationState.SUCCEEDED
        return OperationState.CANCELLED if entry.reason == CANCELLED else OperationState.FAILED

    async def _take_steps(self, job: Job) -> None:
        while (swap := job.state.swap) is not None:
            self._operations.progress(job.operation, str(swap.phase), phrase(swap))
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
        report(job.name, entry)
        if entry.result is Result.FAILED:
            await self._steps.give_up(job, entry)
        try:
            await self._tidy(job.name, job.old, job.state)
        except (ApplianceError, OSError) as error:
            _log.error("%s: %s, ignoring", job.name, error)
        # There may have been no space to say how it ended, before what it left was removed.
        if await self._persist(job.name, job.state, ignoring=True):
            await self._forget_generations(job.name, job.old, job.state)

    async def _forget_generations(self, name: str, plan: AppliancePlan, state: ApplianceState) -> None:
        """Keep the configurations that one may go back to; `state` is what the disk has."""
        configurations = [entry for entry in _lasting(state) if entry.old_generation]
        former = {entry.old_generation for entry in configurations[-plan.appliance.update.keep :]}
        forget = partial(self._generations.remove, name, but={state.generation, *former})
        try:
            await self._run(forget)
        except ApplianceError as error:
            _log.warning("%s: %s, ignoring", name, error)

    async def _tidy(self, name: str, plan: AppliancePlan, state: ApplianceState) -> None:
        """Keep the images and snapshots that one may go back to, and nothing else."""
        images = [entry for entry in _lasting(state) if entry.changed_image or entry.snapshot]
        kept = images[-plan.appliance.update.keep :]
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

    async def _persist(self, name: str, state: ApplianceState, *, ignoring: bool = False) -> bool:
        """Keep a state on disk; with `ignoring`, go on even where there is no space for it. Whether the disk
        has it."""
        try:
            await self._run(partial(self._states.write, name, state))
        except (ApplianceError, OSError) as error:
            if not ignoring:
                raise
            _log.error("%s: %s, ignoring", name, error)
            return False
        return True


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


def _wanted(plan: AppliancePlan, state: ApplianceState) -> str:
    """What `image:` says, as far as that is what the image was chosen by: it is not where the one that is
    meant is missing."""
    reference, image = plan.appliance.image, plan.image
    chosen = image and (state.image, state.wanted) == (image.digest, str(reference))
    return str(reference) if image and (chosen or image.matches(reference)) else ""


def _format_of(plan: AppliancePlan) -> int:
    data = plan.image.manifest.data if plan.image else None
    return data.format if data else 0


def _lasting(state: ApplianceState) -> list[HistoryEntry]:
    """The swaps that left something to go back to."""
    return [entry for entry in state.history if entry.result in {Result.COMMITTED, Result.FAILED}]


def _last_committed(state: ApplianceState, image: Image | None) -> HistoryEntry | None:
    """The swap that led to the image it has, of all that did the last one."""
    committed = (entry for entry in reversed(state.history) if entry.result is Result.COMMITTED)
    return next((entry for entry in committed if image and entry.new.digest == image.digest), None)
