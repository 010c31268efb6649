"""The interfaces as their XML has them, and as the faces fill them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from agent.dbus.appliance import ApplianceFace, path_of
from agent.dbus.manager import ManagerFace
from agent.dbus.objects import Interface
from agent.dbus.operation import OperationFace, operation_number, operation_path
from agent.model.errors import Problem

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
    }
    assert ApplianceFace.interface.properties["Address"] == "as"


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
