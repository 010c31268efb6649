"""Tar archives as agent.plan.transfer describes them. Blocking.

Written so that tar(1) unpacks them, holes and all: pax headers, and the GNU sparse format 1.0 for what is
mostly holes. Read strictly: regular files with headers as they are written here, and nothing else. No links,
devices, directories, nor any other kind of header, and none that is larger than it may be. (tarfile reads
headers of any size into memory, and has been made to loop by some.)
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from agent.host.snapshots import extents
from agent.plan.transfer import invalid

BLOCK_BYTES = 512
MAX_PAX_BYTES = 8 << 10
MAX_EXTENTS = 1 << 21
_DIGITS = 19
_CHUNK_BYTES = 1 << 20
_SPARSE_NAME = "GNUSparseFile.0/"
_SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_RECORD = re.compile(rb"([1-9][0-9]{0,4}) ")
_KEYS = {"path", "size", *_SPARSE, "GNU.sparse.name", "GNU.sparse.realsize"}


# --- writing


def header(name: str, size_bytes: int, *, real_size_bytes: int = -1) -> bytes:
    """The header of a member; with `real_size_bytes`, of a sparse one."""
    info = tarfile.TarInfo(f"{_SPARSE_NAME}{name}" if real_size_bytes >= 0 else name)
    info.size, info.mode = size_bytes, 0o600
    if real_size_bytes >= 0:
        sparse = {"GNU.sparse.name": name, "GNU.sparse.realsize": str(real_size_bytes)}
        info.pax_headers = {**_SPARSE, **sparse}
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size_bytes: int) -> bytes:
    """What fills the last block of a member."""
    return bytes(-size_bytes % BLOCK_BYTES)


def end() -> bytes:
    """What comes after the last member."""
    return bytes(2 * BLOCK_BYTES)


@dataclass(frozen=True, slots=True)
class SparseFile:
    """A file as it lies in the archive: a map of where its data belong, and the data."""

    fd: int
    real_size_bytes: int
    extents: Sequence[tuple[int, int]]
    map: bytes

    @classmethod
    def of(cls, fd: int) -> SparseFile:
        """The file behind a descriptor."""
        real_size_bytes = os.fstat(fd).st_size
        found = [(start, stop - start) for start, stop in extents(fd)]
        pairs = [*found, (real_size_bytes, 0)]
        numbers = [len(pairs), *(number for pair in pairs for number in pair)]
        text = "".join(f"{number}\n" for number in numbers).encode()
        return cls(fd, real_size_bytes, found, text + padding(len(text)))

    @property
    def size_bytes(self) -> int:
        """Its size in the archive."""
        return len(self.map) + sum(length for _, length in self.extents)

    def chunks(self) -> Iterator[bytes]:
        """Its content in the archive."""
        yield self.map
        for start, length in self.extents:
            offset, stop = start, start + length
            while offset < stop:
                chunk = os.pread(self.fd, min(_CHUNK_BYTES, stop - offset), offset)
                if not chunk:
                    raise OSError("it became shorter while it was read")
                offset += len(chunk)
                yield chunk


# --- reading


@dataclass(slots=True)
class Member:
    """A member whose content comes next; `real_size_bytes` is -1 for one that is not sparse."""

    name: str
    size_bytes: int
    real_size_bytes: int = -1


@dataclass(slots=True)
class TarReader:
    """Reads one member after the other from a stream."""

    stream: IO[bytes]
    _left_bytes: int = 0
    _padding_bytes: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def next(self) -> Member | None:
        """The next member, of which everything must have been read that came before; None at the end."""
        self._exactly(self._padding_bytes)
        self._padding_bytes = 0
        block = self._exactly(BLOCK_BYTES)
        if not any(block):
            return None
        kind, _, size_bytes = _parse(block)
        records: dict[str, str] = {}
        if kind == b"x":
            if size_bytes > MAX_PAX_BYTES:
                raise invalid("a header is too large")
            records = _records(self._exactly(size_bytes))
            self._exactly(-size_bytes % BLOCK_BYTES)
            block = self._exactly(BLOCK_BYTES)
            kind, _, size_bytes = _parse(block)
        if kind != b"0":
            raise invalid(f"it has a member that is no regular file ({kind!r})")
        member = _member(_parse(block)[1], size_bytes, records)
        self._left_bytes = member.size_bytes
        self._padding_bytes = -member.size_bytes % BLOCK_BYTES
        self._hash = hashlib.sha256()
        return member

    def read(self, size_bytes: int) -> bytes:
        """Exactly so much of the member's content."""
        if size_bytes > self._left_bytes:
            raise invalid("a member is shorter than it says")
        content = self._exactly(size_bytes)
        self._left_bytes -= size_bytes
        self._hash.update(content)
        return content

    def chunks(self, size_bytes: int) -> Iterator[bytes]:
        """So much of the content, in pieces."""
        while size_bytes:
            chunk = self.read(min(_CHUNK_BYTES, size_bytes))
            size_bytes -= len(chunk)
            yield chunk

    @property
    def left_bytes(self) -> int:
        """What has not been read yet of the member."""
        return self._left_bytes

    def digest(self) -> str:
        """SHA-256 of what was read of the member."""
        return self._hash.hexdigest()

    def _exactly(self, size_bytes: int) -> bytes:
        content = self.stream.read(size_bytes) if size_bytes else b""
        if len(content) != size_bytes:
            raise invalid("it ends too early")
        return content

    def read_map(self, real_size_bytes: int) -> list[tuple[int, int]]:
        """Where the data of a sparse member belong: offsets and lengths, in order, none beyond its end."""
        numbers: list[int] = []
        wanted, rest = 1, b""
        while len(numbers) < wanted:
            *lines, rest = (rest + self.read(BLOCK_BYTES)).split(b"\n")
            for line in lines:
                if len(numbers) < wanted:
                    numbers.append(_number(line.decode("ascii", "replace")))
                    wanted = 1 + 2 * numbers[0]
            if wanted > 2 * MAX_EXTENTS or (len(rest) > _DIGITS and len(numbers) < wanted):
                raise invalid("its map of holes is too large")
        return _pairs(numbers[1:], real_size_bytes, self._left_bytes)


def _pairs(numbers: Sequence[int], real_size_bytes: int, data_bytes: int) -> list[tuple[int, int]]:
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    end_bytes = 0
    for offset, length in pairs:
        if offset < end_bytes:
            raise invalid("its map of holes is out of order")
        end_bytes = offset + length
    if end_bytes > real_size_bytes or sum(length for _, length in pairs) != data_bytes:
        raise invalid("its map of holes is wrong")
    return pairs


def _member(name: str, size_bytes: int, records: dict[str, str]) -> Member:
    if "size" in records:
        size_bytes = _number(records["size"])
    sparse = {key: value for key, value in records.items() if key.startswith("GNU.sparse.")}
    if not sparse:
        return Member(records.get("path", name), size_bytes)
    if sparse.keys() != _KEYS - {"path", "size"} or not sparse.items() >= _SPARSE.items():
        raise invalid("it has holes of another kind")
    return Member(sparse["GNU.sparse.name"], size_bytes, _number(sparse["GNU.sparse.realsize"]))


def _parse(block: bytes) -> tuple[bytes, str, int]:
    """Kind, name and size in a header."""
    if block[257:265] != b"ustar\x0000" or any(block[345:500]):
        raise invalid("it is no archive of an appliance")
    checksum = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    if _octal(block[148:156].rstrip(b" \0")) != checksum:
        raise invalid("a header is damaged")
    name = block[:100].split(b"\0")[0].decode("ascii", "replace")
    return block[156:157], name, _octal(block[124:136].rstrip(b" \0"))


def _octal(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-7]{1,12}", digits):
        raise invalid("a header is damaged")
    return int(digits, 8)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise invalid("a header has no number where one must be")
    return int(text)


def _records(content: bytes) -> dict[str, str]:
    """Pax records: `LENGTH KEY=VALUE` and a newline, where LENGTH counts the whole record."""
    records: dict[str, str] = {}
    while content:
        match = _RECORD.match(content)
        length = int(match[1]) if match else 0
        record = content[match.end() : length] if match else b""
        key, equals, value = record.removesuffix(b"\n").decode("utf-8", "replace").partition("=")
        if not record.endswith(b"\n") or len(content) < length or not equals or key in records:
            raise invalid("a header is damaged")
        if key not in _KEYS:
            raise invalid(f"it has a header that does not belong there: {key!r:.40}")
        records[key] = value
        content = content[length:]
    return records
