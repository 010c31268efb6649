"""The root directory of an image, in memory: what is in it, and owned by whom.

Paths are absolute and lie in a merged /usr: `/lib/x` and `/usr/lib/x` are the same file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from agent.model.errors import ImageError

MERGED = ("bin", "lib", "lib64", "sbin")
"""Directories that are links into /usr."""

_MAX_LINKS = 40  # as the kernel, path_resolution(7)


class Kind(Enum):
    """What a node is."""

    FILE = auto()
    DIRECTORY = auto()
    LINK = auto()


@dataclass(frozen=True, slots=True)
class Node:
    """A file, directory or symbolic link. `package` is the Debian package it comes from, or ''."""

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    content: bytes = b""
    target: str = ""
    package: str = ""

    @property
    def is_executable(self) -> bool:
        """Whether anybody may execute this file."""
        return self.kind is Kind.FILE and bool(self.mode & 0o111)


def merged(path: str) -> str:
    """`/lib/x` or `lib/x` → `/usr/lib/x`."""
    # normpath() keeps two leading slashes, which POSIX lets mean something else.
    plain = posixpath.normpath(f"/{path.lstrip('/')}").removeprefix("/")
    first = plain.partition("/")[0]
    return f"/usr/{plain}" if first in MERGED else f"/{plain}"


class Tree:
    """Nodes by path; every parent of a node is there, and is a directory."""

    def __init__(self, mtime: int) -> None:
        self.mtime = mtime
        self.nodes: dict[str, Node] = {}
        for name in MERGED:
            self.nodes[f"/{name}"] = Node(Kind.LINK, mode=0o777, mtime=mtime, target=f"usr/{name}")
            self.add(f"/usr/{name}", self.directory())

    def directory(self) -> Node:
        """A directory as most are."""
        return Node(Kind.DIRECTORY, mtime=self.mtime)

    def add(self, path: str, node: Node) -> None:
        """Put `node` at `path`, in the place of what is there; ImageError where a directory would be
        lost."""
        path = merged(path)
        self._add_parents(path)
        present = self.nodes.get(path)
        if present and present.kind is Kind.DIRECTORY and node.kind is not Kind.DIRECTORY:
            raise ImageError(f"{path} is a directory of the image and cannot become something else.")
        self.nodes[path] = replace(node, mtime=min(node.mtime or self.mtime, self.mtime))

    def _add_parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        if parent == "/":
            return
        present = self.nodes.get(parent)
        if present is None:
            self.add(parent, self.directory())
        elif present.kind is not Kind.DIRECTORY:
            raise ImageError(f"{parent} is no directory in the image, so {path} cannot be in it.")

    def resolve(self, path: str) -> str | None:
        """The path after following symbolic links in every component; None where it does not exist."""
        return resolve(self.nodes, path)

    def files(self) -> Iterator[tuple[str, Node]]:
        """Regular files, sorted."""
        return ((path, node) for path, node in sorted(self.nodes.items()) if node.kind is Kind.FILE)


def resolve(nodes: dict[str, Node], path: str, *, budget: int = _MAX_LINKS) -> str | None:
    """As Tree.resolve, over any nodes by merged path."""
    path = merged(path)
    done = ""
    for part in path.removeprefix("/").split("/"):
        done = f"{done}/{part}"
        node = nodes.get(done)
        if node and node.kind is Kind.LINK:
            if not budget:
                return None
            rest = path[len(done) :]
            target = posixpath.join(posixpath.dirname(done), node.target)
            return resolve(nodes, f"{target}{rest}", budget=budget - 1)
    return done if done in nodes else None
