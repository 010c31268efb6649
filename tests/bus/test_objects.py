"""org.appliance1 as its callers find it, busctl(1) among them; behind it an agent on a host in memory."""

from __future__ import annotations

import asyncio
import re
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import __version__
from agent.dbus.appliance import ApplianceFace, path_of
from agent.dbus.manager import ManagerFace
from agent.dbus.objects import ROOT, Objects
from agent.dbus.operation import operation_path
from agent.host.bus import Bus, Signal, Variant
from agent.model.errors import HostError, Problem
from tests.fakes.bus import Message, busctl, connected, settled, unique_name
from tests.fakes.samples import sample_image
from tests.fakes.world import World

NAME = "org.appliance1"
MANAGER, APPLIANCE = f"{NAME}.Manager", f"{NAME}.Appliance"
PROPERTIES = "org.freedesktop.DBus.Properties"
ERROR = "org.freedesktop.DBus.Error"
FOLDER = Path(__file__).parents[2] / "agent/dbus"
DNS = path_of("dns")


@dataclass
class Service:
    """The agent's side, the caller's, and what the caller has heard."""

    address: str
    world: World
    objects: Objects
    bus: Bus
    client: Bus
    heard: list[Signal]

    async def call(self, path: str, member: str, *arguments: Any, signature: str = "") -> list[Any]:
        return await self.client.call(NAME, path, member, *arguments, signature=signature)

    async def error(self, path: str, interface: str, member: str, signature: str = "", *body: Any) -> str:
        """Name of the error that a call is answered with."""
        message = Message(NAME, path, interface, member, signature=signature, body=list(body))
        reply = await self.client._bus.call(message)
        assert reply is not None
        return str(reply.error_name)

    async def properties(self, path: str = DNS, interface: str = APPLIANCE) -> dict[str, Any]:
        [values] = await self.call(path, f"{PROPERTIES}.GetAll", interface, signature="s")
        return {name: value.value for name, value in values.items()}

    async def hear(self) -> list[tuple[str, str, list[Any]]]:
        """Member, path and body of every signal since the last call."""
        await settled(self.bus)
        await settled(self.client)
        heard = [(signal.member, signal.path, signal.body) for signal in self.heard]
        self.heard.clear()
        return heard


@asynccontextmanager
async def service(address: str, *appliances: str) -> AsyncIterator[Service]:
    """org.appliance1 with these appliances running."""
    world = World()
    async with connected(address) as bus, connected(address) as client:
        objects, heard = Objects(bus), list[Signal]()
        world.on_change = lambda name: objects.refresh(path_of(name))
        agent = world.agent()
        await client.subscribe(f"sender='{unique_name(bus)}',path_namespace='{ROOT}'", heard.append)
        objects.add(ManagerFace(agent))
        await world.run(*appliances)
        for name in appliances:
            objects.add(ApplianceFace(agent, name))
        await bus.own(NAME)
        found = Service(address, world, objects, bus, client, heard)
        await found.hear()
        try:
            yield found
        finally:
            world.close()


pytestmark = pytest.mark.usefixtures("events")


# --- introspection


@pytest.mark.parametrize(("path", "name"), [(ROOT, MANAGER), (DNS, APPLIANCE)])
async def test_the_description_is_the_file_s(address: str, path: str, name: str) -> None:
    async with service(address, "dns") as found:
        [text] = await found.call(path, "org.freedesktop.DBus.Introspectable.Introspect")
    shown = {str(element.get("name")): element for element in ET.fromstring(text).findall("interface")}
    described = ET.parse(FOLDER / f"{name}.xml").getroot().find("interface")
    assert described is not None
    assert ET.canonicalize(ET.tostring(shown[name], "unicode"), strip_text=True) == ET.canonicalize(
        ET.tostring(described, "unicode"), strip_text=True
    )
    assert PROPERTIES in shown
    assert ("org.freedesktop.DBus.ObjectManager" in shown) == (path == ROOT)


async def test_the_tree_can_be_walked_from_the_top(address: str) -> None:
    async with service(address, "dns", "web") as found:

        async def children(path: str) -> list[str]:
            [text] = await found.call(path, "org.freedesktop.DBus.Introspectable.Introspect")
            return [str(node.get("name")) for node in ET.fromstring(text).findall("node")]

        assert await children("/") == ["org"]
        assert await children("/org") == ["appliance1"]
        assert await children(ROOT) == ["appliance"]
        assert await children(f"{ROOT}/appliance") == ["dns", "web"]
        assert await children(DNS) == []
        tree = await busctl(address, "tree", "--list", NAME)
        assert set(tree.split()) == {"/", "/org", ROOT, f"{ROOT}/appliance", DNS, path_of("web")}
        assert (
            await found.error("/org/other", "org.freedesktop.DBus.Introspectable", "Introspect")
            == f"{ERROR}.UnknownObject"
        )


async def test_busctl_understands_it(address: str) -> None:
    async with service(address, "dns"):
        text = await busctl(address, "introspect", NAME, DNS, APPLIANCE)
        assert re.search(r"\.Health\s+property\s+s\s+\"healthy\"\s+emits-change", text)
        assert re.search(r"\.Name\s+property\s+s\s+\"dns\"\s+const", text)
        answer = await busctl(address, "call", NAME, ROOT, MANAGER, "ListAppliances")
        assert answer == {"type": "a(so)", "data": [[["dns", DNS]]]}


# --- methods


async def test_listing_and_finding_appliances(address: str) -> None:
    async with service(address, "dns", "web") as found:
        assert await found.call(ROOT, f"{MANAGER}.ListAppliances") == [
            [["dns", DNS], ["web", path_of("web")]]
        ]
        assert await found.call(ROOT, f"{MANAGER}.GetAppliance", "web", signature="s") == [path_of("web")]
        assert await found.error(ROOT, MANAGER, "GetAppliance", "s", "ntp") == f"{NAME}.Error.NotFound"


async def test_applying_and_looking_first(address: str) -> None:
    async with service(address, "dns") as found:
        found.world.files.write("appliances/dns.yaml", "image: dns-nsd\nmemory: 64M")
        found.world.files.write("appliances/web.yaml", "image: dns-nsd")
        dry = await found.call(ROOT, f"{MANAGER}.Apply", ["dry-run"], signature="as")
        assert found.world.journal.take() == []
        assert dry[0][-1] == "dns: restart with its new configuration"
        changes, problems, operations = await found.call(ROOT, f"{MANAGER}.Apply", [], signature="as")
        assert (changes, problems, dry[1:]) == (dry[0][:-1], [], [[], []])
        [operation] = found.world.operations.all()
        assert (operations, operation.kind) == ([operation_path(operation.number)], "reconfiguration")
        operation.request_hurry()
        await found.world.operations.finished(operation)
        assert await found.call(ROOT, f"{MANAGER}.Apply", [], signature="as") == [[], [], []]
        assert await found.error(ROOT, MANAGER, "Apply", "as", ["wish"]) == f"{ERROR}.InvalidArgs"


async def test_what_is_wrong_comes_back_line_by_line(address: str) -> None:
    async with service(address, "dns") as found:
        found.world.files.write("appliances/dns.yaml", 'image: dns-nsd\nmemory: 1\nisolation: "a\\0\\n"')
        with pytest.raises(HostError) as caught:
            await found.call(ROOT, f"{MANAGER}.Apply", [], signature="as")
        assert len(caught.value.message.splitlines()) == 2
        assert "dns.yaml:2:9: memory: 1 is out of range" in caught.value.message
        assert (
            await found.error(ROOT, MANAGER, "Apply", "as", ["dry-run"])
            == f"{NAME}.Error.{Problem.INVALID_CONFIGURATION}"
        )


@pytest.mark.parametrize(
    ("path", "interface", "member", "signature", "body", "error"),
    [
        ("/org/appliance1/none", MANAGER, "ListAppliances", "", [], "UnknownObject"),
        ("/", MANAGER, "ListAppliances", "", [], "UnknownObject"),
        (DNS, MANAGER, "ListAppliances", "", [], "UnknownMethod"),
        (ROOT, MANAGER, "Nonsense", "", [], "UnknownMethod"),
        (ROOT, "org.example.Other", "ListAppliances", "", [], "UnknownMethod"),
        (DNS, APPLIANCE, "Name", "", [], "UnknownMethod"),
        (ROOT, MANAGER, "GetAppliance", "", [], "InvalidArgs"),
        (ROOT, MANAGER, "GetAppliance", "u", [7], "InvalidArgs"),
        (ROOT, MANAGER, "GetAppliance", "ss", ["a", "b"], "InvalidArgs"),
        (ROOT, MANAGER, "Apply", "", [], "InvalidArgs"),
        (DNS, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", "", [], "UnknownMethod"),
        (ROOT, "org.freedesktop.DBus.ObjectManager", "Nonsense", "", [], "UnknownMethod"),
        (ROOT, "org.freedesktop.DBus.Introspectable", "Nonsense", "", [], "UnknownMethod"),
        (DNS, PROPERTIES, "Get", "ss", [APPLIANCE, "Nonsense"], "UnknownProperty"),
        (DNS, PROPERTIES, "Get", "ss", ["org.example.Other", "Name"], "UnknownInterface"),
        (DNS, PROPERTIES, "Get", "ss", [MANAGER, "Version"], "UnknownInterface"),
        (DNS, PROPERTIES, "GetAll", "s", ["org.example.Other"], "UnknownInterface"),
        (DNS, PROPERTIES, "Set", "ssv", [APPLIANCE, "Nonsense", ("u", 1)], "UnknownProperty"),
        (DNS, PROPERTIES, "Set", "ssv", [APPLIANCE, "Health", ("s", "healthy")], "PropertyReadOnly"),
        (DNS, PROPERTIES, "Get", "", [], "InvalidArgs"),
        (DNS, PROPERTIES, "Get", "asas", [[], []], "InvalidArgs"),
        (DNS, PROPERTIES, "GetAll", "i", [1], "InvalidArgs"),
        (DNS, PROPERTIES, "Nonsense", "s", [APPLIANCE], "UnknownMethod"),
        (path_of("ntp"), PROPERTIES, "GetAll", "s", [APPLIANCE], "UnknownObject"),
    ],
)
async def test_what_is_asked_wrongly(
    address: str, path: str, interface: str, member: str, signature: str, body: list[Any], error: str
) -> None:
    values = [Variant(*value) if isinstance(value, tuple) else value for value in body]
    async with service(address, "dns") as found:
        assert await found.error(path, interface, member, signature, *values) == f"{ERROR}.{error}"
        assert await found.error(path, interface, member, signature, *values) == f"{ERROR}.{error}"


async def test_a_method_without_an_interface_is_found(address: str) -> None:
    """The interface of a call is optional (D-Bus specification, message types)."""
    async with service(address, "dns") as found:
        reply = await found.client._bus.call(Message(NAME, ROOT, member="ListAppliances"))
        assert reply is not None
        assert reply.body == [[["dns", DNS]]]


async def test_the_peer_interface(address: str) -> None:
    async with service(address) as found:
        assert await found.call(ROOT, "org.freedesktop.DBus.Peer.Ping") == []


# --- properties


async def test_all_properties(address: str) -> None:
    async with service(address, "dns") as found:
        status = found.world.units.status["dns"]
        assert await found.properties() == {
            "Name": "dns",
            "Unit": "appliance@dns.service",
            "Image": "dns-nsd:4.6.1-1",
            "Digest": str(sample_image().digest),
            "State": "active",
            "Health": "healthy",
            "Reason": "",
            "Address": ["10.88.0.2"],
            "Since": status.state_changed_us,
            "Restarts": 0,
            "Core": 0,
            "RestartPending": False,
        }
        assert await found.properties(ROOT, MANAGER) == {"Version": __version__}
        assert await found.properties(DNS, "") == await found.properties()


async def test_one_property(address: str) -> None:
    async with service(address, "dns"):
        assert await busctl(address, "get-property", NAME, DNS, APPLIANCE, "Address") == {
            "type": "as",
            "data": ["10.88.0.2"],
        }
        with pytest.raises(RuntimeError, match="read-only"):
            await busctl(address, "set-property", NAME, DNS, APPLIANCE, "Health", "s", "failed")


async def test_an_appliance_without_an_image(address: str) -> None:
    async with service(address, "dns") as found:
        found.world.images.images.clear()
        await found.call(ROOT, f"{MANAGER}.Apply", [], signature="as")
        values = await found.properties()
        assert (values["Image"], values["Digest"], values["RestartPending"]) == ("", "", True)


# --- signals


async def test_a_change_is_told_and_nothing_else_is(address: str) -> None:
    async with service(address, "dns", "web") as found:
        found.world.units.become("dns", "failed", result="watchdog", restarts=2, state_changed_us=5)
        [(member, path, [interface, changed, invalidated])] = await found.hear()
        assert (member, path, interface, invalidated) == ("PropertiesChanged", DNS, APPLIANCE, [])
        assert {name: (value.signature, value.value) for name, value in changed.items()} == {
            "State": ("s", "failed"),
            "Health": ("s", "failed"),
            "Reason": ("s", "the guest gave no sign of life"),
            "Restarts": ("u", 2),
            "Since": ("t", 5),
        }


async def test_what_is_as_it_was_is_not_told(address: str) -> None:
    async with service(address, "dns") as found:
        found.world.units.become(
            "dns", "active", main_pid=7, started_at_us=found.world.units.status["dns"].started_at_us
        )
        found.objects.refresh(DNS)
        found.objects.refresh(ROOT)
        found.objects.refresh("/org/appliance1/none")
        assert await found.hear() == []


async def test_objects_that_come_and_go(address: str) -> None:
    async with service(address, "dns") as found:
        found.objects.remove(DNS)
        assert await found.hear() == [("InterfacesRemoved", ROOT, [DNS, [APPLIANCE]])]
        assert await found.error(DNS, PROPERTIES, "GetAll", "s", APPLIANCE) == f"{ERROR}.UnknownObject"
        agent = found.world.agent()
        found.objects.add(ApplianceFace(agent, "dns"))
        [(member, path, [shown, interfaces])] = await found.hear()
        assert (member, path, shown) == ("InterfacesAdded", ROOT, DNS)
        assert {
            name: value.value for name, value in interfaces[APPLIANCE].items()
        } == await found.properties()


async def test_everything_in_one_call(address: str) -> None:
    async with service(address, "dns", "web") as found:
        [managed] = await found.call(ROOT, "org.freedesktop.DBus.ObjectManager.GetManagedObjects")
        assert managed.keys() == {DNS, path_of("web")}
        values = {name: value.value for name, value in managed[DNS][APPLIANCE].items()}
        assert values == await found.properties()


async def test_calls_do_not_wait_for_each_other(address: str) -> None:
    async with service(address, "dns") as found:
        async with found.world.reconciler._lock:
            waiting = asyncio.ensure_future(
                found.call(ROOT, f"{MANAGER}.Apply", ["dry-run"], signature="as")
            )
            assert (await found.properties())["Name"] == "dns"
            assert not waiting.done()
        assert await waiting == [[], [], []]
