"""A tree as a squashfs file: zstd, and the same bytes for the same tree and the same mksquashfs(1)."""

from __future__ import annotations

import os
from pathlib import Path

from agent.image.tree import Tree
from agent.util.files import explain_full_disk, fsync_directory
from agent.util.run import run
from agent.util.staging import staging_directory

_COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "19", "-b", "128K")
_TIMEOUT_S = 1800.0


def pack(tree: Tree, output: Path) -> None:
    """Write the image aside and rename it to `output` (mode 0644); HostError where the disk is full."""
    with explain_full_disk(f"writing {output}"), staging_directory(output.parent, output.name) as staging:
        image = staging / "image"
        # Time of the file system, and the latest time of any node: the root directory, which the archive has no entry
        # for, gets it instead of the present (-root-time has no effect with -tar up to squashfs-tools 4.5.1).
        environment = {"SOURCE_DATE_EPOCH": str(tree.mtime)}
        run(_mksquashfs(image), stdin=tree.archive(), timeout_s=_TIMEOUT_S, environment=environment)
        image.chmod(0o644)
        with image.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(image, output)
        fsync_directory(output.parent)


def _mksquashfs(image: Path) -> list[str]:
    """Owners, modes and times come from the archive; only the root directory has none there."""
    root = ["-root-mode", "755", "-root-uid", "0", "-root-gid", "0"]
    return ["mksquashfs", "-", str(image), "-tar", *_COMPRESSION, *root, "-no-xattrs", "-noappend", "-quiet", "-no-progress"]
