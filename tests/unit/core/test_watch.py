"""Unit states come in, health states go out, and each change is an event."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.watch import Watch
from agent.model.health import Health, UnitStatus
from agent.util.journal import Event
from tests.fakes.events import EventLog

ACTIVE = UnitStatus(active_state="active", sub_state="running")
STARTING = UnitStatus(active_state="activating", sub_state="start")
STOPPING = UnitStatus(active_state="deactivating", sub_state="stop")
STOPPED = UnitStatus()


def unhealthy(text: str) -> UnitStatus:
    return UnitStatus(active_state="active", status_text=f"unhealthy: {text}")


def failed(result: str, **changes: Any) -> UnitStatus:
    return UnitStatus(active_state="failed", sub_state="failed", result=result, **changes)


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def watch(events: EventLog, changes: list[str]) -> Watch:
    events.clear()
    return Watch(changes.append)


def test_what_is_found_is_no_event(watch: Watch, events: EventLog, changes: list[str]) -> None:
    watch.adopt("dns", ACTIVE)
    watch.update("web", failed("watchdog"))
    assert events.entries == []
    assert changes == ["dns", "web"]
    assert (watch.health("dns").health, watch.health("web").health) == (Health.HEALTHY, Health.FAILED)


def test_a_life(watch: Watch, events: EventLog) -> None:
    watch.adopt("dns", STOPPED)
    for status in (
        STARTING,
        UnitStatus(active_state="activating", sub_state="start", status_text="waiting for udp 53"),
        ACTIVE,
        unhealthy("no answer"),
        ACTIVE,
        failed("watchdog"),
        STARTING,
        ACTIVE,
        STOPPING,
        STOPPED,
    ):
        watch.update("dns", status)
    assert events.entries == [
        (Event.STARTING, "dns", "Appliance dns is starting."),
        (Event.HEALTHY, "dns", "Appliance dns is healthy."),
        (Event.DEGRADED, "dns", "Appliance dns is degraded: no answer."),
        (Event.HEALTHY, "dns", "Appliance dns is healthy."),
        (Event.FAILED, "dns", "Appliance dns failed: the guest gave no sign of life."),
        (Event.STARTING, "dns", "Appliance dns is starting."),
        (Event.HEALTHY, "dns", "Appliance dns is healthy."),
        (Event.STOPPED, "dns", "Appliance dns stopped."),
    ]


def test_the_fields_of_an_event(watch: Watch, events: EventLog) -> None:
    watch.titles["dns"] = "dns-nsd 4.6"
    watch.adopt("dns", ACTIVE)
    watch.update("dns", unhealthy("no answer"))
    assert events.fields == [
        {"health": "degraded", "health_before": "healthy", "reason": "no answer", "image": "dns-nsd 4.6"}
    ]


def test_another_reason_is_another_event_and_the_same_one_is_none(watch: Watch, events: EventLog) -> None:
    watch.adopt("dns", unhealthy("a"))
    for text in ("a", "b", "b"):
        watch.update("dns", unhealthy(text))
    assert [message for _, _, message in events.entries] == ["Appliance dns is degraded: b."]


def test_every_state_is_told_even_where_health_stays(
    watch: Watch, events: EventLog, changes: list[str]
) -> None:
    watch.adopt("dns", ACTIVE)
    watch.update("dns", UnitStatus(active_state="active", main_pid=7))
    assert (changes, events.entries) == (["dns", "dns"], [])
    assert watch.status("dns").main_pid == 7


def test_the_first_reason_outlives_the_start_limit(watch: Watch, events: EventLog) -> None:
    """systemd 252 and 257: the result of the last failure is replaced when the limit is hit."""
    watch.adopt("dns", ACTIVE)
    watch.update("dns", failed("exit-code", status_text="nsd ended with status 3"))
    watch.update("dns", UnitStatus(active_state="activating", sub_state="auto-restart"))
    assert watch.health("dns").reason == "nsd ended with status 3"
    for _ in range(2):
        watch.update("dns", failed("start-limit-hit"))
    limit = "it failed too often in a short time and is not started again"
    assert watch.health("dns").reason == f"nsd ended with status 3; {limit}"
    assert [message for _, _, message in events.entries] == [
        "Appliance dns failed: nsd ended with status 3.",
        f"Appliance dns failed: nsd ended with status 3; {limit}.",
    ]


def test_a_start_limit_without_a_reason_before(watch: Watch) -> None:
    watch.adopt("dns", UnitStatus(active_state="activating", sub_state="auto-restart"))
    watch.update("dns", failed("start-limit-hit"))
    assert watch.health("dns").reason == "it failed too often in a short time and is not started again"


def test_a_new_failure_has_its_own_reason(watch: Watch) -> None:
    watch.adopt("dns", failed("watchdog"))
    watch.update("dns", failed("oom-kill"))
    assert watch.health("dns").reason == "the host killed the guest because it used too much memory"


def test_what_is_forgotten_is_adopted_anew(watch: Watch, events: EventLog) -> None:
    watch.adopt("dns", ACTIVE)
    watch.titles["dns"] = "x"
    watch.forget("dns")
    watch.forget("web")
    assert (watch.status("dns"), watch.health("dns").health, watch.titles) == (
        UnitStatus(),
        Health.STOPPED,
        {},
    )
    watch.update("dns", failed("watchdog"))
    assert events.entries == []


# --- verdicts from outside

OUTSIDE = "no answer from 10.88.0.53 port 53/udp within 2 s"


def test_a_verdict_and_its_end_are_events(watch: Watch, events: EventLog, changes: list[str]) -> None:
    watch.adopt("dns", ACTIVE)
    for verdict in (OUTSIDE, OUTSIDE, "", ""):
        watch.judge("dns", verdict)
    assert events.entries == [
        (Event.DEGRADED, "dns", f"Appliance dns is degraded: seen from outside: {OUTSIDE}."),
        (Event.HEALTHY, "dns", "Appliance dns is healthy."),
    ]
    assert events.fields[0]["reason"] == f"seen from outside: {OUTSIDE}"
    assert changes == ["dns"] * 3


def test_a_verdict_stays_while_the_unit_reports_this_and_that(watch: Watch, events: EventLog) -> None:
    watch.adopt("dns", ACTIVE)
    watch.judge("dns", OUTSIDE)
    watch.update("dns", UnitStatus(active_state="active", status_text="running"))
    assert watch.health("dns").health is Health.DEGRADED
    watch.update("dns", unhealthy("disk full"))
    watch.update("dns", ACTIVE)
    assert [message for _, _, message in events.entries] == [
        f"Appliance dns is degraded: seen from outside: {OUTSIDE}.",
        "Appliance dns is degraded: disk full.",
        f"Appliance dns is degraded: seen from outside: {OUTSIDE}.",
    ]


def test_nobody_is_judged_who_is_not_watched(watch: Watch, events: EventLog, changes: list[str]) -> None:
    watch.judge("dns", OUTSIDE)
    watch.adopt("dns", ACTIVE)
    assert watch.health("dns").health is Health.HEALTHY
    watch.judge("dns", OUTSIDE)
    watch.forget("dns")
    watch.adopt("dns", ACTIVE)
    assert watch.health("dns").health is Health.HEALTHY


@pytest.mark.usefixtures("events")
def test_failures_are_noted_that_are_over_when_somebody_asks() -> None:
    watch = Watch(lambda _appliance: None)
    for name in ("dns", "web"):
        watch.adopt(name, UnitStatus(active_state="inactive"))
    with watch.noting_failures("dns") as failures:
        watch.update("web", UnitStatus(active_state="failed", result="watchdog"))
        watch.update("dns", UnitStatus(active_state="activating", sub_state="start"))
        assert failures == []
        died = UnitStatus(active_state="activating", sub_state="auto-restart", result="watchdog")
        watch.update("dns", died)
        watch.update("dns", UnitStatus(active_state="activating", sub_state="start"))
    watch.update("dns", UnitStatus(active_state="failed", result="watchdog"))
    [(health, status)] = failures
    assert (health.health, health.reason) == (Health.FAILED, "the guest gave no sign of life")
    assert status is died
