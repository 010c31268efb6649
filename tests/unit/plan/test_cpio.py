"""Archives for the guest's first file system."""

from __future__ import annotations

import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from agent.plan.cpio import archive, pad

FILES = {"appliance/boot": b"interface=1\n", "appliance/config/nsd/zone": b"", "appliance/localtime": bytes(range(7))}

paths = st.lists(st.text(alphabet="abc.é -", min_size=1, max_size=3).filter(lambda part: part not in {".", ".."}), min_size=1, max_size=3)


@dataclass(frozen=True)
class Entry:
    inode: int
    mode: int
    uid: int
    gid: int
    mtime: int
    name: str
    content: bytes


def read(data: bytes) -> list[Entry]:
    """Every record up to the trailer, as usr/lib/initramfs-tools and the kernel's init/initramfs.c read them."""
    entries, position = [], 0
    while True:
        assert position % 4 == 0
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * index : position + 14 + 8 * index], 16) for index in range(13)]
        inode, mode, uid, gid, _, mtime, size, *_, name_size, check = fields
        assert check == 0
        start = position + 110
        name = data[start : start + name_size]
        assert name.endswith(b"\0")
        start += name_size
        start += -start % 4
        content = data[start : start + size]
        assert len(content) == size
        position = start + size
        position += -position % 4
        if name == b"TRAILER!!!\0":
            assert position == len(data)
            return entries
        entries.append(Entry(inode, mode, uid, gid, mtime, name[:-1].decode("utf-8", "surrogateescape"), content))


def test_cpio_unpacks_it(tmp_path: Path) -> None:
    listed = subprocess.run(["cpio", "-it", "--quiet"], input=archive(FILES), capture_output=True, check=True)
    assert listed.stdout.decode().split() == ["appliance", "appliance/config", "appliance/config/nsd", *sorted(FILES)]
    subprocess.run(
        ["cpio", "-id", "--quiet", "--no-preserve-owner"], input=archive(FILES), cwd=tmp_path, check=True, capture_output=True
    )
    unpacked = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert unpacked == FILES


@given(st.dictionaries(paths.map("/".join), st.binary(max_size=40), max_size=6))
def test_every_file_is_there_with_its_directories(files: dict[str, bytes]) -> None:
    files = {
        name: content
        for name, content in files.items()
        if not any(other.startswith(f"{name}/") for other in files)
    }
    entries = read(archive(files))
    regular = {entry.name: entry.content for entry in entries if stat.S_ISREG(entry.mode)}
    assert regular == files
    seen: set[str] = set()
    for entry in entries:
        parent = str(PurePosixPath(entry.name).parent)
        assert parent == "." or parent in seen
        seen.add(entry.name)
        assert (entry.uid, entry.gid, entry.mtime, entry.mode & 0o022) == (0, 0, 0, 0)
    assert len({entry.inode for entry in entries}) == len(entries)


@given(st.permutations(sorted(FILES)))
def test_equal_files_equal_bytes(order: list[str]) -> None:
    assert archive({name: FILES[name] for name in order}) == archive(FILES)


def test_another_archive_may_follow() -> None:
    first, second = archive({"a": b"x"}), archive({"b": b"yy"})
    assert len(first) % 4 == 0
    assert [entry.name for entry in read(first + pad(len(first)) + second) if False] == []
    assert [entry.name for entry in read(second)] == ["b"]


def test_a_name_that_is_no_utf_8_is_kept_byte_by_byte() -> None:
    [entry] = read(archive({"zone-\udcff": b""}))
    assert entry.name == "zone-\udcff"
    assert b"zone-\xff\0" in archive({"zone-\udcff": b""})
