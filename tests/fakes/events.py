"""Catches what would be written to the journal."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from agent.util.journal import Event


@dataclass
class EventLog:
    """Stands in for agent.util.journal.log_event; `entries` holds event, appliance and message."""

    entries: list[tuple[Event, str, str]] = field(default_factory=list)
    fields: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, event: Event, message: str, *, appliance: str = "", **fields: str) -> None:
        self.entries.append((event, appliance, message))
        self.fields.append(fields)

    def events(self) -> list[Event]:
        """The events alone."""
        return [event for event, _, _ in self.entries]

    def clear(self) -> None:
        """Forget what was caught."""
        self.entries.clear()
        self.fields.clear()


def catch_events(monkeypatch: pytest.MonkeyPatch) -> EventLog:
    """Have every module of the core log into one EventLog."""
    log = EventLog()
    for module in ("agent", "data", "reconcile", "swap_report", "updates", "watch"):
        monkeypatch.setattr(f"agent.core.{module}.log_event", log)
    return log
