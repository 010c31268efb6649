"""YAML with positions, read through typed accessors that collect what is wrong instead of stopping at it.

    findings = Findings("/etc/appliance/appliances/dns.yaml")
    section = read_document(text, findings)
    name = section.text("image")                     # a finding, and "", where it is missing or no text
    size = section.size("memory", default=0)
    section.finish()                                 # a finding for each key nobody asked for
    findings.raise_if_any()                          # ConfigurationError with all of them

Aliases, tags, duplicate keys and documents over 1 MiB or 32 levels are refused: a file is read, never
computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TypeVar

import yaml

from agent.config.units import format_size, format_span, parse_size, parse_span
from agent.model.errors import ConfigurationError, Finding

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

_E = TypeVar("_E", bound=StrEnum)
_N = TypeVar("_N", int, float)
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REQUIRED = object()
_FLAGS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


class Findings:
    """The findings of one file, in the order they were made."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.items: list[Finding] = []

    def add(self, node: yaml.Node | yaml.Event | None, message: str) -> None:
        """Note `message` at `node`, or about the whole file."""
        mark = node.start_mark if node is not None else None
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        self.items.append(Finding(self.path, line, column, message))

    def raise_if_any(self) -> None:
        """Raise ConfigurationError with everything found so far."""
        if self.items:
            raise ConfigurationError(self.items)


class Value:
    """A node with the file it came from; what it must be is asked by the method called."""

    def __init__(self, node: yaml.Node, findings: Findings, label: str) -> None:
        self.node = node
        self.findings = findings
        self.label = label

    def complain(self, message: str) -> None:
        """Note `message` at this value."""
        self.findings.add(self.node, f"{self.label}: {message}")

    def _scalar(self, wanted: str) -> str | None:
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag != "tag:yaml.org,2002:null":
            return str(self.node.value)
        self.complain(f"{wanted} expected, found {_kind(self.node)}")
        return None

    def text(self, *, check: Callable[[str], str] | None = None) -> str:
        """A string without control characters. `check` returns what is wrong with it, or ''."""
        text = self._scalar("text")
        if text is None:
            return ""
        wrong = (
            "control characters are not allowed" if not text.isprintable() else check(text) if check else ""
        )
        if wrong:
            self.complain(wrong)
            return ""
        return text

    def choice(self, kind: type[_E], default: _E) -> _E:
        """One member of `kind`."""
        text = self._scalar("text")
        if text is None:
            return default
        if text not in list(kind):
            self.complain(f"one of {', '.join(kind)} expected, found “{text}”")
            return default
        return kind(text)

    def integer(self, *, minimum: int, maximum: int) -> int:
        """A decimal integer within bounds; `minimum` where it is none."""
        text = self._scalar("a number")
        if text is None:
            return minimum
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            self.complain(f"a number expected, found “{text}”")
            return minimum
        if not minimum <= int(text) <= maximum:
            self.complain(f"a number from {minimum} to {maximum} expected, found {text}")
            return minimum
        return int(text)

    def flag(self) -> bool:
        """A boolean as systemd and YAML write it; no, and a finding, where it is none."""
        text = self._scalar("yes or no")
        if text is not None and text not in _FLAGS:
            self.complain(f"yes or no expected, found “{text}”")
        return _FLAGS.get(text or "", False)

    def size(self, *, minimum: int = 0, maximum: int = 1 << 50) -> int:
        """Bytes, written as `48M`."""
        return self._quantity(
            parse_size, "a size such as 48M", minimum=minimum, maximum=maximum, show=format_size
        )

    def span(self, *, minimum: float = 0.0, maximum: float = 86400.0) -> float:
        """Seconds, written as `2s`, `500ms` or `1min 30s`."""
        return self._quantity(
            parse_span, "a time span such as 500ms", minimum=minimum, maximum=maximum, show=format_span
        )

    def _quantity(
        self,
        parse: Callable[[str], _N | None],
        wanted: str,
        *,
        minimum: _N,
        maximum: _N,
        show: Callable[[_N], str],
    ) -> _N:
        text = self._scalar(wanted)
        if text is None:
            return minimum
        quantity = parse(text)
        if quantity is None:
            self.complain(f"{wanted} expected, found “{text}”")
        elif not minimum <= quantity <= maximum:
            self.complain(f"{text} is out of range ({show(minimum)} to {show(maximum)})")
        else:
            return quantity
        return minimum

    def items(self) -> Iterator[Value]:
        """The elements of a list; none, and a finding, where it is no list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.complain(f"a list expected, found {_kind(self.node)}")
            return
        for number, node in enumerate(self.node.value):
            yield Value(node, self.findings, f"{self.label}[{number}]")

    def is_list(self) -> bool:
        """Whether this is a list; for keys that take one thing or several."""
        return isinstance(self.node, yaml.SequenceNode)

    def is_mapping(self) -> bool:
        """Whether this is a mapping; for keys that take a word or a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    def is_word(self, word: str) -> bool:
        """Whether this is `word`; for keys that take a word or something else."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.value == word

    def items_or_self(self) -> Iterator[Value]:
        """The elements of a list, or this value as the only one."""
        return self.items() if self.is_list() else iter([self])

    def texts(self, *, check: Callable[[str], str] | None = None) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(item.text(check=check) for item in self.items())

    def section(self) -> Section:
        """A mapping; empty, and a finding, where it is none."""
        return Section(self.node, self.findings, self.label)


class Section:
    """A mapping whose keys are asked for one by one; `finish` reports those nobody asked for.

    Of one that is not
    `readable` nothing is said to be missing: that would only hide what is wrong with it."""

    def __init__(self, node: yaml.Node | None, findings: Findings, label: str = "") -> None:
        self.node = node
        self.findings = findings
        self.label = label
        self.readable = node is None or isinstance(node, yaml.MappingNode)
        self._asked: set[str] = set()
        self._entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if isinstance(node, yaml.MappingNode):
            self._read(node)
        elif node is not None:
            findings.add(node, f"{label or 'document'}: a mapping expected, found {_kind(node)}")

    def _read(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.findings.add(key, "a key must be a word")
            elif key.value in self._entries:
                self.findings.add(key, f"“{key.value}” is given twice")
            else:
                self._entries[key.value] = (key, value)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def keys(self) -> tuple[str, ...]:
        """Every key, for mappings whose keys are free."""
        return tuple(self._entries)

    def complain(self, message: str) -> None:
        """Note `message` at the start of this mapping."""
        self.findings.add(self.node, f"{self.label}: {message}" if self.label else message)

    def get(self, key: str, *, required: bool = False) -> Value | None:
        """The value of `key`; None where it is absent, with a finding if it is required."""
        self._asked.add(key)
        if key not in self._entries:
            if required and self.readable:
                self.complain(f"“{key}” is missing")
            return None
        return Value(self._entries[key][1], self.findings, f"{self.label}.{key}" if self.label else key)

    def text(
        self, key: str, *, default: str | None = None, check: Callable[[str], str] | None = None
    ) -> str:
        """As Value.text; required where no default is given."""
        value = self.get(key, required=default is None)
        return value.text(check=check) if value else default or ""

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        """As Value.texts; empty where it is absent."""
        value = self.get(key, required=required)
        return value.texts() if value else ()

    def choice(self, key: str, default: _E) -> _E:
        """As Value.choice, of the type of `default`."""
        value = self.get(key)
        return value.choice(type(default), default) if value else default

    def flag(self, key: str, *, default: bool) -> bool:
        """As Value.flag."""
        value = self.get(key)
        return value.flag() if value else default

    def integer(self, key: str, *, default: int, minimum: int, maximum: int) -> int:
        """As Value.integer."""
        value = self.get(key)
        return value.integer(minimum=minimum, maximum=maximum) if value else default

    def size(self, key: str, *, default: int, minimum: int = 0, maximum: int = 1 << 50) -> int:
        """As Value.size."""
        value = self.get(key)
        return value.size(minimum=minimum, maximum=maximum) if value else default

    def span(self, key: str, *, default: float, minimum: float = 0.0, maximum: float = 86400.0) -> float:
        """As Value.span."""
        value = self.get(key)
        return value.span(minimum=minimum, maximum=maximum) if value else default

    def section(self, key: str) -> Section | None:
        """The mapping under `key`; None where it is absent."""
        value = self.get(key)
        return value.section() if value else None

    def finish(self, *, reserved: Collection[str] = ()) -> None:
        """A finding for each key that was not asked for; `reserved` keys are known, yet not available."""
        for key, (node, _) in self._entries.items():
            if key in self._asked:
                continue
            name = f"{self.label}.{key}" if self.label else key
            what = "is not available in this version" if key in reserved else "is not a known key"
            known = ", ".join(sorted(self._asked))
            self.findings.add(node, f"“{name}” {what}; known here: {known}")


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if node.tag == "tag:yaml.org,2002:null" else f"“{node.value}”"


def _check_plain(loader: yaml.SafeLoader, findings: Findings) -> bool:
    """Refuse what computes or nests without end before a node is built: libyaml's events are cheap."""
    depth = 0
    while loader.check_event():
        event: yaml.Event = loader.get_event()
        if isinstance(event, yaml.AliasEvent):
            findings.add(event, "aliases are not allowed")
            return False
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            findings.add(event, f"nested deeper than {MAX_DEPTH} levels")
            return False
        if getattr(event, "tag", None):
            findings.add(event, "tags are not allowed")
            return False
    return True


def _compose(text: str, findings: Findings) -> yaml.Node | None:
    try:
        # Only libyaml's loaders put off looking at the text until they are asked for something.
        with _loader(text) as checker:
            if not _check_plain(checker, findings):
                return None
        with _loader(text) as composer:
            node: yaml.Node | None = composer.get_single_node()
            return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        findings.items.append(Finding(findings.path, line, column, error.problem or "not valid YAML"))
    except yaml.YAMLError as error:
        findings.add(None, f"not valid YAML: {error}".replace("\n", " "))
    return None


@contextmanager
def _loader(text: str) -> Iterator[yaml.SafeLoader]:
    loader = _Loader(text)
    try:
        yield loader
    finally:
        loader.dispose()


def read_document(content: str | bytes, findings: Findings) -> Section:
    """Parse one YAML document whose top is a mapping; an empty file is an empty mapping.

    Findings are added to, never raised: ask the returned section for everything, then `finish` it.
    """
    data = content.encode() if isinstance(content, str) else content
    if len(data) > MAX_BYTES:
        findings.add(None, f"larger than {MAX_BYTES >> 20} MiB")
        return _unreadable(findings)
    try:
        node = _compose(data.decode(), findings)
    except UnicodeDecodeError as error:
        findings.add(None, f"not UTF-8: {error.reason} at byte {error.start}")
        return _unreadable(findings)
    return Section(node, findings) if node or not findings.items else _unreadable(findings)


def _unreadable(findings: Findings) -> Section:
    section = Section(None, findings)
    section.readable = False
    return section
