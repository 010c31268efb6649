"""Updates: looks for newer images, has them checked in advance, and swaps to them where that is allowed now.

agent.plan.updates decides, the Swapper swaps. A run goes on until nothing more is due: what ends a swap may
be what the next one waits for. It is an operation that belongs to no appliance; each swap is one of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from agent.core.operations import Operation, Operations, OperationState
from agent.core.reconcile import Reconciler
from agent.core.swap import Swapper, title_of
from agent.core.swap_steps import Request, SwapError
from agent.core.watch import Watch
from agent.core.world import Images
from agent.model.errors import ApplianceError, Problem
from agent.model.image import Digest, Image, ImageReference
from agent.model.swap import ApplianceState, Result
from agent.model.update import Outlook, Progress, RunEntry, Standing, Update
from agent.plan.host import AppliancePlan
from agent.plan.swap import Verdict, judge
from agent.plan.updates import Candidate, Wish, assess, is_newer
from agent.util.journal import Event, log_event

AT_ONCE = 4
"""Swaps of one run at the same time: an image that is slow because many start would be taken for a bad
one."""

CHECK_AGAIN_S = 3600.0
"""A check that failed may have failed for a reason that has passed."""

_log = logging.getLogger(__name__)

_RUN = ""
_REPORTED = {
    Standing.AVAILABLE: Event.UPDATE_AVAILABLE,
    Standing.STAGED: Event.UPDATE_AVAILABLE,
    Standing.REFUSED: Event.UPDATE_REFUSED,
    Standing.ASKS_FOR_MORE: Event.UPDATE_REFUSED,
}


@dataclass(frozen=True, slots=True)
class _Checked:
    """What the check of an image found, '' for nothing. It counts for this image and launch plan, and data
    in this format."""

    subject: tuple[Digest, str, int]
    reason: str
    at_s: float


@dataclass(slots=True)
class Run:
    """A run: what was asked for, what has come of it, and the groups in which nothing more is tried."""

    wish: Wish
    entries: dict[str, RunEntry] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    swaps: dict[asyncio.Future[Operation], Candidate] = field(default_factory=dict)


class Updates:
    """One run at a time. `now` is the time in the host's time zone."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        swapper: Swapper,
        operations: Operations,
        watch: Watch,
        images: Images,
        now: Callable[[], datetime],
    ) -> None:
        self._reconciler = reconciler
        self._swapper = swapper
        self._operations = operations
        self._watch = watch
        self._images = images
        self._now = now
        self._checked: dict[str, _Checked] = {}
        self._reported: set[tuple[str, str, str]] = set()
        self._runs: dict[int, Run] = {}

    async def check(self, names: Collection[str]) -> list[Update]:
        """How appliances stand, all where none is named; changes nothing. ApplianceError for an unknown
        name."""
        self._check_names(names)
        candidates = await self._candidates()
        outlooks = assess(candidates, now=self._now())
        return [
            _update(candidate, outlooks[candidate.name])
            for candidate in candidates
            if not names or candidate.name in names
        ]

    def begin(self, names: Collection[str], *, retry: bool) -> Operation:
        """Begin to update what is named, or what its policy allows now; ApplianceError BUSY where a run is
        under way."""
        self._check_names(names)
        if self._operations.running(_RUN):
            raise ApplianceError("A run of updates is under way.", problem=Problem.BUSY)
        run = Run(Wish(frozenset(names), retry))
        operation = self._operations.begin("update", _RUN, partial(self._work, run))
        self._runs = {operation.number: run}
        return operation

    def entries(self, number: int) -> list[RunEntry]:
        """What has become of each appliance in the last run; ApplianceError where it has another number."""
        if number not in self._runs:
            raise ApplianceError(
                f"Operation {number} is not the last run of updates.", problem=Problem.NOT_FOUND
            )
        return list(self._runs[number].entries.values())

    def _check_names(self, names: Collection[str]) -> None:
        for name in names:
            self._reconciler.plan_of(name)

    # --- a run

    async def _work(self, run: Run, operation: Operation) -> OperationState:
        self._operations.progress(operation, "check", "looking for updates")
        if not run.wish.names:
            await self._check_in_advance(run, operation)
        try:
            while await self._take_turn(run, operation):
                await self._wait_for_one(run, operation)
        finally:
            for future in run.swaps:
                future.cancel()
        failed = sum(entry.result is Progress.FAILED for entry in run.entries.values())
        updated = sum(entry.result is Progress.UPDATED for entry in run.entries.values())
        operation.message = f"{updated} updated, {failed} failed"
        if operation.cancel_requested:
            return OperationState.CANCELLED
        return OperationState.FAILED if failed else OperationState.SUCCEEDED

    async def _take_turn(self, run: Run, operation: Operation) -> bool:
        """Begin what is due; whether anything is under way."""
        candidates = await self._candidates()
        tried = frozenset(name for name, entry in run.entries.items() if isinstance(entry.result, Progress))
        outlooks = assess(candidates, now=self._now(), wish=run.wish, tried=tried, stopped=run.stopped)
        for candidate in candidates:
            name, outlook = candidate.name, outlooks[candidate.name]
            if name in tried or not run.wish.means(name):
                continue
            if outlook.standing is not Standing.DUE:
                run.entries[name] = RunEntry(name, 0, outlook.standing, outlook.reason)
            elif len(run.swaps) < AT_ONCE and not operation.cancel_requested:
                await self._begin_swap(run, operation, candidate)
            else:
                run.entries[name] = RunEntry(name, 0, Standing.DUE, outlook.reason)
        return bool(run.swaps)

    async def _begin_swap(self, run: Run, operation: Operation, candidate: Candidate) -> None:
        name, newest = candidate.name, candidate.newest
        assert newest is not None  # noqa: S101 (it is due)
        automatic = name not in run.wish.names and not run.wish.retry
        try:
            reference = ImageReference(digest=newest.digest)
            swap = await self._swapper.swap(name, reference, Request(automatic=automatic))
        except ApplianceError as error:
            busy = error.problem is Problem.BUSY
            entry = RunEntry(name, 0, Standing.WAITS if busy else Progress.FAILED, str(error))
            self._note(run, operation, entry, candidate)
            return
        run.swaps[asyncio.ensure_future(self._operations.finished(swap))] = candidate
        message = f"swapping to {newest.manifest.reference}"
        self._note(run, operation, RunEntry(name, swap.number, Progress.UPDATING, message), candidate)

    async def _wait_for_one(self, run: Run, operation: Operation) -> None:
        """Until a swap has ended."""
        done, _ = await asyncio.wait(run.swaps, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            candidate, swap = run.swaps.pop(future), future.result()
            result = Progress.UPDATED if swap.state is OperationState.SUCCEEDED else Progress.FAILED
            self._note(
                run, operation, RunEntry(candidate.name, swap.number, result, swap.message), candidate
            )

    def _note(self, run: Run, operation: Operation, entry: RunEntry, candidate: Candidate) -> None:
        run.entries[entry.name] = entry
        if entry.result is Progress.FAILED and candidate.group:
            run.stopped.setdefault(candidate.group.name, f"{entry.name} failed")
        self._operations.progress(operation, "update", f"{entry.name}: {entry.message}")

    # --- checks in advance

    async def _check_in_advance(self, run: Run, operation: Operation) -> None:
        """Have every image checked that was not, one at a time, and tell what is worth knowing."""
        candidates = await self._candidates()
        outlooks = assess(candidates, now=self._now(), wish=run.wish)
        for candidate in candidates:
            unchecked = outlooks[candidate.name].standing is Standing.UNCHECKED and not candidate.busy
            if unchecked and not operation.cancel_requested:
                await self._check_one(candidate)
        candidates = await self._candidates()
        for name, outlook in assess(candidates, now=self._now(), wish=run.wish).items():
            self._report(next(entry for entry in candidates if entry.name == name), outlook)

    async def _check_one(self, candidate: Candidate) -> None:
        """Only what is the image's or the configuration's fault is remembered; the rest may pass."""
        name, newest = candidate.name, candidate.newest
        assert newest is not None  # noqa: S101 (it was not checked)
        try:
            state = await self._swapper.state(name)
            subject = _subject(newest, self._reconciler.plan_of(name), state)
            reason = await self._why_refused(name, newest)
        except ApplianceError as error:
            _log.warning("%s: %s could not be checked: %s", name, newest.manifest.reference, error)
            return
        self._checked[name] = _Checked(subject, reason, time.monotonic())

    async def _why_refused(self, name: str, image: Image) -> str:
        try:
            await self._swapper.examine(name, image)
        except SwapError as error:
            return str(error)
        return ""

    def _report(self, candidate: Candidate, outlook: Outlook) -> None:
        """Once for each image and reason."""
        image, newest = candidate.image, candidate.newest
        event = _REPORTED.get(outlook.standing)
        if event is None or image is None or newest is None:
            return
        told = (candidate.name, str(newest.digest), outlook.reason)
        if told in self._reported:
            return
        self._reported.add(told)
        log_event(
            event,
            f"Appliance {candidate.name} runs {image.manifest.reference}, there is"
            f" {newest.manifest.reference}: {outlook.reason}.",
            appliance=candidate.name,
            image=newest.manifest.reference,
            image_digest=str(newest.digest),
            old_image=image.manifest.reference,
            old_image_digest=str(image.digest),
            reason=outlook.reason,
        )

    # --- what there is

    async def _candidates(self) -> list[Candidate]:
        """All appliances, by name, as they are now."""
        plans = self._reconciler.plan.appliances
        references = {plan.appliance.image for plan in plans.values()}
        newest = await self._reconciler.run(partial(self._resolve, references))
        found = []
        for name, plan in sorted(plans.items()):
            try:
                state = await self._swapper.state(name)
            except ApplianceError:
                continue  # it is gone, or its state cannot be read: the plan says so
            found.append(self._candidate(name, plan, newest.get(plan.appliance.image), state))
        return found

    def _resolve(self, references: Collection[ImageReference]) -> dict[ImageReference, Image]:
        found = {}
        for reference in references:
            try:
                found[reference] = self._images.resolve(reference)
            except ApplianceError:
                continue  # there is none, so there is none that is newer
        return found

    def _candidate(
        self, name: str, plan: AppliancePlan, newest: Image | None, state: ApplianceState
    ) -> Candidate:
        appliance, image = plan.appliance, plan.image if plan.can_start else None
        operation = self._operations.running(name)
        newer = image is not None and newest is not None and is_newer(newest, image)
        return Candidate(
            name=name,
            policy=appliance.update.policy,
            window=appliance.update.window,
            group=appliance.group,
            image=image,
            newest=newest,
            health=self._watch.health(name).health,
            busy=operation.kind if operation else "",
            quarantine=state.quarantine,
            taken_back=newest is not None and _had(state, newest),
            verdict=_verdict(plan, image, newest, state) if newer and image and newest else Verdict(),
            checked=self._found(name, plan, newest, state) if newest else None,
        )

    def _found(self, name: str, plan: AppliancePlan, newest: Image, state: ApplianceState) -> str | None:
        """What the check found that still counts; None where there is none."""
        checked = self._checked.get(name)
        if checked is None or checked.subject != _subject(newest, plan, state):
            return None
        if checked.reason and time.monotonic() - checked.at_s > CHECK_AGAIN_S:
            return None
        return checked.reason


def _subject(newest: Image, plan: AppliancePlan, state: ApplianceState) -> tuple[Digest, str, int]:
    return newest.digest, plan.launch, state.data_format


def _had(state: ApplianceState, image: Image) -> bool:
    """Whether an appliance had an image once, and got another one."""
    committed = (entry for entry in state.history if entry.result is Result.COMMITTED)
    return any(entry.old.digest == image.digest for entry in committed)


def _verdict(plan: AppliancePlan, image: Image, newest: Image, state: ApplianceState) -> Verdict:
    """What the manifests alone say against a swap."""
    return judge(
        image.manifest,
        newest.manifest,
        data_format=state.data_format,
        memory_bytes=plan.appliance.memory_bytes,
        snapshots=plan.appliance.snapshots,
    )


def _update(candidate: Candidate, outlook: Outlook) -> Update:
    return Update(
        name=candidate.name,
        policy=candidate.policy,
        group=candidate.group.name if candidate.group else "",
        image=title_of(candidate.image) if candidate.image else None,
        newest=title_of(candidate.newest) if candidate.newest else None,
        outlook=outlook,
    )
