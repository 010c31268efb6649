"""Swaps and operations as callers of org.appliance1 find them; behind it a host in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.core.operations import Operation
from agent.dbus.objects import ROOT
from agent.dbus.operation import OperationFace, operation_path
from agent.host.bus import Variant
from agent.model.errors import HostError
from tests.bus.test_objects import ERROR, MANAGER, NAME, PROPERTIES, Service, service
from tests.fakes.samples import sample_image

OPERATION = f"{NAME}.Operation"
OLD, NEW = sample_image(), sample_image("dns-nsd", "4.7-1")

pytestmark = pytest.mark.usefixtures("events")


@asynccontextmanager
async def swapping(address: str, *, soak: str = "1ms") -> AsyncIterator[Service]:
    """`dns` runs OLD, and NEW is there; operations are shown."""
    async with service(address, "dns") as found:
        world = found.world
        world.files.write("appliances/dns.yaml", f"image: dns-nsd\nupdate: {{soak: {soak}}}\n")
        await world.reconciler.apply(restart=True)
        world.images.images.append(NEW)
        shown: set[int] = set()

        def show(operation: Operation) -> None:
            if operation.number in shown:
                found.objects.refresh(operation_path(operation.number))
            else:
                shown.add(operation.number)
                found.objects.add(OperationFace(world.operations, operation))

        world.operations._on_change = show
        await found.hear()
        yield found
        for operation in world.operations.all():
            world.operations.cancel(operation.number)
            await world.operations.finished(operation)


async def begin(found: Service, image: str = "dns-nsd:4.7", *options: str) -> str:
    [path] = await found.call(ROOT, f"{MANAGER}.Swap", "dns", image, list(options), signature="ssas")
    return str(path)


async def end(found: Service, path: str) -> dict[str, Any]:
    """Properties of an operation when it has ended."""
    number = int(path.rpartition("/")[2])
    await found.world.operations.finished(found.world.operations.get(number))
    return await found.properties(path, OPERATION)


async def history(found: Service) -> list[list[Any]]:
    [entries] = await found.call(ROOT, f"{MANAGER}.GetHistory", "dns", signature="s")
    return list(entries)


async def test_a_swap_from_beginning_to_end(address: str) -> None:
    async with swapping(address) as found:
        path = await begin(found)
        assert path == f"{ROOT}/operation/1"
        values = await end(found, path)
        [entry] = await history(found)
    assert values["Ended"] >= values["Started"] > 0
    assert {key: value for key, value in values.items() if key not in {"Started", "Ended"}} == {
        "Number": 1,
        "Kind": "swap",
        "Appliance": "dns",
        "State": "succeeded",
        "Phase": "soak",
        "Message": "swapped from dns-nsd:4.6.1-1 to dns-nsd:4.7-1; no answer for 12 ms.",
    }
    assert entry[:8] == [
        1,
        "dns-nsd:4.6.1-1",
        str(OLD.digest),
        "dns-nsd:4.7-1",
        str(NEW.digest),
        "committed",
        "",
        "",
    ]
    assert entry[10] == 12_500


async def test_every_change_of_an_operation_is_told(address: str) -> None:
    async with swapping(address) as found:
        path = await begin(found)
        await end(found, path)
        heard = await found.hear()
    mine = [(member, body) for member, where, body in heard if where == path or body[0] == path]
    [(first, [_, shown]), *changes] = mine
    assert (first, shown[OPERATION]["State"].value) == ("InterfacesAdded", "running")
    assert {member for member, _ in changes} == {"PropertiesChanged"}
    assert {body[0] for _, body in changes} == {OPERATION}
    phases = [body[1]["Phase"].value for _, body in changes if "Phase" in body[1]]
    assert phases == ["prepare", "switch", "trial", "soak"]
    assert changes[-1][1][1]["State"].value == "succeeded"


async def test_an_operation_that_is_cancelled(address: str) -> None:
    async with swapping(address, soak="20s") as found:
        path = await begin(found)
        await found.call(path, f"{OPERATION}.Cancel")
        values = await end(found, path)
        assert (values["State"], values["Message"].endswith("cancelled")) == ("cancelled", True)
        assert [entry[6] for entry in await history(found)] == ["cancelled"]
        await found.call(path, f"{OPERATION}.Cancel")


async def test_going_back(address: str) -> None:
    async with swapping(address) as found:
        await end(found, await begin(found))
        [path] = await found.call(ROOT, f"{MANAGER}.Rollback", "dns", [], signature="sas")
        values = await end(found, path)
    assert (values["Kind"], values["State"], values["Number"]) == ("rollback", "succeeded", 2)


async def test_the_quarantine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.core.outside.PAUSE_S", 0.001)
    async with swapping(address) as found:
        found.world.outside.failures["dns-nsd:4.7-1"] = "no answer"
        await end(found, await begin(found))
        [[entry]] = await found.call(ROOT, f"{MANAGER}.GetQuarantine")
        reason = "it does not answer from outside: no answer"
        assert entry[:4] == ["dns", "dns-nsd:4.7-1", str(NEW.digest), reason]

        async def clear(digest: str) -> list[Any]:
            return await found.call(ROOT, f"{MANAGER}.ClearQuarantine", "dns", digest, signature="ss")

        assert await clear(str(OLD.digest)) == [0]
        assert await clear("") == [1]
        assert await found.call(ROOT, f"{MANAGER}.GetQuarantine") == [[]]


@pytest.mark.parametrize(
    ("member", "signature", "body", "error"),
    [
        ("Swap", "ssas", ["dns", "dns-nsd:4.7", ["force"]], f"{ERROR}.InvalidArgs"),
        ("Rollback", "sas", ["dns", ["accept"]], f"{ERROR}.InvalidArgs"),
        ("Swap", "ssas", ["dns", "Not An Image", []], f"{NAME}.Error.InvalidImage"),
        ("Swap", "ssas", ["dns", "dns-knot", []], f"{NAME}.Error.NotFound"),
        ("Swap", "ssas", ["dns", "dns-nsd:4.6", []], f"{NAME}.Error.AlreadyExists"),
        ("Swap", "ssas", ["ntp", "", []], f"{NAME}.Error.NotFound"),
        ("Rollback", "sas", ["ntp", []], f"{NAME}.Error.NotFound"),
        ("Rollback", "sas", ["dns", []], f"{NAME}.Error.NotFound"),
        ("GetHistory", "s", ["ntp"], f"{NAME}.Error.NotFound"),
        ("ClearQuarantine", "ss", ["ntp", ""], f"{NAME}.Error.NotFound"),
        ("Swap", "ss", ["dns", ""], f"{ERROR}.InvalidArgs"),
    ],
)
async def test_what_is_asked_in_vain(
    address: str, member: str, signature: str, body: list[Any], error: str
) -> None:
    async with swapping(address) as found:
        assert await found.error(ROOT, MANAGER, member, signature, *body) == error
        assert found.world.operations.all() == []


async def test_one_at_a_time(address: str) -> None:
    async with swapping(address, soak="20s") as found:
        path = await begin(found)
        busy = f"{NAME}.Error.Busy"
        assert await found.error(ROOT, MANAGER, "Swap", "ssas", "dns", "dns-nsd:4.7", []) == busy
        assert await found.error(ROOT, MANAGER, "ClearQuarantine", "ss", "dns", "") == busy
        await found.call(path, f"{OPERATION}.Cancel")


async def test_an_operation_is_read_only_and_has_no_other_methods(address: str) -> None:
    async with swapping(address) as found:
        path = await begin(found)
        await end(found, path)
        with pytest.raises(HostError, match="read-only"):
            await found.call(
                path, f"{PROPERTIES}.Set", OPERATION, "State", Variant("s", "running"), signature="ssv"
            )
        assert await found.error(path, OPERATION, "Pause") == f"{ERROR}.UnknownMethod"
        missing = operation_path(7)
        assert await found.error(missing, OPERATION, "Cancel") == f"{ERROR}.UnknownObject"
