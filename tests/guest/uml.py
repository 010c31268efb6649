"""One User-Mode Linux guest as a test sees it: a boot plan goes in, output and exit status come out.

No systemd and no root: the notify line is a datagram socket of the test's, the console a pipe, the network a
socket pair.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypedDict, Unpack

from agent.plan.cpio import archive, pad

SHELL = "/run/appliance/bin/sh"
FOREVER = "exec sleep 1000"
UNTIL_SIGNALLED = "while :; do usleep 10000; done"
"""A shell waits for its child before it runs a trap, so the child must be short."""

TIMEOUT_S = 20.0
STATE_OWNER = (123, 456)
"""Owner and group of the service's directories in the test image."""

REGULAR = stat.S_IFREG | 0o644
TRAILER = archive({})

_MCONSOLE_REQUEST = struct.Struct("=III512s")
_MCONSOLE_MAGIC, _MCONSOLE_VERSION = 0xCAFEBABE, 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A boot plan in parts. A command given as text is a script for the runtime's busybox shell."""

    exec: str | Sequence[str] = FOREVER
    prepare: str | Sequence[str] = ()
    check: str | Sequence[str] = ()
    health: str | Sequence[str] = ()
    ready_exec: str | Sequence[str] = ()
    reload: str | Sequence[str] = ()
    more: Sequence[str] = ()
    """Further lines as they stand in the plan."""

    @property
    def _commands(self) -> dict[str, str | Sequence[str]]:
        return {
            "prepare": self.prepare,
            "check": self.check,
            "exec": self.exec,
            "health": self.health,
            "ready-exec": self.ready_exec,
            "reload": self.reload,
        }

    @property
    def scripts(self) -> dict[str, bytes]:
        """The commands given as text, as configuration files of the guest."""
        scripts = {key: command for key, command in self._commands.items() if isinstance(command, str)}
        return {f".scripts/{key}": textwrap.dedent(script).encode() for key, script in scripts.items()}

    @property
    def text(self) -> str:
        """The contents of /appliance/boot."""
        lines = ["interface=1", "hostname=guest"]
        for key, command in self._commands.items():
            script = f"/run/appliance/config/.scripts/{key}"
            argv = [SHELL, script] if isinstance(command, str) else command
            lines += [f"{key}={argument}" for argument in argv]
        return "".join(f"{line}\n" for line in [*lines, *self.more])


@dataclass(kw_only=True)
class Guest:
    """A running guest. `directory` is private to it."""

    process: subprocess.Popen[bytes]
    directory: Path
    console: int
    notify: socket.socket
    plugged: bool = False
    """Whether the host's disk is there."""
    output: bytes = b""
    datagrams: list[str] = field(default_factory=list)

    def pump(self, timeout_s: float) -> bool:
        """Take in what the guest wrote; False once its console is at the end."""
        ready, _, _ = select.select([self.console, self.notify.fileno()], [], [], timeout_s)
        if self.notify.fileno() in ready:
            self.datagrams.append(self.notify.recv(65536).decode())
        if self.console in ready:
            chunk = os.read(self.console, 65536)
            self.output += chunk
            return bool(chunk)
        return True

    def wait_until(self, condition: Callable[[], bool], *, timeout_s: float = TIMEOUT_S) -> None:
        """Pump until `condition` holds; a test that waits too long fails with everything seen so far."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not self.pump(left):
                raise AssertionError(f"not seen; {self.describe()}")

    def describe(self) -> str:
        """What a failing test should show."""
        return f"status {self.process.poll()}, notifications {self.datagrams}, console:\n{self.text}"

    @property
    def text(self) -> str:
        """The console so far."""
        return self.output.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The complete lines of the console so far."""
        return self.text.split("\n")[:-1]

    @property
    def statuses(self) -> list[str]:
        """Every STATUS= so far."""
        lines = "\n".join(self.datagrams).split("\n")
        return [line.removeprefix("STATUS=") for line in lines if line.startswith("STATUS=")]

    @property
    def is_ready(self) -> bool:
        """Whether READY=1 was received."""
        return any("READY=1" in datagram.split("\n") for datagram in self.datagrams)

    @property
    def watchdog_count(self) -> int:
        """How many times WATCHDOG=1 was received."""
        return sum("WATCHDOG=1" in datagram.split("\n") for datagram in self.datagrams)

    def wait_ready(self) -> None:
        """Until READY=1."""
        self.wait_until(lambda: self.is_ready)

    def wait_line(self, line: str) -> None:
        """Until the console has exactly this line."""
        self.wait_until(lambda: line in self.lines)

    def wait_text(self, text: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Until the console contains this text."""
        self.wait_until(lambda: text in self.text, timeout_s=timeout_s)

    def wait_status(self, status: str) -> None:
        """Until STATUS= was exactly this."""
        self.wait_until(lambda: status in self.statuses)

    def wait_end(self) -> int:
        """Until the guest is gone and everything it wrote is read; its exit status as Popen gives it."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.pump(max(deadline - time.monotonic(), 0)):
            if time.monotonic() > deadline:
                raise AssertionError(f"still running; {self.describe()}")
        while select.select([self.notify], [], [], 0)[0]:
            self.datagrams.append(self.notify.recv(65536).decode())
        return self.process.wait(TIMEOUT_S)

    def command(self, text: str) -> str:
        """Send a command to the management console and return its answer."""
        error, reply = self.ask(text)
        assert error == 0, reply
        return reply

    def ask(self, text: str) -> tuple[int, str]:
        """The error number and the text that the command was answered with (arch/um/drivers/mconsole.h)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            # The kernel answers to the sender's address: an abstract one needs no file.
            client.bind("")
            client.settimeout(TIMEOUT_S)
            request = _MCONSOLE_REQUEST.pack(_MCONSOLE_MAGIC, _MCONSOLE_VERSION, len(text), text.encode())
            client.sendto(request, str(self.directory / "uml/guest/mconsole"))
            answer = client.recv(65536)
        error, _, length = struct.unpack_from("=iII", answer)
        return error, answer[12 : 12 + length].decode()

    def deliver(self, files: Mapping[str, bytes] | bytes) -> None:
        """Plug in the disk with these configuration files, or with these bytes in place of an archive."""
        self._plug(files if isinstance(files, bytes) else configuration_archive(files))

    def deliver_hosts(self, hosts: str | bytes) -> None:
        """Plug in the disk with these lines of names, or with these bytes in place of an archive."""
        self._plug(hosts if isinstance(hosts, bytes) else names_archive(hosts))

    def _plug(self, content: bytes) -> None:
        if self.plugged:
            self.withdraw()
        disk = write_disk(self.directory / "disk", content)
        self.command(f"config ubddr={disk}")
        self.plugged = True

    def withdraw(self) -> None:
        """Take the disk away, when the guest's kernel has closed it."""
        deadline = time.monotonic() + TIMEOUT_S
        while (reply := self.ask("remove ubdd")[1]).startswith("Device is currently open"):
            assert time.monotonic() < deadline, reply
            time.sleep(0.01)
        assert not reply.strip("\0 "), reply
        self.plugged = False

    @property
    def outcome(self) -> str:
        """The status with which the last reload ended; '' while none has."""
        datagrams = self.datagrams
        begun = [at for at, datagram in enumerate(datagrams) if datagram.startswith("RELOADING=1\n")]
        ends = [text for text in datagrams[begun[-1] :] if text.startswith("READY=1\n")] if begun else []
        return ends[0].removeprefix("READY=1\nSTATUS=") if ends else ""

    def reload(self, files: Mapping[str, bytes] | bytes) -> str:
        """A whole reload as the host does it; its outcome."""
        begun = self.reloads
        self.deliver(files)
        self.wait_until(lambda: self.reloads > begun and self.outcome != "")
        self.withdraw()
        return self.outcome

    @property
    def reloads(self) -> int:
        """How many reloads have begun."""
        return sum(datagram.startswith("RELOADING=1\n") for datagram in self.datagrams)

    def stop(self) -> int:
        """The host's clean stop; returns the exit status."""
        self.command("cad")
        return self.wait_end()

    def destroy(self) -> None:
        """End the guest and its ptrace children, whatever they do, and give everything back."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.console)
        self.notify.close()
        shutil.rmtree(self.directory)


class Descriptor(Protocol):
    """Something open."""

    def fileno(self) -> int:
        """Its number."""


class Options(TypedDict, total=False):
    """What a guest may have besides its boot plan."""

    config: Mapping[str, bytes]
    localtime: bytes
    image: Path
    data: Path
    hosts: str | bytes
    """Lines of names, or the bytes of a disk, that are there from the start."""
    devices: Sequence[Descriptor]
    """These become vec0, vec1 …; they stay the caller's."""
    arguments: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What guests are started from."""

    kernel: Path
    runtime: Path
    tools: Path
    image: Path
    memory: str = "48M"

    def start(self, plan: Plan | str, **options: Unpack[Options]) -> Guest:
        """Start a guest from a Plan, or from the text of a boot plan."""
        # Short, since a socket below it has at most 108 bytes of path.
        directory = Path(tempfile.mkdtemp(prefix="guest-"))
        initrd = directory / "initrd"
        initrd.write_bytes(self.runtime.read_bytes() + archive(_second_archive(plan, options)))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [self.kernel, *self._arguments(directory, notify=theirs, options=options)],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(), *(device.fileno() for device in options.get("devices", ()))),
            start_new_session=True,
        )
        os.close(writer)
        theirs.close()
        return Guest(
            process=process, directory=directory, console=reader, notify=ours, plugged="hosts" in options
        )

    def _arguments(self, directory: Path, *, notify: socket.socket, options: Options) -> list[str]:
        return [
            f"mem={self.memory}",
            "rdinit=/init",
            f"initrd={directory}/initrd",
            f"ubd0r={options.get('image', self.image)}",
            *([f"ubd1={options['data']}"] if "data" in options else []),
            f"ubd2r={self.tools}",
            *([f"ubd3r={_disk_of_start(directory, options['hosts'])}"] if "hosts" in options else []),
            "quiet",
            "con=null",
            "con0=null,fd:1",
            "ssl=null",
            f"ssl0=fd:{notify.fileno()}",
            f"uml_dir={directory}/uml/",
            "umid=guest",
            "seccomp=off",
            *(
                f"vec{index}:transport=fd,fd={device.fileno()},vec=0,mac=02:00:00:00:00:{index + 1:02x}"
                for index, device in enumerate(options.get("devices", ()))
            ),
            *options.get("arguments", ()),
        ]


def _second_archive(plan: Plan | str, options: Options) -> dict[str, bytes]:
    config = {**options.get("config", {}), **(plan.scripts if isinstance(plan, Plan) else {})}
    files = {f"appliance/config/{name}": content for name, content in config.items()}
    files["appliance/boot"] = (plan.text if isinstance(plan, Plan) else plan).encode()
    if "localtime" in options:
        files["appliance/localtime"] = options["localtime"]
    return files


def configuration_archive(files: Mapping[str, bytes]) -> bytes:
    """What the host puts on the disk of a reload."""
    return archive({f"appliance/config/{name}": content for name, content in files.items()})


def archive_entry(name: str, mode: int = REGULAR, content: bytes = b"x") -> bytes:
    """One entry of an archive, also such as no host makes."""
    path = name.encode() + b"\0"
    fields = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + path
    return header + pad(len(header)) + content + pad(len(content))


def names_archive(hosts: str) -> bytes:
    """What the host puts on a disk with names."""
    return archive_entry("appliance/hosts", content=hosts.encode()) + TRAILER


def write_disk(path: Path, content: bytes) -> Path:
    """A disk has whole sectors."""
    path.write_bytes(content + bytes(-len(content) % 512))
    return path


def _disk_of_start(directory: Path, hosts: str | bytes) -> Path:
    return write_disk(directory / "disk", hosts if isinstance(hosts, bytes) else names_archive(hosts))


class Boot(Protocol):
    """The fixture `boot`: Machine.start() for guests that end with their test."""

    def __call__(self, plan: Plan | str = ..., **options: Unpack[Options]) -> Guest: ...


def make_image(tree: Path, image: Path) -> Path:
    """A squashfs of `tree` in which the directories of the service have an owner of their own."""
    uid, gid = STATE_OWNER
    command = ["mksquashfs", str(tree), str(image), "-quiet", "-no-progress", "-noappend"]
    for path in ("var/lib/state", "run/service", "data"):
        command += ["-p", f"{path} m 0750 {uid} {gid}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return image
