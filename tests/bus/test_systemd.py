"""PID 1 as the agent sees it, with a fake one on a private bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import agent.host.systemd as module
from agent.host.bus import Bus, Request, Variant
from agent.host.systemd import MANAGER, MANAGER_PATH, PROPERTIES, Systemd, unit_path
from agent.model.errors import HostError, Problem, UnitError
from agent.model.health import UnitStatus
from tests.fakes.bus import Message, connected, settled, unique_name
from tests.fakes.systemd import SERVICE, UNIT, FakeSystemd, fake_systemd

Changes = list[tuple[str, UnitStatus]]


@asynccontextmanager
async def watching(
    address: str, *appliances: str
) -> AsyncIterator[tuple[FakeSystemd, Systemd, Changes, Bus]]:
    """A fake PID 1, ours beside it, and what it tells."""
    async with fake_systemd(address) as fake, connected(address) as bus:
        systemd, changes = Systemd(bus), Changes()
        await systemd.subscribe(lambda appliance, status: changes.append((appliance, status)))
        for appliance in appliances:
            await systemd.watch(appliance)
        yield fake, systemd, changes, bus


# --- watching


async def test_signals_are_asked_for_before_anything_is_read(address: str) -> None:
    async with watching(address, "dns") as (fake, _, _, _):
        assert fake.calls == ["Subscribe", f"GetAll {UNIT}", f"GetAll {SERVICE}"]


async def test_the_status_as_it_is_found(address: str) -> None:
    async with fake_systemd(address) as fake, connected(address) as bus:
        unit = "appliance@dns.service"
        fake.units[unit] = {
            "ActiveState": Variant("s", "active"),
            "SubState": Variant("s", "running"),
            "StateChangeTimestamp": Variant("t", 9),
        }
        fake.services[unit] = {
            "MainPID": Variant("u", 42),
            "StatusText": Variant("s", "answering"),
            "ExecMainStartTimestamp": Variant("t", 7),
        }
        systemd = Systemd(bus)
        expected = UnitStatus(
            active_state="active",
            sub_state="running",
            status_text="answering",
            main_pid=42,
            started_at_us=7,
            state_changed_us=9,
        )
        assert await systemd.watch("dns") == expected
        assert await systemd.watch("web") == UnitStatus()


async def test_changes_of_both_interfaces_make_one_status(address: str) -> None:
    async with watching(address, "dns") as (fake, _, changes, bus):
        await fake.change("dns", ActiveState=Variant("s", "active"), Description=Variant("s", "x"))
        await fake.change("dns", SERVICE, MainPID=Variant("u", 42), StatusText=Variant("s", "unhealthy: x"))
        await settled(bus)
        assert changes == [
            ("dns", UnitStatus(active_state="active")),
            ("dns", UnitStatus(active_state="active", main_pid=42, status_text="unhealthy: x")),
        ]


async def test_what_says_nothing_new_is_not_passed_on(address: str) -> None:
    async with watching(address, "dns") as (fake, _, changes, bus):
        await fake.change("dns", ActiveState=Variant("s", "inactive"))
        await fake.change("dns", SERVICE, CPUUsageNSec=Variant("t", 5))
        await settled(bus)
        assert changes == []


async def test_only_appliances_that_are_watched(address: str) -> None:
    async with watching(address, "dns", "web") as (fake, systemd, changes, bus):
        systemd.unwatch("web")
        systemd.unwatch("never")
        for appliance in ("web", "ntp", "dns"):
            await fake.change(appliance, ActiveState=Variant("s", "active"))
        await settled(bus)
        assert [appliance for appliance, _ in changes] == ["dns"]


async def test_a_change_while_the_status_is_read_is_not_lost(address: str) -> None:
    async with watching(address) as (fake, systemd, changes, bus):

        async def change_meanwhile(request: Request) -> None:
            if request.member == "GetAll" and request.body == [SERVICE]:
                fake.before_reply = None
                await fake.change("dns", ActiveState=Variant("s", "active"))

        fake.before_reply = change_meanwhile
        status = await systemd.watch("dns")
        await settled(bus)
        assert status.active_state == "active"
        assert [status.active_state for _, status in changes] == ["active"]


async def test_nobody_else_can_speak_for_systemd(address: str) -> None:
    """Neither to everybody, nor to the agent alone; what is not well-formed reaches nothing either."""
    async with watching(address, "dns") as (_, systemd, changes, bus), connected(address) as liar:
        path = unit_path("appliance@dns.service")
        values = {"ActiveState": Variant("s", "failed")}
        liar.emit(path, f"{PROPERTIES}.PropertiesChanged", "sa{sv}as", UNIT, values, [])
        for signature, body in (("sa{sv}as", [UNIT, values, []]), ("s", ["x"])):
            lie = Message.new_signal(path, PROPERTIES, "PropertiesChanged", signature, body)
            lie.destination = unique_name(bus)
            await liar._bus.send(lie)
        await settled(liar)
        await settled(bus)
        assert changes == []
        assert (await systemd.watch("dns")).active_state == "inactive"


# --- units


async def test_loaded_appliances(address: str) -> None:
    async with watching(address) as (fake, systemd, _, _):
        fake.units = {
            "appliance@dns.service": {"ActiveState": Variant("s", "active")},
            "appliance@web.service": {},
            "appliance@No.service": {},
        }
        assert await systemd.loaded_appliances() == {"dns": "active", "web": "inactive"}
        await systemd.reload()
        assert fake.calls[-1] == "Reload"


# --- jobs


@pytest.mark.parametrize("early", [True, False])
async def test_jobs_are_waited_for(address: str, *, early: bool) -> None:
    async with watching(address) as (fake, systemd, _, _):
        fake.early = early
        for act in (systemd.start, systemd.stop, systemd.restart):
            await act("dns")
        assert fake.calls[1:] == [
            "StartUnit appliance@dns.service replace",
            "StopUnit appliance@dns.service replace",
            "TryRestartUnit appliance@dns.service replace",
        ]


async def test_jobs_side_by_side(address: str) -> None:
    async with watching(address) as (fake, systemd, _, _):
        await asyncio.gather(systemd.start("dns"), systemd.start("web"), systemd.restart("dns"))
        assert len(fake.calls) == 4


@pytest.mark.parametrize("result", ["failed", "timeout", "dependency", "canceled"])
@pytest.mark.parametrize("early", [True, False])
async def test_a_job_that_does_not_succeed(address: str, result: str, *, early: bool) -> None:
    async with watching(address) as (fake, systemd, _, _):
        fake.job_result, fake.early = result, early
        with pytest.raises(UnitError) as caught:
            await systemd.start("dns")
        assert (
            str(caught.value)
            == f"appliance@dns.service: {result} `journalctl -u appliance@dns.service` shows why."
        )
        fake.job_result = "done"
        await systemd.start("dns")


async def test_a_unit_that_need_not_be_restarted(address: str) -> None:
    async with watching(address) as (fake, systemd, _, _):
        fake.job_result = "skipped"
        await systemd.restart("dns")


async def test_a_job_without_an_end(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOB_TIMEOUT_S", 0.02)
    async with watching(address) as (fake, systemd, _, _):
        fake._subscribed = False
        with pytest.raises(UnitError, match="the job did not end") as caught:
            await systemd.start("dns")
        assert caught.value.problem is Problem.TIMED_OUT


CHECK = "appliance@dns.check.service"


async def test_an_instance_that_runs_to_its_end(address: str) -> None:
    async with watching(address, "dns") as (fake, systemd, changes, _):
        assert (await systemd.run("dns.check")).result == "success"
        assert fake.calls[3:] == [f"StartUnit {CHECK} replace", f"GetAll {UNIT}", f"GetAll {SERVICE}"]
        assert changes == []


async def test_an_instance_that_fails_says_why_and_is_not_kept_as_failed(address: str) -> None:
    async with watching(address) as (fake, systemd, _, _):
        fake.job_result = "failed"
        fake.units[CHECK] = {"ActiveState": Variant("s", "failed")}
        fake.services[CHECK] = {
            "Result": Variant("s", "exit-code"),
            "StatusText": Variant("s", "check failed: line 7"),
        }
        status = await systemd.run("dns.check")
        assert (status.result, status.status_text) == ("exit-code", "check failed: line 7")
        assert fake.calls[-1] == f"ResetFailedUnit {CHECK}"


async def test_an_instance_that_was_not_even_tried(address: str) -> None:
    async with watching(address) as (fake, systemd, _, _):
        fake.job_result = "dependency"
        with pytest.raises(UnitError, match="dependency"):
            await systemd.run("dns.check")
        assert not [call for call in fake.calls if call.startswith("ResetFailed")]


async def test_forgetting_a_failure_that_nobody_knows(address: str) -> None:
    async with watching(address) as (fake, systemd, _, _):
        await systemd.forget_failure("dns")
        assert fake.calls[-1] == "ResetFailedUnit appliance@dns.service"


async def test_a_job_that_another_asked_for_is_not_ours(address: str) -> None:
    async with watching(address) as (fake, systemd, _, bus):
        fake.bus.emit(
            MANAGER_PATH,
            f"{MANAGER}.JobRemoved",
            "uoss",
            9,
            f"{MANAGER_PATH}/job/9",
            "appliance@dns.service",
            "failed",
        )
        await settled(fake.bus)
        await settled(bus)
        await systemd.start("dns")


async def test_a_request_that_systemd_refuses(address: str) -> None:
    async with fake_systemd(address) as fake, connected(address) as bus:
        systemd = Systemd(bus)

        async def refuse(_request: Request) -> None:
            raise HostError("refused")

        fake.before_reply = refuse
        with pytest.raises(HostError, match="refused"):
            await systemd.start("dns")


async def test_no_systemd_at_all(address: str) -> None:
    async with connected(address) as bus:
        with pytest.raises(HostError) as caught:
            await Systemd(bus).loaded_appliances()
        assert caught.value.problem is Problem.UNAVAILABLE
