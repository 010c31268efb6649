"""Small images for tests: a manifest, a program and nothing else."""

from __future__ import annotations

from pathlib import Path

from agent.image.pack import pack
from agent.image.tree import Kind, Node, Tree
from agent.model.image import MANIFEST_PATH

MANIFEST = """\
interface: 1
name: {name}
version: "{version}"
vendor: example.org
architecture: x86_64
role: web-static/1
service: {{exec: [/usr/bin/serve]}}
"""


def manifest_text(*, name: str = "web", version: str = "1.0") -> str:
    """A manifest with nothing unusual in it."""
    return MANIFEST.format(name=name, version=version)


def make_image(path: Path, *, manifest: str | None = "", content: bytes = b"", mtime: int = 1) -> Path:
    """An image at `path`. `manifest` is its text, '' for the usual one, None for an image without."""
    tree = Tree(mtime)
    tree.add("/usr/bin/serve", Node(Kind.FILE, content=content or b"served"))
    if manifest is not None:
        text = manifest or manifest_text()
        tree.add(f"/{MANIFEST_PATH}", Node(Kind.FILE, mode=0o644, content=text.encode()))
    pack(tree, path)
    return path
