"""Reading single files of squashfs images that may come from anybody.

The superblock is checked before anything else looks at the image; the rest is left to unsquashfs(1),
which runs without privileges, with bounded memory, time and output. Layout: fs/squashfs/squashfs_fs.h of
the kernel.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from agent.model.errors import ImageError
from agent.util.run import run_bounded

_SUPERBLOCK = struct.Struct("<4s4I6HQQ")
_MAGIC = b"hsqs"
_VERSION = (4, 0)
# What the guest kernel is built to read (packaging/kernel/appliance.config).
_COMPRESSIONS = {1: "gzip", 4: "xz", 5: "lz4", 6: "zstd"}
_BLOCK_BYTES = range(4 << 10, (1 << 20) + 1)
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Superblock:
    """What can be known of an image without unpacking anything."""

    size_bytes: int
    compression: str

    @classmethod
    def parse(cls, content: bytes, path: str) -> Self:
        """Read the first bytes of an image; ImageError where they are not of a squashfs that guests can
        mount."""
        if len(content) < _SUPERBLOCK.size or content[:4] != _MAGIC:
            raise ImageError(f"{path} is not a squashfs image.")
        fields = _SUPERBLOCK.unpack_from(content)
        block_bytes, compression, block_log, version = fields[3], fields[5], fields[6], fields[9:11]
        if version != _VERSION:
            raise ImageError(f"{path}: squashfs {version[0]}.{version[1]} is not supported, only 4.0.")
        if compression not in _COMPRESSIONS:
            known = ", ".join(_COMPRESSIONS.values())
            raise ImageError(
                f"{path}: the guest kernel cannot read its compression.", remedy=f"It reads {known}."
            )
        if block_bytes not in _BLOCK_BYTES or block_bytes != 1 << block_log:
            raise ImageError(f"{path}: the superblock is damaged.")
        return cls(size_bytes=fields[12], compression=_COMPRESSIONS[compression])


def check_image(fd: int, path: str) -> Superblock:
    """Check superblock and length of an open image; ImageError where it is no image or was cut short."""
    superblock = Superblock.parse(os.pread(fd, _SUPERBLOCK.size, 0), path)
    size_bytes = os.fstat(fd).st_size
    if superblock.size_bytes > size_bytes:
        raise ImageError(f"{path} is truncated: {superblock.size_bytes} bytes expected, found {size_bytes}.")
    return superblock


def _confined(argv: list[str]) -> list[str]:
    """`argv` as nobody (where that is possible) and with limits, by prlimit(1) and setpriv(1)."""
    drop = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--no-new-privs"]
    limits = ["prlimit", f"--as={1 << 30}", "--cpu=10", "--core=0", "--"]
    return [*(drop if os.geteuid() == 0 else []), *limits, *argv]


def read_file(image: Path, inner: str, *, limit_bytes: int) -> bytes:
    """Content of the file `inner`, relative to the image's root; HostError where there is none, or more."""
    with image.open("rb") as file:
        # By descriptor: nobody may read the image, but perhaps not walk to it.
        argv = ["unsquashfs", "-processors", "1", "-cat", "/proc/self/fd/0", inner]
        return run_bounded(_confined(argv), stdin=file.fileno(), limit_bytes=limit_bytes)
