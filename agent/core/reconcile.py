"""Brings the host into the state its configuration describes, touching only what differs.

    read and validate ─► plan (pure) ─► compare with the host ─► users, links, files ─► reload ─► restarts

Nothing is changed before the whole configuration was found valid. Every step is idempotent: a run that was
interrupted is finished by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from agent.config.tree import read_tree
from agent.core.watch import Watch
from agent.core.world import Files, Images, Links, Units
from agent.model.appliance import Appliance
from agent.model.change import Change, Effect
from agent.model.errors import ApplianceError, ConfigurationError, Finding, ImageError
from agent.model.host import HostFacts
from agent.model.image import Image
from agent.model.network import Tap
from agent.plan.host import GuestInputs, HostPlan, plan_host
from agent.util.journal import Event, log_event

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_NO_USER = -1


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
            changes = [*users, *await self._run(lambda: self._plan_changes(plan))]
            restarts = await self._to_restart(plan, changes)
            return Outcome((*map(str, changes), *(f"{name}: restart" for name in restarts)), problems)

    async def apply(self, *, restart: bool) -> Outcome:
        """Make the host as configured. Without `restart`, running guests keep what they were started
        with."""
        async with self._lock:
            plan, problems = await self._run(self._make_plan)
            done = await self._carry_out(await self._run(lambda: self._files.plan_users(plan.appliances)))
            await self._stop_removed(plan)
            changes = await self._run(lambda: self._plan_changes(plan))
            done += await self._carry_out(changes)
            await self._run(lambda: self._files.keep_assignments(plan.assignments))
            if any(Effect.DAEMON_RELOAD in change.effect for change in changes):
                await self._units.reload()
            await self._follow(plan)
            self.plan = plan
            done += await self._grow(plan, running=restart)
            if restart:
                done += await self._restart(await self._to_restart(plan, changes))
            return Outcome(tuple(done), problems)

    async def restore_links(self) -> None:
        """Put back bridges and taps that somebody took away; guests whose tap is gone are started again."""
        async with self._lock:
            plan = self.plan
            changes = await self._run(lambda: self._plan_links(plan))
            if not changes:
                return
            done = await self._carry_out(changes)
            log_event(Event.RESTORED, f"Network restored: {', '.join(done)}.")
            lost = {change.appliance for change in changes if Effect.RESTART in change.effect}
            active = await self._units.loaded_appliances()
            await self._restart(sorted(name for name in lost if active.get(name) in _RUNNING))

    def restart_pending(self, appliance: str) -> bool:
        """Whether a running guest was started with an older plan than it has now."""
        status = self._watch.status(appliance)
        running = status.active_state in _RUNNING and status.started_at_us > 0
        return running and self._files.planned_at_us(appliance) > status.started_at_us

    async def _run(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    # --- planning, in the thread

    def _make_plan(self) -> tuple[HostPlan, tuple[str, ...]]:
        configuration = read_tree(self._files.read_configuration())
        inputs = {name: self._inputs(appliance) for name, appliance in configuration.appliances.items()}
        plan = plan_host(
            configuration,
            inputs,
            host=self._facts,
            previous=self.plan.assignments,
            runtime_digest=self._files.runtime_digest,
        )
        self._check_volumes(plan)
        return plan, tuple(f"{name}: {given.refusal}" for name, given in inputs.items() if given.refusal)

    def _inputs(self, appliance: Appliance) -> GuestInputs:
        image, refusal = self._find_image(appliance)
        return GuestInputs(
            image=image,
            refusal=refusal or self._files.why_unfit(appliance.kernel),
            configuration=self._files.read_appliance_files(appliance.name),
            local_time=self._local_time(appliance),
            data_volume=self._files.data_volume(appliance.name),
        )

    def _find_image(self, appliance: Appliance) -> tuple[Image | None, str]:
        """The image the appliance has, as long as its reference may mean it; else the newest that it may."""
        current = self._files.current_image(appliance.name)
        try:
            if current and (image := self._images.get(current)).matches(appliance.image):
                return image, ""
        except ImageError as error:
            _log.warning("%s: %s", appliance.name, error)
        try:
            return self._images.resolve(appliance.image), ""
        except ImageError as error:
            return None, str(error)

    def _local_time(self, appliance: Appliance) -> bytes:
        content = self._files.read_time_zone(appliance.time_zone or self._facts.time_zone)
        if content is None and appliance.time_zone:
            raise _refused(appliance.name, f"timezone: there is no time zone {appliance.time_zone}")
        return content or b""

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

    async def _carry_out(self, changes: Iterable[Change]) -> list[str]:
        done = []
        for change in changes:
            await self._run(change.apply)
            _log.info("%s", change)
            done.append(str(change))
        return done

    async def _stop_removed(self, plan: HostPlan) -> None:
        loaded = await self._units.loaded_appliances()
        removed = await self._run(self._files.known) - set(plan.appliances)
        for name in sorted(removed):
            if loaded.get(name) in _RUNNING:
                await self._units.stop(name)

    async def _follow(self, plan: HostPlan) -> None:
        """Watch exactly the appliances of this plan."""
        for name in set(self.plan.appliances) - set(plan.appliances):
            self._units.unwatch(name)
            self._watch.forget(name)
        for name, appliance in plan.appliances.items():
            self._watch.titles[name] = appliance.image.manifest.title if appliance.image else ""
            if name not in self.plan.appliances:
                self._watch.adopt(name, await self._units.watch(name))

    async def _to_restart(self, plan: HostPlan, changes: Iterable[Change]) -> list[str]:
        """Running appliances that a change concerns, or that still run on an older plan."""
        loaded = await self._units.loaded_appliances()
        concerned = {change.appliance for change in changes if Effect.RESTART in change.effect}
        return sorted(
            name
            for name in plan.appliances
            if loaded.get(name) in _RUNNING and (name in concerned or self.restart_pending(name))
        )

    async def _restart(self, appliances: Iterable[str]) -> list[str]:
        done = []
        for name in appliances:
            try:
                await self._units.restart(name)
                done.append(f"{name}: restart")
            except ApplianceError as error:
                # One appliance's failure stops no other; systemd and the watch report it.
                _log.warning("%s: restart failed: %s", name, error)
                done.append(f"{name}: restart failed: {error.message}")
        return done

    async def _grow(self, plan: HostPlan, *, running: bool) -> list[str]:
        """Grow data volumes that are too small; those in use only with `running`, their guests stopped
        meanwhile."""
        loaded = await self._units.loaded_appliances()
        done = []
        for name, appliance in plan.appliances.items():
            in_use = loaded.get(name) in _RUNNING
            if (in_use and not running) or not await self._run(partial(self._files.needs_growth, appliance)):
                continue
            if in_use:
                await self._units.stop(name)
            try:
                await self._run(partial(self._files.grow, appliance))
            finally:
                if in_use:
                    await self._units.start(name)
            done.append(f"{name}: grow its data volume")
        return done


_RUNNING = frozenset({"active", "activating", "reloading", "refreshing", "deactivating"})


def _refused(appliance: str, message: str) -> ConfigurationError:
    return ConfigurationError([Finding(f"{appliance}.yaml", 0, 0, message)])
