"""Verbs that move an appliance: data export, data import.

They work in the calling process, as root: they are about files. What the agent has a say in, the snapshot
and whether something is under way, is asked of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from agent.cli import client
from agent.cli.apply import apply_all, exit_status, say_problems
from agent.cli.output import format_bytes, print_json
from agent.host.arrival import Arrival, check, check_free, check_image, install
from agent.host.configuration import read_appliance_files
from agent.host.snapshots import VolumeSnapshots
from agent.host.store import ImageStore
from agent.host.transfer import Contents, compressing, decompressing, unpack, write_archive
from agent.model.errors import ApplianceError, Problem
from agent.model.image import Digest
from agent.model.names import NAME_RULE, is_appliance_name
from agent.model.paths import Paths
from agent.plan.transfer import ArchiveManifest
from agent.util.files import explain_errors
from agent.util.staging import staging_directory


def export(arguments: argparse.Namespace) -> int:
    """Write an archive of an appliance."""
    name, paths = arguments.name, Paths()
    appliance = client.appliance(name)
    digest = Digest.parse(appliance.digest)
    if digest is None:
        raise ApplianceError(f"{name} has no image.", problem=Problem.NOT_SUPPORTED)
    with explain_errors(f"exporting {name}"), _snapshot(name, arguments.snapshot) as snapshot:
        data = VolumeSnapshots(paths).path(name, snapshot.name) if snapshot else None
        contents = Contents(
            appliance=name,
            image_digest=digest,
            reference=appliance.image,
            yaml=(paths.configuration / "appliances" / f"{name}.yaml").read_bytes(),
            config=read_appliance_files(paths.configuration / "config" / name),
            data_format=snapshot.format if snapshot else 0,
            data=data,
            image=Path(ImageStore(paths.images).get(digest).path) if arguments.with_image else None,
        )
        with _output(arguments.file) as target, compressing(target) as stream:
            manifest = write_archive(contents, stream, now_us=time.time_ns() // 1000)
    _say_exported(arguments, manifest)
    return 0


@contextlib.contextmanager
def _snapshot(name: str, wanted: str) -> Iterator[client.SnapshotStatus | None]:
    """The snapshot that is exported: one that there is, or a new one, which goes again afterwards."""
    if wanted:
        yield _find(name, wanted)
    elif not client.data(name).size_bytes:
        yield None
    else:
        operation, taken = client.take_snapshot(name, f"export-{os.getpid()}-{time.time_ns() // 10**6}")
        *_, status = client.follow(operation)
        if status.state != "succeeded":
            raise ApplianceError(f"{name}: {status.message}")
        print(f"{name}: {status.message}", file=sys.stderr)
        try:
            yield _find(name, taken)
        finally:
            client.remove_snapshot(name, taken)


def _find(name: str, snapshot: str) -> client.SnapshotStatus:
    found = next((entry for entry in client.snapshots(name) if entry.name == snapshot), None)
    if found is None or not found.maker:
        what = "there is no such snapshot" if found is None else "nothing is known of its data format"
        raise ApplianceError(f"{name}: “{snapshot}”: {what}.", problem=Problem.NOT_FOUND)
    return found


@contextlib.contextmanager
def _output(file: str) -> Iterator[IO[bytes]]:
    """Standard output, or a file that is there whole or not at all."""
    if file == "-":
        if sys.stdout.isatty():
            raise ApplianceError("An archive is nothing for a terminal.", problem=Problem.NOT_SUPPORTED)
        yield sys.stdout.buffer
        return
    path = Path(file).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as target:
            yield target
            target.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _say_exported(arguments: argparse.Namespace, manifest: ArchiveManifest) -> None:
    if arguments.file == "-":
        return
    size_bytes = Path(arguments.file).stat().st_size
    if arguments.style.json:
        record = {"appliance": manifest.appliance, "file": arguments.file, "size_bytes": size_bytes}
        members = [entry.name for entry in manifest.members]
        print_json({**record, "image": str(manifest.image), "members": members}, arguments.style)
    else:
        print(f"{manifest.appliance}: {arguments.file}, {format_bytes(size_bytes)}.")


def import_(arguments: argparse.Namespace) -> int:
    """Make an appliance from an archive."""
    paths, what = Paths(), f"importing {arguments.file}"
    if arguments.appliance and not is_appliance_name(arguments.appliance):
        raise ApplianceError(f"--name: {NAME_RULE}, at most 21.", problem=Problem.NOT_SUPPORTED)
    with (
        explain_errors(what),
        open(arguments.file, "rb") as file,
        staging_directory(paths.state, "import") as staging,
    ):
        staging.chmod(0o700)
        with decompressing(file) as stream:
            manifest = unpack(stream, staging)
        name = arguments.appliance or manifest.appliance
        arrival = Arrival(paths, staging, manifest, name)
        if arguments.replace:
            _check_stopped(name)
        else:
            check_free(arrival)
        appliance = check(arrival)
        image = check_image(arrival, appliance)
        aside = install(arrival, appliance, image, now_us=time.time_ns() // 1000)
    changes, problems = apply_all(quiet=arguments.style.json)
    if arguments.style.json:
        record = {"appliance": name, "image": str(image.digest), "aside": aside}
        print_json({**record, "changes": changes, "problems": problems}, arguments.style)
    else:
        kept = f"; the data of before are snapshot {aside}" if aside else ""
        print(f"{name}: imported{kept}. `appliancectl enable --now {name}` starts it.")
        say_problems(problems)
    return exit_status([text for text in problems if text.startswith(f"{name}: ")])


def _check_stopped(name: str) -> None:
    for status in client.appliances():
        if status.name == name and status.state not in {"inactive", "failed"}:
            raise ApplianceError(
                f"{name} runs.", problem=Problem.IN_USE, remedy=f"`appliancectl stop {name}` first."
            )
