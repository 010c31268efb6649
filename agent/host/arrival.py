"""Makes an appliance of this host from what an archive held. Blocking; in the calling process, as root.

Order of writing: image, user, state (which image, which data format), data volume, configuration files, and
the YAML file last: only that makes an appliance of it. What is interrupted before is no appliance yet, and
is replaced by another import with `--replace`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from agent.config.tree import ConfigurationFiles, read_tree
from agent.config.units import format_size
from agent.host.configuration import read_appliance_files, read_configuration
from agent.host.snapshots import VolumeSnapshots
from agent.host.states import States
from agent.host.store import ImageStore
from agent.host.users import create_user, group_id, user_id
from agent.host.volumes import MODE, unused
from agent.model.appliance import Appliance
from agent.model.data import SnapshotNote
from agent.model.errors import ApplianceError, HostError, ImageError, Problem
from agent.model.image import Image
from agent.model.paths import Paths
from agent.plan.data import snapshot_name, unused_name
from agent.plan.host import DEFAULT_DATA_BYTES
from agent.plan.swap import why_unreadable
from agent.plan.transfer import CONFIG, DATA, IMAGE, YAML, ArchiveManifest
from agent.util.files import write_file
from agent.util.staging import staging_directory


@dataclass(frozen=True, slots=True)
class Arrival:
    """An archive that was unpacked into `directory`, to become the appliance `name`."""

    paths: Paths
    directory: Path
    manifest: ArchiveManifest
    name: str

    @property
    def yaml(self) -> Path:
        """Where its YAML file goes."""
        return self.paths.configuration / "appliances" / f"{self.name}.yaml"

    @property
    def config(self) -> Path:
        """Where its configuration files go."""
        return self.paths.configuration / "config" / self.name


def check_free(arrival: Arrival) -> None:
    """HostError where anything of that name is here already."""
    places = (arrival.yaml, arrival.config, arrival.paths.data_volume(arrival.name))
    there = [str(path) for path in places if path.exists()]
    if there:
        raise HostError(
            f"{arrival.name} exists already: {', '.join(there)}.",
            problem=Problem.ALREADY_EXISTS,
            remedy="`--name` gives it another name, `--replace` takes the place of what is there.",
        )


def check(arrival: Arrival) -> Appliance:
    """What the appliance will be; ConfigurationError or HostError where it could not be on this host."""
    found = read_configuration(arrival.paths.configuration)
    content = (arrival.directory / YAML).read_bytes()
    appliances = {**found.appliances, str(arrival.yaml): content}
    tree = read_tree(ConfigurationFiles(found.agent, found.networks, appliances))
    if (arrival.directory / CONFIG).is_dir():
        read_appliance_files(arrival.directory / CONFIG)
    appliance = tree.appliances[arrival.name]
    volume = arrival.directory / DATA
    size_bytes = volume.stat().st_size if volume.exists() else 0
    if size_bytes > (allowed := appliance.data_bytes or DEFAULT_DATA_BYTES):
        raise HostError(
            f"The data volume has {format_size(size_bytes)}, and `data:` allows {format_size(allowed)}.",
            problem=Problem.NOT_SUPPORTED,
        )
    return appliance


def check_image(arrival: Arrival, appliance: Appliance) -> Image:
    """The image, which is imported where the archive has it; ImageError where it is not there, or is not
    what the configuration and the data need."""
    store = ImageStore(arrival.paths.images)
    if arrival.manifest.has(IMAGE):
        store.import_file(arrival.directory / IMAGE)
    try:
        image = store.get(arrival.manifest.image)
    except ImageError as error:
        raise ImageError(
            f"Image {arrival.manifest.reference} ({arrival.manifest.image}) is not here.",
            problem=Problem.NOT_FOUND,
            remedy="`appliancectl image import` it first, or export with `--with-image`.",
        ) from error
    if not image.matches(appliance.image):
        raise ImageError(f"{image.manifest.title} is not what `image: {appliance.image}` means.")
    if unreadable := why_unreadable(image.manifest, arrival.manifest.data_format):
        raise ImageError(f"{unreadable}.")
    return image


def install(arrival: Arrival, appliance: Appliance, image: Image, *, now_us: int) -> str:
    """Put everything in its place; the snapshot that a data volume of before has become, or ''."""
    if user_id(arrival.name) is None:
        create_user(arrival.name)
    _make_state_directory(arrival)
    volume = arrival.paths.data_volume(arrival.name)
    aside = ""
    with _unused(volume):
        states = States(arrival.paths)
        before = states.read(arrival.name)
        if before.swap or before.work:
            raise ApplianceError(f"{arrival.name}: something is under way.", problem=Problem.BUSY)
        after = replace(before, image=image.digest, wanted=str(appliance.image), failure="")
        # What it brings is in force as it is: it has proven itself where it comes from.
        after = replace(after, generation="", held=None)
        if arrival.manifest.has(DATA):
            after = replace(after, data_format=arrival.manifest.data_format)
        states.write(arrival.name, after)
        if arrival.manifest.has(DATA):
            aside = _place_volume(arrival, before.data_format, now_us=now_us)
    _place_configuration(arrival)
    write_file(arrival.yaml, (arrival.directory / YAML).read_bytes())
    return aside


def _make_state_directory(arrival: Arrival) -> None:
    directory = arrival.paths.appliance_state(arrival.name)
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, 0, group_id(arrival.name))
    directory.chmod(0o750)


@contextmanager
def _unused(volume: Path) -> Iterator[None]:
    """No guest starts on the volume meanwhile; HostError where one runs."""
    with unused(volume) if volume.exists() else nullcontext():
        yield


def _place_volume(arrival: Arrival, old_format: int, *, now_us: int) -> str:
    file = arrival.directory / DATA
    os.chown(file, 0, group_id(arrival.name))
    file.chmod(MODE)
    snapshots = VolumeSnapshots(arrival.paths)
    used = [entry.name for entry in snapshots.snapshot_files(arrival.name)]
    aside = unused_name(f"before-{snapshot_name(now_us)}", used)
    there = arrival.paths.data_volume(arrival.name).exists()
    snapshots.adopt(arrival.name, file, aside, SnapshotNote("an import", old_format, now_us))
    return aside if there else ""


def _place_configuration(arrival: Arrival) -> None:
    """The administrator's files; the directory appears whole."""
    source = arrival.directory / CONFIG
    arrival.yaml.parent.mkdir(parents=True, exist_ok=True)
    arrival.config.parent.mkdir(parents=True, exist_ok=True)
    with staging_directory(arrival.config.parent, "import") as staging:
        if source.is_dir():
            shutil.copytree(source, staging / "new")
            (staging / "new").chmod(0o755)
        if arrival.config.exists():
            os.rename(arrival.config, staging / "old")
        if source.is_dir():
            os.rename(staging / "new", arrival.config)
