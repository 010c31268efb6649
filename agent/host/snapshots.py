"""Snapshots of data volumes: copies of `data.img` in `snapshots/ID.img` beside it. Blocking.

A copy shares its blocks with the volume where the file system can (FICLONE: btrfs, xfs), and is made at
once; elsewhere it takes the time and space of what the volume holds. It is made under a temporary name and
renamed when it is whole, so a snapshot that has its name is complete; a crash leaves
`snapshots/.ID.img.*.tmp`, removed before the next one is made.

No guest may use the volume meanwhile: the copy would be of a file system in motion. The lock that guests
take on their volume is held for that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from agent.host.volumes import unused
from agent.model.errors import HostError, Problem
from agent.model.paths import Paths
from agent.model.swap import SWAP_PREFIX
from agent.util.files import ensure_absent, explain_full_disk, fsync_directory, remove_strays

FICLONE = 0x40049409
"""linux/fs.h, ioctl_ficlone(2)."""

MODE = 0o600
_SUFFIX = ".img"
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
        with explain_full_disk(f"taking a snapshot of {volume}"), unused(volume):
            _copy(volume, temporary)
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


def _copy(source: Path, target: Path) -> None:
    """A file with owner, mode and holes."""
    with source.open("rb") as reader:
        status = os.fstat(reader.fileno())
        fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, MODE)
        try:
            os.fchown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, status.st_mode & 0o777)
            try:
                fcntl.ioctl(fd, FICLONE, reader.fileno())
            except OSError as error:
                if error.errno not in _NOT_SHARED:
                    raise
                _check_space(source, target.parent)
                _copy_data(reader.fileno(), fd, status.st_size)
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
    offset = 0
    while (extent := _next_extent(source, offset)) is not None:
        start, offset = extent
        while start < offset:
            start += os.copy_file_range(source, target, offset - start, start, start)


def _next_extent(fd: int, offset: int) -> tuple[int, int] | None:
    """Where data begins and ends after `offset`; None where there is only a hole left."""
    try:
        start = os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
    return start, os.lseek(fd, start, os.SEEK_HOLE)


class VolumeSnapshots:
    """Snapshots by appliance and name."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def can_share(self, appliance: str) -> bool:
        """Whether a snapshot costs nothing."""
        return can_share(self._paths.data_volume(appliance))

    def has(self, appliance: str, snapshot: str) -> bool:
        """Whether there is this snapshot."""
        return self._path(appliance, snapshot).exists()

    def take(self, appliance: str, snapshot: str) -> None:
        """Copy the volume; HostError where the disk is full."""
        take_snapshot(self._paths.data_volume(appliance), self._path(appliance, snapshot))

    def exchange(self, appliance: str, snapshot: str, restored: str) -> None:
        """Make the volume the snapshot `snapshot`, and the snapshot `restored` the volume; HostError where
        that is not there. Interrupted, `restore` of `snapshot` undoes it."""
        source, volume = self._path(appliance, restored), self._paths.data_volume(appliance)
        if not source.exists():
            raise HostError(f"There is no snapshot “{restored}” of {volume}.", problem=Problem.NOT_FOUND)
        put_aside(volume, self._path(appliance, snapshot))
        restore_snapshot(source, volume)

    def discard(self, appliance: str, snapshot: str) -> None:
        """Remove a snapshot if there is one of that name."""
        if snapshot:
            ensure_absent(self._path(appliance, snapshot))

    def restore(self, appliance: str, snapshot: str, *, aside: str = "") -> bool:
        """Make the snapshot the volume again, and use it up; whether it was there. With `aside`, what was
        the volume becomes the snapshot of that name."""
        source, volume = self._path(appliance, snapshot), self._paths.data_volume(appliance)
        if aside and source.exists():
            put_aside(volume, self._path(appliance, aside))
        return restore_snapshot(source, volume)

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        """Remove the snapshots of swaps that are not in `but`, and what a crash has left."""
        directory = self._paths.snapshots(appliance)
        remove_strays(directory)
        for path in directory.glob(f"{SWAP_PREFIX}*{_SUFFIX}"):
            if path.name.removesuffix(_SUFFIX) not in but:
                ensure_absent(path)

    def _path(self, appliance: str, snapshot: str) -> Path:
        return self._paths.snapshots(appliance) / f"{snapshot}{_SUFFIX}"
