"""A private message bus, connections to it, and nothing left behind by any test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.aio import nothing_left_behind, run_coroutine_test
from tests.fakes.events import EventLog, catch_events

CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"""


class MessageBus:
    """A dbus-daemon of our own; `address` is where it listens."""

    def __init__(self, directory: Path) -> None:
        socket, configuration = directory / "bus", directory / "bus.conf"
        configuration.write_text(CONFIGURATION.format(socket=socket), "utf-8")
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={configuration}", "--print-address", "--nofork"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        # It prints the address when it listens.
        self.address = self._process.stdout.readline().strip()

    def stop(self) -> None:
        """End it, as a crash would."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def message_bus(directory: Path) -> Iterator[MessageBus]:
    bus = MessageBus(directory)
    try:
        yield bus
    finally:
        bus.stop()


@pytest.fixture(scope="session")
def shared_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MessageBus]:
    with message_bus(tmp_path_factory.mktemp("bus")) as bus:
        yield bus


@pytest.fixture
def address(shared_bus: MessageBus) -> str:
    """Address of a bus that all tests share."""
    return shared_bus.address


@pytest.fixture
def mortal_bus(tmp_path: Path) -> Iterator[MessageBus]:
    """A bus for one test, which may stop it."""
    with message_bus(tmp_path) as bus:
        yield bus


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> EventLog:
    return catch_events(monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_left_behind(shared_bus: MessageBus) -> Iterator[None]:
    del shared_bus  # starts before anything is counted
    with nothing_left_behind():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    return run_coroutine_test(pyfuncitem)
