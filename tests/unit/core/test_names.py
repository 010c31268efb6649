"""When guests are told names."""

from __future__ import annotations

import pytest

from agent.model.errors import HostError
from tests.fakes.world import World
from tests.unit.core.test_reconcile import apply, configure


async def set_up(world: World) -> None:
    """`dns`, which runs and has been told."""
    configure(world, "dns")
    await world.reconciler.apply(restart=True)
    await world.units.start("dns")
    await world.names.deliver()
    world.name_files.tells = True
    world.journal.take()


def told(world: World) -> list[str]:
    return [entry for entry in world.journal.take() if entry.startswith("deliver")]


async def test_a_guest_that_runs_is_told_of_a_new_neighbour(world: World) -> None:
    await set_up(world)
    configure(world, "web")
    assert "dns: write names" in (await apply(world)).changes
    await world.names.deliver()
    assert told(world) == ["deliver dns"]
    assert world.name_files.guests["dns"] == "10.88.0.3 web\n"
    await world.names.deliver()
    assert told(world) == []


async def test_it_does_not_start_anew_for_that(world: World) -> None:
    await set_up(world)
    configure(world, "web")
    await apply(world)
    assert not world.reconciler.restart_pending("dns")


async def test_one_that_starts_is_told_afterwards(world: World) -> None:
    """It may have read the disk already."""
    await set_up(world)
    world.units.become("dns", "activating", sub_state="start")
    configure(world, "web")
    await apply(world)
    await world.names.deliver()
    assert told(world) == []
    world.units.become("dns", "active")
    await world.names.deliver()
    assert told(world) == ["deliver dns"]


async def test_one_that_does_not_run_reads_them_at_its_start(world: World) -> None:
    await set_up(world)
    await world.units.stop("dns")
    configure(world, "web")
    await apply(world)
    await world.names.deliver()
    await world.units.start("dns")
    await world.names.deliver()
    assert told(world) == []


async def test_a_dry_run_tells_nobody(world: World) -> None:
    await set_up(world)
    configure(world, "web")
    assert "dns: write names" in (await world.reconciler.check()).changes
    await world.names.deliver()
    assert told(world) == []


async def test_an_agent_that_starts_tells_everybody_once(world: World) -> None:
    await set_up(world)
    world.boot()
    await world.agent().start()
    await world.names.deliver()
    assert told(world) == ["deliver dns"]


async def test_one_that_cannot_be_told_keeps_nobody_else_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await set_up(world)

    def fail(instance: str, path: str) -> None:
        raise HostError(f"{instance} and {path} do not answer")

    monkeypatch.setattr(world.console, "deliver", fail)
    configure(world, "web")
    await apply(world)
    await world.names.deliver()
    assert "dns: it was not told new names: dns and /run/appliance/dns/names do not answer" in caplog.text
