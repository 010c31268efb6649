"""appliancectl as a program of its own, over libsystemd; behind the bus an agent on a host in memory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.core.operations import Operation
from agent.host.bus import Reply, Request, RequestError
from agent.model.errors import Problem
from agent.util.tasks import completed
from tests.bus.test_objects import Service, service
from tests.bus.test_operations import NEW, swapping
from tests.fakes.bus import connected

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("events")

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def appliancectl(address: str) -> Run:
    """Run a verb; exit status, standard output and error."""

    async def run(*arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent.cli.main",
            *arguments,
            cwd=ROOT,
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        return process.returncode or 0, stdout.decode(), stderr.decode()

    return run


async def test_listing(address: str, appliancectl: Run) -> None:
    async with service(address, "dns", "web"):
        status, out, error = await appliancectl("list", "--json=short")
    assert (status, error) == (0, "")
    [dns, web] = json.loads(out)
    assert (dns["name"], dns["health"], dns["addresses"]) == ("dns", "healthy", ["10.88.0.2"])
    assert (web["name"], web["core"], web["restart_pending"]) == ("web", 1, False)


async def test_a_host_without_appliances(address: str, appliancectl: Run) -> None:
    async with service(address):
        status, out, _ = await appliancectl("list")
    assert (status, out.splitlines()[-1]) == (0, "0 appliances.")


async def test_applying(address: str, appliancectl: Run) -> None:
    async with swapping(address, soak="1h") as found:
        found.world.files.write("appliances/dns.yaml", "image: dns-nsd\nupdate: {soak: 1h}\nmemory: 64M")
        assert (await appliancectl("apply", "--dry-run"))[:2] == (
            0,
            "would restart with its new configuration (dns)\n",
        )
        out = (await appliancectl("apply"))[1]
        assert out.startswith("dns: runs with its new configuration; watching configuration ")
        assert (await appliancectl("apply"))[1] == "Nothing to change.\n"


async def test_a_configuration_that_is_refused(address: str, appliancectl: Run) -> None:
    async with service(address, "dns") as found:
        found.world.files.write("appliances/dns.yaml", "image: dns-nsd\nmemory: 1\ndata: x")
        status, out, error = await appliancectl("apply")
    assert (status, out) == (Problem.INVALID_CONFIGURATION.exit_status, "")
    assert [line.split("dns.yaml:")[1][:3] for line in error.splitlines()] == ["2:9", "3:7"]


async def test_no_agent(appliancectl: Run) -> None:
    status, _, error = await appliancectl("list")
    assert status == Problem.UNAVAILABLE.exit_status
    assert error.startswith("appliancectl: The agent does not answer: ")


async def test_a_name_that_nobody_has(address: str, appliancectl: Run) -> None:
    async with service(address, "dns"):
        status, _, error = await appliancectl("restart", "ntp")
    assert (status, "There is no appliance “ntp”" in error) == (Problem.NOT_FOUND.exit_status, True)


async def test_an_agent_that_is_newer(address: str, appliancectl: Run) -> None:
    def refuse(_request: Request) -> Awaitable[Reply]:
        def fail() -> Reply:
            raise RequestError("org.appliance1.Error.OfALaterVersion", "It is so.")

        return completed(fail)

    async with connected(address) as bus:
        bus.serve(refuse)
        await bus.own("org.appliance1")
        status, _, error = await appliancectl("list")
    assert (status, error) == (Problem.FAILED.exit_status, "appliancectl: It is so.\n")


async def test_a_swap_is_followed_to_its_end(address: str, appliancectl: Run) -> None:
    async with swapping(address, soak="50ms") as found:
        status, out, error = await appliancectl("swap", "dns", "dns-nsd:4.7")
        assert (status, out) == (
            0,
            "dns: swapped from dns-nsd:4.6.1-1 to dns-nsd:4.7-1; no answer for 12 ms.\n",
        )
        assert error.splitlines()[-1] == "dns: watching dns-nsd:4.7-1 for 0.05 s …"
        assert found.world.reconciler.plan.appliances["dns"].image == NEW
        status, out, _ = await appliancectl("history", "dns", "--json=short")
        assert (status, json.loads(out)[0]["result"]) == (0, "committed")
        assert (await appliancectl("rollback", "dns"))[0] == 0
        assert found.world.reconciler.plan.appliances["dns"].image != NEW


async def test_a_swap_that_fails_is_in_quarantine(
    address: str, appliancectl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.core.outside.PAUSE_S", 0.001)
    async with swapping(address) as found:
        found.world.outside.failures["dns-nsd:4.7-1"] = "no answer"
        status, out, error = await appliancectl("swap", "dns", "dns-nsd:4.7")
        assert (status, out) == (Problem.FAILED.exit_status, "")
        assert error.splitlines()[-1].endswith("failed: it does not answer from outside: no answer")
        assert "dns-nsd:4.7-1" in (await appliancectl("image", "quarantine"))[1]
        assert (await appliancectl("image", "quarantine", "clear", "dns"))[1] == "dns: 1 cleared.\n"


async def begun(found: Service) -> Operation:
    """The first operation, when it watches its guest."""
    async with asyncio.timeout(10):
        while not found.heard or found.heard[-1].member != "PropertiesChanged":  # noqa: ASYNC110 (a process)
            await asyncio.sleep(0.01)
    [operation] = found.world.operations.all()
    return operation


async def test_an_agent_that_goes_away_during_a_swap(address: str, appliancectl: Run) -> None:
    async with swapping(address, soak="20s") as found:
        waiting = asyncio.ensure_future(appliancectl("swap", "dns", "dns-nsd:4.7"))
        operation = await begun(found)
        await found.bus.call(
            "org.freedesktop.DBus", "/", "org.freedesktop.DBus.ReleaseName", "org.appliance1", signature="s"
        )
        status, _, error = await waiting
        assert (status, "The agent was stopped or restarted meanwhile" in error) == (
            Problem.UNAVAILABLE.exit_status,
            True,
        )
        assert operation.state == "running"
