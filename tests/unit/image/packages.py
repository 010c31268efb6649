"""Debian packages and ELF files made up for tests."""

from __future__ import annotations

import struct

from agent.image.package import Package
from agent.image.tree import Kind, Node

_BASE = 0x1000


def elf(*needed: str, interpreter: str = "", runpath: str = "") -> bytes:
    """The least of a dynamic ELF file: headers, a string table, a dynamic section, all in one segment."""
    strings = b"\0" + b"".join(text.encode() + b"\0" for text in (*needed, runpath, interpreter))
    offsets = [strings.index(text.encode() + b"\0") for text in needed]
    entries = [(1, offset) for offset in offsets]
    if runpath:
        entries.append((29, strings.index(runpath.encode() + b"\0")))
    count = 3 if interpreter else 2
    strings_at = 64 + 56 * count
    dynamic_at = strings_at + len(strings)
    entries += [(5, _BASE + strings_at), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    size = dynamic_at + len(dynamic)
    segments = [(1, 0, size), (2, dynamic_at, len(dynamic))]
    if interpreter:
        at = strings_at + strings.index(interpreter.encode() + b"\0")
        segments.append((3, at, len(interpreter) + 1))
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0
    )
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, 4, offset, _BASE + offset, 0, length, length, 8)
        for kind, offset, length in segments
    )
    return header + table + strings + dynamic


def package(name: str, content: dict[str, bytes | str], *, version: str = "1.0-1") -> Package:
    """A package: bytes are programs, text is a link's target."""
    return Package(name, version, "amd64", {path: _node(value, name) for path, value in content.items()})


def _node(content: bytes | str, name: str) -> Node:
    if isinstance(content, bytes):
        return Node(Kind.FILE, mode=0o755, mtime=100, content=content, package=name)
    return Node(Kind.LINK, mode=0o777, mtime=100, target=content, package=name)
