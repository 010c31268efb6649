"""Unit files: whatever the values, only what was added is in the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan.unit import UnitFile, escape
from tests.unit.config.strategies import HOSTILE_TEXTS, hostile_texts


def parse(text: str) -> list[tuple[str, str, str]]:
    """A unit file as systemd.syntax(7) reads it: section, key and value of every assignment, specifiers resolved."""
    section, found, continued = "", [], ""
    for line in text.split("\n"):
        if not continued and (not line or line[0] in "#;"):
            continue
        if (len(line) - len(line.rstrip("\\"))) % 2:
            continued += line[:-1] + " "
            continue
        whole, continued = continued + line, ""
        if whole.startswith("["):
            section = whole
            continue
        key, equals, value = whole.partition("=")
        assert equals, whole
        found.append((section, key, _resolve(value)))
    assert not continued
    return found


def _resolve(value: str) -> str:
    without = value.replace("%%", "")
    assert "%" not in without, f"a specifier in {value!r}"
    return value.replace("%%", "%").replace("\\\\", "\\")


assignments = st.tuples(
    st.sampled_from(["Unit", "Service", "X-Agent"]), st.sampled_from(["Description", "MemoryMax", "A1"]), hostile_texts
)


@given(st.lists(assignments, max_size=6), hostile_texts)
def test_no_value_becomes_a_line_a_section_or_a_specifier(given_: list[tuple[str, str, str]], comment: str) -> None:
    printable = [entry for entry in given_ if entry[2].isprintable()]
    unit = UnitFile(comment) if comment.isprintable() else UnitFile()
    for section, key, value in printable:
        unit.add(section, key, value)
    sections = list(dict.fromkeys(section for section, _, _ in printable))
    expected = [(f"[{name}]", key, value) for name in sections for section, key, value in printable if section == name]
    assert parse(unit.render()) == expected


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
    [("Unit]\n[Service", "A"), ("", "A"), ("unit", "A"), ("Unit", "A=\nB"), ("Unit", ""), ("Unit", "a b"), ("Unit\n", "A"), ("Unit", "A\n")],
)  # fmt: skip
def test_sections_and_keys_are_words(section: str, key: str) -> None:
    with pytest.raises(ValueError, match="is no assignment of a unit file"):
        UnitFile().add(section, key, "x")


def test_the_text() -> None:
    unit = UnitFile("made by a program")
    unit.add("Unit", "Description", "100%")
    unit.add("Service", "MemoryMax", "1")
    unit.add("Unit", "After", "")
    assert unit.render() == "# made by a program\n\n[Unit]\nDescription=100%%\nAfter=\n\n[Service]\nMemoryMax=1\n"
