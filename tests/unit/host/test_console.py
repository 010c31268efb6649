"""The management console of a guest, with a socket of the test's in place of the guest's kernel."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.host import console
from agent.host.console import deliver, withdraw
from agent.model.errors import HostError, Problem

_REQUEST = struct.Struct("=III512s")
NOT_THERE = (-19, "Device doesn't exist ")
OPEN = (-16, "Device is currently open ")
DONE = (0, "")

Answers = Callable[..., None]


class FakeKernel:
    """Gives prepared answers, and keeps what it was asked."""

    def __init__(self, directory: Path) -> None:
        (directory / "uml/guest").mkdir(parents=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(directory / "uml/guest/mconsole"))
        self.asked: list[str] = []
        self._threads: list[threading.Thread] = []

    def will_answer(self, *answers: tuple[int, str]) -> None:
        self._threads.append(threading.Thread(target=self._answer, args=(answers,)))
        self._threads[-1].start()

    def _answer(self, answers: tuple[tuple[int, str], ...]) -> None:
        for error, text in answers:
            datagram, sender = self.socket.recvfrom(4096)
            magic, version, length, data = _REQUEST.unpack(datagram)
            assert (magic, version) == (0xCAFEBABE, 2)
            self.asked.append(data[:length].decode())
            content = text.encode() + b"\0"
            self.socket.sendto(struct.pack("=iII", error, 0, len(content)) + content, sender)

    def close(self) -> None:
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()
        self.socket.close()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(console, "runtime_directory", lambda _: str(tmp_path))
    monkeypatch.setattr(console, "management_console", lambda _: str(tmp_path / "uml/guest/mconsole"))
    monkeypatch.setattr(console, "TIMEOUT_S", 0.1)
    return tmp_path


@pytest.fixture
def kernel(directory: Path) -> Iterator[FakeKernel]:
    fake = FakeKernel(directory)
    yield fake
    fake.close()


def test_deliver_takes_away_what_is_there_first(kernel: FakeKernel, directory: Path) -> None:
    kernel.will_answer(DONE, DONE)
    deliver("dns", "/run/appliance/dns/disk")
    assert kernel.asked == ["remove ubdd", "config ubddr=/run/appliance/dns/disk"]
    assert not (directory / "console").exists()


def test_withdrawing_what_is_not_there_is_no_error(kernel: FakeKernel) -> None:
    kernel.will_answer(NOT_THERE)
    withdraw("dns")


def test_withdraw_waits_until_the_disk_is_closed(kernel: FakeKernel) -> None:
    kernel.will_answer(OPEN, OPEN, DONE)
    withdraw("dns")
    assert len(kernel.asked) == 3


def test_an_error_of_the_guest_is_told_on_one_line(kernel: FakeKernel) -> None:
    kernel.will_answer(NOT_THERE, (-1, "no\nmemory"))
    with pytest.raises(
        HostError, match=r"^The guest of dns does not take the new configuration: no\?memory\.$"
    ):
        deliver("dns", "/run/appliance/dns/disk")


def test_a_disk_that_stays_open(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_PAUSE_S", console.TIMEOUT_S)
    kernel.will_answer(OPEN, OPEN)
    with pytest.raises(HostError, match=r"does not give back the disk .*: Device is currently open"):
        withdraw("dns")


def test_a_guest_that_does_not_answer(kernel: FakeKernel) -> None:
    with pytest.raises(HostError) as raised:
        withdraw("dns")
    assert raised.value.problem is Problem.TIMED_OUT


def test_no_guest(directory: Path) -> None:
    with pytest.raises(
        HostError, match=r"^Cannot reach the management console of dns: No such file"
    ) as raised:
        withdraw("dns")
    assert raised.value.problem is Problem.UNAVAILABLE


def test_what_an_agent_left_behind_is_replaced(kernel: FakeKernel, directory: Path) -> None:
    (directory / "console").touch()
    kernel.will_answer(DONE)
    withdraw("dns")


def test_links_are_not_followed(directory: Path) -> None:
    (directory / "uml/guest").mkdir(parents=True)
    victim = directory / "victim"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(victim))
        victim.chmod(0o600)
        (directory / "uml/guest/mconsole").symlink_to(victim)
        with pytest.raises(HostError, match="is not its socket"):
            withdraw("dns")
        (directory / "uml/guest/mconsole").unlink()
        os.link(victim, directory / "uml/guest/mconsole")
        with pytest.raises(HostError, match="is not its socket"):
            withdraw("dns")
        assert victim.stat().st_mode & 0o777 == 0o600


def test_nobody_else_can_answer(kernel: FakeKernel, directory: Path) -> None:
    def intrude() -> None:
        kernel.socket.recvfrom(4096)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, pytest.raises(PermissionError):
            stranger.sendto(struct.pack("=iII", 0, 0, 1) + b"\0", str(directory / "console"))

    thread = threading.Thread(target=intrude)
    thread.start()
    with pytest.raises(HostError):
        withdraw("dns")
    thread.join(5)
