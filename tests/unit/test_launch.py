"""The launcher: loaded from its path, as systemd starts it, and followed up to the moment of exec."""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given

from agent.host.store import stamp_of
from tests.unit.config.strategies import hostile_texts

PATH = Path(__file__).parents[2] / "agent/launch.py"
CONTENT = b"an image"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def launch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("launch_by_path", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The socket that systemd listens on."""
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(5)
        yield server


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.squashfs"
    path.write_bytes(CONTENT)
    return path


def refusal(launch: ModuleType, function: Callable[[], object]) -> str:
    with pytest.raises(launch.RefusalError) as caught:
        function()
    return str(caught.value)


# --- the plan


def test_a_plan_is_read_line_by_line(launch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# a comment\nimage abc /with space/x\ntap ap-dns\nexec /linux\narg ssl0=fd:{notify}\narg \n"
    opened: list[str] = []

    def read(path: str, **_: Any) -> io.StringIO:
        opened.append(path)
        return io.StringIO(text)

    monkeypatch.setattr(builtins, "open", read)
    assert launch.read_plan("dns") == [
        ("image", "abc /with space/x"),
        ("tap", "ap-dns"),
        ("exec", "/linux"),
        ("arg", "ssl0=fd:{notify}"),
        ("arg", ""),
    ]
    assert opened == ["/run/appliance/dns/launch"]


def test_no_plan(launch: ModuleType) -> None:
    assert refusal(launch, lambda: launch.read_plan("no-such-appliance")) == (
        "/run/appliance/no-such-appliance/launch: No such file or directory; `appliancectl apply` writes it"
    )


# --- the image


def test_an_image_with_its_digest(launch: ModuleType, image: Path) -> None:
    launch.check_image(DIGEST, str(image))


def test_a_stamp_saves_hashing(launch: ModuleType, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image.with_name("verified").write_text(f"{stamp_of(image.stat())}\n")
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed"))
    launch.check_image("of something else", str(image))


@pytest.mark.parametrize("stamp", ["", "1 2 3 4", "\xff", "1"])
def test_a_stamp_of_another_state_saves_nothing(launch: ModuleType, image: Path, stamp: str) -> None:
    image.with_name("verified").write_bytes(stamp.encode("latin-1"))
    launch.check_image(DIGEST, str(image))


def test_a_damaged_image(launch: ModuleType, image: Path) -> None:
    image.with_name("verified").write_text(stamp_of(image.stat()))
    with image.open("r+b") as file:
        file.write(b"x")
    os.utime(image, ns=(0, 0))
    assert refusal(launch, lambda: launch.check_image(DIGEST, str(image))) == (
        f"image {image} is damaged: its content no longer has the digest sha256:{DIGEST}"
    )


def test_a_missing_image(launch: ModuleType, tmp_path: Path) -> None:
    assert refusal(launch, lambda: launch.check_image(DIGEST, f"{tmp_path}/none")) == (
        f"image {tmp_path}/none: No such file or directory"
    )


# --- descriptors


def test_descriptors_from_systemd(launch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    monkeypatch.setenv("LISTEN_FDNAMES", "stale")
    assert launch.inherited_descriptors() == {}
    monkeypatch.setenv("LISTEN_FDS", "3")
    monkeypatch.setenv("LISTEN_FDNAMES", "notify:tun0:tun1")
    assert launch.inherited_descriptors() == {"notify": 3, "tun0": 4, "tun1": 5}


def test_the_notification_socket(launch: ModuleType, notify: socket.socket) -> None:
    assert launch.open_notify({"notify": 77}) == 77
    descriptor = launch.open_notify({})
    os.write(descriptor, b"READY=1")
    assert notify.recv(99) == b"READY=1"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_tap_that_is_not_ours(launch: ModuleType) -> None:
    with Path(os.devnull).open("rb") as null:
        text = refusal(launch, lambda: launch.open_tap({"tun0": null.fileno()}, 0, "ap-dns"))
    assert text.startswith("cannot attach to tap ap-dns: ")
    assert text.endswith("; `appliancectl apply` restores it")


def test_the_request_for_a_tap(launch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, bytes]] = []
    monkeypatch.setattr(launch, "ioctl", lambda *call: calls.append(call))
    assert launch.open_tap({"tun1": 9}, 1, "ap-dns.1") == 9
    [(descriptor, request, argument)] = calls
    # struct ifreq: the name, then IFF_TAP | IFF_NO_PI
    assert (descriptor, request, len(argument)) == (9, 0x400454CA, 40)
    assert argument.startswith(b"ap-dns.1\0")
    assert argument[16:18] == b"\x02\x10"


# --- putting it together


def test_a_whole_plan(
    launch: ModuleType, notify: socket.socket, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del notify
    monkeypatch.setattr(launch, "ioctl", lambda *_: 0)
    monkeypatch.setattr(launch, "inherited_descriptors", lambda: {"notify": 3, "tun0": 4, "tun1": 5})
    plan = [
        ("image", f"{DIGEST} {image}"),
        ("tap", "ap-dns"),
        ("tap", "ap-dns.1"),
        ("exec", "/linux"),
        ("arg", "ssl0=fd:{notify}"),
        ("arg", "vec0:fd={tap0}"),
        ("arg", "vec1:fd={tap1}"),
        ("arg", "{tap2} {x}"),
    ]
    argv, inherited = launch.prepare(plan)
    assert argv == ["/linux", "ssl0=fd:3", "vec0:fd=4", "vec1:fd=5", "{tap2} {x}"]
    assert inherited == [3, 4, 5]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ([("refuse", "there is no image")], "there is no image"),
        ([("", "")], "launch plan: unknown directive “”; `appliancectl apply` writes a new one"),
        (
            [("shell", "reboot")],
            "launch plan: unknown directive “shell”; `appliancectl apply` writes a new one",
        ),
        ([], "launch plan: no kernel named; `appliancectl apply` writes a new one"),
    ],
)
def test_plans_that_start_nothing(
    launch: ModuleType, monkeypatch: pytest.MonkeyPatch, plan: list[tuple[str, str]], expected: str
) -> None:
    monkeypatch.setattr(launch, "inherited_descriptors", lambda: {"notify": 3})
    assert refusal(launch, lambda: launch.prepare(plan)) == expected


@given(hostile_texts)
def test_placeholders_are_all_that_is_replaced(text: str) -> None:
    from agent.launch import fill_in

    expected = text.replace("{notify}", "3").replace("{tap0}", "4")
    assert fill_in(text, {"notify": 3, "tap0": 4}) == expected


def test_a_kernel_that_is_not_there(launch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert refusal(launch, lambda: launch.become_guest(["/nonexistent"], [])) == (
        "kernel /nonexistent: No such file or directory"
    )


def test_the_guest_s_environment_and_descriptors(
    launch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Any, ...]] = []
    monkeypatch.setattr(launch.os, "execve", lambda *call: ran.append(call))
    monkeypatch.setenv("TMPDIR", "/run/appliance/memory")
    monkeypatch.setenv("SECRET", "x")
    with Path(os.devnull).open("rb") as null:
        launch.become_guest(["/linux", "a"], [null.fileno()])
        assert os.get_inheritable(null.fileno())
    assert ran == [("/linux", ["/linux", "a"], {"TMPDIR": "/run/appliance/memory", "HOME": "/"})]


def test_a_refusal_is_one_line_for_the_journal_and_its_status_ends_restarts(notify: socket.socket) -> None:
    done = subprocess.run(
        [sys.executable, "-ISs", PATH, "no-such-appliance"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    reason = (
        "/run/appliance/no-such-appliance/launch: No such file or directory; `appliancectl apply` writes it"
    )
    assert (done.stdout, done.stderr) == ("", f"<3>Cannot start: {reason}.\n")
    assert notify.recv(999).decode() == f"STATUS={reason}"


def test_it_imports_only_what_the_interpreter_has_built_in() -> None:
    # With -v the interpreter says on standard error what it imports.
    command = [sys.executable, "-vISs", str(PATH), "no-such-appliance"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    imported = set(re.findall(r"^import '([\w.]+)'", done.stderr, re.MULTILINE))
    heavy = {"re", "socket", "subprocess", "pathlib", "hashlib", "json", "typing", "dataclasses", "enum"}
    assert "fcntl" in imported
    assert not imported & heavy
