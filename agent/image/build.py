"""From a recipe to an image file: resolve and fetch, choose, lay out, check, pack."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from agent.config.manifest import read_manifest, render_manifest
from agent.image.archive import cache_directory, fetch
from agent.image.content import copyright_files, lacking_interpreters, libraries, select
from agent.image.pack import pack
from agent.image.package import Package, read_package
from agent.image.tree import Kind, Node, Tree
from agent.model.errors import HostError, ImageError, Problem
from agent.model.image import MANIFEST_PATH, Manifest
from agent.model.recipe import ROOT, Recipe
from agent.util.progress import SILENT, Progress

PACKAGES_PATH = "/usr/lib/appliance/packages"
"""Where an image lists the packages it has files of: `NAME VERSION ARCHITECTURE` on each line."""

RUNTIME = "/run/appliance/"
"""What the runtime provides below this is there at run time, not in the image."""

_TOOLS = {"mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools", "dpkg-deb": "dpkg", "apt-get": "apt"}
_DIRECTORIES = (
    "/dev",
    "/etc",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/usr/lib/appliance",
    "/var/lib",
    "/var/log",
)
_STICKY = ("/tmp", "/var/tmp")  # noqa: S108 (directories of the image)
_RUNTIME_LINKS = ("hostname", "hosts", "localtime", "resolv.conf")
_NSSWITCH = (
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
)
_NOLOGIN = "/usr/sbin/nologin"


@dataclass(frozen=True, slots=True)
class Built:
    """What was built: where it lies and what is in it."""

    path: Path
    size_bytes: int
    manifest: Manifest
    packages: tuple[str, ...]


def check_tools() -> None:
    """HostError that names the Debian packages to install where a tool is missing."""
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise HostError(
            f"Building images needs {', '.join(missing)}.",
            problem=Problem.NOT_SUPPORTED,
            remedy=f"Install with `apt-get install {' '.join(missing)}`.",
        )


def build(recipe: Recipe, output: Path, progress: Progress = SILENT) -> Built:
    """Build the image of `recipe` as the file `output`."""
    check_tools()
    with progress.step(f"Fetching {', '.join(recipe.packages)} and what they need from {recipe.suite}"):
        debs = fetch(recipe.suite, recipe.packages, cache_directory())
    with progress.step(f"Reading {len(debs)} packages"), ThreadPoolExecutor(os.cpu_count()) as pool:
        packages = list(pool.map(read_package, debs))
    tree, manifest = lay_out(recipe, packages)
    with progress.step(f"Packing {len(tree.nodes)} files and directories"):
        pack(tree, output)
    listed = tree.nodes[PACKAGES_PATH].content.decode().splitlines()
    return Built(output, output.stat().st_size, manifest, tuple(listed))


def lay_out(recipe: Recipe, packages: list[Package]) -> tuple[Tree, Manifest]:
    """The image's tree and manifest; ImageError where the image could not work."""
    main = next((package for package in packages if package.name == recipe.packages[0]), None)
    if main is None:
        raise ImageError(
            f"{recipe.path}: package {recipe.packages[0]} is virtual; name the one that is meant."
        )
    manifest = replace(recipe.manifest, version=main.version_without_epoch)
    available = {path: node for package in packages for path, node in package.nodes.items()}
    chosen = select(packages, recipe.packages, include=recipe.include, exclude=recipe.exclude)
    tree = Tree(_newest(packages))
    _add_skeleton(tree, recipe)
    _add_all(tree, chosen)
    _add_recipe(tree, recipe)
    _add_all(tree, libraries(tree, available))
    _add_metadata(tree, manifest, packages, available)
    _check(tree, manifest, recipe)
    return tree, manifest


def _newest(packages: list[Package]) -> int:
    """The time of the image: SOURCE_DATE_EPOCH (reproducible-builds.org), else that of the newest file
    it could have."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    if fixed.isdecimal():
        return int(fixed)
    return max((node.mtime for package in packages for node in package.nodes.values()), default=0)


def _add_all(tree: Tree, nodes: dict[str, Node]) -> None:
    for path in sorted(nodes):
        tree.add(path, nodes[path])


def _file(text: str, *, mode: int = 0o644) -> Node:
    return Node(Kind.FILE, mode=mode, content=text.encode())


def _add_skeleton(tree: Tree, recipe: Recipe) -> None:
    """What every image has: mount points, users, and links to what the runtime fills in."""
    for path in _DIRECTORIES:
        tree.add(path, tree.directory())
    for path in _STICKY:
        tree.add(path, replace(tree.directory(), mode=0o1777))
    users = [(ROOT, 0, "/root"), *((user.name, user.uid, user.home) for user in recipe.users)]
    users.append(("nobody", 65534, "/nonexistent"))
    passwd = (f"{name}:x:{uid}:{uid}:{name}:{home}:{_NOLOGIN}\n" for name, uid, home in users)
    tree.add("/etc/passwd", _file("".join(passwd)))
    tree.add("/etc/group", _file("".join(f"{name}:x:{gid}:\n" for name, gid, _ in users)))
    tree.add("/etc/nsswitch.conf", _file(_NSSWITCH))
    for name in _RUNTIME_LINKS:
        tree.add(f"/etc/{name}", Node(Kind.LINK, mode=0o777, target=f"{RUNTIME}{name}"))


def _add_recipe(tree: Tree, recipe: Recipe) -> None:
    """What the recipe itself brings, over whatever a package put there."""
    numbers = {ROOT: 0, **{user.name: user.uid for user in recipe.users}}
    for path, node in _overlay(Path(recipe.path).with_suffix("")):
        tree.add(path, node)
    for file in recipe.files:
        owner = numbers[file.owner]
        tree.add(file.path, replace(_file(file.text, mode=file.mode), uid=owner, gid=owner))
    for link in recipe.links:
        tree.add(link.path, Node(Kind.LINK, mode=0o777, target=link.target))
    for directory in recipe.directories:
        owner = numbers[directory.owner]
        tree.add(directory.path, replace(tree.directory(), mode=directory.mode, uid=owner, gid=owner))
    manifest = recipe.manifest
    for path in (*manifest.writable, *([manifest.data.mount] if manifest.data else [])):
        if tree.resolve(path) is None:
            tree.add(path, tree.directory())


def _overlay(root: Path) -> Iterator[tuple[str, Node]]:
    """The files of the directory beside the recipe, each at its path in the image, owned by root."""
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        inner = f"/{path.relative_to(root)}"
        if path.is_symlink():
            yield inner, Node(Kind.LINK, mode=0o777, target=os.readlink(path))
        elif path.is_file():
            mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
            yield inner, Node(Kind.FILE, mode=mode, content=path.read_bytes())


def _add_metadata(
    tree: Tree, manifest: Manifest, packages: list[Package], available: dict[str, Node]
) -> None:
    """Manifest, package list and copyright notices."""
    used = {node.package for node in tree.nodes.values() if node.package}
    lines = [f"{p.name} {p.version} {p.architecture}\n" for p in packages if p.name in used]
    tree.add(PACKAGES_PATH, _file("".join(sorted(lines))))
    tree.add(f"/{MANIFEST_PATH}", _file(render_manifest(manifest)))
    _add_all(tree, copyright_files(sorted(used), available))


def _check(tree: Tree, manifest: Manifest, recipe: Recipe) -> None:
    """Refuse an image that could not start: an invalid manifest, a missing program or a missing
    interpreter."""
    read_manifest(tree.nodes[f"/{MANIFEST_PATH}"].content, recipe.path)
    service = manifest.service
    commands = [
        service.exec,
        service.prepare,
        service.check,
        manifest.health,
        *(ready.exec for ready in service.ready),
    ]
    programs = [command[0] for command in commands if command and not command[0].startswith(RUNTIME)]
    wrong = [f"{path} is not there, or not executable" for path in programs if not _is_program(tree, path)]
    wrong += lacking_interpreters(tree)
    if wrong:
        raise ImageError(
            f"{recipe.path}: {', '.join(sorted(set(wrong)))}.",
            remedy="Exclude what the service does not need, or write it for /run/appliance/bin/sh.",
        )


def _is_program(tree: Tree, path: str) -> bool:
    end = tree.resolve(posixpath.normpath(path))
    return end is not None and tree.nodes[end].is_executable
