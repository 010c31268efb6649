"""The outside world of agent.core in memory: what fulfils the protocols of agent/core/world.py.

    world = World()
    world.files.write("appliances/dns.yaml", "image: dns-nsd\n")
    await world.reconciler.apply(restart=True)
    world.journal                # everything that was done, in order, as short texts

One clock serves all: each thing done takes a second, so that times tell what happened before what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from agent.config.tree import ConfigurationFiles
from agent.core.agent import Agent
from agent.core.data import DataKeeper
from agent.core.data_steps import DataSteps
from agent.core.names import Names
from agent.core.network import HostNetwork
from agent.core.operations import Operation, Operations
from agent.core.planner import Planner
from agent.core.reconcile import Reconciler
from agent.core.swap import Swapper
from agent.core.swap_steps import Steps
from agent.core.updates import Updates
from agent.core.watch import Watch
from agent.model.assignments import Assignments
from agent.model.change import Change, Effect
from agent.model.errors import HostError, ImageError, Problem, UnitError
from agent.model.health import UnitStatus
from agent.model.host import HostFacts
from agent.model.image import Digest, Image, ImageReference
from agent.model.names import check_instance_of
from agent.plan.check import CheckPlan
from agent.plan.host import AppliancePlan
from tests.fakes.journal import Journal
from tests.fakes.links import FakeFirewall, FakeLinks, FakeManagers, FakeNames
from tests.fakes.samples import DIRECTORY, NETWORK, sample_facts, sample_image
from tests.fakes.sight import FakeSight, networks_of
from tests.fakes.swaps import FakeConsole, FakeGenerations, FakeOutside, FakeStates
from tests.fakes.volumes import FakeVolumes


class FakeUnits:
    """PID 1: starting always works unless the journal says otherwise."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.handler: Callable[[str, UnitStatus], None] = lambda _appliance, _status: None
        self.status: dict[str, UnitStatus] = {}
        self.watched: set[str] = set()
        self.going_down = False
        self.booting = False
        self.checks: dict[str, UnitStatus] = {}
        """How oneshot instances end that are to fail."""

    async def subscribe(self, handler: Callable[[str, UnitStatus], None]) -> None:
        self.handler = handler

    async def watch(self, appliance: str) -> UnitStatus:
        self.watched.add(appliance)
        return self.status.get(appliance, UnitStatus())

    def unwatch(self, appliance: str) -> None:
        self.watched.discard(appliance)

    async def loaded_appliances(self) -> dict[str, str]:
        return {name: status.active_state for name, status in self.status.items()}

    async def reload(self) -> None:
        self._journal.note("daemon-reload")

    async def restart(self, appliance: str) -> None:
        self._act("restart", appliance, "active")

    async def start(self, appliance: str) -> None:
        self._act("start", appliance, "active")

    async def stop(self, appliance: str) -> None:
        self._act("stop", appliance, "inactive")

    async def run(self, instance: str) -> UnitStatus:
        self._journal.note(f"run {instance}")
        return self.checks.get(instance, UnitStatus())

    async def is_booting(self) -> bool:
        return self.booting

    async def is_going_down(self) -> bool:
        return self.going_down

    async def kill(self, appliance: str) -> None:
        del appliance

    async def forget_failure(self, instance: str) -> None:
        del instance

    def took(self, appliance: str) -> None:
        """A guest has taken the configuration it was given."""

    def become(self, appliance: str, active_state: str, **changes: Any) -> None:
        """Change a unit's state as systemd would by itself, and tell whoever watches."""
        status = replace(self.status.get(appliance, UnitStatus()), active_state=active_state, **changes)
        if active_state == "active" and "started_at_us" not in changes:
            status = replace(status, started_at_us=self._journal.now_us)
        self.status[appliance] = status
        if appliance in self.watched:
            self.handler(appliance, status)

    def _act(self, verb: str, appliance: str, active_state: str) -> None:
        try:
            self._journal.note(f"{verb} {appliance}")
        except UnitError:
            self.become(appliance, "failed", result="exit-code")
            raise
        self.become(appliance, active_state)


class FakeImages:
    """A store with the images it is given."""

    def __init__(self, *images: Image) -> None:
        self.images = list(images)

    def get(self, digest: Digest) -> Image:
        return self.resolve(ImageReference(digest=digest))

    def prove(self, digest: Digest) -> Image:
        return self.get(digest)

    def resolve(self, reference: ImageReference) -> Image:
        found = [image for image in self.images if image.matches(reference)]
        if not found:
            raise ImageError(f"There is no image {reference}.", problem=Problem.NOT_FOUND)
        return found[-1]


@dataclass
class _Owned:
    """What the agent made on disk for one appliance."""

    image: Digest | None = None
    launch: str = ""
    drop_in: str = ""
    initrd: str = ""
    planned_at_us: int = 0


class FakeFiles:
    """/etc/appliance, /run/appliance, /var/lib/appliance and /etc/passwd."""

    runtime_digest = "runtime"

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.content: dict[str, bytes] = {}
        self.guest_files: dict[str, dict[str, bytes]] = {}
        self.users: dict[str, int] = {}
        self.owned: dict[str, _Owned] = {}
        self.states: set[str] = set()
        self.volumes: dict[str, int] = {}
        self.unfit: dict[str, str] = {}
        self.next: dict[str, Digest | None] = {}
        self.previous: dict[str, list[Digest]] = {}
        self.checks: set[str] = set()
        self.deliveries: dict[str, Mapping[str, bytes]] = {}
        self.reloaded: dict[str, int] = {}
        self.zones = {"Europe/Berlin": b"TZif"}
        self.assignments = Assignments()
        self.kept: tuple[ConfigurationFiles, Mapping[str, Mapping[str, bytes]]] | None = None

    def write(self, path: str, text: str) -> None:
        """What the administrator does: `path` is relative to /etc/appliance; no text, no file."""
        self.content[f"{DIRECTORY}/{path}"] = text.encode()
        if not text:
            del self.content[f"{DIRECTORY}/{path}"]

    def read_configuration(self) -> ConfigurationFiles:
        def below(prefix: str) -> dict[str, bytes]:
            return {
                path: text for path, text in self.content.items() if path.startswith(f"{DIRECTORY}/{prefix}")
            }

        return ConfigurationFiles(below("agent"), below("networks/"), below("appliances/"))

    def read_appliance_files(self, appliance: str) -> Mapping[str, bytes]:
        return self.guest_files.get(appliance, {})

    def keep_configuration(
        self, files: ConfigurationFiles, appliance_files: Mapping[str, Mapping[str, bytes]]
    ) -> bool:
        changed = self.kept != (files, appliance_files)
        self.kept = files, appliance_files
        return changed

    def kept_configuration(self) -> tuple[ConfigurationFiles, Mapping[str, Mapping[str, bytes]]] | None:
        return self.kept

    def read_time_zone(self, name: str) -> bytes | None:
        return self.zones.get(name)

    def read_assignments(self) -> Assignments:
        return self.assignments

    def keep_assignments(self, assignments: Assignments) -> bool:
        changed = self.assignments != assignments
        self.assignments = assignments
        return changed

    def why_unfit(self, kernel: str) -> str:
        return self.unfit.get(kernel, "")

    def user_id(self, appliance: str) -> int | None:
        return self.users.get(appliance)

    def data_volume(self, appliance: str) -> str:
        return f"/var/lib/appliance/appliances/{appliance}/data.img"

    def current_image(self, appliance: str) -> Digest | None:
        return self.owned[appliance].image if appliance in self.owned else None

    def known(self) -> set[str]:
        return {name for name, owned in self.owned.items() if owned.launch or owned.drop_in}

    def planned_at_us(self, appliance: str) -> int:
        return self.owned[appliance].planned_at_us if appliance in self.owned else 0

    def plan_users(self, appliances: Collection[str]) -> list[Change]:
        return [
            Change("create its system user", partial(self._create_user, name), name)
            for name in appliances
            if name not in self.users
        ]

    def plan(self, plan: AppliancePlan) -> list[Change]:
        name = plan.appliance.name
        owned = self.owned.get(name, _Owned())
        changes = []
        if name not in self.states:
            changes.append(Change("create its state directory", partial(self._create_state, name), name))
        if plan.data_bytes and name not in self.volumes:
            changes.append(Change("create a data volume", partial(self._create_volume, plan), name))
        if plan.image and owned.image != plan.image.digest:
            changes.append(Change("use image", partial(self._set, name, image=plan.image.digest), name))
        if (owned.launch, owned.initrd) != (plan.launch, plan.initrd):
            write = partial(self._set, name, launch=plan.launch, initrd=plan.initrd)
            changes.append(Change("write its launch plan", write, name, Effect.RESTART))
        if owned.drop_in != plan.drop_in:
            write = partial(self._set, name, drop_in=plan.drop_in)
            changes.append(
                Change("write its unit settings", write, name, Effect.RESTART | Effect.DAEMON_RELOAD)
            )
        return changes

    def plan_removal(self, appliance: str) -> list[Change]:
        forget = partial(self._set, appliance, launch="", initrd="")
        remove = partial(self._set, appliance, drop_in="")
        return [
            Change("remove its launch plan", forget, appliance),
            Change("remove its unit settings", remove, appliance, Effect.DAEMON_RELOAD),
        ]

    def needs_growth(self, plan: AppliancePlan) -> bool:
        return 0 < self.volumes.get(plan.appliance.name, 0) < plan.data_bytes

    def would_shrink(self, plan: AppliancePlan) -> bool:
        return 0 < plan.data_bytes < self.volumes.get(plan.appliance.name, 0)

    def grow(self, plan: AppliancePlan) -> None:
        self._journal.note(f"grow {plan.appliance.name}")
        self.volumes[plan.appliance.name] = plan.data_bytes

    def remove_strays(self) -> None:
        pass

    def write_delivery(self, plan: AppliancePlan) -> str:
        self.deliveries[plan.appliance.name] = plan.inputs.configuration
        return f"/run/appliance/{plan.appliance.name}/delivery"

    def remove_delivery(self, appliance: str) -> None:
        del self.deliveries[appliance]

    def mark_reloaded(self, appliance: str) -> None:
        self.reloaded[appliance] = self._journal.now_us

    def reloaded_at_us(self, appliance: str) -> int:
        return self.reloaded.get(appliance, 0)

    def plan_staging(self, plan: AppliancePlan) -> list[Change]:
        name = plan.appliance.name
        if self.owned[name].drop_in == plan.drop_in:
            return []
        write = partial(self._set, name, drop_in=plan.drop_in)
        return [Change("write its unit settings", write, name, Effect.DAEMON_RELOAD)]

    def refuse(self, appliance: str, launch: str) -> None:
        self._set(appliance, launch=launch, initrd="")

    def link_next(self, appliance: str, digest: Digest | None) -> None:
        self.next[appliance] = digest

    def link_previous(self, appliance: str, digests: Sequence[Digest]) -> None:
        self.previous[appliance] = list(digests)

    def prepare_check(self, plan: CheckPlan) -> None:
        self.checks.add(plan.instance)

    def remove_check(self, appliance: str) -> None:
        self.checks.discard(check_instance_of(appliance))

    def _create_user(self, name: str) -> None:
        self._journal.note(f"user {name}")
        self.users[name] = 900 + len(self.users)

    def _create_state(self, name: str) -> None:
        self._journal.note(f"state {name}")
        self.states.add(name)

    def _create_volume(self, plan: AppliancePlan) -> None:
        self._journal.note(f"volume {plan.appliance.name}")
        self.volumes[plan.appliance.name] = plan.data_bytes

    def _set(self, name: str, **values: Any) -> None:
        if name not in self.users:
            raise HostError(f"{name} has no user yet")
        self._journal.note(f"write {name} {next(iter(values))}")
        if "image" not in values:
            values["planned_at_us"] = self._journal.now_us
        self.owned[name] = replace(self.owned.get(name, _Owned()), **values)


class KeptTasks(dict[int, "asyncio.Task[None]"]):
    """Tasks that ended are kept, so that somebody sees how."""

    def pop(self, key: int, *_default: Any) -> Any:
        return self[key]


class World:
    """A host, and what looks after it."""

    def __init__(self, facts: HostFacts | None = None) -> None:
        self.journal = Journal()
        self.files = FakeFiles(self.journal)
        self.links = FakeLinks(self.journal)
        self.firewall = FakeFirewall()
        self.name_files = FakeNames()
        self.units = FakeUnits(self.journal)
        self.images = FakeImages(sample_image())
        self.states = FakeStates(self.journal)
        self.volumes = FakeVolumes(self.journal)
        self.generations = FakeGenerations()
        self.console = FakeConsole(self)
        self.outside = FakeOutside()
        self.told: list[Operation] = []
        self.now = datetime(2026, 11, 24, 12)  # noqa: DTZ001 (local time, a Tuesday)
        self.files.write("networks/default.yaml", NETWORK)
        self.on_change: Callable[[str], None] = lambda _appliance: None
        self.facts = facts or sample_facts()
        self.sight = FakeSight(self)
        self._start()

    def _on_change(self, appliance: str) -> None:
        self.on_change(appliance)

    def boot(self) -> None:
        """Start the agent again: only the host remembers anything."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the agent."""
        self.reconciler.close()
        self.names.close()

    def _start(self) -> None:
        self.watch = Watch(self._on_change)
        self.units.handler = self.watch.update
        self.operations = Operations(self.told.append)
        self.operations._tasks = KeptTasks()
        self.names = Names(self.name_files, self.console, self.watch, busy=self.operations.busy)
        planner = Planner(
            facts=self.facts,
            files=self.files,
            images=self.images,
            states=self.states,
            generations=self.generations,
            routes=self.links.routes,
        )
        self.network = HostNetwork(self.links, self.firewall, FakeManagers(), self.files)
        self.reconciler = Reconciler(
            planner=planner,
            files=self.files,
            network=self.network,
            names=self.names,
            units=self.units,
            watch=self.watch,
            busy=self.operations.busy,
        )
        steps = Steps(
            reconciler=self.reconciler,
            planner=planner,
            watch=self.watch,
            units=self.units,
            files=self.files,
            images=self.images,
            volumes=self.volumes,
            outside=self.outside,
            console=self.console,
        )
        self.swapper = Swapper(
            steps=steps,
            reconciler=self.reconciler,
            operations=self.operations,
            watch=self.watch,
            units=self.units,
            files=self.files,
            images=self.images,
            states=self.states,
            volumes=self.volumes,
            generations=self.generations,
        )
        self._start_data()
        self.updates = Updates(
            reconciler=self.reconciler,
            swapper=self.swapper,
            operations=self.operations,
            watch=self.watch,
            images=self.images,
            now=lambda: self.now,
        )

    def _start_data(self) -> None:
        data_steps = DataSteps(
            reconciler=self.reconciler,
            operations=self.operations,
            watch=self.watch,
            units=self.units,
            files=self.files,
            states=self.states,
            volumes=self.volumes,
            outside=self.outside,
        )
        self.data = DataKeeper(
            steps=data_steps,
            reconciler=self.reconciler,
            operations=self.operations,
            watch=self.watch,
            units=self.units,
            states=self.states,
            volumes=self.volumes,
        )

    def agent(self, on_applied: Callable[[], None] = lambda: None) -> Agent:
        """The agent's verbs on this host."""
        parts = self.reconciler, self.watch, self.swapper, self.operations, self.updates
        return Agent(*parts, data=self.data, networks=networks_of(self), on_applied=on_applied)

    async def run(self, *appliances: str) -> None:
        """Have these appliances configured, applied and running, with nothing in the journal."""
        for name in appliances:
            self.files.write(f"appliances/{name}.yaml", "image: dns-nsd\n")
        await self.reconciler.apply(restart=True)
        for name in appliances:
            await self.units.start(name)
        self.journal.take()
