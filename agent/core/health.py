"""From what systemd says of a unit to how the appliance is doing, and why. Pure.

systemd                                   health
---------------------------------------   ----------------------------------------------------
activating (start)                        starting
activating (auto-restart)                 failed: it died; systemd starts it again
active, guest reports “unhealthy: …”      degraded
active, but not seen so from outside      degraded
active                                    healthy
reloading, refreshing                     healthy
deactivating (stop…)                      stopped, unless it is being killed for a failure
failed                                    failed
inactive                                  stopped
"""

from __future__ import annotations

import signal

from agent.model.guest import GUEST_EXITS, HOST_EXITS
from agent.model.health import Health, HealthState, UnitStatus

_KILLED, _DUMPED = 2, 3  # CLD_KILLED, CLD_DUMPED: waitid(2)
_UNHEALTHY = "unhealthy: "
FROM_OUTSIDE = "seen from outside: "
"""Begins the reason where only the agent's probes find something wrong."""


def health_of(status: UnitStatus, outside: str = "") -> HealthState:
    """The health of an appliance whose unit is in this state; `outside` is what probes find wrong."""
    match status.active_state:
        case "active" | "reloading" | "refreshing":
            if status.status_text.startswith(_UNHEALTHY):
                return HealthState(Health.DEGRADED, status.status_text.removeprefix(_UNHEALTHY))
            if outside:
                return HealthState(Health.DEGRADED, f"{FROM_OUTSIDE}{outside}")
            return HealthState(Health.HEALTHY)
        case "activating" if not status.sub_state.startswith("auto-restart"):
            return HealthState(Health.STARTING, status.status_text)
        case "activating" | "failed":
            return HealthState(Health.FAILED, failure_reason(status))
        case "deactivating" if status.result != "success":
            return HealthState(Health.FAILED, failure_reason(status))
        case "deactivating":
            return HealthState(Health.STOPPED, "stopping")
        case _:
            return HealthState(Health.STOPPED)


def is_settled(health: HealthState) -> bool:
    """Whether a start has ended, well or not."""
    return health.health is not Health.STARTING


def is_of_the_guest(status: UnitStatus) -> bool:
    """Whether a failure is the guest's own: it was started, and the host did its part."""
    if status.result == "exit-code":
        return status.main_status in GUEST_EXITS and status.main_status not in HOST_EXITS
    return status.result in {"signal", "core-dump", "watchdog", "timeout", "protocol", "start-limit-hit"}


def failure_reason(status: UnitStatus) -> str:
    """Why a unit failed, as a clause."""
    match status.result:
        case "watchdog":
            return _with_status("the guest gave no sign of life", status)
        case "timeout":
            return _with_status("the guest did not start or stop in time", status)
        case "start-limit-hit":
            return "it failed too often in a short time and is not started again"
        case "oom-kill":
            return "the host killed the guest because it used too much memory"
        case "protocol":
            return "the guest ended before it was ready"
        case "resources":
            return "systemd could not set up the unit"
        case "exit-code" | "signal" | "core-dump":
            return _main_process_reason(status)
        case "success":
            return ""  # between two starts systemd has forgotten already
        case _:
            return status.result


def _main_process_reason(status: UnitStatus) -> str:
    if status.main_code in {_KILLED, _DUMPED}:
        if status.main_status == signal.SIGABRT:
            return "the guest's kernel panicked"
        return f"the guest was killed by {_signal_name(status.main_status)}"
    # The guest says more than its exit status does, e.g. which program ended how.
    return status.status_text or GUEST_EXITS.get(
        status.main_status, f"the guest ended with status {status.main_status}"
    )


def _with_status(reason: str, status: UnitStatus) -> str:
    return f"{reason} ({status.status_text.removeprefix(_UNHEALTHY)})" if status.status_text else reason


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
