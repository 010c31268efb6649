"""The core's journal events, and a host in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.events import EventLog, catch_events
from tests.fakes.world import World


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> EventLog:
    return catch_events(monkeypatch)


@pytest.fixture
def world(events: EventLog) -> Iterator[World]:
    world = World()
    yield world
    world.close()
    del events
