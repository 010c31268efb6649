"""Files that are there whole or not at all.

A crash at any point leaves the old content, the new content, or the old content and a stray
`.NAME.XXXXXXXX.tmp` beside it, which the next `remove_strays()` of the directory's owner takes away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.model.errors import HostError, Problem

_SUFFIX = ".tmp"


def fsync_directory(directory: Path) -> None:
    """Make renames, links and unlinks in `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def explain_full_disk(what: str) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT inside the block into a HostError that says what did not fit."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise HostError(
            f"No space left while {what}.",
            problem=Problem.NO_SPACE,
            remedy="Free space (`appliancectl image list` shows what images take) and try again.",
        ) from error


@contextlib.contextmanager
def explain_errors(what: str) -> Iterator[None]:
    """Turn OSErrors inside the block into a HostError that says what was being done."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        problems = {
            errno.ENOSPC: Problem.NO_SPACE,
            errno.EDQUOT: Problem.NO_SPACE,
            errno.EACCES: Problem.ACCESS_DENIED,
            errno.EPERM: Problem.ACCESS_DENIED,
            errno.ENOENT: Problem.NOT_FOUND,
        }
        where = f" ({error.filename})" if error.filename else ""
        problem = problems.get(error.errno or 0, Problem.FAILED)
        remedy = "Try it as root." if problem is Problem.ACCESS_DENIED and os.geteuid() else ""
        raise HostError(f"{what}: {error.strerror}{where}.", problem=problem, remedy=remedy) from error


def write_file(path: Path, content: bytes | str, *, mode: int = 0o644, group: int = -1) -> None:
    """Replace `path` durably: write aside, fsync, rename, fsync the directory. `group` is a gid, -1 leaves
    it."""
    data = content.encode() if isinstance(content, str) else content
    with explain_full_disk(f"writing {path}"):
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                if group >= 0:
                    os.fchown(file.fileno(), -1, group)
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        fsync_directory(path.parent)


def ensure_file(path: Path, content: bytes | str, *, mode: int = 0o644, group: int = -1) -> bool:
    """Give `path` this content; whether anything had to be written. Equal content is not written again."""
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, data, mode=mode, group=group)
    return True


def ensure_symlink(path: Path, target: str) -> bool:
    """Point the symbolic link `path` at `target` by rename; whether it did not before."""
    with contextlib.suppress(OSError):
        if os.readlink(path) == target:
            return False
    temporary = path.parent / f".{path.name}.{os.getpid()}{_SUFFIX}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, path)
    fsync_directory(path.parent)
    return True


def ensure_absent(path: Path) -> bool:
    """Remove a file of any kind or a whole directory; whether it was there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    fsync_directory(path.parent)
    return True


def remove_strays(directory: Path) -> int:
    """Remove what interrupted writes left in `directory`; how many there were."""
    strays = list(directory.glob(f".*{_SUFFIX}"))
    for stray in strays:
        ensure_absent(stray)
    return len(strays)
