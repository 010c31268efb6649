"""Data volumes over the bus: the methods as busctl(1) finds them, and `appliancectl data` as a program."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.dbus.manager import ManagerFace
from agent.dbus.objects import ROOT
from agent.dbus.operation import OperationFace
from agent.model.data import SnapshotNote
from agent.model.errors import Problem
from tests.bus.test_client import Run, appliancectl
from tests.bus.test_objects import MANAGER, Service, service

pytestmark = pytest.mark.usefixtures("events")

__all__ = ["appliancectl"]

DATA = "web/1"


@asynccontextmanager
async def serving(address: str) -> AsyncIterator[Service]:
    """An appliance with data, and an object for each operation."""
    async with service(address, "dns") as found:
        shown: set[int] = set()

        def show(operation: object) -> None:
            for entry in found.world.operations.all():
                face = OperationFace(found.world.operations, entry)
                if entry.number in shown:
                    found.objects.refresh(face.path)
                else:
                    shown.add(entry.number)
                    found.objects.add(face)
            del operation

        found.world.operations._on_change = show
        found.world.volumes.volumes["dns"] = DATA
        found.world.volumes.snapshots["dns"] = {"kept": "kept/1", "lost": "?"}
        found.world.volumes.notes["dns", "kept"] = SnapshotNote("the administrator", 1, 1_000_000)
        yield found


async def test_what_the_methods_return(address: str) -> None:
    async with serving(address) as found:
        path, size, used, data_format, shared = await found.call(
            ROOT, f"{MANAGER}.GetData", "dns", signature="s"
        )
        [snapshots] = await found.call(ROOT, f"{MANAGER}.GetSnapshots", "dns", signature="s")
        unknown = await found.error(ROOT, MANAGER, "GetData", "s", "web")
    assert path == "/var/lib/appliance/appliances/dns/data.img"
    assert (size, used, data_format, shared) == (256 << 20, 4096, 1, False)
    assert snapshots == [
        ["lost", 0, 256 << 20, 4096, 0, ""],
        ["kept", 1_000_000, 256 << 20, 4096, 1, "the administrator"],
    ]
    assert unknown.endswith("NotFound")
    assert {"TakeSnapshot", "RestoreSnapshot", "RemoveSnapshot"} <= ManagerFace.interface.inputs.keys()


async def test_showing(address: str, appliancectl: Run) -> None:
    async with serving(address):
        status, out, error = await appliancectl("data", "show", "dns", "--json=short")
        text = (await appliancectl("data", "show", "dns"))[1]
    assert (status, error) == (0, "")
    record = json.loads(out)
    assert (record["size_bytes"], record["format"], record["shared"]) == (256 << 20, 1, False)
    assert (record["snapshots"], record["snapshots_used_bytes"]) == (2, 8192)
    assert "     Size: 256.0M\n" in text
    assert "Snapshots: 2, 8.0K\n" in text


async def test_listing(address: str, appliancectl: Run) -> None:
    async with serving(address):
        status, out, _ = await appliancectl("data", "snapshots", "dns")
        records = json.loads((await appliancectl("data", "snapshots", "dns", "--json"))[1])
    assert status == 0
    assert [line.split()[0] for line in out.splitlines() if line] == ["SNAPSHOT", "lost", "kept", "2"]
    assert "unknown" in out
    assert [record["maker"] for record in records] == ["", "the administrator"]


async def test_a_snapshot_and_back(address: str, appliancectl: Run) -> None:
    async with serving(address) as found:
        status, out, error = await appliancectl("data", "snapshot", "dns", "mine")
        assert (status, out.startswith("dns: snapshot mine taken; stopped for ")) == (0, True), error
        status, out, error = await appliancectl("data", "restore", "dns", "kept", "--json=short")
        assert status == 0, error
        record = json.loads(out)
        assert (record["state"], record["snapshot"]) == ("succeeded", "kept")
        assert found.world.volumes.volumes["dns"] == "kept/1"
        assert found.world.volumes.snapshots["dns"][record["aside"]] == DATA
        assert (await appliancectl("data", "remove", "dns", "mine"))[1] == "dns: snapshot mine removed.\n"
        assert "mine" not in found.world.volumes.snapshots["dns"]


async def test_what_is_refused(address: str, appliancectl: Run) -> None:
    async with serving(address) as found:
        for words, problem in (
            (("snapshot", "dns", "swap-7"), Problem.NOT_SUPPORTED),
            (("snapshot", "dns", "kept"), Problem.ALREADY_EXISTS),
            (("restore", "dns", "none"), Problem.NOT_FOUND),
            (("restore", "dns", "lost"), Problem.NOT_SUPPORTED),
            (("show", "web"), Problem.NOT_FOUND),
        ):
            status, out, error = await appliancectl("data", *words)
            assert (status, out) == (problem.exit_status, ""), error
        assert found.world.journal.take() == []
