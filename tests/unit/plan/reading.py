"""Readers of what the plans write, as strict as those on the host and in the guest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One record of a cpio archive."""

    inode: int
    mode: int
    uid: int
    gid: int
    mtime: int
    name: str
    content: bytes


def read_archives(data: bytes) -> list[Entry]:
    """Every record of one archive after the other, as init/initramfs.c of the kernel reads them."""
    entries, position = [], 0
    while position < len(data):
        assert position % 4 == 0
        entry, position = _read_record(data, position)
        if entry.name != "TRAILER!!!":
            entries.append(entry)
    assert position == len(data)
    return entries


def _read_record(data: bytes, position: int) -> tuple[Entry, int]:
    assert data[position : position + 6] == b"070701"
    fields = [int(data[position + 6 + 8 * index : position + 14 + 8 * index], 16) for index in range(13)]
    inode, mode, uid, gid, _, mtime, size, *_, name_size, check = fields
    assert check == 0
    name = data[position + 110 : position + 110 + name_size]
    assert name.endswith(b"\0")
    start = _aligned(position + 110 + name_size)
    content = data[start : start + size]
    assert len(content) == size
    entry = Entry(inode, mode, uid, gid, mtime, name[:-1].decode("utf-8", "surrogateescape"), content)
    return entry, _aligned(start + size)


def _aligned(position: int) -> int:
    return position + -position % 4


def read_unit(text: str) -> list[tuple[str, str, str]]:
    """Section, key and value of every assignment as systemd.syntax(7) has them, specifiers resolved."""
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
    assert "%" not in value.replace("%%", ""), f"a specifier in {value!r}"
    return value.replace("%%", "%").replace("\\\\", "\\")
