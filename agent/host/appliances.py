"""What an appliance is on disk beside its image: configuration, user, state, data volume, launch plan, unit.

    /var/lib/appliance/appliances/NAME/          root:appliance-NAME 0750
        current -> ../../images/sha256-HEX       switched by rename
        previous, previous-2 …, next             likewise: what swaps came from, and what one goes to
        state                                    see agent.host.states
        data.img                                 root:appliance-NAME 0660
        snapshots/                               see agent.host.snapshots
        generations/                             see agent.host.generations
    /run/appliance/NAME/                         root:root 0755
        launch                                   root:appliance-NAME 0640, switched by rename
        delivery                                 likewise: new configuration for a guest that runs
        console                                  a socket, while a guest's management console is asked
        reloaded                                 empty; as old as the last delivery that was taken
        initrd-HASH                              root:appliance-NAME 0640, named by content
    /etc/systemd/system/appliance@NAME.service.d/50-appliance.conf
    /run/appliance/NAME.check/, /run/systemd/system/appliance@NAME.check.service.d/
                                                 while a configuration is checked (agent.plan.check)

Order of writing: initrd before the launch plan that names it, data volume before the plan that uses it. A
crash in between leaves the old plan in force and strays that the next run removes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from agent.config.tree import ConfigurationFiles
from agent.config.units import format_size
from agent.host.assignments import read_assignments, write_assignments
from agent.host.configuration import read_appliance_files, read_configuration
from agent.host.kept import keep_configuration, kept_configuration
from agent.host.kernel import why_unfit
from agent.host.store import LINKS
from agent.host.users import create_user, group_id, user_id
from agent.host.volumes import create_volume, grow_volume, is_half_grown, volume_size
from agent.model.assignments import Assignments
from agent.model.change import Change, Effect
from agent.model.errors import HostError, Problem
from agent.model.image import Digest
from agent.model.names import check_instance_of, is_appliance_name, unit_of
from agent.model.paths import Paths
from agent.plan.check import CheckPlan
from agent.plan.cpio import as_disk
from agent.plan.dropin import NAME as DROP_IN
from agent.plan.host import AppliancePlan
from agent.util.files import ensure_absent, ensure_symlink, remove_strays, write_file


class ApplianceFiles:
    """Reads, plans and makes all of the above; blocking. The guest runtime heads every initrd."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._runtime = paths.guest_runtime.read_bytes()
        self.runtime_digest = Digest.of(self._runtime).hex

    def read_configuration(self) -> ConfigurationFiles:
        """The administrator's files; ConfigurationError where one cannot be read."""
        return read_configuration(self._paths.configuration)

    def read_appliance_files(self, appliance: str) -> dict[str, bytes]:
        """Files to hand to a guest, by relative path; ConfigurationError where one cannot be read."""
        return read_appliance_files(self._paths.configuration / "config" / appliance)

    def keep_configuration(
        self, files: ConfigurationFiles, appliance_files: Mapping[str, Mapping[str, bytes]]
    ) -> bool:
        """Keep a configuration that was found valid; whether it is new."""
        return keep_configuration(self._paths.kept_configuration, files, appliance_files)

    def kept_configuration(self) -> tuple[ConfigurationFiles, Mapping[str, Mapping[str, bytes]]] | None:
        """The configuration that was last found valid; None where there is none."""
        return kept_configuration(self._paths.kept_configuration)

    def read_time_zone(self, name: str) -> bytes | None:
        """A TZif file; None where there is no such zone."""
        try:
            return (self._paths.zoneinfo / name).read_bytes()
        except OSError:
            return None

    def read_assignments(self) -> Assignments:
        """What was kept."""
        return read_assignments(self._paths.assignments)

    def keep_assignments(self, assignments: Assignments) -> bool:
        """Keep them; whether they are new."""
        return write_assignments(self._paths.assignments, assignments)

    def why_unfit(self, kernel: str) -> str:
        """What keeps a kernel binary from running guests; ''."""
        return why_unfit(kernel)

    def user_id(self, appliance: str) -> int | None:
        """The uid of an appliance's user; None where there is none yet."""
        return user_id(appliance)

    def data_volume(self, appliance: str) -> str:
        """Path of an appliance's data volume."""
        return str(self._paths.data_volume(appliance))

    def current_image(self, appliance: str) -> Digest | None:
        """The image this appliance was last given; None where it has none."""
        try:
            target = os.readlink(self._paths.appliance_state(appliance) / "current")
        except OSError:
            return None
        return Digest.parse(os.path.basename(target))

    def known(self) -> set[str]:
        """Appliances with generated files, wanted or not."""
        drop_ins = self._paths.units.glob(f"appliance@*.service.d/{DROP_IN}")
        names = {path.parent.name.removeprefix("appliance@").removesuffix(".service.d") for path in drop_ins}
        names.update(path.parent.name for path in self._paths.runtime.glob("*/launch"))
        return {name for name in names if is_appliance_name(name)}

    def planned_at_us(self, appliance: str) -> int:
        """When the files that a start reads were last written, in microseconds of CLOCK_REALTIME; 0 if
        never."""
        files = (
            self._paths.appliance_runtime(appliance) / "launch",
            self._paths.drop_in_directory(appliance) / DROP_IN,
        )
        return max(map(_changed_at_us, files))

    def plan_users(self, appliances: Collection[str]) -> list[Change]:
        """Users that are missing."""
        return [
            Change("create its system user", partial(create_user, name), name)
            for name in appliances
            if user_id(name) is None
        ]

    def plan(self, plan: AppliancePlan) -> list[Change]:
        """What it takes to give one appliance the files of its plan; its user exists when the changes are
        applied."""
        return [*self._plan_state(plan), *self._plan_runtime(plan), *self._plan_drop_in(plan)]

    def plan_staging(self, plan: AppliancePlan) -> list[Change]:
        """What a start needs before the launch plan names it: initrd and unit settings. The running guest
        has no part in it."""
        initrd = Change("write its initrd", lambda: self._write_initrd(plan), plan.appliance.name)
        return [*([initrd] if plan.initrd else []), *self._plan_drop_in(plan)]

    def remove_strays(self) -> None:
        """Remove what interrupted writes and deliveries left."""
        for pattern in ("", "appliances/*", "appliances/*/generations"):
            for directory in self._paths.state.glob(pattern) if pattern else [self._paths.state]:
                remove_strays(directory)
        for name in ("delivery", "console"):
            for stray in self._paths.runtime.glob(f"*/{name}"):
                ensure_absent(stray)
        for directory in (*self._paths.runtime.glob("*"), *self._paths.units.glob("appliance@*.service.d")):
            remove_strays(directory)

    def write_delivery(self, plan: AppliancePlan) -> str:
        """Write the configuration of a plan as a running guest is to take it, a disk; its path."""
        path = self._delivery(plan.appliance.name)
        content = as_disk(plan.guest_archive)
        write_file(path, content, mode=0o640, group=group_id(plan.appliance.name))
        return str(path)

    def remove_delivery(self, appliance: str) -> None:
        """Remove it."""
        ensure_absent(self._delivery(appliance))

    def mark_reloaded(self, appliance: str) -> None:
        """Remember that the guest, without a new start, runs as its launch plan says."""
        write_file(self._paths.appliance_runtime(appliance) / "reloaded", "")

    def _delivery(self, appliance: str) -> Path:
        return self._paths.appliance_runtime(appliance) / "delivery"

    def reloaded_at_us(self, appliance: str) -> int:
        """When a running guest last took its plan without a new start, in microseconds of CLOCK_REALTIME;
        0 if never."""
        return _changed_at_us(self._paths.appliance_runtime(appliance) / "reloaded")

    def refuse(self, appliance: str, launch: str) -> None:
        """Replace the launch plan by one that refuses; the next `plan` puts it right again."""
        write_file(
            self._paths.appliance_runtime(appliance) / "launch",
            launch,
            mode=0o640,
            group=group_id(appliance),
        )

    def link_next(self, appliance: str, digest: Digest | None) -> None:
        """Keep the image of a swap under way in the store; None when it has ended."""
        self._link(appliance, "next", digest)

    def link_previous(self, appliance: str, digests: Sequence[Digest]) -> None:
        """Keep the images to go back to in the store, the last one first: `previous`, `previous-2` …"""
        names = ["previous", *(f"previous-{number}" for number in range(2, len(digests) + 1))]
        for name, digest in zip(names, digests, strict=False):
            self._link(appliance, name, digest)
        for link in self._paths.appliance_state(appliance).glob("previous*"):
            if link.name not in names[: len(digests)]:
                self._link(appliance, link.name, None)

    def _link(self, appliance: str, name: str, digest: Digest | None) -> None:
        path = self._paths.appliance_state(appliance) / name
        if digest:
            ensure_symlink(path, _target(digest))
        else:
            ensure_absent(path)

    def prepare_check(self, plan: CheckPlan) -> None:
        """Write what a check's instance is made of."""
        directory = self._paths.appliance_runtime(plan.instance)
        drop_in = self._check_drop_in(plan.instance)
        for path in (directory, drop_in.parent):
            path.mkdir(parents=True, exist_ok=True)
        group = group_id(plan.appliance)
        content = self._runtime + plan.guest_archive
        write_file(directory / os.path.basename(plan.initrd), content, mode=0o640, group=group)
        write_file(directory / "launch", plan.launch, mode=0o640, group=group)
        write_file(drop_in, plan.drop_in)

    def remove_check(self, appliance: str) -> None:
        """Remove it; the instance has ended."""
        instance = check_instance_of(appliance)
        ensure_absent(self._paths.appliance_runtime(instance))
        ensure_absent(self._check_drop_in(instance).parent)

    def _check_drop_in(self, instance: str) -> Path:
        return self._paths.runtime_units / f"{unit_of(instance)}.d" / DROP_IN

    def plan_removal(self, appliance: str) -> list[Change]:
        """What it takes to make systemd forget an appliance, and free its image. Data and user stay."""
        forget, remove = partial(self._forget, appliance), partial(self._remove_drop_in, appliance)
        return [
            Change("remove its launch plan", forget, appliance),
            Change("remove its unit settings", remove, appliance, Effect.DAEMON_RELOAD),
        ]

    def _plan_state(self, plan: AppliancePlan) -> Iterator[Change]:
        name = plan.appliance.name
        directory = self._paths.appliance_state(name)
        if not directory.is_dir():
            yield Change("create its state directory", lambda: self._create_state(name), name)
        volume = self._paths.data_volume(name)
        if plan.data_bytes and not volume.exists():
            size_bytes = plan.data_bytes
            yield Change(
                f"create a data volume of {format_size(size_bytes)}",
                lambda: self._create_volume(name, size_bytes),
                name,
            )
        if plan.image and self.current_image(name) != plan.image.digest:
            target = _target(plan.image.digest)
            yield Change(
                f"use image {plan.image.manifest.title} ({plan.image.digest.short})",
                lambda: ensure_symlink(directory / "current", target),
                name,
            )

    def _plan_runtime(self, plan: AppliancePlan) -> Iterator[Change]:
        name = plan.appliance.name
        launch = self._paths.appliance_runtime(name) / "launch"
        if not _has_content(launch, plan.launch) or (plan.initrd and not self._initrd(plan).exists()):
            yield Change("write its launch plan", lambda: self._write_runtime(plan), name, Effect.RESTART)
        elif self._other_initrds(plan):
            yield Change("remove an initrd that is not used", lambda: self._remove_initrds(plan), name)

    def _plan_drop_in(self, plan: AppliancePlan) -> Iterator[Change]:
        name = plan.appliance.name
        path = self._paths.drop_in_directory(name) / DROP_IN
        if not _has_content(path, plan.drop_in):
            effect = Effect.DAEMON_RELOAD | Effect.RESTART
            yield Change("write its unit settings", lambda: _write(path, plan.drop_in), name, effect)

    def needs_growth(self, plan: AppliancePlan) -> bool:
        """Whether the data volume is smaller than it is to be."""
        volume = self._paths.data_volume(plan.appliance.name)
        return 0 < volume_size(volume) < plan.data_bytes or is_half_grown(volume)

    def would_shrink(self, plan: AppliancePlan) -> bool:
        """Whether the data volume is larger than it is to be."""
        return 0 < plan.data_bytes < volume_size(self._paths.data_volume(plan.appliance.name))

    def grow(self, plan: AppliancePlan) -> None:
        """Grow its data volume, which no guest uses."""
        grow_volume(self._paths.data_volume(plan.appliance.name), size_bytes=plan.data_bytes)

    def _initrd(self, plan: AppliancePlan) -> Path:
        return self._paths.appliance_runtime(plan.appliance.name) / os.path.basename(plan.initrd)

    def _create_state(self, name: str) -> None:
        directory = self._paths.appliance_state(name)
        directory.mkdir(parents=True, exist_ok=True)
        os.chown(directory, 0, group_id(name))
        directory.chmod(0o750)

    def _write_runtime(self, plan: AppliancePlan) -> None:
        name = plan.appliance.name
        directory = self._paths.appliance_runtime(name)
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        if plan.initrd and not self._initrd(plan).exists():
            self._write_initrd(plan)
        write_file(directory / "launch", plan.launch, mode=0o640, group=group_id(name))
        self._remove_initrds(plan)
        remove_strays(directory)

    def _other_initrds(self, plan: AppliancePlan) -> list[Path]:
        """Those of plans that were staged, and are not in force."""
        found = self._paths.appliance_runtime(plan.appliance.name).glob("initrd-*")
        return [path for path in found if path.name != os.path.basename(plan.initrd)]

    def _remove_initrds(self, plan: AppliancePlan) -> None:
        for path in self._other_initrds(plan):
            path.unlink(missing_ok=True)

    def _create_volume(self, name: str, size_bytes: int) -> None:
        volume = self._paths.data_volume(name)
        if any(self._paths.snapshots(name).glob("*.img")):
            # It was there: a guest must not begin with nothing, and then write that over everything.
            raise HostError(
                f"{volume} is missing, and there are snapshots of it.",
                problem=Problem.NOT_FOUND,
                remedy="Rename one of them to that place, or move them away to begin with an empty volume.",
            )
        create_volume(volume, size_bytes=size_bytes, group=group_id(name))

    def _write_initrd(self, plan: AppliancePlan) -> None:
        path = self._initrd(plan)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, self._runtime + plan.guest_archive, mode=0o640, group=group_id(plan.appliance.name))

    def _forget(self, appliance: str) -> None:
        directory = self._paths.appliance_runtime(appliance)
        state = self._paths.appliance_state(appliance)
        # A pattern without a wildcard does not find links that lead nowhere (Python 3.11).
        links = (link for link in state.glob("*") if any(map(link.match, LINKS)))
        for path in (directory / "launch", directory / "names", *directory.glob("initrd-*"), *links):
            path.unlink(missing_ok=True)

    def _remove_drop_in(self, appliance: str) -> None:
        directory = self._paths.drop_in_directory(appliance)
        ensure_absent(directory / DROP_IN)
        # The administrator's own settings may lie there too.
        with contextlib.suppress(OSError):
            directory.rmdir()


def _changed_at_us(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns // 1000
    except FileNotFoundError:
        return 0


def _target(digest: Digest) -> str:
    return f"../../images/{digest.directory}"


def _has_content(path: Path, content: str) -> bool:
    try:
        return path.read_bytes() == content.encode()
    except OSError:
        return False


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)
