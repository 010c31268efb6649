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
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from agent.config.tree import read_tree
from agent.core.watch import Watch
from agent.core.world import Files, Images, Links, Units
from agent.model.appliance import Appliance
from agent.model.change import Change, Effect
from agent.model.configuration import Configuration
from agent.model.errors import ApplianceError, ConfigurationError, Finding, HostError, ImageError
from agent.model.host import HostFacts
from agent.model.image import Image
from agent.model.network import Tap
from agent.plan.host import GuestInputs, HostPlan, plan_host
from agent.util.journal import Event, log_event

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_NO_USER = -1
_STOP, _GROW, _RESTART = "stop", "grow its data volume", "restart"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did, or would do; `problems` are appliances that cannot run, each with its reason."""

    changes: tuple[str, ...]
    problems: tuple[str, ...]


class Reconciler:
    """One run at a time; `plan` is what the last one made true."""

    def __init__(
        self,
        *,
        facts: HostFacts,
        files: Files,
        images: Images,
        links: Links,
        units: Units,
        watch: Watch,
    ) -> None:
        self._facts = facts
        self._files = files
        self._images = images
        self._links = links
        self._units = units
        self._watch = watch
        self._lock = asyncio.Lock()
        self._cut_off: list[str] = []
        self._known_failures: set[str] = set()
        # One thread: netlink sockets and files are used by one at a time, and the loop never waits for a
        # disk.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="host")
        self.plan = HostPlan((), {}, files.read_assignments())

    def close(self) -> None:
        """Wait for what is being done, then do no more."""
        self._executor.shutdown()

    async def check(self) -> Outcome:
        """What `apply` would do."""
        async with self._lock:
            plan, problems = await self._run(self._make_plan)
            users = await self._run(lambda: self._files.plan_users(plan.appliances))
            changes = await self._run(lambda: self._plan_changes(plan))
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
            )
            return Outcome(told, problems)

    async def apply(self, *, restart: bool, kept: bool = False) -> Outcome:
        """Make the host as configured; with `kept`, as it was configured when that was last found valid.

        Without `restart`, running guests keep what they were started with; `reconnect` is for those that
        lost their tap.
        """
        async with self._lock:
            plan, problems = await self._run(partial(self._make_plan, kept=kept, keep=not kept))
            # From here on this is the plan even if a step fails: the next run takes up where this one ended.
            await self._follow(plan)
            users, no_users = await self._carry_out(
                await self._run(lambda: self._files.plan_users(plan.appliances))
            )
            stopped, failed_stops = await self._each(await self._to_stop(plan), self._units.stop, _STOP)
            changes = await self._run(lambda: self._plan_changes(plan))
            done, not_done = await self._carry_out(changes)
            await self._run(lambda: self._keep(partial(self._files.keep_assignments, plan.assignments)))
            # Not while the agent starts: checking and growing a file system may take longer than that may.
            growing = await self._to_grow(plan) if restart else []
            grown, failed = await self._each(growing, partial(self._grow, plan), _GROW)
            restarts = await self._to_restart(plan, changes, but=growing, pending=restart)
            if not restart:
                self._cut_off, restarts = restarts, []
            restarted, not_restarted = await self._each(restarts, self._units.restart, _RESTART)
            failures = (*no_users, *failed_stops, *not_done, *failed, *not_restarted)
            return Outcome((*users, *stopped, *done, *grown, *restarted), (*problems, *failures))

    async def reconnect(self) -> None:
        """Start anew what a run without `restart` found cut off.

        Not while the agent itself is starting: appliances are ordered after it, and their jobs would wait.
        """
        async with self._lock:
            await self._restart_lost(self._cut_off)
            self._cut_off = []

    async def restore_links(self) -> None:
        """Put back bridges and taps that somebody took away; guests whose tap is gone are started again."""
        async with self._lock:
            plan = self.plan
            changes = await self._run(lambda: self._plan_links(plan))
            if not changes:
                return
            done, failed = await self._carry_out(changes)
            for problem in sorted(set(failed) - self._known_failures):
                _log.warning("%s", problem)
            self._known_failures = set(failed)
            if not done:
                return
            log_event(Event.RESTORED, f"Network restored: {', '.join(done)}.")
            await self._restart_lost(await self._to_restart(plan, changes, but=(), pending=False))

    async def _restart_lost(self, appliances: Iterable[str]) -> None:
        _, failed = await self._each(appliances, self._units.restart, _RESTART)
        for problem in failed:
            _log.warning("%s", problem)

    def restart_pending(self, appliance: str) -> bool:
        """Whether a running guest was started with an older plan than it has now."""
        status = self._watch.status(appliance)
        running = status.active_state in _RUNNING and status.started_at_us > 0
        return running and self._files.planned_at_us(appliance) > status.started_at_us

    async def _run(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    # --- planning, in the thread

    def _make_plan(self, *, kept: bool = False, keep: bool = False) -> tuple[HostPlan, tuple[str, ...]]:
        """The plan, and what appliances ask for in vain; ConfigurationError where it is invalid.

        With `kept`, of the configuration that was last applied; with `keep`, this one is kept as such.
        """
        last = self._files.kept_configuration() if kept else None
        files = last[0] if last else self._files.read_configuration()
        configuration = read_tree(files)
        self._check_cores(configuration)
        contents = {
            name: last[1].get(name, {}) if last else self._files.read_appliance_files(name)
            for name in configuration.appliances
        }
        problems: list[str] = []
        inputs = {
            name: self._inputs(appliance, contents[name], problems)
            for name, appliance in configuration.appliances.items()
        }
        plan = plan_host(
            configuration,
            inputs,
            host=self._facts,
            previous=self.plan.assignments,
            runtime_digest=self._files.runtime_digest,
        )
        self._check_volumes(plan)
        if keep:
            self._keep(partial(self._files.keep_configuration, files, contents))
        return plan, tuple(problems)

    def _inputs(
        self, appliance: Appliance, configuration: Mapping[str, bytes], problems: list[str]
    ) -> GuestInputs:
        image, missing = self._find_image(appliance)
        unfit = self._files.why_unfit(appliance.kernel)
        if missing or unfit:
            problems.append(f"{appliance.name}: {missing or unfit}")
        return GuestInputs(
            image=image,
            refusal=unfit or ("" if image else missing),
            configuration=configuration,
            local_time=self._local_time(appliance),
            data_volume=self._files.data_volume(appliance.name),
        )

    def _find_image(self, appliance: Appliance) -> tuple[Image | None, str]:
        """The image it has, as long as its reference may mean that one; else the newest that it may mean.

        Where there is none it keeps what it has, if anything; the second value then says what is missing.
        """
        current = self._current_image(appliance)
        if current and current.matches(appliance.image):
            return current, ""
        try:
            return self._images.resolve(appliance.image), ""
        except ImageError as error:
            return current, str(error)

    def _current_image(self, appliance: Appliance) -> Image | None:
        digest = self._files.current_image(appliance.name)
        try:
            return self._images.get(digest) if digest else None
        except ImageError as error:
            _log.warning("%s: %s", appliance.name, error)
            return None

    def _keep(self, write: Callable[[], object]) -> None:
        """Write what only helps at the next start: a full disk must not keep appliances from running now."""
        try:
            write()
        except HostError as error:
            _log.warning("%s, ignoring", error)

    def _local_time(self, appliance: Appliance) -> bytes:
        content = self._files.read_time_zone(appliance.time_zone or self._facts.time_zone)
        if content is None and appliance.time_zone:
            raise _refused(appliance.name, f"timezone: there is no time zone {appliance.time_zone}")
        return content or b""

    def _check_cores(self, configuration: Configuration) -> None:
        for core in configuration.agent.cores:
            if core not in self._facts.cores:
                there = ", ".join(map(str, self._facts.cores))
                raise _refused("agent", f"cores: this host has no core {core}; it has {there}")

    def _check_volumes(self, plan: HostPlan) -> None:
        for name, appliance in plan.appliances.items():
            if appliance.appliance.data_bytes and self._files.would_shrink(appliance):
                raise _refused(
                    name, "data: the volume is larger already; making it smaller is not supported"
                )

    def _plan_changes(self, plan: HostPlan) -> list[Change]:
        changes = []
        for name in sorted(self._files.known() - set(plan.appliances)):
            changes += self._files.plan_removal(name)
        changes += self._plan_links(plan)
        for appliance in plan.appliances.values():
            changes += self._files.plan(appliance)
        return changes

    def _plan_links(self, plan: HostPlan) -> list[Change]:
        taps = [
            Tap(
                name=port.tap,
                bridge=port.network.bridge,
                owner_uid=_NO_USER if (uid := self._files.user_id(name)) is None else uid,
                mtu=port.network.mtu,
                appliance=name,
            )
            for name, appliance in plan.appliances.items()
            for port in appliance.ports
        ]
        return self._links.plan(plan.bridges, taps)

    # --- acting

    async def _carry_out(self, changes: Iterable[Change]) -> tuple[list[str], list[str]]:
        """Apply changes in order; what was done, and what failed.

        The rest of an appliance's changes waits where one of them failed; the others' do not. systemd reads
        its files again if it has to.
        """
        done: list[Change] = []
        failed: dict[str, str] = {}
        for change in changes:
            if change.appliance and change.appliance in failed:
                continue
            try:
                await self._run(change.apply)
            except ApplianceError as error:
                failed[change.appliance or change.text] = f"{change} failed: {error}"
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

    async def _to_stop(self, plan: HostPlan) -> list[str]:
        """Running appliances that are configured no more."""
        loaded = await self._units.loaded_appliances()
        removed = await self._run(self._files.known) - set(plan.appliances)
        return sorted(name for name in removed if loaded.get(name) in _RUNNING)

    async def _follow(self, plan: HostPlan) -> None:
        """Make this the plan, and watch exactly its appliances."""
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
        reason = Effect.RESTART if pending else Effect.CUT_OFF
        concerned = {change.appliance for change in changes if reason in change.effect}
        return sorted(
            name
            for name, appliance in plan.appliances.items()
            if loaded.get(name) in _RUNNING
            and appliance.can_start
            and name not in but
            and (name in concerned or (pending and self.restart_pending(name)))
        )

    async def _to_grow(self, plan: HostPlan) -> list[str]:
        """Appliances whose data volume is too small; those in use only if they can start again."""
        loaded = await self._units.loaded_appliances()
        return [
            name
            for name, appliance in plan.appliances.items()
            if (loaded.get(name) not in _RUNNING or appliance.can_start)
            and await self._run(partial(self._files.needs_growth, appliance))
        ]

    async def _grow(self, plan: HostPlan, name: str) -> None:
        """Grow a data volume; a guest that uses it is stopped meanwhile, and then runs on its new plan."""
        in_use = (await self._units.loaded_appliances()).get(name) in _RUNNING
        if in_use:
            await self._units.stop(name)
        try:
            await self._run(partial(self._files.grow, plan.appliances[name]))
        finally:
            if in_use:
                await self._units.start(name)


_RUNNING = frozenset({"active", "activating", "reloading", "refreshing", "deactivating"})


def _refused(appliance: str, message: str) -> ConfigurationError:
    return ConfigurationError([Finding(f"{appliance}.yaml", 0, 0, message)])
