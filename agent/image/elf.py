"""What the dynamic loader will ask for: PT_INTERP and DT_NEEDED of x86-64 ELF files (elf(5)). Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.model.errors import ImageError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bit, little endian, version 1
_EM_X86_64 = 62
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29


@dataclass(frozen=True, slots=True)
class Elf:
    """`interpreter` is '' for libraries and static programs; `search` is RPATH or RUNPATH, not expanded."""

    interpreter: str
    needed: tuple[str, ...]
    search: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def parse_elf(content: bytes, path: str) -> Elf | None:
    """The loader's view of a file; None where it is no ELF file for this architecture, ImageError where
    it is damaged."""
    if not content.startswith(_IDENT):
        return None
    try:
        return _parse(content)
    except (struct.error, ValueError, OverflowError) as error:
        raise ImageError(f"{path}: damaged ELF file.") from error


def _parse(content: bytes) -> Elf | None:
    header = _HEADER.unpack_from(content)
    if header[2] != _EM_X86_64:
        return None
    segments = list(_segments(content, offset=header[5], size=header[9], count=header[10]))
    interpreter = next((_text(content, part.offset) for part in segments if part.kind == _PT_INTERP), "")
    dynamic = [entry for part in segments if part.kind == _PT_DYNAMIC for entry in _entries(content, part)]
    table = next((value for tag, value in dynamic if tag == _DT_STRTAB), None)
    if table is None:
        return Elf(interpreter, (), ())
    strings = _file_offset(segments, table)
    texts = [(tag, value) for tag, value in dynamic if tag in {_DT_NEEDED, _DT_RPATH, _DT_RUNPATH}]
    named = [(tag, _text(content, strings + value)) for tag, value in texts]
    return Elf(
        interpreter=interpreter,
        needed=tuple(text for tag, text in named if tag == _DT_NEEDED),
        search=tuple(part for tag, text in named if tag != _DT_NEEDED for part in text.split(":")),
    )


def _segments(content: bytes, *, offset: int, size: int, count: int) -> Iterator[_Segment]:
    for index in range(count):
        kind, _, start, address, _, file_size, _, _ = _PROGRAM_HEADER.unpack_from(
            content, offset + index * size
        )
        yield _Segment(kind, start, address, file_size)


def _entries(content: bytes, segment: _Segment) -> Iterator[tuple[int, int]]:
    for offset in range(segment.offset, segment.offset + segment.size, _DYNAMIC.size):
        tag, value = _DYNAMIC.unpack_from(content, offset)
        if tag == _DT_NULL:
            return
        yield tag, value


def _file_offset(segments: list[_Segment], address: int) -> int:
    """Where in the file a virtual address lies."""
    for part in segments:
        if part.kind == _PT_LOAD and part.address <= address < part.address + part.size:
            return address - part.address + part.offset
    raise ValueError(address)


def _text(content: bytes, offset: int) -> str:
    return content[offset : content.index(b"\0", offset)].decode()
