"""Brings the host into the state its configuration describes, touching only what differs.

    read and validate ─► plan (pure) ─► compare with the host ─► users, links, files ─► reload ─► restarts

Nothing is changed before the whole configuration was found valid. Every step is idempotent: a run that was
interrupted is finished by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from agent.core.aim import Aim, Now, make_aim
from agent.core.names import Names
from agent.core.network import HostNetwork
from agent.core.planner import Gathered, Planner, keep_quietly
from agent.core.watch import Watch
from agent.core.world import Files, Units
from agent.model.change import Change, Effect
from agent.model.errors import ApplianceError, Problem
from agent.model.generation import Generation
from agent.plan.generations import can_reload
from agent.plan.host import AppliancePlan, HostPlan
from agent.util.journal import Event, log_event

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
LONG_THREADS = 4
_STOP, _GROW, _RESTART = "stop", "grow its data volume", "restart"
_CHECK, _RELOAD, _START_WITH = (
    "check its new configuration",
    "reload its configuration",
    "restart with its new configuration",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did, or would do; `problems` are appliances that cannot run, each with its reason.

    `trials` are the configurations that are to be put on trial now, by appliance.
    """

    changes: tuple[str, ...]
    problems: tuple[str, ...]
    trials: Mapping[str, Generation] = field(default_factory=dict)


class Reconciler:
    """One run at a time; `plan` is what the last one made true."""

    def __init__(
        self,
        *,
        planner: Planner,
        files: Files,
        network: HostNetwork,
        names: Names,
        units: Units,
        watch: Watch,
        busy: Callable[[], Collection[str]],
    ) -> None:
        self._planner = planner
        self._files = files
        self._network = network
        self._names = names
        self._units = units
        self._watch = watch
        self._busy = busy
        self._lock = asyncio.Lock()
        self._cut_off: list[str] = []
        self._known_failures: set[str] = set()
        self._written: dict[str, str] = {}
        self._spared: frozenset[str] = frozenset()
        self._gathered: Gathered | None = None
        # One thread: netlink sockets and files are used by one at a time, and the loop never waits for a
        # disk.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="host")
        # Hashing and copying for one appliance must not keep another from its start.
        self._long = ThreadPoolExecutor(LONG_THREADS, thread_name_prefix="long")
        self.plan = HostPlan((), (), {}, files.read_assignments())

    def close(self) -> None:
        """Wait for what is being done, then do no more."""
        self._executor.shutdown()
        self._long.shutdown()

    async def check(self, *, retry: bool = False) -> Outcome:
        """What `apply` would do."""
        async with self._lock:
            running = await self._running()
            aim = await self.run(partial(self._aim, running, applying=True, retry=retry))
            plan = aim.plan
            users = await self.run(lambda: self._files.plan_users(plan.appliances))
            unpublished = await self.run(partial(self._network.look, plan))
            changes = await self.run(lambda: self._plan_changes(plan))
            growing = await self._to_grow(plan)
            told = (
                *map(str, users),
                *(f"{name}: {_STOP}" for name in await self._to_stop(plan)),
                *map(str, changes),
                *(f"{name}: {_GROW}" for name in growing),
                *(
                    f"{name}: {_RESTART}"
                    for name in await self._to_restart(plan, changes, but=growing, pending=True)
                ),
                *(f"{name}: {self._way_of(name, aim, running)}" for name in aim.trials),
            )
            return Outcome(told, (*aim.problems, *unpublished), aim.trials)

    async def apply(self, *, restart: bool, retry: bool = False, kept: bool = False) -> Outcome:
        """Make the host as configured; with `kept`, as it was configured when that was last found valid.

        Without `restart`, running guests keep what they were started with; `reconnect` is for those that
        lost their tap. With `retry`, configurations count again that failed before.
        """
        async with self._lock:
            running = await self._running()
            make = partial(self._aim, running, applying=restart, anew=restart, retry=retry, kept=kept)
            aim = await self.run(make)
            plan = aim.plan
            if not kept:
                await self.run(partial(self._planner.keep_configuration, aim.written))
            # From here on this is the plan even if a step fails: the next run takes up where this one ended.
            await self.run(partial(self._follow_generations, aim))
            removed = await self.run(self._files.known) - set(plan.appliances)
            await self._follow(plan)
            users, no_users = await self._carry_out(
                await self.run(lambda: self._files.plan_users(plan.appliances))
            )
            stopped, failed_stops = await self._each(await self._to_stop(plan), self._units.stop, _STOP)
            unpublished = await self.run(partial(self._network.look, plan))
            changes = await self.run(lambda: self._plan_changes(plan))
            done, not_done = await self._carry_out(changes)
            stuck = _is_stuck(changes, done)
            await self.run(partial(self._keep, aim, removed))
            # Not while the agent starts: checking and growing a file system may take longer than that may.
            growing = await self._to_grow(plan) if restart and not stuck else []
            grown, failed = await self._each(growing, partial(self._grow, plan), _GROW)
            concerned = () if stuck else changes
            restarts = await self._to_restart(plan, concerned, but=growing, pending=restart and not stuck)
            if not restart:
                self._cut_off, restarts = restarts, []
            restarted, not_restarted = await self._each(restarts, self._units.restart, _RESTART)
            failures = (*no_users, *failed_stops, *not_done, *failed, *not_restarted)
            changed = (*users, *stopped, *done, *grown, *restarted)
            trials = {} if stuck else aim.trials
            return Outcome(changed, (*aim.problems, *unpublished, *failures), trials)

    async def tidy(self) -> None:
        """Remove what writes left that a crash has interrupted; before anything is written."""
        await self.run(self._files.remove_strays)

    async def reconnect(self) -> None:
        """Start anew what a run without `restart` found cut off.

        Not while the agent itself is starting: appliances are ordered after it, and their jobs would wait.
        """
        async with self._lock:
            await self._restart_lost(self._cut_off)
            self._cut_off = []

    async def restore_links(self) -> bool:
        """Put back bridges, taps and rules that somebody took away; guests whose tap is gone are started
        again. Whether the rules are in force."""
        async with self._lock:
            plan = self.plan
            changes = await self.run(partial(self._network.plan, plan))
            done, failed = await self._carry_out(changes)
            for problem in sorted(set(failed) - self._known_failures):
                _log.warning("%s", problem)
            self._known_failures = set(failed)
            if done:
                log_event(Event.RESTORED, f"Network restored: {', '.join(done)}.")
                await self._restart_lost(await self._to_restart(plan, changes, but=(), pending=False))
            return not _is_stuck(changes, done)

    async def _restart_lost(self, appliances: Iterable[str]) -> None:
        _, failed = await self._each(appliances, self._units.restart, _RESTART)
        for problem in failed:
            _log.warning("%s", problem)

    def restart_pending(self, appliance: str) -> bool:
        """Whether an appliance has not what was written for it when that was last read."""
        written = self._written.get(appliance, "")
        has = self.plan.appliances[appliance].inputs.generation if appliance in self.plan.appliances else ""
        return self.is_outdated(appliance) or bool(written and written != has)

    def is_outdated(self, appliance: str) -> bool:
        """Whether a running guest was started with an older plan than it has now."""
        status = self._watch.status(appliance)
        running = status.active_state in _RUNNING and status.started_at_us > 0
        taken_at_us = max(status.started_at_us, self._files.reloaded_at_us(appliance))
        return running and self._files.planned_at_us(appliance) > taken_at_us

    # --- one appliance, for swaps

    def plan_of(self, appliance: str) -> AppliancePlan:
        """What it is to be; ApplianceError NOT_FOUND where there is none of that name."""
        if appliance not in self.plan.appliances:
            raise ApplianceError(f"There is no appliance “{appliance}”.", problem=Problem.NOT_FOUND)
        return self.plan.appliances[appliance]

    async def idle(self) -> None:
        """Wait for the run under way: it may not know of an operation that began only after it did."""
        async with self._lock:
            pass

    async def stage(self, plan: AppliancePlan) -> None:
        """Write what a start by this plan needs, without making it the plan: a running guest goes on.

        Neither this nor `put` waits for a run that is under way: a run leaves appliances alone of which
        there is an operation.
        """
        await self._carry_out_all(await self.run(lambda: self._files.plan_staging(plan)))

    async def plan_with(self, appliance: str, generation: Generation) -> AppliancePlan:
        """What it would be with another configuration; ApplianceError where that does not go together with
        what the others have."""
        gathered, previous = self._gathered, self.plan.assignments
        if gathered is None:
            raise ApplianceError("No configuration was applied yet.", problem=Problem.UNAVAILABLE)
        plan = partial(self._planner.plan_generation, gathered, appliance, generation, previous)
        return await self.run(plan)

    async def put(self, plan: AppliancePlan, generation: Generation | None = None) -> None:
        """Make this the plan of an appliance, for its next start, and this its configuration, if it is
        another."""
        name = plan.appliance.name
        rewired = _wiring(self.plan.appliances[name]) != _wiring(plan)
        assignments = self.plan.assignments.with_appliance(name, plan.addresses, plan.core)
        appliances = {**self.plan.appliances, name: plan}
        self.plan = now = replace(self.plan, appliances=appliances, assignments=assignments)
        if generation:
            await self.run(partial(self._remember_generation, name, generation))
        self._watch.titles[name] = plan.image.manifest.reference if plan.image else ""
        if rewired:
            for problem in await self.run(partial(self._network.look, now)):
                _log.warning("%s", problem)
            await self._carry_out_all(await self.run(partial(self._network.plan, now)))
            await self._carry_out_all(await self.run(partial(self._names.plan, now)))
            await self.run(lambda: self._files.keep_assignments(self.plan.assignments))
        await self._carry_out_all(await self.run(lambda: self._files.plan(plan)))

    def _remember_generation(self, name: str, generation: Generation) -> None:
        if self._gathered:
            self._gathered = self._gathered.with_generations({name: generation})

    async def _carry_out_all(self, changes: Iterable[Change]) -> None:
        _, failed = await self._carry_out(changes)
        if failed:
            raise ApplianceError("; ".join(failed))

    async def run_long(self, function: Callable[[], _T]) -> _T:
        """Call something that may take long and touches nothing but one appliance's own."""
        return await asyncio.get_running_loop().run_in_executor(self._long, function)

    async def run(self, function: Callable[[], _T]) -> _T:
        """Call something that blocks, in the thread in which everything of the host is done."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    # --- planning, in the thread

    def _aim(self, running: Collection[str], **how: bool) -> Aim:
        """See agent.core.aim."""
        self._spared = frozenset(self._busy())
        return make_aim(self._planner, Now(self.plan, self._gathered, self._spared, running), **how)

    def _not_ours(self) -> Collection[str]:
        """Appliances that this run leaves alone: an operation is under way, or was when it began, and the
        plan says nothing of what has come of that."""
        return self._spared | set(self._busy())

    def _follow_generations(self, aim: Aim) -> None:
        """Remember what the plan was made from, but for appliances that have got on since."""
        has = self._gathered
        got_on = {
            name: has.generation(name)
            for name in self._spared
            if has and name in has.contents and name in aim.gathered.contents
        }
        self._gathered = aim.gathered.with_generations(got_on)
        names = aim.target.appliances
        self._written = {name: aim.written.generation(name).id for name in names}

    def _keep(self, aim: Aim, removed: Collection[str]) -> None:
        keep_quietly(partial(self._files.keep_assignments, self.plan.assignments))
        self._planner.forget(removed)
        busy = self._not_ours()
        for name, appliance in aim.plan.appliances.items():
            if name not in busy:
                self._planner.keep_state(name, appliance, aim.gathered.generation(name))

    def _plan_changes(self, plan: HostPlan) -> list[Change]:
        changes = []
        for name in sorted(self._files.known() - set(plan.appliances)):
            changes += self._files.plan_removal(name)
        changes += [*self._network.plan(plan), *self._names.plan(plan)]
        busy = self._not_ours()
        for name, appliance in plan.appliances.items():
            if name not in busy:
                changes += self._files.plan(appliance)
        return changes

    # --- acting

    async def _carry_out(self, changes: Iterable[Change]) -> tuple[list[str], list[str]]:
        """Apply changes in order; what was done, and what failed.

        The rest of an appliance's changes waits where one of them failed; the others' do not, but for what
        everything after it needs. systemd reads its files again if it has to.
        """
        done: list[Change] = []
        failed: dict[str, str] = {}
        for change in changes:
            if change.appliance and change.appliance in failed:
                continue
            try:
                await self.run(change.apply)
            except ApplianceError as error:
                failed[change.appliance or change.text] = f"{change} failed: {error}"
                if Effect.NEEDED in change.effect:
                    break
                continue
            done.append(change)
            _log.info("%s", change)
        if any(Effect.DAEMON_RELOAD in change.effect for change in done):
            await self._units.reload()
        return [str(change) for change in done], list(failed.values())

    async def _each(
        self, appliances: Iterable[str], act: Callable[[str], Awaitable[None]], what: str
    ) -> tuple[list[str], list[str]]:
        """Do something to each; what was done, and what failed. One appliance's failure stops no other."""
        done, failed = [], []
        for name in appliances:
            try:
                await act(name)
                done.append(f"{name}: {what}")
            except ApplianceError as error:
                failed.append(f"{name}: {what} failed: {error}")
        return done, failed

    async def _running(self) -> set[str]:
        """Appliances with a guest, or about to have one."""
        loaded = await self._units.loaded_appliances()
        return {name for name, state in loaded.items() if state in _RUNNING}

    def _way_of(self, name: str, aim: Aim, running: Collection[str]) -> str:
        """How a configuration would be put on trial."""
        if name not in running:
            return _CHECK
        return _RELOAD if can_reload(aim.before[name], aim.target.appliances[name]) else _START_WITH

    async def _to_stop(self, plan: HostPlan) -> list[str]:
        """Running appliances that are configured no more."""
        loaded = await self._units.loaded_appliances()
        removed = await self.run(self._files.known) - set(plan.appliances)
        return sorted(name for name in removed if loaded.get(name) in _RUNNING)

    async def _follow(self, plan: HostPlan) -> None:
        """Make this the plan, and watch exactly its appliances."""
        # Plans that operations have put in force since this one was made.
        put = {name: self.plan.appliances[name] for name in self._not_ours() if name in self.plan.appliances}
        assignments = plan.assignments
        for name, got_on in put.items():
            assignments = assignments.with_appliance(name, got_on.addresses, got_on.core)
        plan = replace(plan, appliances={**plan.appliances, **put}, assignments=assignments)
        before, self.plan = self.plan, plan
        stale = False
        for name in set(before.appliances) - set(plan.appliances):
            self._units.unwatch(name)
            self._watch.forget(name)
        for name, appliance in plan.appliances.items():
            self._watch.titles[name] = appliance.image.manifest.reference if appliance.image else ""
            if name not in before.appliances:
                status = await self._units.watch(name)
                self._watch.adopt(name, status)
                stale = stale or status.needs_reload
        if stale:
            # Unit settings were written, and then nobody was left to tell systemd.
            await self._units.reload()

    async def _to_restart(
        self, plan: HostPlan, changes: Iterable[Change], *, but: Collection[str], pending: bool
    ) -> list[str]:
        """Running appliances that were cut off; with `pending`, also those with changes or an older plan.

        One that could not start again runs on as it is: a mistyped image must not end a service.
        """
        loaded = await self._units.loaded_appliances()
        busy = self._not_ours() if pending else ()
        reason = Effect.RESTART if pending else Effect.CUT_OFF
        concerned = {change.appliance for change in changes if reason in change.effect}
        return sorted(
            name
            for name, appliance in plan.appliances.items()
            if loaded.get(name) in _RUNNING
            and appliance.can_start
            and name not in but
            and name not in busy
            and (name in concerned or (pending and self.is_outdated(name)))
        )

    async def _to_grow(self, plan: HostPlan) -> list[str]:
        """Appliances whose data volume is too small; those in use only if they can start again."""
        loaded = await self._units.loaded_appliances()
        return [
            name
            for name, appliance in plan.appliances.items()
            if name not in self._not_ours()
            and (loaded.get(name) not in _RUNNING or appliance.can_start)
            and await self.run(partial(self._files.needs_growth, appliance))
        ]

    async def _grow(self, plan: HostPlan, name: str) -> None:
        """Grow a data volume; a guest that uses it is stopped meanwhile, and then runs on its new plan."""
        in_use = (await self._units.loaded_appliances()).get(name) in _RUNNING
        if in_use:
            await self._units.stop(name)
        try:
            await self.run(partial(self._files.grow, plan.appliances[name]))
        finally:
            if in_use:
                await self._units.start(name)


_RUNNING = frozenset({"active", "activating", "reloading", "refreshing", "deactivating"})


def _is_stuck(changes: Iterable[Change], done: Collection[str]) -> bool:
    """Whether something was not done that everything else needs."""
    return any(Effect.NEEDED in change.effect and str(change) not in done for change in changes)


def _wiring(plan: AppliancePlan) -> tuple[object, ...]:
    """What bridges, taps and the firewall are planned from."""
    appliance = plan.appliance
    traffic = appliance.publish, appliance.grants, appliance.peers, appliance.egress, appliance.limits
    return plan.ports, *traffic
