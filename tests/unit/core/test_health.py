"""From what systemd says of a unit to how the appliance is doing: the table of agent.core.health."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.health import failure_reason, health_of
from agent.model.guest import GUEST_EXITS
from agent.model.health import Health, UnitStatus

EXITED, KILLED, DUMPED = 1, 2, 3
RESULTS = (
    "success",
    "exit-code",
    "signal",
    "core-dump",
    "watchdog",
    "timeout",
    "start-limit-hit",
    "oom-kill",
    "protocol",
    "resources",
    "exec-condition",
)
STATES = (
    "active",
    "reloading",
    "inactive",
    "failed",
    "activating",
    "deactivating",
    "maintenance",
    "refreshing",
)


@pytest.mark.parametrize(
    ("status", "health", "reason"),
    [
        ({}, Health.STOPPED, ""),
        ({"active_state": "inactive", "status_text": "bye"}, Health.STOPPED, ""),
        ({"active_state": "maintenance"}, Health.STOPPED, ""),
        ({"active_state": "activating", "sub_state": "start"}, Health.STARTING, ""),
        (
            {"active_state": "activating", "sub_state": "start", "status_text": "waiting for udp 53"},
            Health.STARTING,
            "waiting for udp 53",
        ),
        ({"active_state": "active", "sub_state": "running"}, Health.HEALTHY, ""),
        ({"active_state": "active", "status_text": "answering"}, Health.HEALTHY, ""),
        (
            {"active_state": "active", "status_text": "unhealthy: the check failed"},
            Health.DEGRADED,
            "the check failed",
        ),
        ({"active_state": "reloading"}, Health.HEALTHY, ""),
        ({"active_state": "refreshing"}, Health.HEALTHY, ""),
        ({"active_state": "deactivating", "sub_state": "stop"}, Health.STOPPED, "stopping"),
        (
            {"active_state": "deactivating", "sub_state": "stop-sigkill", "result": "watchdog"},
            Health.FAILED,
            "the guest gave no sign of life",
        ),
        (
            {
                "active_state": "activating",
                "sub_state": "auto-restart",
                "result": "exit-code",
                "main_code": EXITED,
                "main_status": 87,
            },
            Health.FAILED,
            "the service ended",
        ),
        ({"active_state": "activating", "sub_state": "auto-restart-queued"}, Health.FAILED, ""),
        (
            {"active_state": "failed", "result": "oom-kill"},
            Health.FAILED,
            "the host killed the guest because it used too much memory",
        ),
    ],
)
def test_states(status: dict[str, Any], health: Health, reason: str) -> None:
    found = health_of(UnitStatus(**status))
    assert (found.health, found.reason) == (health, reason)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {"result": "watchdog", "status_text": "unhealthy: no answer"},
            "the guest gave no sign of life (no answer)",
        ),
        (
            {"result": "timeout", "status_text": "waiting for tcp 80"},
            "the guest did not start or stop in time (waiting for tcp 80)",
        ),
        ({"result": "start-limit-hit"}, "it failed too often in a short time and is not started again"),
        ({"result": "protocol"}, "the guest ended before it was ready"),
        ({"result": "resources"}, "systemd could not set up the unit"),
        ({"result": "exec-condition"}, "exec-condition"),
        (
            {"result": "signal", "main_code": KILLED, "main_status": signal.SIGKILL},
            "the guest was killed by SIGKILL",
        ),
        (
            {"result": "core-dump", "main_code": DUMPED, "main_status": signal.SIGSEGV},
            "the guest was killed by SIGSEGV",
        ),
        (
            {"result": "core-dump", "main_code": DUMPED, "main_status": signal.SIGABRT},
            "the guest's kernel panicked",
        ),
        (
            {"result": "signal", "main_code": KILLED, "main_status": 250},
            "the guest was killed by signal 250",
        ),
        ({"result": "exit-code", "main_code": EXITED, "main_status": 1}, "the guest ended with status 1"),
        (
            {
                "result": "exit-code",
                "main_code": EXITED,
                "main_status": 87,
                "status_text": "nsd ended with status 3",
            },
            "nsd ended with status 3",
        ),
        *(
            ({"result": "exit-code", "main_code": EXITED, "main_status": number}, text)
            for number, text in GUEST_EXITS.items()
        ),
    ],
)
def test_reasons(status: dict[str, Any], reason: str) -> None:
    assert failure_reason(UnitStatus(**status)) == reason


@pytest.mark.parametrize(
    ("status", "health", "reason"),
    [
        ({"active_state": "active"}, Health.DEGRADED, "seen from outside: no answer"),
        ({"active_state": "reloading"}, Health.DEGRADED, "seen from outside: no answer"),
        ({"active_state": "active", "status_text": "unhealthy: full"}, Health.DEGRADED, "full"),
        ({"active_state": "activating", "sub_state": "start"}, Health.STARTING, ""),
        ({"active_state": "deactivating"}, Health.STOPPED, "stopping"),
        ({"active_state": "failed", "result": "oom-kill"}, Health.FAILED, None),
        ({}, Health.STOPPED, ""),
    ],
)
def test_a_verdict_from_outside_counts_for_running_guests_that_say_they_are_well(
    status: dict[str, Any], health: Health, reason: str | None
) -> None:
    found = health_of(UnitStatus(**status), "no answer")
    assert found.health is health
    assert reason is None or found.reason == reason


@given(
    st.sampled_from(STATES),
    st.sampled_from(RESULTS),
    st.text(),
    st.integers(-1, 9),
    st.integers(0, 300),
    st.text(),
)
def test_whatever_systemd_says_there_is_an_answer(
    active_state: str, result: str, text: str, code: int, status: int, sub_state: str
) -> None:
    found = health_of(
        UnitStatus(
            active_state=active_state,
            sub_state=sub_state,
            result=result,
            status_text=text,
            main_code=code,
            main_status=status,
        )
    )
    assert found.health in Health
