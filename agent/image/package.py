"""What is in a .deb: its control fields in its file name, its files in a tar archive (deb(5))."""

from __future__ import annotations

import io
import tarfile
import urllib.parse
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.image.tree import Kind, Node, merged
from agent.model.errors import ImageError
from agent.util.run import run


@dataclass(frozen=True, slots=True)
class Package:
    """A binary package; `nodes` are its files by merged path."""

    name: str
    version: str
    architecture: str
    nodes: dict[str, Node] = field(repr=False)

    @property
    def version_without_epoch(self) -> str:
        """`1:4.6.1-1` → `4.6.1-1`: what may stand in an image's version."""
        return self.version.rpartition(":")[2]


def read_package(deb: Path) -> Package:
    """Unpack a .deb, named as apt names it, in memory."""
    name, version, architecture = urllib.parse.unquote(deb.name.removesuffix(".deb")).split("_")
    archive = run(["dpkg-deb", "--fsys-tarfile", str(deb)])
    try:
        return Package(name, version, architecture, _read_nodes(archive, name))
    except (tarfile.TarError, KeyError) as error:
        raise ImageError(f"{deb.name} cannot be unpacked: {error}") from error


def _read_nodes(archive: bytes, package: str) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as members:
        for member in members:
            node = _node(members, member, nodes)
            if node:
                nodes[merged(member.name)] = replace(node, package=package)
    return nodes


def _node(members: tarfile.TarFile, member: tarfile.TarInfo, earlier: dict[str, Node]) -> Node | None:
    """One member; None for devices and the like, which no image has. A hard link is a second copy of its
    file."""
    if member.islnk():
        return earlier[merged(member.linkname)]
    kinds = {tarfile.REGTYPE: Kind.FILE, tarfile.DIRTYPE: Kind.DIRECTORY, tarfile.SYMTYPE: Kind.LINK}
    if member.type not in kinds:
        return None
    file = members.extractfile(member) if member.isreg() else None
    return Node(
        kind=kinds[member.type],
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        content=file.read() if file else b"",
        target=member.linkname if member.issym() else "",
    )
