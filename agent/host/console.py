"""The management console of a running guest: plugs in the disk on which new configuration files come, and
takes it away again (docs/interface-1.md, appendix).

    deliver("dns", "/run/appliance/dns/delivery")       # returns when the guest's kernel has the disk
    withdraw("dns")                                     # a disk that is not there is no error

Blocking, a few milliseconds each; called in threads. The protocol is that of arch/um/drivers/mconsole.h.
agent/stop.py has a part of it for itself, since importing this would cost every stop time.

Question and answer are datagrams between two sockets in the file system: the guest is in a network namespace
of its own, where no abstract address of ours is known. Its socket belongs to the guest's user, and so does
the directory around it; nothing there is trusted to be what it was.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from agent.model.errors import HostError, Problem
from agent.plan.launch import management_console, runtime_directory

TIMEOUT_S = 2.0
"""For each answer; and for the guest's kernel to close a disk."""

DISK = "ubdd"

_REQUEST = struct.Struct("=III512s")
_MAGIC, _VERSION, _DATA_BYTES = 0xCAFEBABE, 2, 512
_REPLY = struct.Struct("=iII")  # error number, whether more comes, length of the text behind it
_NO_DEVICE = "Device doesn't exist"
_OPEN = "Device is currently open"
_PAUSE_S = 0.01
# One question at a time: all that are asked of a guest come from the same address.
_LOCKS = defaultdict[str, threading.Lock](threading.Lock)


def deliver(instance: str, path: str) -> None:
    """Plug in the file at `path` as the disk, in place of one that is there.

    The guest's user must be able to read it; its path has no comma, colon or blank. Raises HostError.
    """
    withdraw(instance)
    if reply := _ask(instance, f"config {DISK}r={path}"):
        raise HostError(f"The guest of {instance} does not take the new configuration: {reply}.")


def withdraw(instance: str) -> None:
    """Take the disk away, if there is one. Raises HostError."""
    until = time.monotonic() + TIMEOUT_S
    # The kernel closes a disk some time after the last process that had it open.
    while (reply := _ask(instance, f"remove {DISK}")) == _OPEN and time.monotonic() < until:
        time.sleep(_PAUSE_S)
    if reply not in {"", _NO_DEVICE}:
        raise HostError(
            f"The guest of {instance} does not give back the disk with its configuration: {reply}."
        )


def _ask(instance: str, command: str) -> str:
    """What the guest's kernel says is wrong with `command`; '' where nothing is."""
    with _LOCKS[instance]:
        return _ask_alone(instance, command)


def _ask_alone(instance: str, command: str) -> str:
    data = command.encode()
    if len(data) >= _DATA_BYTES:
        raise ValueError(f"{command!r} is too long for the management console")
    try:
        with _connected(instance) as console:
            console.send(_REQUEST.pack(_MAGIC, _VERSION, len(data), data))
            return _read_reply(console.recv(_REPLY.size + _DATA_BYTES))
    except TimeoutError:
        raise HostError(
            f"The guest of {instance} does not answer on its management console.", problem=Problem.TIMED_OUT
        ) from None
    except OSError as error:
        raise HostError(
            f"Cannot reach the management console of {instance}: {error.strerror or error}.",
            problem=Problem.UNAVAILABLE,
        ) from error


def _read_reply(datagram: bytes) -> str:
    """'' for a success. The text is the guest's: one line of printable characters is taken of it."""
    if len(datagram) < _REPLY.size:
        return "an answer that is cut short"
    error, _more, _length = _REPLY.unpack_from(datagram)
    if error == 0:
        return ""
    text = datagram[_REPLY.size :].partition(b"\0")[0].decode("ascii", "replace").strip()
    return "".join(character if character.isprintable() else "?" for character in text) or f"error {error}"


@contextlib.contextmanager
def _connected(instance: str) -> Iterator[socket.socket]:
    """A socket to which the guest's console can send, and nobody else."""
    address = f"{runtime_directory(instance)}/console"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as console:
        console.settimeout(TIMEOUT_S)
        with _opened(management_console(instance)) as (path, user):
            console.connect(path)
        # Of an agent that was killed.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        console.bind(address)
        try:
            # Who sends needs write access.
            os.chown(address, user, -1)
            yield console
        finally:
            os.unlink(address)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[str, int]]:
    """Another path of the guest's socket, at which we may write, and its user.

    It was made by the guest's user for itself alone, and the agent has no right to ignore that
    (CAP_DAC_OVERRIDE), but may change it. That goes by descriptors, so that no link leads to another file.
    """
    directory, guest, name = path.rsplit("/", 2)
    with (
        _descriptor(directory, os.O_DIRECTORY) as outer,
        _descriptor(guest, os.O_DIRECTORY, outer) as inner,
        _descriptor(name, 0, inner) as found,
    ):
        status, user = os.fstat(found), os.fstat(outer).st_uid
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != user or status.st_nlink != 1:
            raise OSError(0, f"{path} is not its socket")
        reachable = Path(f"/proc/self/fd/{found}")
        if status.st_gid != os.getegid() or not status.st_mode & stat.S_IWGRP:
            os.chown(reachable, -1, os.getegid())
            reachable.chmod(stat.S_IRWXU | stat.S_IWGRP)
        yield str(reachable), user


@contextlib.contextmanager
def _descriptor(path: str, flags: int, directory: int | None = None) -> Iterator[int]:
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=directory)
    try:
        yield found
    finally:
        os.close(found)
