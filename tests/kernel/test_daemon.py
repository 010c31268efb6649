"""The whole daemon: real links in a namespace, a private bus, a fake PID 1, a host in a directory."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import daemon as module
from agent.config.manifest import render_manifest
from agent.core import prober
from agent.core.operations import ENDED_KEPT, Operation, OperationState
from agent.daemon import Daemon
from agent.host import appliances, names
from agent.host.bus import Bus, Variant
from agent.model.errors import HostError, Problem
from agent.model.image import Digest
from agent.model.paths import Paths
from agent.util.journal import Event
from tests.bus.conftest import MessageBus, message_bus
from tests.fakes.bus import connected
from tests.fakes.events import EventLog, catch_events
from tests.fakes.samples import NETWORK, sample_facts, sample_manifest
from tests.fakes.systemd import FakeSystemd, fake_systemd
from tests.kernel.links import ip, links
from tests.kernel.servers import tcp_server, wait_for_the_end

NAME, ROOT, MANAGER = "org.appliance1", "/org/appliance1", "org.appliance1.Manager"
OPERATION, PROPERTIES = "org.appliance1.Operation", "org.freedesktop.DBus.Properties"
OLDER, NEWER = Digest.of(b"hsqs older"), Digest.of(b"hsqs newer")
OWNER = 61000
TIMEOUT_S = 10.0


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A host with one network, two versions of an image and nothing else."""
    paths = Paths(tmp_path)
    newer = sample_manifest(version="4.7-1", data=None)
    files = {
        paths.images / NEWER.directory / "image.squashfs": b"hsqs newer",
        paths.images / NEWER.directory / "manifest.yaml": render_manifest(newer).encode(),
        paths.guest_runtime: b"runtime.",
        paths.configuration / "networks/default.yaml": NETWORK.encode(),
        paths.images / OLDER.directory / "image.squashfs": b"hsqs older",
        paths.images / OLDER.directory / "manifest.yaml": render_manifest(
            sample_manifest(data=None)
        ).encode(),
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setattr(module, "read_facts", lambda _root: sample_facts())
    monkeypatch.setattr(appliances, "user_id", lambda _name: OWNER)
    for user in (appliances, names):
        monkeypatch.setattr(user, "group_id", lambda _name: OWNER)
    monkeypatch.setattr(appliances, "why_unfit", lambda _kernel: "")
    return paths


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> EventLog:
    return catch_events(monkeypatch)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[MessageBus]:
    with message_bus(tmp_path) as bus:
        yield bus


class ServiceManager:
    """The receiving end of $NOTIFY_SOCKET."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        """Everything it was told so far."""
        while True:
            try:
                self._lines += self._receiver.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self._lines


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield ServiceManager(receiver)


@dataclass
class Running:
    """A daemon at work."""

    daemon: Daemon
    systemd: FakeSystemd
    client: Bus
    task: asyncio.Task[None]

    async def call(self, member: str, *arguments: object, signature: str = "") -> list[Any]:
        return await self.client.call(NAME, ROOT, f"{MANAGER}.{member}", *arguments, signature=signature)


def configure(paths: Paths, name: str, text: str = "image: dns-nsd\n") -> None:
    path = paths.configuration / "appliances" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is done by others; a test that waits in vain runs into its time limit."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 (what is waited for is in the kernel)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(bus: MessageBus, paths: Paths, manager: ServiceManager) -> AsyncIterator[Running]:
    """The daemon, ready, and PID 1 and a caller beside it."""
    async with (
        fake_systemd(bus.address) as systemd,
        connected(bus.address) as own,
        connected(bus.address) as client,
    ):
        before = manager.lines().count("READY=1")
        daemon = Daemon(own, paths)
        task = asyncio.ensure_future(daemon.run())
        try:
            await until(lambda: manager.lines().count("READY=1") > before or task.done())
            yield Running(daemon, systemd, client, task)
        finally:
            daemon._stop.set()
            await asyncio.wait([task])


def set_active(systemd: FakeSystemd, *names: str) -> None:
    for name in names:
        systemd.units[f"appliance@{name}.service"] = {"ActiveState": Variant("s", "active")}


async def test_from_the_first_line_to_the_last(
    bus: MessageBus, paths: Paths, manager: ServiceManager, events: EventLog
) -> None:
    configure(paths, "dns")
    async with running(bus, paths, manager) as found:
        assert {"READY=1", "STATUS=1 stopped", "WATCHDOG=1"} <= set(manager.lines())
        assert set(links()) == {"br-default", "ap-dns"}
        assert await found.call("ListAppliances") == [[["dns", f"{ROOT}/appliance/dns"]]]
        assert found.systemd.calls[0] == "Subscribe"
        assert "Reload" in found.systemd.calls
        await found.systemd.change("dns", ActiveState=Variant("s", "active"))
        await until(lambda: "STATUS=1 healthy" in manager.lines())
        assert events.entries[-1][:2] == (Event.HEALTHY, "dns")
        found.daemon._stop.set()
        await found.task
    assert manager.lines()[-1] == "STOPPING=1"
    # Appliances and their links run on without it.
    assert set(links()) == {"br-default", "ap-dns"}


async def test_new_configuration_and_what_becomes_of_the_objects(
    bus: MessageBus, paths: Paths, manager: ServiceManager, events: EventLog
) -> None:
    configure(paths, "dns")
    async with running(bus, paths, manager) as found:
        configure(paths, "web")
        (paths.configuration / "appliances/dns.yaml").unlink()
        [changes, problems, _] = await found.call("Apply", [], signature="as")
        assert "web: create tap ap-web" in changes
        assert problems == []
        assert await found.call("ListAppliances") == [[["web", f"{ROOT}/appliance/web"]]]
        assert set(links()) == {"br-default", "ap-web"}
        assert await found.call("Apply", [], signature="as") == [[], [], []]
    assert Event.APPLIED in events.events()


@pytest.mark.usefixtures("events")
async def test_who_looks_into_the_network_sees_what_the_kernel_has(
    bus: MessageBus, paths: Paths, manager: ServiceManager
) -> None:
    configure(paths, "dns")
    async with running(bus, paths, manager) as found:
        [networks] = await found.call("GetNetworks")
        [counters] = await found.call("GetNetworkCounters")
        [hops] = await found.call("DiagnoseNetwork", "dns", signature="s")
    assert [network[:3] for network in networks] == [["default", "isolated", "br-default"]]
    assert [entry[:3] for entry in counters] == [["default", "dns", "ap-dns"]]
    found_at = {hop: (verdict, reason) for hop, _, verdict, _, reason, _ in hops}
    assert found_at["firewall"] == found_at["bridge"] == ("ok", "")
    assert found_at["tap"] == ("failed", "no guest is attached")
    assert found_at["guest"] == ("failed", "appliance@dns.service is inactive")


@pytest.mark.usefixtures("events")
async def test_a_tap_deleted_by_hand_comes_back_and_its_guest_starts_anew(
    bus: MessageBus, paths: Paths, manager: ServiceManager
) -> None:
    configure(paths, "dns")
    configure(paths, "web")
    async with running(bus, paths, manager) as found:
        set_active(found.systemd, "dns", "web")
        ip("link", "del", "ap-dns")
        await until(lambda: "TryRestartUnit appliance@dns.service replace" in found.systemd.calls)
        assert set(links()) == {"br-default", "ap-dns", "ap-web"}
        ip("link", "del", "br-default")
        await until(lambda: links().get("ap-web", {}).get("master") == "br-default")
        assert "TryRestartUnit appliance@web.service replace" not in found.systemd.calls


async def test_a_broken_configuration_keeps_it_neither_from_starting_nor_from_watching(
    bus: MessageBus, paths: Paths, manager: ServiceManager, events: EventLog
) -> None:
    configure(paths, "dns")
    async with running(bus, paths, manager):
        pass
    configure(paths, "dns", "image: [")
    async with running(bus, paths, manager) as found:
        assert await found.call("ListAppliances") == [[["dns", f"{ROOT}/appliance/dns"]]]
        with pytest.raises(HostError, match=r"dns\.yaml:2:1"):
            await found.call("Apply", [], signature="as")
    assert Event.REFUSED in events.events()


async def test_an_appliance_is_asked_from_outside(
    bus: MessageBus,
    paths: Paths,
    manager: ServiceManager,
    events: EventLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prober, "QUICK_S", 0.02)
    ip("link", "set", "lo", "up")
    # Who has the address is somebody else's business: here it is the host itself.
    ip("address", "add", "10.88.0.80/32", "dev", "lo")
    network = "network: {name: default, address: 10.88.0.80}\n"
    configure(paths, "web", f"image: dns-nsd\n{network}health: {{probe: {{tcp: 80}}}}\n")
    reason = "seen from outside: 10.88.0.80 port 80/tcp is closed"
    async with running(bus, paths, manager) as found:
        set_active(found.systemd, "web")
        await found.systemd.change("web", ActiveState=Variant("s", "active"))
        await until(lambda: "STATUS=1 degraded" in manager.lines())
        assert events.entries[-1] == (Event.DEGRADED, "web", f"Appliance web is degraded: {reason}.")
        with tcp_server(wait_for_the_end, address="10.88.0.80", port=80):
            await until(lambda: events.entries[-1][0] is Event.HEALTHY)
        await until(lambda: events.entries[-1][0] is Event.DEGRADED)
        configure(paths, "web", f"image: dns-nsd\n{network}health: {{probe: none}}\n")
        # It concerns the agent alone: nothing of the host is to be changed.
        assert await found.call("Apply", [], signature="as") == [[], [], []]
        await until(lambda: events.entries[-1][0] is Event.HEALTHY)
        (paths.configuration / "appliances/web.yaml").unlink()
        await found.call("Apply", [], signature="as")
    assert not [call for call in found.systemd.calls if "Restart" in call]


@pytest.mark.usefixtures("events")
async def test_a_swap_outlives_the_agent(bus: MessageBus, paths: Paths, manager: ServiceManager) -> None:
    configure(paths, "dns", "image: dns-nsd\n")
    current = paths.appliance_state("dns") / "current"
    async with running(bus, paths, manager) as found:
        assert current.readlink().name == NEWER.directory
        [path] = await found.call("Swap", "dns", "dns-nsd:4.6", [], signature="ssas")
        assert await ended(found, path) == "succeeded"
        history = await found.call("GetHistory", "dns", signature="s")
    assert current.readlink().name == OLDER.directory
    assert (current.parent / "previous").readlink().name == NEWER.directory
    async with running(bus, paths, manager) as found:
        assert await found.call("GetHistory", "dns", signature="s") == history
        assert await found.call("Apply", [], signature="as") == [[], [], []]
        [path] = await found.call("Rollback", "dns", [], signature="sas")
        assert await ended(found, path) == "succeeded"
    assert current.readlink().name == NEWER.directory


async def ended(found: Running, path: str) -> str:
    """State of an operation when it is over."""
    operation = found.daemon._operations.get(int(path.rpartition("/")[2]))
    await found.daemon._operations.finished(operation)
    [state] = await found.client.call(NAME, path, f"{PROPERTIES}.Get", OPERATION, "State", signature="ss")
    return str(state.value)


@pytest.mark.usefixtures("events")
async def test_only_the_last_operations_are_shown(
    bus: MessageBus, paths: Paths, manager: ServiceManager
) -> None:
    async def work(_operation: Operation) -> OperationState:
        return OperationState.SUCCEEDED

    async with running(bus, paths, manager) as found:
        operations = found.daemon._operations
        begun = [operations.begin("swap", f"dns{number}", work) for number in range(ENDED_KEPT + 2)]
        for operation in begun:
            await operations.finished(operation)
        # Looked at when the next one begins.
        begun.append(operations.begin("swap", "dns", work))
        await operations.finished(begun[-1])
        [managed] = await found.client.call(
            NAME, ROOT, "org.freedesktop.DBus.ObjectManager.GetManagedObjects"
        )
    numbers = [operation.number for operation in begun[-ENDED_KEPT - 1 :]]
    assert set(managed) == {f"{ROOT}/operation/{number}" for number in numbers}


@pytest.mark.usefixtures("events")
async def test_the_loss_of_the_bus_ends_it(bus: MessageBus, paths: Paths, manager: ServiceManager) -> None:
    async with running(bus, paths, manager) as found:
        bus.stop()
        with pytest.raises(HostError, match="The system bus went away") as caught:
            await found.task
        assert caught.value.problem is Problem.UNAVAILABLE


@pytest.mark.usefixtures("events")
async def test_a_second_agent_gives_up(bus: MessageBus, paths: Paths, manager: ServiceManager) -> None:
    async with running(bus, paths, manager), connected(bus.address) as another:
        with pytest.raises(HostError, match="is the agent running already"):
            await Daemon(another, paths).run()


@pytest.mark.usefixtures("events")
async def test_signals_stop_it(bus: MessageBus, paths: Paths, manager: ServiceManager) -> None:
    async with running(bus, paths, manager) as found:
        os.kill(os.getpid(), signal.SIGTERM)
        await found.task
