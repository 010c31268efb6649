"""What the core needs of the outside world, as protocols: agent.host fulfils them, tests bring fakes.

`Links`, `Files` and `Images` block, and are called from one thread only. `Probes` blocks too, and is called
from several.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agent.config.tree import ConfigurationFiles
from agent.model.address import Address, Subnet
from agent.model.assignments import Assignments
from agent.model.change import Change
from agent.model.data import SnapshotFile, SnapshotNote, Volume
from agent.model.diagnosis import Verdict
from agent.model.generation import Generation
from agent.model.health import UnitStatus
from agent.model.image import Digest, Image, ImageReference
from agent.model.link import FilterChain, Link, Neighbour, Route, Way
from agent.model.listener import Listener
from agent.model.network import Bridge, Tap
from agent.model.probe import Probe
from agent.model.swap import ApplianceState
from agent.plan.check import CheckPlan
from agent.plan.host import AppliancePlan
from agent.plan.ruleset import Json, Ruleset


class Units(Protocol):
    """Units of appliances under PID 1: agent.host.systemd.Systemd."""

    async def subscribe(self, handler: Callable[[str, UnitStatus], None]) -> None:
        """Call `handler` with every change of a watched appliance."""

    async def watch(self, appliance: str) -> UnitStatus:
        """Watch one more; its status as it is."""

    def unwatch(self, appliance: str) -> None:
        """Watch one less."""

    async def loaded_appliances(self) -> dict[str, str]:
        """ActiveState by appliance, of all units that systemd knows."""

    async def reload(self) -> None:
        """daemon-reload."""

    async def restart(self, appliance: str) -> None:
        """Restart if it runs; UnitError where that fails."""

    async def start(self, appliance: str) -> None:
        """Start; UnitError where that fails."""

    async def stop(self, appliance: str) -> None:
        """Stop; UnitError where that fails."""

    async def run(self, instance: str) -> UnitStatus:
        """Run a oneshot instance to its end; its status then."""

    async def is_booting(self) -> bool:
        """Whether units are still being started that the boot is to start."""

    async def is_going_down(self) -> bool:
        """Whether the host is shutting down: nothing can be started any more."""

    async def kill(self, appliance: str) -> None:
        """Kill every process of the unit at once; nothing where it has none."""

    async def forget_failure(self, instance: str) -> None:
        """Reset the failed state of a unit, and its count of starts."""


class Probes(Protocol):
    """Appliances seen from outside: the module agent.host.probes."""

    def ask(self, probe: Probe, address: Address, *, timeout_s: float) -> str:
        """Ask once; '' where it is answered properly, else a clause that says why not."""


class Links(Protocol):
    """Bridges and taps: agent.host.netlink.Netlink."""

    def plan(self, bridges: Sequence[Bridge], taps: Sequence[Tap]) -> list[Change]:
        """What it takes to have exactly these."""

    def routes(self) -> list[Subnet]:
        """Subnets that the host has routes to, but for default routes and those to bridges of ours."""

    def listeners(self) -> list[Listener]:
        """The host's own listening sockets."""


class Firewall(Protocol):
    """Rules of nftables: agent.host.nftables.Firewall."""

    def plan(self, wanted: Ruleset) -> list[Change]:
        """What it takes to have exactly these."""


class Sight(Protocol):
    """The network as the kernel has it: agent.host.netlink.Netlink."""

    def links(self) -> dict[str, Link]:
        """All there are, by name."""

    def addresses(self, index: int) -> set[str]:
        """Addresses of an interface with prefix length."""

    def owner(self, tap: str) -> int:
        """The uid that may attach to a tap; HostError where there is none of that name."""

    def vlans(self) -> dict[int, dict[int, int]]:
        """Flags by VLAN, of every port of a bridge that filters by them, by index."""

    def foreign_routes(self) -> list[Route]:
        """As `routes`, with the interfaces they lead to."""

    def way(self, destination: Address, *, source: Address | None = None, interface: str = "") -> Way:
        """Where a packet of this host's goes; with `interface`, one of `source` that came in by it."""

    def neighbours(self) -> list[Neighbour]:
        """Who has which address on the host's links."""

    def forwards(self, version: int, interface: str) -> bool:
        """Whether the host passes on packets of this IP version that come in by an interface."""

    def filters_bridged(self, version: int) -> bool:
        """Whether packets that stay on a bridge are filtered as if they were routed."""


class FirewallSight(Protocol):
    """What nftables has: agent.host.nftables.Firewall."""

    def refused(self) -> dict[str, tuple[int, int]]:
        """How much of what each tap sent was dropped: packets and bytes; HostError where it is not known."""

    def chains(self) -> list[FilterChain]:
        """Every chain that the kernel has, whoever made it."""

    def rules(self, family: str, table: str) -> Json:
        """What is in a table, as libnftables-json(5) has it."""


class Echo(Protocol):
    """An echo request, from any thread: agent.host.probes.echo."""

    def __call__(self, address: Address, *, timeout_s: float) -> Verdict:
        """Whether an address answers; unknown where this host does not let the agent ask."""


class Managers(Protocol):
    """Other programs that manage interfaces: agent.host.managers.InterfaceManagers."""

    def plan(self, bridges: Collection[Bridge]) -> list[Change]:
        """What it takes to have them leave our interfaces alone."""


class Images(Protocol):
    """The image store: agent.host.store.ImageStore."""

    def get(self, digest: Digest) -> Image:
        """One image; ImageError where it is not there."""

    def prove(self, digest: Digest) -> Image:
        """The image after hashing it; ImageError where it is not what its digest says."""

    def resolve(self, reference: ImageReference) -> Image:
        """The newest image that `reference` may mean; ImageError where there is none."""


class Files(Protocol):
    """The configuration, generated files and data volumes: agent.host.appliances.ApplianceFiles."""

    @property
    def runtime_digest(self) -> str:
        """Identifies the guest runtime that heads every initrd."""

    def read_configuration(self) -> ConfigurationFiles:
        """The administrator's files; ConfigurationError where one cannot be read."""

    def read_appliance_files(self, appliance: str) -> Mapping[str, bytes]:
        """Files to hand to a guest, by relative path; ConfigurationError where one cannot be read."""

    def keep_configuration(
        self, files: ConfigurationFiles, appliance_files: Mapping[str, Mapping[str, bytes]]
    ) -> bool:
        """Keep a configuration that was found valid; whether it is new."""

    def kept_configuration(self) -> tuple[ConfigurationFiles, Mapping[str, Mapping[str, bytes]]] | None:
        """The configuration that was last found valid; None where there is none."""

    def read_time_zone(self, name: str) -> bytes | None:
        """A TZif file; None where there is no such zone."""

    def read_assignments(self) -> Assignments:
        """What was kept."""

    def keep_assignments(self, assignments: Assignments) -> bool:
        """Keep them; whether they are new."""

    def why_unfit(self, kernel: str) -> str:
        """What keeps a kernel binary from running guests; ''."""

    def user_id(self, appliance: str) -> int | None:
        """The uid of an appliance's user; None where there is none yet."""

    def data_volume(self, appliance: str) -> str:
        """Path of an appliance's data volume."""

    def current_image(self, appliance: str) -> Digest | None:
        """The image an appliance was last given."""

    def known(self) -> set[str]:
        """Appliances with generated files."""

    def reloaded_at_us(self, appliance: str) -> int:
        """When a running guest last took its plan without a new start; 0 if never."""

    def planned_at_us(self, appliance: str) -> int:
        """When the files that a start reads were last written (CLOCK_REALTIME, microseconds); 0 if never."""

    def plan_users(self, appliances: Collection[str]) -> list[Change]:
        """Users that are missing."""

    def plan(self, plan: AppliancePlan) -> list[Change]:
        """What it takes to give an appliance its files."""

    def plan_removal(self, appliance: str) -> list[Change]:
        """What it takes to make systemd forget an appliance."""

    def needs_growth(self, plan: AppliancePlan) -> bool:
        """Whether its data volume is too small."""

    def would_shrink(self, plan: AppliancePlan) -> bool:
        """Whether its data volume is larger than it is to be."""

    def grow(self, plan: AppliancePlan) -> None:
        """Grow its data volume, which no guest uses."""

    def remove_strays(self) -> None:
        """Remove what interrupted writes left."""

    def write_delivery(self, plan: AppliancePlan) -> str:
        """Write the configuration of a plan as a running guest is to take it; its path."""

    def remove_delivery(self, appliance: str) -> None:
        """Remove it."""

    def mark_reloaded(self, appliance: str) -> None:
        """Remember that the guest, without a new start, runs as its launch plan says."""

    def plan_staging(self, plan: AppliancePlan) -> list[Change]:
        """What a start needs before the launch plan names it."""

    def refuse(self, appliance: str, launch: str) -> None:
        """Replace the launch plan by one that refuses."""

    def link_next(self, appliance: str, digest: Digest | None) -> None:
        """Keep the image of a swap under way in the store; None when it has ended."""

    def link_previous(self, appliance: str, digests: Sequence[Digest]) -> None:
        """Keep the images to go back to in the store, the last one first."""

    def prepare_check(self, plan: CheckPlan) -> None:
        """Write what the instance for a check is made of."""

    def remove_check(self, appliance: str) -> None:
        """Remove it again."""


class StateKeeper(Protocol):
    """What is remembered of appliances: agent.host.states.States."""

    def names(self) -> list[str]:
        """Appliances of which something is remembered, configured or not."""

    def read(self, appliance: str) -> ApplianceState:
        """What is remembered; HostError where it cannot be understood."""

    def write(self, appliance: str, state: ApplianceState) -> bool:
        """Keep it, durably; whether it is new."""


class GenerationKeeper(Protocol):
    """Configurations of appliances: agent.host.generations.Generations."""

    def read(self, appliance: str, generation: str) -> Generation:
        """One of them; HostError where there is none of that name."""

    def write(self, appliance: str, generation: Generation) -> bool:
        """Keep it, durably; whether it is new."""

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        """Remove all that are not in `but`."""


class Console(Protocol):
    """The management consoles of guests: the module agent.host.console."""

    def deliver(self, instance: str, path: str) -> None:
        """Hand the guest a file with new configuration; HostError where it cannot be reached."""

    def withdraw(self, instance: str) -> None:
        """Take it away again."""


class NameKeeper(Protocol):
    """Names of appliances on the disk: agent.host.names.NameFiles."""

    def disk(self, appliance: str) -> Path:
        """Where a guest's disk lies."""

    def plan_guest(self, appliance: str, hosts: str) -> list[Change]:
        """What it takes to have a guest find these names."""

    def plan_host(self, hosts: str) -> list[Change]:
        """What it takes to have the host know these names."""


class Volumes(Protocol):
    """Copies of data volumes: agent.host.snapshots.VolumeSnapshots. No guest uses the volume meanwhile."""

    def can_share(self, appliance: str) -> bool:
        """Whether a snapshot costs nothing."""

    def has(self, appliance: str, snapshot: str) -> bool:
        """Whether there is this snapshot."""

    def volume(self, appliance: str) -> Volume:
        """The volume as it is."""

    def snapshot_files(self, appliance: str) -> list[SnapshotFile]:
        """All snapshots."""

    def take(self, appliance: str, snapshot: str, note: SnapshotNote | None = None) -> None:
        """Copy the volume; HostError where the disk is full."""

    def delete(self, appliance: str, snapshot: str) -> bool:
        """Remove one snapshot; whether it was there."""

    def bring(self, appliance: str, snapshot: str) -> None:
        """Make the copy of a snapshot that `switch` makes the volume; a guest may run meanwhile."""

    def switch(self, appliance: str, aside: str, note: SnapshotNote) -> None:
        """Make the volume the snapshot `aside`, and what was brought the volume; `put_back` undoes it."""

    def put_back(self, appliance: str, aside: str) -> bool:
        """Make `aside` the volume again, and use it up; whether it was there. Removes what was brought."""

    def exchange(self, appliance: str, snapshot: str, restored: str) -> None:
        """Make the volume the snapshot `snapshot`, and the snapshot `restored` the volume."""

    def discard(self, appliance: str, snapshot: str) -> None:
        """Remove a snapshot if there is one of that name."""

    def restore(self, appliance: str, snapshot: str, *, aside: str = "") -> bool:
        """Make the snapshot the volume again, and use it up; whether it was there. With `aside`, what was
        the volume becomes the snapshot of that name."""

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        """Remove the snapshots of swaps that are not in `but`."""


class Measurement(Protocol):
    """Questions asked again and again from the bridge: agent.host.probes.OutageMeter."""

    def stop(self) -> float | None:
        """End them; the longest time without an answer, in milliseconds. None where there was none at
        all."""


class Outside(Protocol):
    """Appliances as their clients see them: agent.core.outside.OutsideView."""

    async def ask(self, plan: AppliancePlan) -> str:
        """Ask once what a client would ask; why there was no good answer, or ''."""

    def measure(self, plan: AppliancePlan) -> Measurement | None:
        """Begin to ask all the time; None where nothing can be asked."""
