"""The composition root of the daemon: builds every part, connects them, and runs until it is told to stop.

Losing the bus ends the process with an error; systemd starts it again, and everything is rebuilt from
systemd, netlink and the disk. Appliances run on meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass

from agent import __version__
from agent.core.agent import Agent
from agent.core.data import DataKeeper
from agent.core.data_steps import DataSteps
from agent.core.diagnose import Diagnosis
from agent.core.names import Names
from agent.core.network import HostNetwork
from agent.core.networks import Networks
from agent.core.operations import Operation, Operations
from agent.core.outside import OutsideView
from agent.core.planner import Planner
from agent.core.prober import Prober, target_of
from agent.core.reconcile import Reconciler
from agent.core.swap import Swapper
from agent.core.swap_steps import Steps
from agent.core.updates import Updates
from agent.core.watch import Watch
from agent.dbus.appliance import ApplianceFace, path_of
from agent.dbus.manager import ManagerFace
from agent.dbus.objects import ROOT, Objects
from agent.dbus.operation import OperationFace, operation_path
from agent.host import console, probes
from agent.host.appliances import ApplianceFiles
from agent.host.bus import Bus
from agent.host.facts import local_time, read_facts
from agent.host.generations import Generations
from agent.host.managers import InterfaceManagers
from agent.host.names import NameFiles
from agent.host.netlink import LinkMonitor, Netlink
from agent.host.nftables import Firewall, FirewallMonitor
from agent.host.outage import OutageMeter
from agent.host.snapshots import VolumeSnapshots
from agent.host.states import States
from agent.host.store import ImageStore
from agent.host.systemd import Systemd
from agent.model.errors import ApplianceError
from agent.model.health import Health
from agent.model.paths import Paths
from agent.util.journal import set_up_logging
from agent.util.lean import skip_init

skip_init("pystemd")
from pystemd.daemon import notify  # noqa: E402

BUS_NAME = "org.appliance1"
# Links often change in bursts; a tap that is back within a tenth of a second is soon enough.
SETTLE_S = 0.05
RETRY_S = 1.0
IDLE_S = 3600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What lies on the disk, each by who reads and writes it."""

    files: ApplianceFiles
    images: ImageStore
    states: States
    generations: Generations
    volumes: VolumeSnapshots


class Daemon:
    """Everything that lives as long as the process does."""

    def __init__(self, bus: Bus, paths: Paths) -> None:
        self._stop = asyncio.Event()
        self._links_changed = asyncio.Event()
        self._bus = bus
        self._monitor = LinkMonitor()
        self._netlink = Netlink()
        self._firewall = Firewall()
        self._firewall_monitor = FirewallMonitor(self._firewall.is_own)
        self._units = Systemd(bus)
        self._watch = Watch(self._on_change)
        self._prober = Prober(probes, self._watch.judge)
        self._objects = Objects(bus)
        self._shown, self._shown_operations = set[str](), set[int]()
        self._operations = Operations(self._on_operation, before=int(time.time()))
        kept = _Kept(
            files=ApplianceFiles(paths),
            images=ImageStore(paths.images),
            states=States(paths),
            generations=Generations(paths),
            volumes=VolumeSnapshots(paths),
        )
        self._names = Names(NameFiles(paths), console, self._watch, busy=self._operations.busy)
        self._outside = OutsideView(self._prober, OutageMeter)
        planner = Planner(
            facts=read_facts(paths.root),
            files=kept.files,
            images=kept.images,
            states=kept.states,
            generations=kept.generations,
            routes=self._netlink.routes,
        )
        network = HostNetwork(self._netlink, self._firewall, InterfaceManagers(paths), kept.files)
        self._reconciler = Reconciler(
            planner=planner,
            files=kept.files,
            network=network,
            names=self._names,
            units=self._units,
            watch=self._watch,
            busy=self._operations.busy,
        )
        swapper = self._swapper(kept, planner)
        updates = Updates(
            reconciler=self._reconciler,
            swapper=swapper,
            operations=self._operations,
            watch=self._watch,
            images=kept.images,
            now=local_time,
        )
        parts = self._reconciler, self._watch, swapper, self._operations, updates
        self._agent = Agent(
            *parts,
            data=self._data_keeper(kept),
            networks=self._networks(network),
            on_applied=self._show_appliances,
        )

    def _swapper(self, kept: _Kept, planner: Planner) -> Swapper:
        steps = Steps(
            reconciler=self._reconciler,
            planner=planner,
            watch=self._watch,
            units=self._units,
            files=kept.files,
            images=kept.images,
            volumes=kept.volumes,
            outside=self._outside,
            console=console,
        )
        return Swapper(
            steps=steps,
            reconciler=self._reconciler,
            operations=self._operations,
            watch=self._watch,
            units=self._units,
            files=kept.files,
            images=kept.images,
            states=kept.states,
            volumes=kept.volumes,
            generations=kept.generations,
        )

    def _data_keeper(self, kept: _Kept) -> DataKeeper:
        steps = DataSteps(
            reconciler=self._reconciler,
            operations=self._operations,
            watch=self._watch,
            units=self._units,
            files=kept.files,
            states=kept.states,
            volumes=kept.volumes,
            outside=self._outside,
        )
        return DataKeeper(
            steps=steps,
            reconciler=self._reconciler,
            operations=self._operations,
            watch=self._watch,
            units=self._units,
            states=kept.states,
            volumes=kept.volumes,
        )

    def _networks(self, network: HostNetwork) -> Networks:
        diagnosis = Diagnosis(
            reconciler=self._reconciler,
            network=network,
            sight=self._netlink,
            firewall=self._firewall,
            echo=probes.echo,
            watch=self._watch,
        )
        return Networks(
            reconciler=self._reconciler,
            network=network,
            sight=self._netlink,
            firewall=self._firewall,
            diagnosis=diagnosis,
        )

    async def run(self) -> None:
        """Take over the host, serve, and return when asked to stop; raises when the bus is lost."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_reader(self._monitor.fileno(), self._on_links)
        loop.add_reader(self._firewall_monitor.fileno(), self._on_firewall)
        self._objects.add(ManagerFace(self._agent))
        try:
            await self._units.subscribe(self._watch.update)
            await self._agent.start()
            await self._bus.own(BUS_NAME)
            notify(False, "READY=1", self._status_line())  # noqa: FBT003 (keep NOTIFY_SOCKET)
            await self._serve()
        finally:
            notify(False, "STOPPING=1")  # noqa: FBT003
            for monitor in (self._monitor, self._firewall_monitor):
                loop.remove_reader(monitor.fileno())
                monitor.close()
            await self._operations.close()
            self._prober.close()
            self._reconciler.close()
            self._names.close()
            self._netlink.close()

    async def _serve(self) -> None:
        """Until asked to stop, or until one of the tasks fails."""
        running = [
            asyncio.ensure_future(task)
            for task in (
                self._stop.wait(),
                self._bus.wait_closed(),
                self._feed_watchdog(),
                self._restore_links(),
                self._prober.run(),
                self._operations.surprise(),
                self._names.run(),
            )
        ]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _feed_watchdog(self) -> None:
        interval_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / 2
        while True:
            notify(False, "WATCHDOG=1")  # noqa: FBT003
            await asyncio.sleep(interval_s or IDLE_S)

    async def _restore_links(self) -> None:
        await self._agent.resume()
        while True:
            await self._links_changed.wait()
            await asyncio.sleep(SETTLE_S)
            self._links_changed.clear()
            if not await self._agent.restore_links():
                # Guests are without rules, and no event need come that says that they could be loaded now.
                asyncio.get_running_loop().call_later(RETRY_S, self._links_changed.set)

    def _on_links(self) -> None:
        self._monitor.drain()
        self._links_changed.set()

    def _on_firewall(self) -> None:
        process = self._firewall_monitor.read()
        if process is not None:
            self._firewall.lose(process)
            self._links_changed.set()

    def _on_change(self, appliance: str) -> None:
        self._probe(appliance)
        self._names.nudge()
        self._objects.refresh(path_of(appliance))
        notify(False, self._status_line())  # noqa: FBT003

    def _on_operation(self, operation: Operation) -> None:
        """An object for each operation that can be looked at."""
        self._names.nudge()
        path = operation_path(operation.number)
        numbers = {entry.number for entry in self._operations.all()}
        for number in sorted(self._shown_operations - numbers):
            self._objects.remove(operation_path(number))
        if operation.number in self._shown_operations:
            self._objects.refresh(path)
        else:
            self._objects.add(OperationFace(self._operations, operation))
        self._shown_operations = numbers

    def _probe(self, appliance: str) -> None:
        """Ask it what is to be asked of it now."""
        view = self._agent.view(appliance)
        self._prober.follow(appliance, target_of(view.plan, view.status))

    def _show_appliances(self) -> None:
        """Objects for exactly the appliances there are."""
        wanted = set(self._agent.appliances())
        for name in sorted(self._shown - wanted):
            self._prober.follow(name, None)
            self._objects.remove(path_of(name))
        for name in sorted(wanted - self._shown):
            self._objects.add(ApplianceFace(self._agent, name))
        for name in sorted(wanted & self._shown):
            self._probe(name)
            self._objects.refresh(path_of(name))
        self._shown = wanted
        self._objects.refresh(ROOT)
        self._names.nudge()

    def _status_line(self) -> str:
        health = [self._watch.health(name).health for name in self._agent.appliances()]
        counts = (f"{health.count(state)} {state}" for state in Health if state in health)
        return f"STATUS={', '.join(counts) or 'no appliances'}"


async def _main() -> None:
    bus = await Bus.connect()
    try:
        await Daemon(bus, Paths()).run()
    finally:
        await bus.close()


def _clean_up() -> None:
    """Remove every rule, bridge and tap the agent made; for the package's removal."""
    netlink = Netlink()
    try:
        for change in netlink.plan([], []):
            change.apply()
    finally:
        netlink.close()
    Firewall().remove()
    InterfaceManagers(Paths()).remove()
    for change in NameFiles(Paths()).plan_host(""):
        change.apply()


def main() -> int:
    """`appliance-agent [--cleanup]`."""
    parser = argparse.ArgumentParser(
        prog="appliance-agent", description="Agent for server appliances; run by systemd."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--cleanup",
        action="store_true",
        help="remove every bridge, tap and firewall rule of the agent, then exit",
    )
    arguments = parser.parse_args()
    set_up_logging()
    try:
        if arguments.cleanup:
            _clean_up()
        else:
            asyncio.run(_main())
    except ApplianceError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
