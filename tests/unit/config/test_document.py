"""YAML with positions: nothing but findings comes out of a document that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

import agent.config.document as document
from agent.config.document import MAX_BYTES, MAX_DEPTH, Findings, Section, read_document
from agent.model.errors import ConfigurationError
from tests.unit.config.strategies import HOSTILE_TEXTS, values


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


# Pieces of YAML syntax: put together at random they reach more of the reader than bytes do.
PIECES = (
    "a",
    "b: ",
    "- ",
    "? ",
    ": ",
    "\n",
    "\n  ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "|\n ",
    ">-\n ",
    "&a ",
    "*a",
    "!",
    "!!int ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "%TAG ! x\n",
    "#",
    "\t",
    "\ufeff",
    "\x00",
    "\x85",
    "\u2028",
    "\\x41",
    '"\\ud800"',
    "<<: ",
    "@",
    "`",
    "1_000",
    "0x1F",
    "~",
    "null",
    "1:30",
    "é",
    "\U0001f600",
)

yaml_like = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


def read(content: str | bytes) -> tuple[Section, list[str]]:
    findings = Findings("f.yaml")
    section = read_document(content, findings)
    return section, [str(finding) for finding in findings.items]


def ask_everything(section: Section) -> None:
    """Every accessor, for every key there is and one that is not."""
    for key in (*section.keys(), "absent"):
        section.text(key)
        section.texts(key, required=True)
        section.choice(key, Colour.RED)
        section.integer(key, default=1, minimum=0, maximum=9)
        section.size(key, default=1)
        section.span(key, default=1.0)
        if inner := section.section(key):
            inner.finish()
        if value := section.get(key):
            list(value.items_or_self())
    section.finish()


def assert_only_findings(content: str | bytes) -> None:
    section, _ = read(content)
    ask_everything(section)
    for finding in section.findings.items:
        assert str(finding).isprintable(), repr(str(finding))
        assert (finding.line == 0) == (finding.column == 0)


@given(st.binary(max_size=200))
@example(b"\xff\xfe\x00")
@example(b"\x00")
@example(b"a: \xc3\x28")
def test_bytes_give_only_findings(content: bytes) -> None:
    assert_only_findings(content)


@given(yaml_like)
@example('a: "\\ud800"')
@example("? [a]\n: b")
@example("a: b\n---\nc: d")
def test_almost_yaml_gives_only_findings(content: str) -> None:
    assert_only_findings(content)


@given(yaml_like)
@example("a: \x00")
def test_so_it_does_without_libyaml(content: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "_Loader", yaml.SafeLoader)
        assert_only_findings(content)


@given(values)
def test_valid_yaml_of_any_shape_gives_only_findings(value: object) -> None:
    assert_only_findings(yaml.safe_dump(value, allow_unicode=True))


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_text_is_read_whole_or_not_at_all(text: str) -> None:
    section, _ = read(yaml.safe_dump({"key": text}))
    assert section.text("key") in ({text} if text.isprintable() else {""})
    assert bool(section.findings.items) != text.isprintable()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: &x 1\nb: *x\n", "f.yaml:2:4: aliases are not allowed"),
        ("a: !!python/object/apply:os.system [reboot]\n", "f.yaml:1:4: tags are not allowed"),
        ("a: ! b\n", "f.yaml:1:4: tags are not allowed"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: “a” is given twice"),
        ("? [a]\n: b\n", "f.yaml:1:3: a key must be a word"),
        ("- a\n", "f.yaml:1:1: document: a mapping expected, found a list"),
        ("a\n", "f.yaml:1:1: document: a mapping expected, found “a”"),
        ("a: b: c\n", "f.yaml:1:5: mapping values are not allowed in this context"),
        ("a: [1, 2\n", "f.yaml:2:1: did not find expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: but found another document"),
        (b"a: \xff\n", "f.yaml: not UTF-8: invalid start byte at byte 3"),
        (b"#" * (MAX_BYTES + 1), "f.yaml: larger than 1 MiB"),
        (f"a: {'[' * MAX_DEPTH}{']' * MAX_DEPTH}", "f.yaml:1:35: nested deeper than 32 levels"),
    ],
)
def test_what_is_no_document(content: str | bytes, expected: str) -> None:
    section, found = read(content)
    assert found == [expected]
    # Whoever goes on asking gets defaults, and no more findings than for an empty file.
    assert section.text("a", default="x") in {"x", "1"}


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "{}", "{}\n...\n"])
def test_an_empty_file_is_an_empty_mapping(content: str) -> None:
    section, found = read(content)
    section.finish()
    assert (section.keys(), found) == ((), [])


def test_the_deepest_nesting_that_is_allowed() -> None:
    depth = MAX_DEPTH - 1  # the document itself is a level
    assert read(f"a: {'[' * depth}{']' * depth}")[1] == []


_Ask = Callable[[Section], object]


@pytest.mark.parametrize(
    ("content", "ask", "expected"),
    [
        ("k: [a]", lambda s: s.text("k"), "f.yaml:1:4: k: text expected, found a list"),
        ("k:", lambda s: s.text("k"), "f.yaml:1:3: k: text expected, found nothing"),
        ("x: 1", lambda s: s.text("k"), "f.yaml:1:1: “k” is missing"),
        ("k: bad", lambda s: s.text("k", check=lambda text: f"“{text}”?"), "f.yaml:1:4: k: “bad”?"),
        (
            "k: green",
            lambda s: s.choice("k", Colour.RED),
            "f.yaml:1:4: k: one of red, blue expected, found “green”",
        ),
        (
            "k: 1.5",
            lambda s: s.integer("k", default=0, minimum=0, maximum=9),
            "f.yaml:1:4: k: a number expected, found “1.5”",
        ),
        (
            'k: ""',
            lambda s: s.integer("k", default=0, minimum=0, maximum=9),
            "f.yaml:1:4: k: a number expected, found “”",
        ),
        (
            "k: ٣",
            lambda s: s.integer("k", default=0, minimum=0, maximum=9),
            "f.yaml:1:4: k: a number expected, found “٣”",
        ),
        (
            "k: -1",
            lambda s: s.integer("k", default=0, minimum=0, maximum=9),
            "f.yaml:1:4: k: a number from 0 to 9 expected, found -1",
        ),
        (
            "k: 1 M",
            lambda s: s.size("k", default=0),
            "f.yaml:1:4: k: a size such as 48M expected, found “1 M”",
        ),
        (
            "k: 1K",
            lambda s: s.size("k", default=0, minimum=2048),
            "f.yaml:1:4: k: 1K is out of range (2K to 1024T)",
        ),
        (
            "k: 5 parsec",
            lambda s: s.span("k", default=0),
            "f.yaml:1:4: k: a time span such as 500ms expected, found “5 parsec”",
        ),
        (
            'k: ""',
            lambda s: s.span("k", default=0),
            "f.yaml:1:4: k: a time span such as 500ms expected, found “”",
        ),
        ("k: 2d", lambda s: s.span("k", default=0), "f.yaml:1:4: k: 2d is out of range (0s to 86400s)"),
        ("k: a", lambda s: s.texts("k"), "f.yaml:1:4: k: a list expected, found “a”"),
        ("k: [a, [b]]", lambda s: s.texts("k"), "f.yaml:1:8: k[1]: text expected, found a list"),
        ("k: a", lambda s: s.section("k"), "f.yaml:1:4: k: a mapping expected, found “a”"),
        (
            "k: {x: 1}",
            lambda s: s.section("k").finish(),
            "f.yaml:1:5: “k.x” is not a known key; known here: ",
        ),
        (
            "k: 1",
            lambda s: s.finish(reserved={"k"}),
            "f.yaml:1:1: “k” is not available in this version; known here: ",
        ),
    ],
)
def test_what_an_accessor_refuses(content: str, ask: _Ask, expected: str) -> None:
    section, found = read(content)
    assert found == []
    ask(section)
    assert [str(finding) for finding in section.findings.items] == [expected]


def test_control_characters_reach_neither_settings_nor_messages() -> None:
    section, _ = read('kind: "red\\n\\e[2J\\0"\n"a\\nb": 1\n')
    section.choice("kind", Colour.RED)
    section.finish()
    with pytest.raises(ConfigurationError) as caught:
        section.findings.raise_if_any()
    assert len(str(caught.value).split("\n")) == 2
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_absent_keys_have_their_defaults() -> None:
    section, _ = read("")
    got = (
        section.text("k", default="t"),
        section.texts("k"),
        section.choice("k", Colour.BLUE),
        section.integer("k", default=7, minimum=0, maximum=9),
        section.size("k", default=8),
        section.span("k", default=9.0),
        section.section("k"),
    )
    assert got == ("t", (), Colour.BLUE, 7, 8, 9.0, None)
    assert section.findings.items == []


def test_findings_are_sorted_and_said_once() -> None:
    section, _ = read("b: []\na: []\n")
    for key in ("a", "b", "b"):
        section.text(key)
    with pytest.raises(ConfigurationError) as caught:
        section.findings.raise_if_any()
    assert str(caught.value).splitlines() == [
        "f.yaml:1:4: b: text expected, found a list",
        "f.yaml:2:4: a: text expected, found a list",
    ]
