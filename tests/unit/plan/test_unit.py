"""Unit files: whatever the values, only what was added is in the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan.unit import UnitFile, escape
from tests.unit.config.strategies import HOSTILE_TEXTS, hostile_texts
from tests.unit.plan.reading import read_unit

assignments = st.tuples(
    st.sampled_from(["Unit", "Service", "X-Agent"]),
    st.sampled_from(["Description", "MemoryMax", "A1"]),
    hostile_texts,
)


@given(st.lists(assignments, max_size=6), hostile_texts)
def test_no_value_becomes_a_line_a_section_or_a_specifier(
    given_: list[tuple[str, str, str]], comment: str
) -> None:
    printable = [entry for entry in given_ if entry[2].isprintable()]
    unit = UnitFile(comment) if comment.isprintable() else UnitFile()
    for section, key, value in printable:
        unit.add(section, key, value)
    sections = list(dict.fromkeys(section for section, _, _ in printable))
    expected = [
        (f"[{name}]", key, value)
        for name in sections
        for section, key, value in printable
        if section == name
    ]
    assert read_unit(unit.render()) == expected


@pytest.mark.parametrize("text", [text for text in HOSTILE_TEXTS if not text.isprintable()])
def test_what_no_escaping_carries_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a unit file"):
        UnitFile().add("Unit", "Description", text)
    with pytest.raises(ValueError, match="cannot stand in a unit file"):
        UnitFile(text)


@given(st.text())
def test_escaping_refuses_or_keeps_to_one_line(text: str) -> None:
    if text.isprintable():
        assert len(escape(text).splitlines()) <= 1
    else:
        with pytest.raises(ValueError, match="cannot stand"):
            escape(text)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("Unit]\n[Service", "A"),
        ("", "A"),
        ("unit", "A"),
        ("Unit", "A=\nB"),
        ("Unit", ""),
        ("Unit", "a b"),
        ("Unit\n", "A"),
        ("Unit", "A\n"),
    ],
)
def test_sections_and_keys_are_words(section: str, key: str) -> None:
    with pytest.raises(ValueError, match="is no assignment of a unit file"):
        UnitFile().add(section, key, "x")


def test_the_text() -> None:
    unit = UnitFile("made by a program")
    unit.add("Unit", "Description", "100%")
    unit.add("Service", "MemoryMax", "1")
    unit.add("Unit", "After", "")
    assert (
        unit.render()
        == "# made by a program\n\n[Unit]\nDescription=100%%\nAfter=\n\n[Service]\nMemoryMax=1\n"
    )
