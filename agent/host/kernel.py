"""Whether a kernel binary can run guests: read from the binary, which carries its version and its .config.

It is never run for that: `linux --showconfig` would be a program of the administrator's choice inside the
agent's sandbox.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Mapping

MAX_BYTES = 256 << 20
MINIMUM_VERSION = (6, 16)
"""Older kernels panic at their first process on CPUs with AMX, and still have the old network drivers."""

REQUIRED = {
    "BLK_DEV_INITRD": "an initial RAM file system",
    "BLK_DEV_UBD": "UML block devices",
    "SQUASHFS": "squashfs",
    "SQUASHFS_LZ4": "squashfs with lz4",
    "SQUASHFS_ZSTD": "squashfs with zstd",
    "EXT4_FS": "ext4",
    "TMPFS": "tmpfs",
    "DEVTMPFS": "devtmpfs",
    "UNIX": "unix sockets",
    "INET": "IPv4",
    "IPV6": "IPv6",
    "UML_NET_VECTOR": "the vector network driver",
    "SSL": "serial lines",
    "MCONSOLE": "the management console",
}
"""Options a guest cannot do without; they must be built in, because images carry no modules."""


def why_unfit(path: str) -> str:
    """What keeps this kernel from running guests, as a clause; '' where nothing does."""
    try:
        found = os.stat(path)
    except OSError as error:
        return f"kernel {path}: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return f"kernel {path} is not a regular file"
    return _why_unfit(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=16)
def _why_unfit(path: str, _mtime_ns: int, _size: int) -> str:
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES)
    version = re.search(rb"Linux version (\d[\w.+~-]{0,63})", content)
    if not version or not content.startswith(b"\x7fELF"):
        return f"kernel {path} is not a User-Mode Linux kernel"
    # Each line of the .config is a string of its own: what `linux --showconfig` prints.
    options = {
        name: value
        for name in REQUIRED
        for value in "ym"
        if f"\0CONFIG_{name}={value}\n\0".encode() in content
    }
    wrong = judge(version[1].decode(), options)
    return f"kernel {path} {wrong}" if wrong else ""


def judge(version: str, options: Mapping[str, str]) -> str:
    """What is wrong with a kernel of this version and these options (`y` or `m` by name without CONFIG_);
    ''."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if not match:
        return f"has no version that can be read (“{version[:40]}”)"
    if (int(match[1]), int(match[2])) < MINIMUM_VERSION:
        return f"is version {version}; {'.'.join(map(str, MINIMUM_VERSION))} or later is needed"
    missing = [what for name, what in REQUIRED.items() if options.get(name) != "y"]
    if not missing:
        return ""
    modular = any(options.get(name) == "m" for name in REQUIRED)
    how = "keeps as modules, or lacks," if modular else "lacks"
    return f"is not supported: it {how} {', '.join(missing)}; use the kernel of the package appliance-kernel"
