"""Guests on the World of tests/fakes/world.py: which image each runs, what it leaves in its data volume, and
an agent that may die before anything it does.

    guests = Guests(world)
    await world.run("dns")
    guests.fuse.at = 7           # the seventh thing that the agent does from now on is done no more
    guests.running["dns"]        # the image that runs
    guests.wrongs                # what must never happen, and did
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

from agent.model.data import SnapshotNote
from agent.model.errors import UnitError
from agent.model.health import UnitStatus
from agent.model.image import Image
from tests.fakes.journal import Journal
from tests.fakes.volumes import FakeVolumes
from tests.fakes.world import FakeFiles, FakeImages, FakeUnits, World

SICK_AFTER_S = 0.002


class Crash(BaseException):
    """The agent is dead: nothing in it may catch this."""


@dataclass
class Fuse:
    """Counts what the agent does, and ends it before the `at`-th; 0 is never."""

    at: int = 0
    count: int = 0
    burnt: bool = False

    def spark(self) -> None:
        """Something is about to be done."""
        self.count += 1
        if self.burnt or self.count == self.at:
            self.burnt = True
            raise Crash

    def renew(self, *, at: int = 0) -> None:
        """Count anew."""
        self.at, self.count, self.burnt = at, 0, False


@dataclass
class _Host:
    """What units and volumes know of each other."""

    images: FakeImages
    files: FakeFiles
    running: dict[str, Image] = field(default_factory=dict)
    configured: dict[str, str] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    sick: set[str] = field(default_factory=set)
    spoilt: set[str] = field(default_factory=set)


class GuestVolumes(FakeVolumes):
    """Volumes that are not there where the real ones would not be, and no guest may use meanwhile.

    A volume's text is what wrote to it, one after the other, each with its data format.
    """

    def __init__(self, journal: Journal, host: _Host) -> None:
        super().__init__(journal)
        self._host = host

    def take(self, appliance: str, snapshot: str, note: SnapshotNote | None = None) -> None:
        self._check_unused(appliance)
        super().take(appliance, snapshot, note)

    def switch(self, appliance: str, aside: str, note: SnapshotNote) -> None:
        self._check_unused(appliance)
        super().switch(appliance, aside, note)

    def put_back(self, appliance: str, aside: str) -> bool:
        if self.has(appliance, aside):
            self._check_unused(appliance)
        return super().put_back(appliance, aside)

    def exchange(self, appliance: str, snapshot: str, restored: str) -> None:
        self._check_unused(appliance)
        self._journal.note(f"put aside {appliance} {snapshot}")
        self.snapshots.setdefault(appliance, {})[snapshot] = self.volumes.pop(appliance)
        del self._host.files.volumes[appliance]
        self.restore(appliance, restored)

    def restore(self, appliance: str, snapshot: str, *, aside: str = "") -> bool:
        self._check_unused(appliance)
        restored = super().restore(appliance, snapshot, aside=aside)
        if restored:
            self._host.files.volumes[appliance] = 256 << 20
        return restored

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        self._journal.note(f"tidy {appliance}")
        super().remove(appliance, but=but)

    def _check_unused(self, appliance: str) -> None:
        if appliance in self._host.running:
            self._host.wrongs.append(f"the volume of {appliance} was touched while its guest ran")


class GuestUnits(FakeUnits):
    """PID 1 that starts what the launch plan says."""

    def __init__(self, journal: Journal, host: _Host, volumes: GuestVolumes) -> None:
        super().__init__(journal)
        self._host = host
        self._volumes = volumes

    async def start(self, appliance: str) -> None:
        self._journal.note(f"start {appliance}")
        self.launch(appliance)

    def launch(self, appliance: str) -> None:
        """Start a guest without the agent, as systemd does after a boot."""
        if appliance in self._host.running:
            return
        launch = self._host.files.owned[appliance].launch
        image = next((image for image in self._host.images.images if image.path in launch), None)
        if image:
            self._write(appliance, image)
        data = self._volumes.volumes.get(appliance, "").split("/")[0]
        if image is None or image.manifest.reference in self._host.broken or data in self._host.spoilt:
            self.become(appliance, "failed", result="exit-code", main_status=87, status_text="it is broken")
            raise UnitError(f"{appliance}: failed")
        self._host.running[appliance] = image
        self.took(appliance)
        self.become(appliance, "active", result="success", status_text="", restarts=0)
        if image.manifest.reference in self._host.sick:
            asyncio.get_running_loop().call_later(SICK_AFTER_S, self._sicken, appliance, image)

    def took(self, appliance: str) -> None:
        self._host.configured[appliance] = self._host.files.owned[appliance].initrd

    async def stop(self, appliance: str) -> None:
        self._journal.note(f"stop {appliance}")
        self._host.running.pop(appliance, None)
        self.become(appliance, "inactive", result="success")

    async def restart(self, appliance: str) -> None:
        if appliance in self._host.running:
            await self.stop(appliance)
            await self.start(appliance)

    async def forget_failure(self, instance: str) -> None:
        self._journal.note(f"forget {instance}")
        if self.status.get(instance, UnitStatus()).active_state == "failed":
            self.become(instance, "inactive", result="success")

    def _sicken(self, appliance: str, image: Image) -> None:
        if self._host.running.get(appliance) == image:
            self.become(appliance, "active", status_text="unhealthy: no answer")

    def _write(self, appliance: str, image: Image) -> None:
        data = image.manifest.data
        if data is None:
            return
        before = self._volumes.volumes.get(appliance, "").split()
        if before and int(before[-1].split("/")[1]) not in data.reads:
            self._host.wrongs.append(f"{image.manifest.reference} was started on {before[-1]}")
        self._volumes.volumes[appliance] = " ".join([*before, f"{image.manifest.reference}/{data.format}"])


class Guests:
    """Guests of a world; made before anything is configured in it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.fuse = Fuse()
        self._host = _Host(world.images, world.files)
        self.running, self.wrongs = self._host.running, self._host.wrongs
        self.configured = self._host.configured
        self.broken, self.sick = self._host.broken, self._host.sick
        self.spoilt = self._host.spoilt
        self.volumes = GuestVolumes(world.journal, self._host)
        self.units = GuestUnits(world.journal, self._host, self.volumes)
        world.volumes, world.units = self.volumes, self.units
        silent = ("link_next", "link_previous", "prepare_check", "remove_check")
        for owner, name in (
            (world.journal, "note"),
            (world.states, "write"),
            *((world.files, name) for name in silent),
        ):
            setattr(owner, name, self._fused(getattr(owner, name)))
        world.boot()

    def data(self, appliance: str) -> list[str]:
        """What wrote to a volume, oldest first, without its format."""
        return [entry.split("/")[0] for entry in self.volumes.volumes.get(appliance, "").split()]

    def power_off(self) -> None:
        """What a reboot takes away: guests, links, and what lies in /run."""
        self.running.clear()
        self.world.units.status.clear()
        self.world.links.links.clear()
        self.world.files.checks.clear()
        self.world.files.deliveries.clear()
        for name, owned in self.world.files.owned.items():
            self.world.files.owned[name] = replace(owned, launch="", initrd="")

    def _fused(self, act: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(act)
        def fused(*arguments: Any, **named: Any) -> Any:
            self.fuse.spark()
            return act(*arguments, **named)

        return fused
