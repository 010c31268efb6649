"""Data volumes: one ext4 file system in a sparse file for each appliance. Blocking.

The file belongs to root and the appliance's group, so that a guest's user can write it but not replace it. A
new volume is made under a temporary name and renamed when it is whole; a crash leaves `.data.img.*.tmp`,
removed at the next start.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.model.errors import HostError, Problem
from agent.util.files import explain_full_disk, fsync_directory
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


def create_volume(path: Path, *, size_bytes: int, group: int) -> None:
    """Make an empty volume; HostError where the disk is full."""
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
    """Grow a volume that no guest uses. A crash after the first step is mended by calling this again."""
    if volume_size(path) > size_bytes:
        raise HostError(f"{path} cannot be made smaller.", problem=Problem.NOT_SUPPORTED)
    os.truncate(path, size_bytes)
    # resize2fs insists on a check; -p mends what an unclean stop left.
    run(["e2fsck", "-f", "-p", str(path)], timeout_s=600.0, accept=(0, 1))
    run(["resize2fs", str(path)], timeout_s=600.0)
    _sync(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
