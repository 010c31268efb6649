"""Data volumes: one ext4 file system in a sparse file for each appliance. Blocking.

The file belongs to root and the appliance's group, so that a guest's user can write it but not replace it. A
new volume is made under a temporary name and renamed when it is whole; a crash leaves `.data.img.*.tmp`,
removed before the next one is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agent.model.errors import HostError, Problem
from agent.util.files import explain_full_disk, fsync_directory, remove_strays
from agent.util.run import run

MODE = 0o660
# Reserved blocks and lazy initialization are for big disks with many writers.
_FORMAT = [
    "mkfs.ext4",
    "-q",
    "-F",
    "-m",
    "0",
    "-E",
    "lazy_itable_init=0,lazy_journal_init=0,discard",
    "-L",
    "data",
]


def volume_size(path: Path) -> int:
    """Size of the volume in bytes; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def is_half_grown(path: Path) -> bool:
    """Whether growing this volume was interrupted: its file is larger, its file system may not be."""
    return _mark(path).exists()


def _mark(path: Path) -> Path:
    return path.parent / f".{path.name}.growing"


def create_volume(path: Path, *, size_bytes: int, group: int) -> None:
    """Make an empty volume; HostError where the disk is full."""
    remove_strays(path.parent)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with explain_full_disk(f"creating {path}"):
            fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)
            try:
                os.fchown(fd, 0, group)
                os.fchmod(fd, MODE)
                os.ftruncate(fd, size_bytes)
            finally:
                os.close(fd)
            run([*_FORMAT, str(temporary)])
            _sync(temporary)
            os.rename(temporary, path)
            fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def grow_volume(path: Path, *, size_bytes: int) -> None:
    """Grow a volume; HostError where a guest uses it. After a crash, `is_half_grown` says: once more."""
    if volume_size(path) > size_bytes:
        raise HostError(f"{path} cannot be made smaller.", problem=Problem.NOT_SUPPORTED)
    with unused(path):
        _mark(path).touch()
        fsync_directory(path.parent)
        os.truncate(path, size_bytes)
        # resize2fs insists on a check; -p mends what an unclean stop left.
        run(["e2fsck", "-f", "-p", str(path)], timeout_s=600.0, accept=(0, 1))
        run(["resize2fs", str(path)], timeout_s=600.0)
        _sync(path)
        _mark(path).unlink()


@contextlib.contextmanager
def unused(path: Path) -> Iterator[BinaryIO]:
    """Hold the lock that UML's block driver takes (fcntl(2) F_SETLK): no guest starts on the volume.

    The lock goes with the first descriptor of the file that this process closes: read from the one given.
    """
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostError(f"{path} is in use by a guest.", problem=Problem.IN_USE) from error
        yield file


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
