"""The strict reader of archives, and that tar(1) understands what is written."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.tar import BLOCK_BYTES, SparseFile, TarReader, end, header, padding
from agent.model.errors import HostError, Problem


def archive(*members: tuple[bytes, bytes]) -> TarReader:
    """Headers, each with its content."""
    content = b"".join(head + body + padding(len(body)) for head, body in members)
    return TarReader(io.BytesIO(content + end()))


def drain(reader: TarReader) -> None:
    while reader.next():
        for _ in reader.chunks(reader.left_bytes):
            pass


def survives(content: bytes) -> bool:
    """Whether it is read, or refused as it should be."""
    try:
        drain(TarReader(io.BytesIO(content)))
    except HostError as error:
        return error.problem is Problem.INVALID_ARCHIVE
    return True


def record(text: str) -> bytes:
    """A pax record of the right length."""
    length = next(n for n in range(len(text) + 3, len(text) + 9) if len(f"{n} {text}\n") == n)
    return f"{length} {text}\n".encode()


def refused(reader: TarReader) -> str:
    with pytest.raises(HostError) as caught:
        drain(reader)
    assert caught.value.problem is Problem.INVALID_ARCHIVE
    return str(caught.value)


def sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        for offset in (0, 1 << 20, 5 << 20):
            file.seek(offset)
            file.write(os.urandom(5000))
        file.truncate(64 << 20)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    long = "config/" + "ü" * 80 + "/x"
    reader = archive((header("a", 3), b"abc"), (header(long, 0), b""))
    member = reader.next()
    assert member is not None
    assert (member.name, member.size_bytes, member.real_size_bytes) == ("a", 3, -1)
    assert reader.read(3) == b"abc"
    second = reader.next()
    assert second is not None
    assert second.name == long
    assert reader.next() is None
    del tmp_path


def test_tar_unpacks_holes(tmp_path: Path) -> None:
    path = tmp_path / "data.img"
    sparse_file(path)
    with path.open("rb") as file:
        sparse = SparseFile.of(file.fileno())
        content = b"".join(sparse.chunks())
    assert len(content) == sparse.size_bytes < 64 << 10
    head = header("data.img", sparse.size_bytes, real_size_bytes=sparse.real_size_bytes)
    packed = tmp_path / "x.tar"
    packed.write_bytes(head + content + padding(len(content)) + end())
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xSf", packed, "-C", tmp_path / "out"], check=True)
    assert (tmp_path / "out/data.img").read_bytes() == path.read_bytes()
    reader = TarReader(io.BytesIO(packed.read_bytes()))
    member = reader.next()
    assert member is not None
    assert (member.name, member.real_size_bytes) == ("data.img", 64 << 20)
    assert reader.read_map(64 << 20) == [*sparse.extents, (64 << 20, 0)]


def test_a_map_of_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "data.img"
    with path.open("wb") as file:
        for number in range(200):
            file.seek(number * 16384)
            file.write(b"x")
        file.truncate(8 << 20)
    with path.open("rb") as file:
        sparse = SparseFile.of(file.fileno())
        content = b"".join(sparse.chunks())
    reader = archive((header("d", len(content), real_size_bytes=8 << 20), content))
    reader.next()
    assert reader.read_map(8 << 20) == [*sparse.extents, (8 << 20, 0)]


def foreign(kind: bytes, **values: object) -> bytes:
    info = tarfile.TarInfo("a")
    info.type = kind
    for name, value in values.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_SPARSE,
        tarfile.XGLTYPE,
        tarfile.AREGTYPE,
    ],
)
def test_only_regular_files(kind: bytes) -> None:
    assert "no regular file" in refused(archive((foreign(kind, linkname="/etc/passwd"), b"")))


def pax(records: bytes) -> bytes:
    return foreign(b"x", size=len(records)) + records + padding(len(records))


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (b"x" * 9000, "too large"),
        (b"10 path=a", "damaged"),
        (b"999 path=abc\n", "damaged"),
        (b"0 path=a\n", "damaged"),
        (b"-5 path=a\n", "damaged"),
        (b"9 path=a\n9 path=b\n", "damaged"),
        (record("linkpath=/etc/x"), "does not belong"),
        (record("size=-100"), "no number"),
        (record("size=1e100"), "no number"),
        (record("GNU.sparse.major=1"), "holes of another kind"),
    ],
)
def test_extended_headers(records: bytes, reason: str) -> None:
    assert reason in refused(archive((pax(records) + header("a", 0), b"")))


def test_two_extended_headers() -> None:
    assert "no regular file" in refused(archive((pax(record("path=a")) + pax(record("path=a")), b"")))


def test_sizes_that_are_lies() -> None:
    records = record("size=9223372036854775807")
    assert "ends too early" in refused(archive((pax(records) + header("a", 0), b"")))


def numbers(*values: object) -> bytes:
    text = "".join(f"{value}\n" for value in values).encode()
    return text + padding(len(text))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (numbers(1, 0, 3) + b"ab", "map of holes is wrong"),
        (numbers(1, 0, 3) + b"abcd", "map of holes is wrong"),
        (numbers(1, 4094, 3) + b"abc", "map of holes is wrong"),
        (numbers(2, 8, 1, 0, 1) + b"ab", "out of order"),
        (numbers(2, 0, 2, 1, 1) + b"abc", "out of order"),
        (numbers("-1"), "no number"),
        (numbers(1, "-5", 3) + b"abc", "no number"),
        (numbers(99999999999), "too large"),
        (numbers(5, 1), "too large"),
        (b"1" * BLOCK_BYTES, "too large"),
        (b"", "shorter than it says"),
    ],
)
def test_maps_of_holes(content: bytes, reason: str) -> None:
    reader = archive((header("data.img", len(content), real_size_bytes=4096), content))
    reader.next()
    with pytest.raises(HostError, match=reason):
        reader.read_map(4096)


def test_a_header_that_was_changed() -> None:
    block = bytearray(header("a", 0))
    block[0] ^= 1
    assert "damaged" in refused(archive((bytes(block), b"")))


def test_no_archive_at_all() -> None:
    assert "ends too early" in refused(TarReader(io.BytesIO(b"")))
    assert "no archive" in refused(TarReader(io.BytesIO(b"x" * 1024)))


@given(st.binary(max_size=2000))
def test_anything_is_refused_or_read(content: bytes) -> None:
    assert survives(content)


@given(st.integers(0, 3071), st.integers(0, 255))
def test_any_changed_byte_is_refused_or_read(place: int, value: int) -> None:
    records = b"9 path=b\n"
    good = pax(records) + header("a", 3) + b"abc" + padding(3) + end()
    content = bytearray(good)
    content[place % len(content)] = value
    assert survives(bytes(content))
