"""The interfaces as their XML has them, and as the faces fill them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from agent.dbus.appliance import ApplianceFace, path_of
from agent.dbus.manager import ManagerFace
from agent.dbus.objects import Interface
from agent.dbus.operation import OperationFace, operation_number, operation_path
from agent.model.diagnosis import HopReport
from agent.model.errors import Problem
from agent.model.network_status import Lease, LeasedAddress, NetworkStatus, Published, TapCounters

FOLDER = Path(__file__).parents[3] / "agent/dbus"


def test_signatures_come_from_the_xml() -> None:
    manager = ManagerFace.interface
    assert manager.inputs == {
        "ListAppliances": "",
        "GetAppliance": "s",
        "Apply": "as",
        "Swap": "ssas",
        "Rollback": "sas",
        "GetHistory": "s",
        "GetQuarantine": "",
        "ClearQuarantine": "ss",
        "GetData": "s",
        "GetSnapshots": "s",
        "TakeSnapshot": "ss",
        "RestoreSnapshot": "ss",
        "RemoveSnapshot": "ss",
        "CheckUpdates": "as",
        "Update": "asas",
        "GetUpdateRun": "o",
        "GetNetworks": "",
        "GetLeases": "s",
        "GetPublications": "",
        "GetNetworkCounters": "",
        "DiagnoseNetwork": "s",
    }
    assert manager.outputs == {
        "ListAppliances": "a(so)",
        "GetAppliance": "o",
        "Apply": "asasao",
        "Swap": "o",
        "Rollback": "o",
        "GetHistory": "a(ussssssstttss)",
        "GetQuarantine": "a(sssst)",
        "ClearQuarantine": "u",
        "GetData": "sttub",
        "GetSnapshots": "a(stttus)",
        "TakeSnapshot": "os",
        "RestoreSnapshot": "os",
        "RemoveSnapshot": "",
        "CheckUpdates": "a(sssssssss)",
        "Update": "o",
        "GetUpdateRun": "a(soss)",
        "GetNetworks": "a(ssssuasbasasuasasbbasas)",
        "GetLeases": "a(ssssuba(sb))",
        "GetPublications": "a(sssass)",
        "GetNetworkCounters": "a(ssstttttt)",
        "DiagnoseNetwork": "a(ssssss)",
    }
    assert ApplianceFace.interface.properties["Address"] == "as"


@pytest.mark.parametrize(
    ("method", "structure"),
    [
        ("GetNetworks", NetworkStatus),
        ("GetLeases", Lease),
        ("GetPublications", Published),
        ("GetNetworkCounters", TapCounters),
        ("DiagnoseNetwork", HopReport),
    ],
)
def test_structures_have_the_fields_of_the_classes(method: str, structure: type[Any]) -> None:
    signature = ManagerFace.interface.outputs[method]
    assert signature.replace("t", "u") == f"a({_signature(structure)})".replace("t", "u")


def _signature(structure: type[Any]) -> str:
    types = get_type_hints(structure)
    return "".join(_TYPES[types[field.name]] for field in fields(structure))


_TYPES = {str: "s", int: "u", bool: "b", tuple[str, ...]: "as", tuple[LeasedAddress, ...]: "a(sb)"}


def test_everybody_may_look_and_only_root_change() -> None:
    policy = ET.parse(FOLDER.parents[1] / "conf/dbus/org.appliance1.conf").getroot()
    allowed = {
        rule.get("send_member")
        for rule in policy.findall("policy[@context='default']/allow")
        if rule.get("send_interface") == "org.appliance1.Manager"
    }
    methods = ManagerFace.interface.inputs.keys()
    looking = {name for name in methods if name.startswith(("Get", "List", "Check", "Diagnose"))}
    assert allowed == looking


def test_every_problem_is_an_error_in_the_description() -> None:
    text = (FOLDER / "org.appliance1.Manager.xml").read_text("utf-8")
    named = re.search(r"Errors are org\.appliance1\.Error\.<Problem>: ([^.]*)\.", text)
    assert named is not None
    assert set(re.findall(r"\w+", named[1])) == {str(problem) for problem in Problem}


@pytest.mark.parametrize("face", [ManagerFace, ApplianceFace, OperationFace])
def test_what_is_shown_of_the_xml_is_well_formed(
    face: type[ManagerFace | ApplianceFace | OperationFace],
) -> None:
    element = ET.fromstring(f"<node>{face.interface.xml}</node>").find("interface")
    assert element is not None
    assert element.get("name") == face.interface.name


def test_a_file_that_describes_something_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "org.example.xml").write_text('<node><interface name="org.other"/></node>')
    monkeypatch.setattr("agent.dbus.objects.files", lambda _package: tmp_path)
    with pytest.raises(ValueError, match=r"org\.example\.xml does not describe org\.example"):
        Interface.load("org.example")


@pytest.mark.parametrize("number", [1, 9, 1_795_000_000, (1 << 32) - 1])
def test_numbers_of_operations_are_found_in_their_paths(number: int) -> None:
    """They begin at the time at which the agent started."""
    assert operation_number(operation_path(number)) == number


@pytest.mark.parametrize("path", ["/", "/org/appliance1/operation/", "/org/appliance1/operation/1x", "7/1"])
def test_paths_of_no_operation(path: str) -> None:
    assert operation_number(path) == 0


def test_paths() -> None:
    assert path_of("dns") == "/org/appliance1/appliance/dns"
    assert path_of("dns-2") == "/org/appliance1/appliance/dns_2d2"
