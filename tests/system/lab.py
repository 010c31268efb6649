"""A booted systemd host with the packages installed, as the tests see it: tests/lab made and named it."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.dbus.appliance import path_of

PROJECT = Path(__file__).resolve().parents[2]
_T = TypeVar("_T")

# Sends one request to a guest's management console: what uml_mconsole(1) does, which Debian packages with a
# kernel.
_MCONSOLE = """
import socket, struct, sys
command = sys.argv[2].encode()
request = struct.pack("<III512s", 0xcafebabe, 2, len(command), command)
console = f"/run/appliance/{sys.argv[1]}/uml/guest/mconsole"
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(request, console)
"""

_SOCKET = "var/tmp/commands"
"""Where remote.py listens, below the host's root: /var is seen from both sides."""

_remotes: dict[str, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Host:
    """One lab host."""

    name: str

    @property
    def root(self) -> Path:
        """Its file system, from the outside."""
        return Path("/run/appliance-lab") / self.name / "root"

    def run(self, *argv: str, stdin: str = "", check: bool = True, timeout_s: float = 120) -> str:
        """Run a command as root and return its standard output; where it fails, so does the test."""
        done = self.try_run(*argv, stdin=stdin, timeout_s=timeout_s)
        if check and done.returncode:
            command = shlex.join(argv)
            raise AssertionError(f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def try_run(
        self, *argv: str, stdin: str = "", timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root, whatever comes of it; status 255: the host is not there, or went away."""
        request = {"argv": argv, "stdin": stdin, "timeout_s": timeout_s}
        try:
            with self._connect() as connection, connection.makefile("rwb") as stream:
                stream.write(json.dumps(request).encode() + b"\n")
                stream.flush()
                answer = stream.read()
        except OSError as error:
            return subprocess.CompletedProcess(argv, 255, "", f"{self.name}: {error}\n")
        if not answer:
            return subprocess.CompletedProcess(argv, 255, "", f"{self.name} went away.\n")
        done = json.loads(answer)
        if not done:
            raise subprocess.TimeoutExpired(argv, timeout_s)
        return subprocess.CompletedProcess(argv, done["status"], done["stdout"], done["stderr"])

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command that runs beside the test."""
        return subprocess.Popen(
            self._entering(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _entering(self, *argv: str) -> list[str]:
        return [str(PROJECT / "tests/lab"), "exec", "--name", self.name, "--", *argv]

    def _connect(self) -> socket.socket:
        """To remote.py on the host, which is started where it does not run."""
        connection = socket.socket(socket.AF_UNIX)
        path = self.root / _SOCKET
        try:
            try:
                connection.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
                self._start_remote(path)
                connection.connect(str(path))
        except OSError:
            connection.close()
            raise
        return connection

    def _start_remote(self, path: Path) -> None:
        """Returns when there is a socket, or there will be none."""
        source = (PROJECT / "tests/system/remote.py").read_text()
        remote = subprocess.Popen(
            self._entering("python3", "-c", source, f"/{_SOCKET}"),
            stdin=subprocess.PIPE,  # remote.py ends with this process
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if before := _remotes.pop(self.name, None):
            with before:
                before.kill()
        _remotes[self.name] = remote
        while remote.poll() is None and not path.exists():
            time.sleep(0.01)

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def json(self, *argv: str) -> Any:
        """What `appliancectl VERB… --json` prints."""
        return json.loads(self.run("appliancectl", *argv, "--json"))

    def appliance(self, name: str) -> dict[str, Any]:
        """One appliance as the agent shows it."""
        [found] = [appliance for appliance in self.json("list") if appliance["name"] == name]
        return dict(found)

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        """Properties of an appliance's unit."""
        text = self.run(
            "systemctl", "show", f"appliance@{name}", *(f"--property={key}" for key in properties)
        )
        return dict(line.split("=", 1) for line in text.splitlines())

    def journal(self, *matches: str, since: str = "") -> list[dict[str, Any]]:
        """Journal entries in their order, from the cursor `since` on.

        Not by --after-cursor: systemd 252 loses an entry where that of the cursor does not match.
        """
        self.run("journalctl", "--sync", check=False)
        known = _fields(since)
        recent = [f"--since=@{known['t'] // 1_000_000}"] if since else []
        text = self.run("journalctl", "--quiet", "--output=json", "--all", *recent, *matches)
        entries = [json.loads(line) for line in text.splitlines()]
        return [entry for entry in entries if _fields(entry["__CURSOR"])["i"] > known.get("i", 0)]

    def messages(self, name: str, *, since: str = "") -> list[str]:
        """What `journalctl -u appliance@NAME` shows, from the journal cursor `since` on."""
        entries = self.journal(f"--unit=appliance@{name}", since=since)
        return [str(entry["MESSAGE"]) for entry in entries]

    def cursor(self) -> str:
        """The place where the journal ends now."""
        self.run("journalctl", "--sync", check=False)
        return str(self.journal("--lines=1")[-1]["__CURSOR"])

    def mconsole(self, name: str, command: str) -> None:
        """Send a command to a guest's kernel."""
        self.run("python3", "-c", _MCONSOLE, name, command)

    def wait(self, what: str, condition: Callable[[], _T], *, timeout_s: float = 30) -> _T:
        """Wait until `condition` gives something true, and return that."""
        end = time.monotonic() + timeout_s
        pause_s = 0.05
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {timeout_s:g} s; last: {value!r}")
            time.sleep(pause_s)
            # What asks costs more than what is waited for.
            pause_s = min(1.3 * pause_s, 0.3)

    def wait_health(self, name: str, health: str, *, timeout_s: float = 30) -> dict[str, Any]:
        """Wait until an appliance is in this health state."""
        last: dict[str, Any] = {}
        ask = (
            "busctl",
            "get-property",
            "org.appliance1",
            path_of(name),
            "org.appliance1.Appliance",
            "Health",
        )

        def reached() -> bool:
            # A tenth of what appliancectl costs, in every round.
            if self.try_run(*ask).stdout.strip() != f's "{health}"':
                return False
            last.update(self.appliance(name))
            return bool(last["health"] == health)

        try:
            self.wait(f"{name} is {health}", reached, timeout_s=timeout_s)
        except AssertionError as error:
            shown = self.try_run("appliancectl", "list").stdout + "\n".join(self.messages(name)[-20:])
            raise AssertionError(f"{error}\n{shown}") from error
        return last


def _fields(cursor: str) -> dict[str, int]:
    """A journal cursor (systemd.journal-fields(7)): i, the sequence number, and t, microseconds since the
    epoch, among others."""
    return {
        key: int(value, 16) for key, _, value in (field.partition("=") for field in cursor.split(";")) if key
    }
