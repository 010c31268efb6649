"""Writes cpio archives in the `newc` format, which the kernel unpacks into its initial file system.

Source: Documentation/driver-api/early-userspace/buffer-format.rst. Archives follow each other in one initrd
if each begins at a multiple of four bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath

SECTOR_BYTES = 512
_MAGIC = "070701"
_TRAILER = "TRAILER!!!"


def pad(size: int) -> bytes:
    """The zero bytes that bring `size` to a multiple of four."""
    return bytes(-size % 4)


def _record(name: str, inode: int, mode: int, content: bytes) -> bytes:
    # As os.fsencode() has it: a name that is no UTF-8 is kept byte by byte.
    path = name.encode("utf-8", "surrogateescape") + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = (_MAGIC + "".join(f"{field:08x}" for field in fields)).encode() + path
    return header + pad(len(header)) + content + pad(len(content))


def archive(files: Mapping[str, bytes]) -> bytes:
    """Files by relative path, with the directories they need; owned by root, without times: equal input,
    equal bytes."""
    directories = sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."})
    records = []
    for inode, name in enumerate(directories, start=1):
        records.append(_record(name, inode, stat.S_IFDIR | 0o755, b""))
    for inode, name in enumerate(sorted(files), start=len(records) + 1):
        records.append(_record(name, inode, stat.S_IFREG | 0o644, files[name]))
    records.append(_record(_TRAILER, 0, 0, b""))
    return b"".join(records)


def as_disk(archives: bytes) -> bytes:
    """Archives as what a guest reads from a disk: in whole sectors."""
    return archives.ljust(-(-len(archives) // SECTOR_BYTES) * SECTOR_BYTES, b"\0")


def archive_of_one(name: str, content: bytes) -> bytes:
    """One file, without the directory that it is in."""
    return _record(name, 1, stat.S_IFREG | 0o644, content) + _record(_TRAILER, 0, 0, b"")
