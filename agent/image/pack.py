"""A tree as a squashfs file: lz4, and the same bytes for the same tree and the same mksquashfs(1).

The tree is given as a pseudo file with data, the form in which `unsquashfs -pf` of squashfs-tools 4.5 and
later writes a whole file system. Nothing is unpacked, so setting owners needs no privileges; and other than
with a tar archive, the root directory does not get the caller as its owner and the present as its time.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from agent.image.tree import Kind, Node, Tree
from agent.model.errors import HostError, ImageError, Problem
from agent.util.files import explain_full_disk, fsync_directory
from agent.util.run import run
from agent.util.staging import staging_directory

# A guest starts by reading a third of its image on one slow CPU: with zstd a name server took 40 ms longer
# to be ready than with lz4. For a page of a block all of it is unpacked, and stays in the guest's memory:
# nsd answered 4 ms later with blocks of 32K, in an image that is 5 % smaller, and no earlier with blocks of
# 8K.
_COMPRESSION = ("-comp", "lz4", "-Xhc", "-b", "16K")
_DATA = b"# START OF DATA - DO NOT MODIFY\n#\n"
_TIMEOUT_S = 1800.0
_VERSION = re.compile(r"mksquashfs version ([0-9]+)\.([0-9]+)")
_SPARSE_FIELD = (4, 6)
"""The version that gave definitions of files one more field."""


def pack(tree: Tree, output: Path) -> None:
    """Write the image aside and rename it to `output` (mode 0644); HostError where the disk is full."""
    with explain_full_disk(f"writing {output}"), staging_directory(output.parent, output.name) as staging:
        image, pseudo = staging / "image", staging / "tree"
        pseudo.write_bytes(pseudo_file(tree, sparse_field=_version() >= _SPARSE_FIELD))
        _run_mksquashfs(_mksquashfs(image, pseudo, tree.mtime), output)
        image.chmod(0o644)
        with image.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(image, output)
        fsync_directory(output.parent)


def _run_mksquashfs(argv: list[str], output: Path) -> None:
    try:
        run(argv, timeout_s=_TIMEOUT_S)
    except HostError as error:
        if error.problem is not Problem.NO_SPACE:
            raise
        raise HostError(f"No space left while writing {output}.", problem=Problem.NO_SPACE) from error


def _mksquashfs(image: Path, pseudo: Path, mtime: int) -> list[str]:
    fixed = ["-mkfs-time", str(mtime), "-no-xattrs", "-no-exports", "-noappend", "-quiet", "-no-progress"]
    return ["mksquashfs", "-", str(image), "-pf", str(pseudo), *_COMPRESSION, *fixed]


def _version() -> tuple[int, int]:
    """Of mksquashfs: `mksquashfs version 4.6.1 (2023/03/25)` → (4, 6)."""
    said = run(["mksquashfs", "-version"]).decode(errors="replace")
    match = _VERSION.match(said)
    if match is None:
        raise HostError(f"mksquashfs does not say its version: {said[:80]!r}", problem=Problem.NOT_SUPPORTED)
    return int(match[1]), int(match[2])


def pseudo_file(tree: Tree, *, sparse_field: bool) -> bytes:
    """Definitions, one on a line and sorted, then the contents of all files in the same order."""
    lines = [f"/ D {tree.mtime} 755 0 0"]
    contents: list[bytes] = []
    offset = 0
    for path, node in sorted(tree.nodes.items()):
        lines.append(
            _definition(path, node, offset) + (" 0" if sparse_field and node.kind is Kind.FILE else "")
        )
        contents.append(node.content)
        offset += len(node.content)
    return b"".join([*(line.encode() + b"\n" for line in lines), _DATA, *contents])


def _definition(path: str, node: Node, offset: int) -> str:
    """One line. In a name a backslash keeps a space from ending it; a link's target ends with the line."""
    if not (path + node.target).isprintable() or path.startswith("/#"):
        raise ImageError(f"{path!r} is a name that mksquashfs cannot be told.")
    name = path.removeprefix("/").replace("\\", "\\\\").replace(" ", "\\ ").replace('"', '\\"')
    common = f"{node.mtime} {node.mode:o} {node.uid} {node.gid}"
    match node.kind:
        case Kind.DIRECTORY:
            return f"{name} D {common}"
        case Kind.LINK:
            return f"{name} S {common} {node.target}"
        case Kind.FILE:
            return f"{name} R {common} {len(node.content)} {offset}"
