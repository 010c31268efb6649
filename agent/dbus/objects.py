"""Objects on the bus, described by the interface XML and answered here: properties, introspection,
ObjectManager.

A face names its interface, says where it lives, and gives its properties as a plain mapping and its methods
as coroutines; types come from the XML, so that the description cannot drift from what is sent.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from agent.host.bus import Bus, Reply, Request, RequestError, Variant
from agent.util.tasks import completed

ROOT = "/org/appliance1"

_ERROR = "org.freedesktop.DBus.Error"
_INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

_PROPERTIES_INPUTS = {"Get": "ss", "GetAll": "s", "Set": "ssv"}

_STANDARD = """
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect"><arg name="xml_data" type="s" direction="out"/></method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/><arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/><arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId"><arg name="machine_uuid" type="s" direction="out"/></method>
  </interface>
"""
_MANAGED = """
  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects"><arg name="objects" type="a{oa{sa{sv}}}" direction="out"/></method>
    <signal name="InterfacesAdded">
      <arg name="object" type="o"/><arg name="interfaces" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved"><arg name="object" type="o"/><arg name="interfaces" type="as"/></signal>
  </interface>
"""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface as its XML describes it: signatures by method and by property."""

    name: str
    xml: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    properties: Mapping[str, str]

    @classmethod
    def load(cls, name: str) -> Interface:
        """Read `NAME.xml` beside this module."""
        text = files(__package__).joinpath(f"{name}.xml").read_text(encoding="utf-8")
        element = ET.fromstring(text).find("interface")  # noqa: S314 (our own file)
        if element is None or element.get("name") != name:
            raise ValueError(f"{name}.xml does not describe {name}")

        def signatures(direction: str) -> dict[str, str]:
            return {
                method.get("name", ""): "".join(
                    arg.get("type", "") for arg in method.findall("arg") if arg.get("direction") == direction
                )
                for method in element.findall("method")
            }

        return cls(
            name=name,
            xml=re.sub(r"(?s).*?(  <interface .*</interface>\n).*", r"\1", text),
            inputs=signatures("in"),
            outputs=signatures("out"),
            properties={
                entry.get("name", ""): entry.get("type", "") for entry in element.findall("property")
            },
        )

    def variants(self, values: Mapping[str, Any]) -> dict[str, Variant]:
        """Property values as they go over the bus."""
        return {name: Variant(self.properties[name], value) for name, value in values.items()}


class Face(Protocol):
    """One object: what agent.dbus.manager and agent.dbus.appliance are."""

    interface: Interface
    path: str

    def properties(self) -> Mapping[str, Any]:
        """Every property's value."""

    def methods(self) -> Mapping[str, Callable[..., Awaitable[tuple[Any, ...]]]]:
        """Coroutines by method name; they get the sender first, and return the reply's arguments."""


class Objects:
    """The tree of objects below /org/appliance1; remembers what was last told to the bus, to tell only
    changes."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._faces: dict[str, Face] = {}
        self._told: dict[str, dict[str, Any]] = {}
        bus.serve(self.answer)

    def add(self, face: Face) -> None:
        """Show an object, and announce it."""
        self._faces[face.path] = face
        self._told[face.path] = dict(face.properties())
        described = {face.interface.name: face.interface.variants(self._told[face.path])}
        self._bus.emit(ROOT, f"{_OBJECT_MANAGER}.InterfacesAdded", "oa{sa{sv}}", face.path, described)

    def remove(self, path: str) -> None:
        """Take an object away, and announce it."""
        face = self._faces.pop(path)
        del self._told[path]
        self._bus.emit(ROOT, f"{_OBJECT_MANAGER}.InterfacesRemoved", "oas", path, [face.interface.name])

    def refresh(self, path: str) -> None:
        """Send PropertiesChanged for what differs from what was last told."""
        face = self._faces.get(path)
        if face is None:
            return
        now = dict(face.properties())
        changed = {name: value for name, value in now.items() if self._told[path].get(name) != value}
        if changed:
            self._told[path] = now
            variants = face.interface.variants(changed)
            self._bus.emit(
                path, f"{_PROPERTIES}.PropertiesChanged", "sa{sv}as", face.interface.name, variants, []
            )

    def answer(self, request: Request) -> Awaitable[Reply] | None:
        """The reply to a request; None for what the connection itself answers (Peer)."""
        match request.interface, request.member:
            case "org.freedesktop.DBus.Peer", _:
                return None
            case "org.freedesktop.DBus.Introspectable", "Introspect":
                return completed(lambda: Reply("s", (self._introspect(request.path),)))
            case "org.freedesktop.DBus.Properties", "Get" | "GetAll" | "Set":
                return completed(lambda: self._answer_properties(request))
            case "org.freedesktop.DBus.ObjectManager", "GetManagedObjects" if request.path == ROOT:
                return completed(lambda: Reply("a{oa{sa{sv}}}", (self._managed(),)))
            case _:
                return self._call(request)

    def _face(self, path: str) -> Face:
        if path not in self._faces:
            raise RequestError(f"{_ERROR}.UnknownObject", f"There is no object {path}.")
        return self._faces[path]

    async def _call(self, request: Request) -> Reply:
        face = self._face(request.path)
        if request.interface not in {face.interface.name, ""} or request.member not in face.methods():
            raise RequestError(
                f"{_ERROR}.UnknownMethod", f"{request.path} has no {request.interface}.{request.member}."
            )
        _check_signature(request, face.interface.inputs[request.member])
        result = await face.methods()[request.member](request.sender, *request.body)
        return Reply(face.interface.outputs[request.member], result)

    def _answer_properties(self, request: Request) -> Reply:
        face = self._face(request.path)
        _check_signature(request, _PROPERTIES_INPUTS[request.member])
        if request.body[0] not in {face.interface.name, ""}:
            raise RequestError(f"{_ERROR}.UnknownInterface", f"{request.path} has no such interface.")
        match request.member, request.body[1:]:
            case "GetAll", []:
                return Reply("a{sv}", (face.interface.variants(face.properties()),))
            case "Get", [name] if name in face.interface.properties:
                return Reply("v", (face.interface.variants(face.properties())[name],))
            case "Set", [name, _] if name in face.interface.properties:
                raise RequestError(f"{_ERROR}.PropertyReadOnly", f"{name} is read-only.")
            case _:
                raise RequestError(f"{_ERROR}.UnknownProperty", f"{request.path} has no such property.")

    def _managed(self) -> dict[str, Any]:
        return {
            path: {face.interface.name: face.interface.variants(face.properties())}
            for path, face in self._faces.items()
            if path != ROOT
        }

    def _introspect(self, path: str) -> str:
        prefix = path.rstrip("/") + "/"
        children = sorted(
            {other[len(prefix) :].split("/")[0] for other in self._faces if other.startswith(prefix)}
        )
        face = self._faces.get(path)
        if face is None and not children:
            raise RequestError(f"{_ERROR}.UnknownObject", f"There is no object {path}.")
        interfaces = _STANDARD + (face.interface.xml if face else "") + (_MANAGED if path == ROOT else "")
        nodes = "".join(f'  <node name="{child}"/>\n' for child in children)
        return f"<node>{interfaces}{nodes}</node>\n"


def _check_signature(request: Request, wanted: str) -> None:
    if request.signature != wanted:
        message = f"{request.member} takes “{wanted}”, not “{request.signature}”."
        raise RequestError(f"{_ERROR}.InvalidArgs", message)
