"""The launcher: compiled, started as systemd starts it, and followed into what it executes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.host.store import stamp_of
from agent.plan.launch import render_refusal
from tests.unit.config.strategies import hostile_texts

SOURCE = Path(__file__).parents[2] / "agent/launcher"
CONTENT = b"an image"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
CONFIG, TEMPFAIL = 78, 75

# In place of the guest's kernel: says what it was given.
KERNEL = f"""#!{sys.executable} -ISs
import json, os, sys
print(json.dumps({{
    "arguments": sys.argv[1:],
    "environment": {{key: value for key, value in os.environ.items() if key != "LC_CTYPE"}},
    "personality": open("/proc/self/personality").read().strip(),
    "sockets": [fd for fd in range(3, 20) if os.path.exists(f"/proc/self/fd/{{fd}}")
        and os.readlink(f"/proc/self/fd/{{fd}}").startswith("socket:")],
}}))
"""


@dataclass(frozen=True)
class Done:
    """How a start ended."""

    status: int
    kernel: dict[str, Any]
    said: str


@dataclass(frozen=True)
class Launcher:
    """The program, with a runtime directory of its own in place of /run/appliance."""

    program: Path
    runtime: Path
    environment: dict[str, str] = field(default_factory=dict)

    def kernel(self) -> Path:
        path = self.runtime / "linux"
        path.write_text(KERNEL)
        path.chmod(0o755)
        return path

    def start(self, plan: str | None, *, descriptors: tuple[int, ...] = (), **environment: str) -> Done:
        """`launch dns` with this plan, and with descriptors from 3 on."""
        (self.runtime / "dns").mkdir(exist_ok=True)
        if plan is not None:
            (self.runtime / "dns/launch").write_bytes(plan.encode("utf-8", "surrogatepass"))
        sources = ["--", *map(str, descriptors)]
        done = subprocess.run(
            # A shell would do, were it not for its one digit of descriptors.
            [sys.executable, "-ISsc", _INHERIT, str(self.program), *sources],
            capture_output=True,
            check=False,
            env={**self.environment, **environment},
            pass_fds=descriptors,
            timeout=20,
        )
        kernel = json.loads(done.stdout) if done.stdout else {}
        return Done(status=done.returncode, kernel=kernel, said=done.stderr.decode())

    def refusal(self, plan: str | None) -> str:
        """The reason why this plan starts nothing, and never will."""
        done = self.start(plan)
        assert (done.status, done.kernel) == (CONFIG, {})
        return reason_of(done)


_INHERIT = """
import os, sys
for number, source in enumerate(sys.argv[3:], 3):
    os.dup2(int(source), 100 + number)
for number, _ in enumerate(sys.argv[3:], 3):
    os.dup2(100 + number, number)
    os.close(100 + number)
os.closerange(3 + len(sys.argv[3:]), 100)
os.execv(sys.argv[1], [sys.argv[1], "dns"])
"""


def reason_of(done: Done) -> str:
    """What follows the one line's beginning: its priority and "Cannot start: "."""
    assert done.said.startswith("<3>Cannot start: ")
    assert done.said.endswith(".\n")
    assert done.said.count("\n") == 1
    return done.said.removeprefix("<3>Cannot start: ").removesuffix(".\n")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled for a runtime directory beside it."""
    directory = tmp_path_factory.mktemp("launcher")
    define = f'-DRUNTIME_DIRECTORY="{directory}"'
    subprocess.run([SOURCE / "build", "--output", directory / "launch", define], check=True)
    return directory / "launch"


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(5)
        yield server


@pytest.fixture
def launcher(program: Path, notify: socket.socket) -> Launcher:
    environment = {"NOTIFY_SOCKET": notify.getsockname(), "TMPDIR": "/run/appliance/memory", "SECRET": "x"}
    return Launcher(program=program, runtime=program.parent, environment=environment)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "an image.squashfs"
    path.write_bytes(CONTENT)
    return path


def plan_of(launcher: Launcher, *lines: str) -> str:
    return "\n".join(["# a comment", *lines, f"exec {launcher.kernel()}", "arg quiet", ""])


# --- the plan


def test_a_kernel_with_its_arguments(launcher: Launcher) -> None:
    done = launcher.start(plan_of(launcher) + "arg  with spaces \narg \narg ssl0=fd:{notify}\n")
    assert done.status == 0
    assert done.kernel["arguments"] == ["quiet", " with spaces ", "", "ssl0=fd:3"]


def test_what_a_guest_inherits(launcher: Launcher) -> None:
    kernel = launcher.start(plan_of(launcher)).kernel
    assert kernel["environment"] == {"TMPDIR": "/run/appliance/memory", "HOME": "/"}
    assert kernel["sockets"] == [3]
    # ADDR_NO_RANDOMIZE, linux/personality.h
    assert kernel["personality"] == "00040000"


def test_no_plan(launcher: Launcher) -> None:
    (launcher.runtime / "dns/launch").unlink(missing_ok=True)
    reason = launcher.refusal(None)
    path = launcher.runtime / "dns/launch"
    assert reason == f"{path}: No such file or directory; `appliancectl apply` writes it"


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ("refuse there is no image\n", "there is no image"),
        (render_refusal("there is\nno image."), "there is no image"),
        ("\n", "launch plan: unknown directive “”; `appliancectl apply` writes a new one"),
        ("shell reboot\n", "launch plan: unknown directive “shell”; `appliancectl apply` writes a new one"),
        ("", "launch plan: no kernel named; `appliancectl apply` writes a new one"),
        ("# nothing\n", "launch plan: no kernel named; `appliancectl apply` writes a new one"),
        ("exec /nonexistent\n", "kernel /nonexistent: No such file or directory"),
        ("image abc relative\n", "launch plan: relative is no path of an image"),
        ("image\n", "launch plan:  is no path of an image"),
        ("arg x\n" * 129, "launch plan: more than 128 arguments"),
    ],
)
def test_plans_that_start_nothing(launcher: Launcher, plan: str, expected: str) -> None:
    assert launcher.refusal(plan) == expected


def test_a_plan_that_is_too_long(launcher: Launcher) -> None:
    assert launcher.refusal("#" * 65537).endswith(": longer than 64 KiB")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(hostile_texts)
def test_placeholders_are_all_that_is_replaced(launcher: Launcher, text: str) -> None:
    text = text.replace("\n", " ").replace("\0", " ").encode(errors="replace").decode()
    done = launcher.start(plan_of(launcher) + f"arg {text}\n")
    assert done.kernel["arguments"] == ["quiet", text.replace("{notify}", "3")]


# --- the image


def test_an_image_with_its_digest(launcher: Launcher, image: Path) -> None:
    assert launcher.start(plan_of(launcher, f"image {DIGEST} {image}")).status == 0


def test_a_stamp_saves_hashing(launcher: Launcher, image: Path) -> None:
    image.with_name("verified").write_text(f"{stamp_of(image.stat())}\n")
    assert launcher.start(plan_of(launcher, f"image of-something-else {image}")).status == 0


@pytest.mark.parametrize("stamp", ["", "1 2 3 4", "\xff", "1", "9" * 500])
def test_a_stamp_of_another_state_saves_nothing(launcher: Launcher, image: Path, stamp: str) -> None:
    image.with_name("verified").write_bytes(stamp.encode("latin-1"))
    assert launcher.start(plan_of(launcher, f"image {DIGEST} {image}")).status == 0
    assert "is damaged" in launcher.refusal(plan_of(launcher, f"image of-something-else {image}"))


def test_a_damaged_image(launcher: Launcher, image: Path) -> None:
    image.with_name("verified").write_text(stamp_of(image.stat()))
    with image.open("r+b") as file:
        file.write(b"x")
    os.utime(image, ns=(0, 0))
    assert launcher.refusal(plan_of(launcher, f"image {DIGEST} {image}")) == (
        f"image {image} is damaged: its content no longer has the digest sha256:{DIGEST}"
    )


def test_a_missing_image(launcher: Launcher, tmp_path: Path) -> None:
    reason = launcher.refusal(plan_of(launcher, f"image {DIGEST} {tmp_path}/none"))
    assert reason == f"image {tmp_path}/none: No such file or directory"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(size=st.one_of(st.sampled_from([0, 55, 56, 63, 64, 65, 65536]), st.integers(0, 200_000)))
def test_digests_of_any_length(launcher: Launcher, tmp_path: Path, size: int) -> None:
    content = bytes(index * 7 % 251 for index in range(size))
    path = tmp_path / "image"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert launcher.start(plan_of(launcher, f"image {digest} {path}")).status == 0


# --- descriptors


def test_descriptors_from_systemd(launcher: Launcher, notify: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, Path(os.devnull).open("rb") as null:
        client.connect(notify.getsockname())
        names = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "other:notify"}
        plan = plan_of(launcher) + "arg {notify}\n"
        descriptors = (null.fileno(), client.fileno())
        done = launcher.start(plan, descriptors=descriptors, **names)
        assert done.kernel["arguments"] == ["quiet", "4"]
        assert done.kernel["sockets"] == [4]
        # Names alone are somebody else's.
        done = launcher.start(plan, descriptors=descriptors, LISTEN_FDNAMES="other:notify")
        assert done.kernel["arguments"] == ["quiet", "5"]


def test_without_a_notification_socket(launcher: Launcher) -> None:
    done = launcher.start(plan_of(launcher), NOTIFY_SOCKET="/nonexistent")
    assert done.status == TEMPFAIL
    assert reason_of(done) == ("cannot connect to systemd's notification socket: No such file or directory")


def test_a_tap_that_is_not_ours(launcher: Launcher) -> None:
    with Path(os.devnull).open("rb") as null:
        names = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "tun0"}
        done = launcher.start(plan_of(launcher, "tap ap-dns"), descriptors=(null.fileno(),), **names)
    assert done.status == TEMPFAIL
    reason = reason_of(done)
    assert reason.startswith("cannot attach to tap ap-dns: ")
    assert reason.endswith("; `appliancectl apply` restores it")


def test_a_tap_whose_name_is_too_long(launcher: Launcher) -> None:
    with Path(os.devnull).open("rb") as null:
        names = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "tun0"}
        plan = plan_of(launcher, "tap ap-0123456789012")
        done = launcher.start(plan, descriptors=(null.fileno(),), **names)
    assert (done.status, reason_of(done)) == (CONFIG, "launch plan: ap-0123456789012 is no name of a tap")


# --- what is told


def test_a_refusal_is_told_to_systemd_too(launcher: Launcher, notify: socket.socket) -> None:
    launcher.refusal("refuse there is no image\n")
    assert notify.recv(999) == b"STATUS=there is no image"


def test_it_is_one_small_static_program(program: Path) -> None:
    headers = subprocess.run(
        ["readelf", "--program-headers", program], capture_output=True, text=True, check=True
    ).stdout
    assert "INTERP" not in headers
    assert program.stat().st_size < 100_000
    assert stat.S_IMODE(program.stat().st_mode) & 0o111
