"""Object paths of units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.systemd import escape_path, unit_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("appliance@dns.service", "appliance_40dns_2eservice"),
        ("appliance@dns-2.service", "appliance_40dns_2d2_2eservice"),
        ("1a", "_31a"),
        ("a_b", "a_5fb"),
        ("ä", "_c3_a4"),
        ("", "_"),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert escape_path(text) == path


@given(st.text(), st.text())
def test_different_names_have_different_paths(first: str, second: str) -> None:
    printable = [text.encode("utf-8", "replace").decode() for text in (first, second)]
    assert (escape_path(printable[0]) == escape_path(printable[1])) == (printable[0] == printable[1])
    assert all(
        character.isascii() and (character.isalnum() or character == "_")
        for character in escape_path(printable[0])
    )


def test_a_unit_s_path() -> None:
    assert unit_path("appliance@dns.service") == ("/org/freedesktop/systemd1/unit/appliance_40dns_2eservice")
