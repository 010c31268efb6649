"""Archives for the guest's first file system."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path, PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from agent.plan.cpio import archive, pad
from tests.unit.plan.reading import read_archives

FILES = {
    "appliance/boot": b"interface=1\n",
    "appliance/config/nsd/zone": b"",
    "appliance/localtime": bytes(range(7)),
}

paths = st.lists(
    st.text(alphabet="abc.é -", min_size=1, max_size=3).filter(lambda part: part not in {".", ".."}),
    min_size=1,
    max_size=3,
)


def test_cpio_unpacks_it(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["cpio", "-it", "--quiet"], input=archive(FILES), capture_output=True, check=True
    )
    assert listed.stdout.decode().split() == [
        "appliance",
        "appliance/config",
        "appliance/config/nsd",
        *sorted(FILES),
    ]
    subprocess.run(
        ["cpio", "-id", "--quiet", "--no-preserve-owner"],
        input=archive(FILES),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    unpacked = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert unpacked == FILES


@given(st.dictionaries(paths.map("/".join), st.binary(max_size=40), max_size=6))
def test_every_file_is_there_with_its_directories(files: dict[str, bytes]) -> None:
    files = {
        name: content
        for name, content in files.items()
        if not any(other.startswith(f"{name}/") for other in files)
    }
    entries = read_archives(archive(files))
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
    assert pad(len(first)) == b""
    assert [entry.name for entry in read_archives(first + second)] == ["a", "b"]


def test_a_name_that_is_no_utf_8_is_kept_byte_by_byte() -> None:
    [entry] = read_archives(archive({"zone-\udcff": b""}))
    assert entry.name == "zone-\udcff"
    assert b"zone-\xff\0" in archive({"zone-\udcff": b""})
