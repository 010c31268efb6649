"""A tree as a squashfs file: zstd, and the same bytes for the same tree and the same mksquashfs(1).

The tree is given as a pseudo file with data, the form in which `unsquashfs -pf` writes a whole file system
(squashfs-tools 4.5 and later). Nothing is unpacked, so building needs no privileges to set owners; and unlike
with a tar archive the root directory's owner and time are ours too, not the caller's and the present.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.image.tree import Kind, Node, Tree
from agent.model.errors import ImageError
from agent.util.files import explain_full_disk, fsync_directory
from agent.util.run import run
from agent.util.staging import staging_directory

_COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "19", "-b", "128K")
_DATA = b"# START OF DATA - DO NOT MODIFY\n#\n"
_TIMEOUT_S = 1800.0


def pack(tree: Tree, output: Path) -> None:
    """Write the image aside and rename it to `output` (mode 0644); HostError where the disk is full."""
    with explain_full_disk(f"writing {output}"), staging_directory(output.parent, output.name) as staging:
        image, pseudo = staging / "image", staging / "tree"
        pseudo.write_bytes(pseudo_file(tree))
        run(_mksquashfs(image, pseudo, tree.mtime), timeout_s=_TIMEOUT_S)
        image.chmod(0o644)
        with image.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(image, output)
        fsync_directory(output.parent)


def _mksquashfs(image: Path, pseudo: Path, mtime: int) -> list[str]:
    fixed = ["-mkfs-time", str(mtime), "-no-xattrs", "-no-exports", "-noappend", "-quiet", "-no-progress"]
    return ["mksquashfs", "-", str(image), "-pf", str(pseudo), *_COMPRESSION, *fixed]


def pseudo_file(tree: Tree) -> bytes:
    """Definitions, one on a line and sorted, then the contents of all files in the same order."""
    lines = [f"/ D {tree.mtime} 755 0 0"]
    contents: list[bytes] = []
    offset = 0
    for path, node in sorted(tree.nodes.items()):
        lines.append(_definition(path, node, offset))
        contents.append(node.content)
        offset += len(node.content)
    return b"".join([*(line.encode() + b"\n" for line in lines), _DATA, *contents])


def _definition(path: str, node: Node, offset: int) -> str:
    """One line; in names a backslash keeps a space from ending them. A link's target goes on to the line's end."""
    if not (path + node.target).isprintable():
        raise ImageError(f"{path!r} has control characters in its name.")
    name = path.removeprefix("/").replace("\\", "\\\\").replace(" ", "\\ ").replace('"', '\\"')
    common = f"{node.mtime} {node.mode:o} {node.uid} {node.gid}"
    match node.kind:
        case Kind.DIRECTORY:
            return f"{name} D {common}"
        case Kind.LINK:
            return f"{name} S {common} {node.target}"
        case Kind.FILE:
            return f"{name} R {common} {len(node.content)} {offset} 0"
