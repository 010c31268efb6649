"""Reads the administrator's files; what they mean is decided in agent.config."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.config.document import MAX_BYTES
from agent.config.tree import ConfigurationFiles
from agent.model.errors import ConfigurationError, Finding

MAX_APPLIANCE_FILES_BYTES = 16 << 20
"""All configuration files of one appliance together: they are copied into the guest's memory."""


def read_configuration(directory: Path) -> ConfigurationFiles:
    """The content of every file that counts; ConfigurationError where one cannot be read."""
    agent = [directory / "agent.yaml", *_yaml_files(directory / "agent.yaml.d")]
    return ConfigurationFiles(
        agent=_read(path for path in agent if path.exists()),
        networks=_read(_yaml_files(directory / "networks")),
        appliances=_read(_yaml_files(directory / "appliances")),
    )


def _yaml_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.yaml") if not path.name.startswith("."))


def _read(paths: Iterable[Path]) -> dict[str, bytes]:
    contents, found = {}, []
    for path in paths:
        try:
            contents[str(path)] = _read_regular(path)
        except OSError as error:
            found.append(Finding(str(path), 0, 0, error.strerror or "cannot be read"))
    if found:
        raise ConfigurationError(found)
    return contents


def _read_regular(path: Path) -> bytes:
    """At most one byte more than such a file may have; OSError for what is no file and might block."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return os.read(fd, MAX_BYTES + 1)
    finally:
        os.close(fd)


def read_appliance_files(directory: Path) -> dict[str, bytes]:
    """Files of /etc/appliance/config/NAME by relative path; none where there is no such directory.

    Symbolic links are followed only to files inside the directory: what is handed to a guest is what lies
    there. Dangling ones, which editors use as locks, do not count.
    """
    contents: dict[str, bytes] = {}
    found = []
    left_bytes = MAX_APPLIANCE_FILES_BYTES
    for path in _entries(directory):
        try:
            if wrong := _why_refused(path, directory):
                found.append(Finding(str(path), 0, 0, wrong))
                continue
            with path.open("rb") as file:
                content = file.read(left_bytes + 1)
        except OSError as error:
            found.append(Finding(str(path), 0, 0, error.strerror or "cannot be read"))
            continue
        left_bytes -= len(content)
        if left_bytes < 0:
            limit = f"more than {MAX_APPLIANCE_FILES_BYTES >> 20} MiB of configuration files"
            found.append(Finding(str(directory), 0, 0, limit))
            break
        contents[path.relative_to(directory).as_posix()] = content
    if found:
        raise ConfigurationError(found)
    return contents


def _why_refused(path: Path, directory: Path) -> str:
    if not path.resolve(strict=True).is_relative_to(directory.resolve()):
        return "leads out of the appliance's configuration directory"
    return "is a link to a directory" if path.is_dir() else ""


def _entries(directory: Path) -> Iterator[Path]:
    """Regular files and links to them, and links to directories, which the walk does not enter."""
    for parent, directories, names in os.walk(directory):
        directories.sort()
        paths = [Path(parent, name) for name in sorted((*directories, *names))]
        yield from (path for path in paths if path.is_file() or (path.is_symlink() and path.is_dir()))
