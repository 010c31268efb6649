"""Directories in which something is put together before it is renamed into place.

    parent/.NAME.XXXXXXXX.staging/      locked (flock) by the process that fills it, which also removes it

A killed process leaves its directory, but not the lock on it: whoever stages in the same parent next
takes it away. Nobody looks for strays between another's mkdir and flock, because both happen under a
lock on the parent itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".staging"


@contextlib.contextmanager
def staging_directory(parent: Path, name: str) -> Iterator[Path]:
    """A new directory (mode 0755) in `parent`, gone again after the block with all that was not renamed out
    of it."""
    with _locked(parent):
        _remove_strays(parent)
        directory = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_SUFFIX, dir=parent))
        directory.chmod(0o755)
        lock = _lock(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _lock(directory: Path, *, operation: int = fcntl.LOCK_EX) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation)
    except OSError:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = _lock(directory)
    try:
        yield
    finally:
        os.close(fd)


def _remove_strays(parent: Path) -> None:
    for stray in parent.glob(f".*{_SUFFIX}"):
        try:
            fd = _lock(stray, operation=fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        shutil.rmtree(stray, ignore_errors=True)
        os.close(fd)
