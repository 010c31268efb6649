"""Updates over the bus: the methods as busctl(1) finds them, and `appliancectl update` as a program."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.core import outside
from agent.core.operations import Operation
from agent.dbus.objects import ROOT
from agent.dbus.operation import OperationFace, operation_path
from agent.model.errors import Problem
from tests.bus.test_client import Run, appliancectl
from tests.bus.test_objects import ERROR, MANAGER, NAME, Service, service
from tests.fakes.bus import busctl
from tests.fakes.samples import sample_image

__all__ = ["appliancectl"]

OLD, NEW = sample_image(), sample_image(version="4.7-1")

pytestmark = pytest.mark.usefixtures("events")


@asynccontextmanager
async def updating(address: str, *appliances: str, update: str = "policy: auto") -> AsyncIterator[Service]:
    """These appliances running OLD, and NEW in the store."""
    async with service(address, *appliances) as found:
        shown: set[int] = set()

        def show(operation: Operation) -> None:
            if operation.number in shown:
                found.objects.refresh(operation_path(operation.number))
            else:
                shown.add(operation.number)
                found.objects.add(OperationFace(found.world.operations, operation))

        found.world.operations._on_change = show
        for name in appliances:
            text = f"image: dns-nsd\nupdate: {{soak: 1ms, {update}}}\n"
            found.world.files.write(f"appliances/{name}.yaml", text)
        await found.world.reconciler.apply(restart=True)
        found.world.images.images.append(NEW)
        try:
            yield found
        finally:
            await found.world.operations.close()


async def test_looking_at_updates(address: str) -> None:
    async with updating(address, "dns", "web", update="policy: manual") as found:
        [updates] = await found.call(ROOT, f"{MANAGER}.CheckUpdates", ["dns"], signature="as")
        assert updates == [
            [
                "dns",
                "manual",
                "",
                "dns-nsd:4.6.1-1",
                str(OLD.digest),
                "dns-nsd:4.7-1",
                str(NEW.digest),
                "available",
                "update available (manual)",
            ]
        ]
        answer = await busctl(address, "call", NAME, ROOT, MANAGER, "CheckUpdates", "as", "0")
        assert answer["type"] == "a(sssssssss)"
        assert [entry[0] for entry in answer["data"][0]] == ["dns", "web"]
        assert (
            await found.error(ROOT, MANAGER, "CheckUpdates", "as", ["ntp"])
            == f"{NAME}.Error.{Problem.NOT_FOUND}"
        )


async def test_a_run(address: str) -> None:
    async with updating(address, "dns") as found:
        [run] = await found.call(ROOT, f"{MANAGER}.Update", [], [], signature="asas")
        assert await found.error(ROOT, MANAGER, "Update", "asas", [], []) == f"{NAME}.Error.{Problem.BUSY}"
        [operation] = [entry for entry in found.world.operations.all() if entry.kind == "update"]
        await found.world.operations.finished(operation)
        assert run == operation_path(operation.number)
        [[entry]] = await found.call(ROOT, f"{MANAGER}.GetUpdateRun", run, signature="o")
        name, swap, result, message = entry
        assert (name, result, message.split(";")[0]) == (
            "dns",
            "updated",
            "swapped from dns-nsd:4.6.1-1 to dns-nsd:4.7-1",
        )
        values = await found.properties(swap, f"{NAME}.Operation")
        assert (values["Kind"], values["Appliance"], values["State"]) == ("swap", "dns", "succeeded")
        values = await found.properties(run, f"{NAME}.Operation")
        assert (values["Kind"], values["Appliance"], values["State"]) == ("update", "", "succeeded")


async def test_what_is_asked_wrongly(address: str) -> None:
    async with updating(address, "dns") as found:
        assert await found.error(ROOT, MANAGER, "Update", "asas", [], ["x"]) == f"{ERROR}.InvalidArgs"
        assert (
            await found.error(ROOT, MANAGER, "Update", "asas", ["ntp"], [])
            == f"{NAME}.Error.{Problem.NOT_FOUND}"
        )
        for path in ("/", f"{ROOT}/operation/7", f"{ROOT}/operation/x", f"{ROOT}/operation/9999999999"):
            error = await found.error(ROOT, MANAGER, "GetUpdateRun", "o", path)
            assert error == f"{NAME}.Error.{Problem.NOT_FOUND}"
        assert found.world.operations.all() == []


async def test_appliancectl_looks(address: str, appliancectl: Run) -> None:
    async with updating(address, "dns", "web", update="policy: stage"):
        status, out, error = await appliancectl("update", "--check")
        assert (status, error) == (0, "")
        assert out.splitlines() == [
            "APPLIANCE  IMAGE            AVAILABLE      POLICY  UPDATE",
            "dns        dns-nsd:4.6.1-1  dns-nsd:4.7-1  stage   update available, not checked yet",
            "web        dns-nsd:4.6.1-1  dns-nsd:4.7-1  stage   update available, not checked yet",
            "",
            "2 appliances.",
        ]
        _, out, _ = await appliancectl("update", "--check", "--json=short", "web")
        [web] = json.loads(out)
        assert (web["name"], web["standing"], web["new_digest"]) == ("web", "unchecked", str(NEW.digest))
        assert (await appliancectl("update", "--check", "ntp"))[0] == Problem.NOT_FOUND.exit_status


async def test_appliancectl_follows_all_to_their_end(
    address: str,
    appliancectl: Run,
) -> None:
    async with updating(address, "dns", "web") as found:
        status, out, error = await appliancectl("update")
        assert status == 0, error
        swapped = "swapped from dns-nsd:4.6.1-1 to dns-nsd:4.7-1; no answer for 12 ms."
        assert sorted(out.splitlines()) == [f"dns: {swapped}", f"web: {swapped}"]
        assert (await appliancectl("update"))[:2] == (0, "Nothing to update.\n")
        assert (await appliancectl("update", "--timer"))[:2] == (0, "")
        assert (await appliancectl("update", "dns"))[:2] == (0, "dns: up to date\n")
        assert found.world.reconciler.plan.appliances["web"].image == NEW


async def test_appliancectl_and_one_that_fails(
    address: str,
    appliancectl: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outside, "PAUSE_S", 0.001)
    async with updating(address, "dns", update="policy: manual") as found:
        found.world.outside.failures[NEW.manifest.reference] = "no answer"
        assert (await appliancectl("update"))[:2] == (0, "Nothing to update.\n")
        status, out, error = await appliancectl("update", "dns")
        assert (status, out) == (1, "")
        assert "dns: back to dns-nsd:4.6.1-1, dns-nsd:4.7-1 failed: it does not answer" in error
        status, out, _ = await appliancectl("update", "dns")
        assert (status, out) == (1, "dns: quarantined: it does not answer from outside: no answer\n")
        found.world.outside.failures.clear()
        status, out, _ = await appliancectl("update", "--retry", "--json=short", "dns")
        [entry] = json.loads(out)
        assert (status, entry["name"], entry["result"]) == (0, "dns", "updated")


async def test_the_timer_s_run_does_not_fail_with_an_image(
    address: str,
    appliancectl: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outside, "PAUSE_S", 0.001)
    async with updating(address, "dns") as found:
        found.world.outside.failures[NEW.manifest.reference] = "no answer"
        status, out, error = await appliancectl("update", "--timer")
        assert (status, out) == (0, "")
        assert "dns: back to dns-nsd:4.6.1-1" in error
