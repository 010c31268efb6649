"""What the agent's network costs on a host with two hundred appliances: one that comes or goes, and a look
that finds everything in order.

In a network namespace of its own, with real links, taps and rules, and no guests.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from agent.core.network import HostNetwork
from agent.core.world import Files
from agent.host.managers import InterfaceManagers
from agent.host.netlink import LinkMonitor, Netlink
from agent.host.nftables import Firewall, FirewallMonitor
from agent.host.users import user_id
from agent.model.change import Change
from agent.model.names import user_of
from agent.model.paths import Paths
from tests.bench.report import Report
from tests.kernel.conftest import mount, own_namespaces
from tests.kernel.links import ip
from tests.kernel.rack import NETWORKS, host_plan

COUNT, ROUNDS = 200, 11
# The kernel tells of lost carriers at most once in a second (net/core/link_watch.c).
QUIET_S = 1.5
FIRST_UID = 61000
# sys/mount.h
MS_BIND = 0x1000
APPLIANCES: dict[str, dict[str, Any]] = {f"a{number:03}": {} for number in range(COUNT)}
APPLIANCES |= {f"a{number:03}": {"publish": f"{8000 + number}:80"} for number in range(0, COUNT, 10)}
NEWCOMER = "newcomer"
ADDED, REMOVED = "appliance's network made", "appliance's network removed"
LOOKED, PLANNED = "200 networks in order", "200 networks in order, new plan"


class Users:
    """Looks users up as the agent does."""

    def user_id(self, appliance: str) -> int | None:
        return user_id(appliance)


@dataclass(frozen=True)
class Agent:
    """The network of all appliances, and who hears of every change to it."""

    network: HostNetwork
    links: LinkMonitor
    rules: FirewallMonitor

    def forget(self) -> None:
        """What was heard so far."""
        while self.heard():
            self.links.drain()
            self.rules.read()

    def heard(self) -> bool:
        """Whether anything was changed."""
        return bool(select.select([self.links.fileno(), self.rules.fileno()], [], [], QUIET_S)[0])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with own_namespaces():
        add_users(tmp_path / "passwd")
        ip("link", "set", "lo", "up")
        netlink, firewall, managers = Netlink(), Firewall(), InterfaceManagers(Paths(tmp_path))
        network = HostNetwork(netlink, firewall, managers, cast("Files", Users()))
        agent = Agent(network, LinkMonitor(), FirewallMonitor(lambda _: False))
        for change in network.plan(host_plan(APPLIANCES, NETWORKS)):
            change.apply()
        yield agent
        for opened in (agent.links, agent.rules, netlink):
            opened.close()


def add_users(file: Path) -> None:
    """In this mount namespace every appliance has one."""
    names = map(user_of, (*APPLIANCES, NEWCOMER))
    lines = [f"{name}:x:{FIRST_UID + at}:{FIRST_UID + at}::/:/bin/false\n" for at, name in enumerate(names)]
    file.write_text(Path("/etc/passwd").read_text(encoding="utf-8") + "".join(lines), encoding="utf-8")
    mount(str(file), "/etc/passwd", "", MS_BIND)


def test_agent_network(agent: Agent, report: Report) -> None:
    """Planned beforehand: what is compared with ip(8) is what is done."""
    fewer = host_plan(APPLIANCES, NETWORKS)
    more = host_plan({**APPLIANCES, NEWCOMER: {}}, NETWORKS, previous=fewer.assignments)
    times: dict[str, list[float]] = {ADDED: [], REMOVED: []}
    for _ in range(ROUNDS):
        for what, plan in ((ADDED, more), (REMOVED, fewer)):
            changes = agent.network.plan(plan)
            assert len(changes) == 2, [str(change) for change in changes]
            times[what].append(milliseconds(*(change.apply for change in changes)))
    for what, values in times.items():
        report.add(what, "agent", "ms", values, promise="≤ 50")
    plain: dict[str, list[float]] = {ADDED: [], REMOVED: []}
    for _ in range(ROUNDS):
        plain[ADDED].append(milliseconds(lambda: ip("tuntap", "add", "name", "plain", "mode", "tap")))
        plain[REMOVED].append(milliseconds(lambda: ip("link", "del", "plain")))
    for what, values in plain.items():
        report.add(what, "ip(8)", "ms", values)


def test_agent_network_in_order(agent: Agent, report: Report) -> None:
    """The agent looks whenever anything happens to a link, and makes the rules anew for a new plan."""
    changes: list[Change] = []
    plans = [host_plan(APPLIANCES, NETWORKS) for _ in range(ROUNDS)]
    agent.forget()
    for what, wanted in ((PLANNED, plans), (LOOKED, plans[-1:] * ROUNDS)):
        times = []
        for plan in wanted:
            begin = time.perf_counter()
            changes += agent.network.plan(plan)
            times.append((time.perf_counter() - begin) * 1e3)
        report.add(what, "agent", "ms", times, promise="≤ 300")
    assert not changes
    assert not agent.heard(), "something was written"
    plain = [milliseconds(lambda: ip("-details", "link", "show")) for _ in range(ROUNDS)]
    report.add(LOOKED, "ip(8)", "ms", plain)


def milliseconds(*actions: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for action in actions:
        action()
    return (time.perf_counter() - begin) * 1e3
