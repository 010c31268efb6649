"""How an appliance is doing, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """The five states an administrator has to tell apart."""

    STARTING = "starting"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class HealthState:
    """Health with its reason, a short clause for people; empty where the state speaks for itself."""

    health: Health
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """What systemd says of a unit: the properties of org.freedesktop.systemd1.Unit and .Service that health
    is read from.

    Source: org.freedesktop.systemd1(5). `main_status` is a signal number where `main_code` is CLD_KILLED (2)
    or CLD_DUMPED (3), else an exit status; `active_since_us` is CLOCK_REALTIME.
    """

    active_state: str = "inactive"
    sub_state: str = "dead"
    result: str = "success"
    status_text: str = ""
    main_code: int = 0
    main_status: int = 0
    main_pid: int = 0
    restarts: int = 0
    needs_reload: bool = False
    started_at_us: int = 0
    state_changed_us: int = 0

    @property
    def is_running(self) -> bool:
        """Whether it runs or is being started."""
        return self.active_state in {"active", "activating", "reloading", "refreshing"}
