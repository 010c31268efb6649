"""The steps of a swap, one for each phase of agent.plan.swap. Each is safe to take twice.

    prepare    everything that can be known while the old guest serves: role, formats, requests, lint
    switch     stop, snapshot
    trial      start, first answer
    soak       watch
    rollback   stop, old data if need be, start the old image

A step returns what leads on, or raises: then the swap turns back. agent.core.swap keeps the state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from agent.core.health import FROM_OUTSIDE, failure_reason, is_of_the_guest, is_settled
from agent.core.operations import Operation, now_us
from agent.core.outside import ask_patiently
from agent.core.planner import Planner
from agent.core.reconcile import Reconciler
from agent.core.watch import Watch
from agent.core.world import Console, Files, Images, Measurement, Outside, Units, Volumes
from agent.model.errors import ApplianceError, ImageError, Problem, UnitError
from agent.model.generation import Generation
from agent.model.guest import RELOAD_FAILED
from agent.model.health import Health, HealthState
from agent.model.image import Manifest
from agent.model.swap import (
    SWAP_PREFIX,
    ApplianceState,
    HistoryEntry,
    ImageTitle,
    Phase,
    Snapshots,
    Swap,
)
from agent.plan.dropin import START_MARGIN_S
from agent.plan.generations import can_reload
from agent.plan.host import AppliancePlan
from agent.plan.launch import render_refusal
from agent.plan.swap import Step, judge, why_unreadable

_log = logging.getLogger(__name__)

BOOT_TIMEOUT_S = 300.0
BOOT_PAUSE_S = 0.5
CANCELLED = "cancelled"
"""Why a swap went back that somebody has cancelled."""
STOPPED = "it was stopped before it had proven itself"
"""Why a swap went back whose guest somebody has stopped."""


class SwapError(ApplianceError):
    """A step failed; `blame` says whether that is the new image's fault."""

    def __init__(self, message: str, *, blame: bool = False, stopped: bool = False) -> None:
        super().__init__(message)
        self.blame = blame
        self.stopped = stopped


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. `accept` grants what the new image wants beyond the old one; `back` says that it
    is what was before; `restore` names the snapshot that is to become the data volume."""

    kind: str = "swap"
    accept: bool = False
    automatic: bool = False
    back: bool = False
    restore: str = ""


@dataclass(slots=True)
class Job:
    """A swap under way: its state as it is on disk, and what was made for it. `accept` is as in Request;
    `restarts` is how often systemd had started the new guest anew when its trial began. `untouched` says
    that the old guest serves as it did."""

    name: str
    operation: Operation
    state: ApplianceState
    old: AppliancePlan
    new: AppliancePlan
    accept: bool = False
    measurement: Measurement | None = None
    restarts: int = 0
    untouched: bool = False

    @property
    def swap(self) -> Swap:
        """The swap; there is one until it has ended."""
        if self.state.swap is None:
            raise LookupError(f"{self.name}: the swap has ended")
        return self.state.swap


class Steps:
    """Takes the step of the phase in which a swap is."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        planner: Planner,
        watch: Watch,
        units: Units,
        files: Files,
        images: Images,
        volumes: Volumes,
        outside: Outside,
        console: Console,
    ) -> None:
        self._reconciler = reconciler
        self._planner = planner
        self._watch = watch
        self._units = units
        self._files = files
        self._images = images
        self._volumes = volumes
        self._outside = outside
        self._console = console
        self._run = reconciler.run
        self._steps: dict[Phase, Callable[[Job], Awaitable[Step]]] = {
            Phase.PREPARE: self._prepare,
            Phase.SWITCH: self._switch,
            Phase.TRIAL: self._try,
            Phase.SOAK: self._soak,
            Phase.ROLLBACK: self._roll_back,
        }

    async def take(self, job: Job) -> Step:
        """The next step; ApplianceError where it fails."""
        return await self._steps[job.swap.phase](job)

    async def with_image(self, plan: AppliancePlan, title: ImageTitle) -> AppliancePlan:
        """A plan with another image; ImageError where that has left the store."""
        image = await self._run(partial(self._images.get, title.digest))
        return await self._run(partial(self._planner.with_image, plan, image))

    async def plan_of(self, name: str, title: ImageTitle, generation: str) -> AppliancePlan:
        """What an appliance is with this image and this configuration; ApplianceError where one of them
        is gone."""
        plan, kept = self._reconciler.plan_of(name), await self.generation(name, generation)
        if kept:
            plan = await self._reconciler.plan_with(name, kept)
        return await self.with_image(plan, title)

    async def generation(self, name: str, generation: str) -> Generation | None:
        """A configuration that was kept; None where the appliance has it now, or '' was asked for."""
        if not generation or self._reconciler.plan_of(name).inputs.generation == generation:
            return None
        return await self._run(partial(self._planner.read_generation, name, generation))

    async def _put(self, name: str, plan: AppliancePlan) -> None:
        await self._reconciler.put(plan, await self.generation(name, plan.inputs.generation))

    async def _prepare(self, job: Job) -> Step:
        """Find out what can be known beforehand."""
        await self._booted(job)
        await self._run(partial(self._files.link_next, job.name, job.swap.new.digest))
        data_format = job.swap.old_format if not job.swap.restore else 0
        await self.examine(
            job.old,
            job.new,
            data_format=data_format,
            accept=job.accept,
            any_role=job.swap.changes_configuration,
        )
        snapshot = f"{SWAP_PREFIX}{job.swap.number}" if await self._wants_snapshot(job) else ""
        baseline = await ask_patiently(self._outside, job.old) if job.swap.running else ""
        if baseline:
            _log.warning("%s: did not answer from outside even before the swap: %s", job.name, baseline)
        # Somebody may have started or stopped it since the swap began.
        await self._look(job.name)
        running = self._watch.status(job.name).active_state not in _DOWN
        job.state = replace(
            job.state, swap=replace(job.swap, snapshot=snapshot, baseline=baseline, running=running)
        )
        if job.operation.cancel_requested:
            raise SwapError(CANCELLED)
        return Step.PREPARED

    async def _booted(self, job: Job) -> None:
        """Wait until the boot has started what it is to start: a stop in between would be the end of it."""
        with contextlib.suppress(TimeoutError, ApplianceError):
            async with asyncio.timeout(BOOT_TIMEOUT_S):
                while await self._units.is_booting():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(job.operation.cancelled(), BOOT_PAUSE_S)
                        return

    async def examine(
        self,
        old: AppliancePlan,
        new: AppliancePlan,
        *,
        data_format: int,
        accept: bool,
        any_role: bool = False,
    ) -> None:
        """Find out whether the image of `new` can stand in for that of `old`; ApplianceError where it
        cannot. `data_format` is what the data volume is written in, 0 for no matter; `any_role` whether it
        may do something else."""
        before, after = _manifest(old), _manifest(new)
        if new.image:
            # Hashing reads the image into the page cache, where its first start finds it.
            await self._reconciler.run_long(partial(self._images.prove, new.image.digest))
        if not new.can_start:
            raise SwapError(f"{after.title} could not start: {new.inputs.refusal}")
        verdict = judge(
            before,
            after,
            data_format=data_format,
            memory_bytes=old.appliance.memory_bytes,
            snapshots=old.appliance.snapshots,
            any_role=any_role,
        )
        if verdict.refusals:
            raise SwapError(
                f"{after.title} cannot stand in for {before.title}: {'; '.join(verdict.refusals)}",
                blame=True,
            )
        if verdict.requests and not accept:
            wishes = "; ".join(verdict.requests)
            raise ApplianceError(
                f"{after.title} asks for more than {before.title}: {wishes}.",
                problem=Problem.ACCESS_DENIED,
                remedy=f"`appliancectl swap --accept {old.appliance.name} {after.reference}` grants it.",
            )
        await self._check_configuration(new)

    async def _check_configuration(self, new: AppliancePlan) -> None:
        """Have the new image lint the configuration, in a guest of its own."""
        image = new.image
        if image is None or not (image.manifest.service.check or image.manifest.service.prepare):
            return
        plan = self._planner.check_with(new, image)
        await self._run(partial(self._files.prepare_check, plan))
        try:
            status = await self._units.run(plan.instance)
        except ApplianceError:
            await self._units.stop(plan.instance)
            raise
        finally:
            # Where this agent is being stopped the guest still runs, and the next one ends it.
            with contextlib.suppress(OSError):
                await self._run(partial(self._files.remove_check, new.appliance.name))
        if status.result != "success":
            reason = failure_reason(status)
            raise SwapError(f"the image's check of the configuration failed: {reason}", blame=True)

    async def _wants_snapshot(self, job: Job) -> bool:
        kind = job.old.appliance.snapshots
        if job.swap.restore:
            if not await self._run(partial(self._volumes.has, job.name, job.swap.restore)):
                raise SwapError(f"the snapshot {job.swap.restore} is gone")
            return True
        if not job.old.data_bytes:
            return False
        if kind is Snapshots.ALWAYS:
            return True
        if kind is Snapshots.NEVER or not job.swap.changes_image:
            return False
        return job.swap.to_old_data or await self._run(partial(self._volumes.can_share, job.name))

    async def _switch(self, job: Job) -> Step:
        """Stop the old guest and keep its data as they are. A guest that is only told of its new
        configuration goes on."""
        job.untouched = job.swap.running
        # Those of others may have been applied anew meanwhile.
        job.old = await self.plan_of(job.name, job.swap.old, job.swap.old_generation)
        job.new = await self.plan_of(job.name, job.swap.new, job.swap.new_generation)
        await self._reconciler.stage(self._planner.before(job.new, job.old))
        if job.swap.running and job.old.ports == job.new.ports:
            job.measurement = self._outside.measure(job.old)
        if job.swap.running and can_reload(job.old, job.new):
            return Step.SWITCHED
        job.untouched = False
        await self._units.stop(job.name)
        if job.new.data_bytes and await self._run(partial(self._files.needs_growth, job.new)):
            await self._reconciler.run_long(partial(self._files.grow, job.new))
        if job.swap.snapshot:
            # A number may come back where somebody has removed the state.
            await self._run(partial(self._volumes.discard, job.name, job.swap.snapshot))
        if job.swap.restore:
            await self._run(partial(self._volumes.exchange, job.name, job.swap.snapshot, job.swap.restore))
        elif job.swap.snapshot:
            await self._reconciler.run_long(partial(self._volumes.take, job.name, job.swap.snapshot))
        if not job.swap.running:
            await self._put(job.name, job.new)
        return Step.SWITCHED

    async def _try(self, job: Job) -> Step:
        """Have the guest run with what is new, and ask it."""
        await self._put(job.name, job.new)
        # What it may go back to must not leave the store meanwhile. Clients wait for the start, and not for
        # the disk to know of this.
        link_old = partial(self._files.link_next, job.name, job.swap.old.digest)
        linking = asyncio.ensure_future(self._run(link_old))
        try:
            if can_reload(job.old, job.new) and await self._is_waiting(job.name):
                await self._reload(job)
            else:
                await self._start(job, job.new)
        finally:
            await linking
        if not job.swap.baseline and (why := await ask_patiently(self._outside, job.new)):
            if (await self._look(job.name)).health is Health.STOPPED:
                raise SwapError(STOPPED, stopped=True)
            raise SwapError(f"it does not answer from outside: {why}", blame=True)
        await self._measured(job)
        return Step.READY

    async def _soak(self, job: Job) -> Step:
        """Watch the new image for a while."""
        await self._observe(job, partial(_is_bad, job.swap), timeout_s=job.swap.soak_s)
        # It was not looked at between the start and here.
        if self._watch.status(job.name).restarts > job.restarts:
            raise SwapError("it failed and was started again", blame=True)
        return Step.SOAKED

    async def _roll_back(self, job: Job) -> Step:
        """Bring the old image back, with its old data where it could not go on with the new ones. A guest
        that serves as it did goes on."""
        if job.untouched and (await self._look(job.name)).health in {Health.HEALTHY, Health.DEGRADED}:
            await self._put(job.name, job.old)
            if can_reload(job.old, job.new):
                await self._run(partial(self._files.mark_reloaded, job.name))
            await self._measured(job)
            return Step.RESTORED
        await self._units.stop(job.name)
        if job.swap.to_old_data and job.swap.snapshot:
            restore = partial(self._volumes.restore, job.name, job.swap.snapshot, aside=job.swap.restore)
            await self._run(restore)
            job.state = replace(job.state, data_format=job.swap.old_format)
        if unreadable := why_unreadable(_manifest(job.old), job.state.data_format):
            raise SwapError(unreadable)
        await self._put(job.name, job.old)
        if job.swap.running:
            await self._units.forget_failure(job.name)
            await self._start_again(job)
        await self._measured(job)
        return Step.RESTORED

    async def _start_again(self, job: Job) -> None:
        """Start the old image. Where that fails, systemd tries again as it would on any other day."""
        try:
            await self._units.start(job.name)
        except UnitError as error:
            timeout_s = _manifest(job.old).service.ready_timeout_s + START_MARGIN_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._watch.until(job.name, lambda health: self._has_settled(job.name, health))
            if (await self._look(job.name)).health not in {Health.HEALTHY, Health.DEGRADED}:
                raise SwapError(self._watch.health(job.name).reason or str(error)) from error

    def _has_settled(self, name: str, health: HealthState) -> bool:
        return health.health is Health.HEALTHY or self._watch.status(name).active_state in _DOWN

    async def give_up(self, job: Job, entry: HistoryEntry) -> None:
        """Leave the unit failed, and not in an endless loop of attempts: neither image runs."""
        refusal = render_refusal(f"{entry.reason} (`appliancectl apply` lets {entry.old.reference} start)")
        try:
            await self._units.stop(job.name)
            await self._run(partial(self._files.refuse, job.name, refusal))
        except (ApplianceError, OSError) as error:
            _log.error("%s: %s", job.name, error)
            return
        try:
            await self._units.start(job.name)
        except ApplianceError:
            return  # as intended
        _log.error("%s: was started although it should not", job.name)

    # --- parts of them

    async def _is_waiting(self, name: str) -> bool:
        """Whether a guest serves that has not taken its configuration yet."""
        await self._look(name)
        return self._watch.status(name).active_state == "active" and self._reconciler.is_outdated(name)

    async def _reload(self, job: Job) -> None:
        """Hand the running guest its new configuration; it says itself whether it took it."""
        path = await self._run(partial(self._files.write_delivery, job.new))
        before_us, taken, job.untouched = now_us(), False, False
        timeout_s = _manifest(job.new).service.ready_timeout_s + START_MARGIN_S

        def has_ended(_health: HealthState) -> bool:
            status = self._watch.status(job.name)
            return status.state_changed_us > before_us and status.active_state != "reloading"

        try:
            await self._reconciler.run_long(partial(self._console.deliver, job.name, path))
            async with asyncio.timeout(timeout_s):
                await self._watch.until(job.name, has_ended)
            status = self._watch.status(job.name)
            refused = status.status_text.startswith(RELOAD_FAILED)
            reason = status.status_text.removeprefix(RELOAD_FAILED) if refused else ""
            taken = status.active_state == "active" and not refused
            job.untouched = status.active_state == "active" and refused
        except TimeoutError:
            reason = "it did not take its configuration in time"
        finally:
            with contextlib.suppress(ApplianceError):
                await self._reconciler.run_long(partial(self._console.withdraw, job.name))
            await self._run(partial(self._files.remove_delivery, job.name))
            if taken:
                await self._run(partial(self._files.mark_reloaded, job.name))
        if reason:
            raise SwapError(f"it did not take its configuration: {reason}", blame=True)
        job.restarts = self._watch.status(job.name).restarts
        await self._observe(job, is_settled, timeout_s=timeout_s)

    async def _start(self, job: Job, plan: AppliancePlan) -> None:
        """Have the guest run by its plan, and healthy."""
        await self._units.forget_failure(job.name)
        if self._reconciler.is_outdated(job.name):
            await self._units.stop(job.name)
        with self._watch.noting_failures(job.name) as failures:
            try:
                await self._units.start(job.name)
            except ApplianceError as error:
                now = await self._look(job.name), self._watch.status(job.name)
                is_over = now[0].health in {Health.FAILED, Health.STOPPED}
                health, status = now if is_over or not failures else failures[-1]
                blame = isinstance(error, UnitError) and is_of_the_guest(status)
                stopped = health.health is Health.STOPPED
                raise SwapError(health.reason or str(error), blame=blame, stopped=stopped) from error
        await self._look(job.name)
        job.restarts = self._watch.status(job.name).restarts
        timeout_s = _manifest(plan).service.ready_timeout_s + START_MARGIN_S
        await self._observe(job, is_settled, timeout_s=timeout_s)

    async def _look(self, name: str) -> HealthState:
        """How it is now, even if a signal of that is still under way."""
        self._watch.update(name, await self._units.watch(name))
        return self._watch.health(name)

    async def _observe(
        self, job: Job, condition: Callable[[HealthState], bool], *, timeout_s: float
    ) -> None:
        """Until the time is over, somebody intervenes, or the condition holds; SwapError where the
        appliance is not well then."""
        observed = asyncio.ensure_future(self._watch.until(job.name, condition))
        told = [asyncio.ensure_future(job.operation.cancelled())]
        if job.swap.phase is Phase.SOAK:
            told.append(asyncio.ensure_future(job.operation.hurried()))
        try:
            await asyncio.wait({observed, *told}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            health = observed.result() if observed.done() else self._watch.health(job.name)
        finally:
            for future in (observed, *told):
                future.cancel()
        if job.operation.cancel_requested:
            raise SwapError(CANCELLED)
        if health.health is Health.STOPPED:
            raise SwapError(STOPPED, stopped=True)
        if not _is_good(job.swap, health):
            raise SwapError(health.reason or f"it is {health.health}", blame=True)

    async def _measured(self, job: Job) -> None:
        if job.measurement is None:
            return
        measurement, job.measurement = job.measurement, None
        gap_ms = await asyncio.get_running_loop().run_in_executor(None, measurement.stop)
        job.state = replace(job.state, swap=replace(job.swap, downtime_ms=round(gap_ms or 0.0, 1)))


_DOWN = frozenset({"failed", "inactive"})


def _manifest(plan: AppliancePlan) -> Manifest:
    if plan.image is None:
        raise ImageError(f"{plan.appliance.name} has no image.", problem=Problem.NOT_FOUND)
    return plan.image.manifest


def _is_good(swap: Swap, health: HealthState) -> bool:
    """Whether the guest is well. What did not answer from outside before the swap need not
    do so after it."""
    excused = bool(swap.baseline) and health.reason.startswith(FROM_OUTSIDE)
    return health.health is Health.HEALTHY or (health.health is Health.DEGRADED and excused)


def _is_bad(swap: Swap, health: HealthState) -> bool:
    return is_settled(health) and not _is_good(swap, health)
