"""Snapshots of data volumes: copies of `data.img` in `snapshots/NAME.img` beside it. Blocking.

    data.img
    snapshots/                 root:root 0700
        NAME.img               owner and mode of the volume
        NAME.json              who made it, when, and its data format; not of those that swaps make
        .restored.img          a copy of a snapshot that is to become the volume

A copy shares its blocks with the volume where the file system can (FICLONE: btrfs, xfs), and is made at
once; elsewhere it takes the time and space of what the volume holds. It is made under a temporary name and
renamed when it is whole, so a snapshot that has its name is complete; a crash leaves
`snapshots/.NAME.img.*.tmp`, removed before the next one is made, and a NAME.json without its snapshot, which
counts for nothing.

No guest may use the volume meanwhile: the copy would be of a file system in motion. The lock that guests
take on their volume is held for that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from agent.host.volumes import unused
from agent.model.data import SnapshotFile, SnapshotNote, Volume
from agent.model.errors import HostError, Problem
from agent.model.paths import Paths
from agent.model.swap import SWAP_PREFIX
from agent.util.files import ensure_absent, ensure_file, explain_full_disk, fsync_directory, remove_strays

FICLONE = 0x40049409
"""linux/fs.h, ioctl_ficlone(2)."""

MODE = 0o600
NOTE_VERSION = 1
_SUFFIX, _NOTE_SUFFIX = ".img", ".json"
_RESTORED = ".restored.img"
_MAX_NOTE_BYTES = 4096
_NOT_SHARED = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY}


def can_share(volume: Path) -> bool:
    """Whether a snapshot of `volume` costs nothing: tried on an empty file beside it."""
    with contextlib.suppress(OSError), _temporary(volume.parent) as target, volume.open("rb") as source:
        fcntl.ioctl(target, FICLONE, source.fileno())
        return True
    return False


@contextlib.contextmanager
def _temporary(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, MODE)
    try:
        yield fd
    finally:
        os.close(fd)


def used_bytes(path: Path) -> int:
    """What a file takes on the disk; 0 where there is none."""
    return path.stat().st_blocks * 512 if path.exists() else 0


def free_bytes(directory: Path) -> int:
    """What root may still write to the file system of `directory`."""
    status = os.statvfs(directory)
    return status.f_bfree * status.f_frsize


def take_snapshot(volume: Path, snapshot: Path) -> None:
    """Copy a volume; HostError where the disk is full. A snapshot of that name is replaced."""
    snapshot.parent.mkdir(mode=0o700, exist_ok=True)
    remove_strays(snapshot.parent)
    temporary = snapshot.parent / f".{snapshot.name}.{os.getpid()}.tmp"
    try:
        with explain_full_disk(f"taking a snapshot of {volume}"), unused(volume) as source:
            _copy(source, temporary)
            os.rename(temporary, snapshot)
            fsync_directory(snapshot.parent)
    finally:
        temporary.unlink(missing_ok=True)


def put_aside(volume: Path, snapshot: Path) -> None:
    """Make the volume itself the snapshot, at no cost: another takes its place next. Nothing where that
    was done."""
    snapshot.parent.mkdir(mode=0o700, exist_ok=True)
    if volume.exists():
        with unused(volume):
            _move(volume, snapshot)


def restore_snapshot(snapshot: Path, volume: Path) -> bool:
    """Make the snapshot the volume again; whether it was still there. It is used up by that."""
    if not snapshot.exists():
        return False
    _move(snapshot, volume)
    return True


def _move(source: Path, target: Path) -> None:
    os.rename(source, target)
    for directory in {source.parent, target.parent}:
        fsync_directory(directory)


def _copy(source: BinaryIO, target: Path) -> None:
    """A file with owner, mode and holes."""
    status = os.fstat(source.fileno())
    fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, MODE)
    try:
        os.fchown(fd, status.st_uid, status.st_gid)
        os.fchmod(fd, status.st_mode & 0o777)
        try:
            fcntl.ioctl(fd, FICLONE, source.fileno())
        except OSError as error:
            if error.errno not in _NOT_SHARED:
                raise
            _check_space(Path(source.name), target.parent)
            _copy_data(source.fileno(), fd, status.st_size)
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_space(source: Path, directory: Path) -> None:
    """Sooner than a copy would find out, and before it has filled the disk for everybody else."""
    needed, free = used_bytes(source), free_bytes(directory)
    if needed > free:
        raise HostError(
            f"No space left for a snapshot of {source}: {needed >> 20}M needed, {free >> 20}M free.",
            problem=Problem.NO_SPACE,
            remedy="Free space, or set `snapshot: never` for this appliance.",
        )


def _copy_data(source: int, target: int, size_bytes: int) -> None:
    os.ftruncate(target, size_bytes)
    for start, stop in extents(source):
        while start < stop:
            start += os.copy_file_range(source, target, stop - start, start, start)  # noqa: PLW2901


def extents(fd: int) -> Iterator[tuple[int, int]]:
    """Where data begin and end, in their order; holes lie between them."""
    offset = 0
    while (extent := _next_extent(fd, offset)) is not None:
        yield extent
        offset = extent[1]


def _next_extent(fd: int, offset: int) -> tuple[int, int] | None:
    """Where data begins and ends after `offset`; None where there is only a hole left."""
    try:
        start = os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
    return start, os.lseek(fd, start, os.SEEK_HOLE)


def read_note(path: Path) -> SnapshotNote | None:
    """What lies beside a snapshot; None where there is nothing that can be understood."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_NOTE_BYTES))
        if content["version"] != NOTE_VERSION:
            return None
        return SnapshotNote(str(content["maker"]), int(content["data_format"]), int(content["taken_at_us"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def write_note(path: Path, note: SnapshotNote) -> None:
    """Keep it, durably."""
    content = {
        "version": NOTE_VERSION,
        "maker": note.maker,
        "data_format": note.data_format,
        "taken_at_us": note.taken_at_us,
    }
    path.parent.mkdir(mode=0o700, exist_ok=True)
    ensure_file(path, json.dumps(content) + "\n", mode=MODE)


class VolumeSnapshots:
    """Snapshots by appliance and name."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def can_share(self, appliance: str) -> bool:
        """Whether a snapshot costs nothing."""
        return can_share(self._paths.data_volume(appliance))

    def has(self, appliance: str, snapshot: str) -> bool:
        """Whether there is this snapshot."""
        return self.path(appliance, snapshot).exists()

    def volume(self, appliance: str) -> Volume:
        """The volume as it is."""
        path = self._paths.data_volume(appliance)
        size_bytes = path.stat().st_size if path.exists() else 0
        return Volume(str(path), size_bytes, used_bytes(path))

    def snapshot_files(self, appliance: str) -> list[SnapshotFile]:
        """All snapshots, in the order of their names."""
        paths = sorted(self._paths.snapshots(appliance).glob(f"[!.]*{_SUFFIX}"))
        return [_described(path) for path in paths]

    def take(self, appliance: str, snapshot: str, note: SnapshotNote | None = None) -> None:
        """Copy the volume; HostError where the disk is full."""
        if note:
            write_note(self._note(appliance, snapshot), note)
        take_snapshot(self._paths.data_volume(appliance), self.path(appliance, snapshot))

    def delete(self, appliance: str, snapshot: str) -> bool:
        """Remove one snapshot; whether it was there."""
        found = ensure_absent(self.path(appliance, snapshot))
        ensure_absent(self._note(appliance, snapshot))
        return found

    def bring(self, appliance: str, snapshot: str) -> None:
        """Make the copy of a snapshot that `switch` makes the volume; a guest may run meanwhile."""
        source = self.path(appliance, snapshot)
        if not source.exists():
            raise HostError(f"There is no snapshot “{snapshot}”.", problem=Problem.NOT_FOUND)
        take_snapshot(source, self._paths.snapshots(appliance) / _RESTORED)

    def switch(self, appliance: str, aside: str, note: SnapshotNote) -> None:
        """Make the volume the snapshot `aside`, and what was brought the volume. There is a volume at any
        instant; interrupted, `put_back` undoes it."""
        volume, kept = self._paths.data_volume(appliance), self.path(appliance, aside)
        write_note(self._note(appliance, aside), note)
        os.link(volume, kept)
        fsync_directory(kept.parent)
        _move(kept.with_name(_RESTORED), volume)

    def adopt(self, appliance: str, file: Path, aside: str, note: SnapshotNote) -> None:
        """Make a file, which lies on the same file system, the volume; one that there is becomes the
        snapshot `aside`."""
        if not self._paths.data_volume(appliance).exists():
            _move(file, self._paths.data_volume(appliance))
            return
        self._paths.snapshots(appliance).mkdir(mode=0o700, exist_ok=True)
        _move(file, self._paths.snapshots(appliance) / _RESTORED)
        self.switch(appliance, aside, note)

    def put_back(self, appliance: str, aside: str) -> bool:
        """Make `aside` the volume again, and use it up; whether it was there. What was brought and not
        switched to is removed."""
        volume, kept = self._paths.data_volume(appliance), self.path(appliance, aside)
        there = kept.exists()
        if there and volume.exists() and kept.samefile(volume):
            # rename(2) does nothing where both are names of one file.
            ensure_absent(kept)
        elif there:
            _move(kept, volume)
        ensure_absent(kept.with_name(_RESTORED))
        ensure_absent(self._note(appliance, aside))
        return there

    def exchange(self, appliance: str, snapshot: str, restored: str) -> None:
        """Make the volume the snapshot `snapshot`, and the snapshot `restored` the volume; HostError where
        that is not there. Interrupted, `restore` of `snapshot` undoes it."""
        source, volume = self.path(appliance, restored), self._paths.data_volume(appliance)
        if not source.exists():
            raise HostError(f"There is no snapshot “{restored}” of {volume}.", problem=Problem.NOT_FOUND)
        put_aside(volume, self.path(appliance, snapshot))
        restore_snapshot(source, volume)

    def discard(self, appliance: str, snapshot: str) -> None:
        """Remove a snapshot if there is one of that name."""
        if snapshot:
            ensure_absent(self.path(appliance, snapshot))

    def restore(self, appliance: str, snapshot: str, *, aside: str = "") -> bool:
        """Make the snapshot the volume again, and use it up; whether it was there. With `aside`, what was
        the volume becomes the snapshot of that name."""
        source, volume = self.path(appliance, snapshot), self._paths.data_volume(appliance)
        if aside and source.exists():
            put_aside(volume, self.path(appliance, aside))
        return restore_snapshot(source, volume)

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        """Remove the snapshots of swaps that are not in `but`, and what a crash has left."""
        directory = self._paths.snapshots(appliance)
        remove_strays(directory)
        for path in directory.glob(f"{SWAP_PREFIX}*{_SUFFIX}"):
            if path.name.removesuffix(_SUFFIX) not in but:
                ensure_absent(path)

    def path(self, appliance: str, snapshot: str) -> Path:
        """Where a snapshot lies."""
        return self._paths.snapshots(appliance) / f"{snapshot}{_SUFFIX}"

    def _note(self, appliance: str, snapshot: str) -> Path:
        return self._paths.snapshots(appliance) / f"{snapshot}{_NOTE_SUFFIX}"


def _described(path: Path) -> SnapshotFile:
    status = path.stat()
    return SnapshotFile(
        name=path.name.removesuffix(_SUFFIX),
        modified_at_us=status.st_mtime_ns // 1000,
        size_bytes=status.st_size,
        used_bytes=status.st_blocks * 512,
        note=read_note(path.with_name(f"{path.name.removesuffix(_SUFFIX)}{_NOTE_SUFFIX}")),
    )
